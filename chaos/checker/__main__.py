"""Judge a saved history: ``python -m holdfast.chaos.checker FILE``.

Exit status: 0 no violation, 1 violations, 2 the file cannot be judged.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from holdfast.chaos.checker import check
from holdfast.chaos.checker.history import History, HistoryError


def main(arguments: Sequence[str]) -> int:
    """Print violations one a line, or one line that says there are none."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m holdfast.chaos.checker FILE", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    try:
        history = History.load(path)
        violations = check(history)
    except OSError as error:
        print(f"checker: cannot read {path}: {error.strerror}", file=sys.stderr)
        return 2
    except HistoryError as error:
        print(f"checker: {path} is not a history: {error}", file=sys.stderr)
        return 2
    for violation in violations:
        print(violation)
    if violations:
        return 1
    print(f"checker: events={len(history.events)} violations=0")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
