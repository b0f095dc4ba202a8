"""``make drill NAME=…``, ``make drills``: break a cluster under load and judge what its clients were told.

Progress goes to stderr, one result line a drill to stdout. Exit status: 0, 1
when a promise was broken, 2 when a drill of that name does not exist.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from holdfast.chaos.drills.catalog import DRILLS
from holdfast.chaos.drills.scene import Drill
from holdfast.chaos.drills.stage import Outcome, perform
from holdfast.chaos.drills.target import LocalTarget


def main(arguments: list[str] | None = None) -> int:
    """Run drills; the exit status."""
    options = _parser().parse_args(arguments)
    if options.list:
        for name, kind in DRILLS.items():
            print(f"{name:20} {kind.summary}")
        return 0
    names = options.names or list(DRILLS)
    for name in names:
        if name not in DRILLS:
            print(f"no drill is called {name!r}; there are: {', '.join(DRILLS)}", file=sys.stderr)
            return 2
    counts = {"run": 0, "passed": 0, "skipped": 0, "failed": 0}
    for repetition in range(options.repeat):
        for name in names:
            outcome = _run(DRILLS[name](), options, repetition)
            print(outcome.line(), flush=True)
            if outcome.skipped:
                counts["skipped"] += 1
                continue
            counts["run"] += 1
            counts["passed" if outcome.passed else "failed"] += 1
    if len(names) > 1 or options.repeat > 1:
        print("drills: " + " ".join(f"{what}={count}" for what, count in counts.items()))
    return 1 if counts["failed"] else 0


def _run(drill: Drill, options: argparse.Namespace, repetition: int) -> Outcome:
    directory = Path(tempfile.mkdtemp(prefix=f"holdfast-drill-{drill.name}-"))
    target = LocalTarget(directory, drill.size, drill.settings)

    def say(text: str) -> None:
        if not options.quiet:
            print(f"{drill.name}: {text}", file=sys.stderr, flush=True)

    try:
        outcome = asyncio.run(perform(drill, target, directory, say, seed=options.seed + repetition))
        if not outcome.passed:
            options.report_dir.mkdir(parents=True, exist_ok=True)
            saved = options.report_dir / f"{drill.name}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
            outcome.history.save(saved)
            print(f"{drill.name}: history: {saved}", file=sys.stderr)
        for violation in outcome.violations[:20]:
            print(f"{drill.name}: VIOLATION {violation}", file=sys.stderr, flush=True)
    finally:
        if options.keep:
            print(f"{drill.name}: the brokers' data and logs are kept in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return outcome


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="holdfast.chaos.drills", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="drills to run; none: all")
    parser.add_argument("--list", action="store_true", help="print the drills and end")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run them N times")
    parser.add_argument("--seed", type=int, default=0, help="of the load's chances")
    parser.add_argument("--keep", action="store_true", help="keep the brokers' data and logs")
    parser.add_argument("--report-dir", type=Path, default=Path("drill-reports"), metavar="DIR")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


if __name__ == "__main__":
    sys.exit(main())
