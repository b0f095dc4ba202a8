"""Plans that find the planted bugs: short, for the tests, where `make sim SABOTAGE=` searches long.

``found.txt`` holds lines of a name and a plan (see ``planfile``), several for
a name: what a plan does depends on all code that runs, and a change may take
one of them out of the situation it was kept for. When none is left for a name,
search anew, with names or for all::

    python -m holdfast.chaos.sim.found [NAME ...]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from holdfast.chaos.sim.plan import Plan, make_plan
from holdfast.chaos.sim.planfile import from_line, to_line
from holdfast.chaos.sim.run import run
from holdfast.chaos.sim.sabotage import SABOTAGES, Sabotage
from holdfast.chaos.sim.seeds import quiet
from holdfast.chaos.sim.shrink import shrink

_FILE = Path(__file__).with_name("found.txt")
_HEAD = """\
# Plans that find each planted bug; see found.py.
"""
#: Seeds within which each has to be found; kept plans of each; runs to make one smaller.
_SEEDS = 2000
_KEPT = 3
_SHRINKING = 25


def found_by() -> dict[str, list[Plan]]:
    """Name of a planted bug -> plans that find it."""
    plans: dict[str, list[Plan]] = {}
    for line in _FILE.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, plan = line.partition(" ")
            plans.setdefault(name, []).append(from_line(plan))
    return plans


def search(sabotage: Sabotage) -> Iterator[tuple[Plan, str]]:
    """Plans that find a planted bug and pass without it, made smaller; and the promise first broken."""
    for seed in range(1, _SEEDS + 1):
        plan = make_plan(seed)
        violations = run(plan, sabotage).violations
        if not violations:
            continue
        promise = violations[0].promise

        def fails(smaller: Plan, promise: str = promise) -> bool:
            return any(found.promise == promise for found in run(smaller, sabotage).violations)

        plan = shrink(plan, fails, runs=_SHRINKING)
        if not run(plan).violations:
            yield plan, promise


def main(names: list[str]) -> int:
    """Search, and rewrite the file; gives the exit status."""
    quiet()
    known = found_by()
    missing = 0
    for name in names or list(SABOTAGES):
        began = time.monotonic()
        plans: list[Plan] = []
        for plan, promise in search(SABOTAGES[name]):
            plans.append(plan)
            print(f"{name} seed={plan.seed} {promise} ({time.monotonic() - began:.0f} s)", flush=True)
            if len(plans) == _KEPT:
                break
        missing += not plans
        known[name] = plans
        # After each: a search takes long, and may be interrupted.
        lines = [f"{kept} {to_line(plan)}\n" for kept in SABOTAGES for plan in known.get(kept, [])]
        _FILE.write_text(_HEAD + "".join(lines))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
