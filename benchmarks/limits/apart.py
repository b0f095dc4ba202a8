"""Functions measured in processes of their own, several at the same moment.

``python -m benchmarks.limits.apart MODULE:FUNCTION JSON`` imports the function, says ``ready``, waits for
a line and prints what the function returns as JSON. So imports are not measured, and several begin
together.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.limits.brokers import ROOT
from benchmarks.limits.traced import name_threads


class Apart:
    """One such process, ready to begin."""

    def __init__(self, function: str, **arguments: Any) -> None:
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()}
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.limits.apart", function, json.dumps(plain)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._line("ready")

    @property
    def pid(self) -> int:
        return self._popen.pid

    def _line(self, wanted: str = "") -> str:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline().strip()
        if wanted and line != wanted:
            raise RuntimeError(f"{self._popen.args!r} said {line!r}")
        return line

    def begin(self) -> None:
        self.tell("go")

    def tell(self, line: str) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()

    def heard(self) -> Any:
        """The next JSON line: something it says on the way, or its result.

        Raises:
            RuntimeError: it has failed.
        """
        line = self._line()
        if not line:
            raise RuntimeError(f"{self._popen.args!r} ended with status {self._popen.wait(10)}")
        return json.loads(line)

    def end(self) -> None:
        """Kill it, if it still runs, and wait."""
        self._popen.kill()
        self._popen.communicate()


def run(function: str, each: Sequence[dict[str, Any]]) -> list[Any]:
    """Results of the function, called at once in as many processes as there are sets of arguments."""
    started: list[Apart] = []
    try:
        for arguments in each:
            started.append(Apart(function, **arguments))
        for process in started:
            process.begin()
        return [process.heard() for process in started]
    finally:
        for process in started:
            process.end()


def alone(function: str, **arguments: Any) -> Any:
    """The function's result, in one process."""
    return run(function, [arguments])[0]


def main() -> int:
    name_threads()
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    arguments = json.loads(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(function(**arguments)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
