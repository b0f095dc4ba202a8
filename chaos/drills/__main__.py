"""``make drill NAME=…``, ``make drills``: break a cluster under load and judge what its clients were told.

Progress goes to stderr, one result line a drill to stdout, an HTML report into
the report directory. Exit status: 0, 1 when a promise was broken, 2 when it
could not be run as asked, 130 when it was interrupted (Ctrl-C, SIGTERM).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from holdfast.chaos.drills import compose
from holdfast.chaos.drills.catalog import DRILLS
from holdfast.chaos.drills.report import render
from holdfast.chaos.drills.scene import Drill
from holdfast.chaos.drills.stage import EndedTarget, Outcome, perform
from holdfast.chaos.drills.target import LocalTarget
from holdfast.chaos.keeper import INTERRUPTED, unwinding
from holdfast.chaos.net.choose import FORCE
from holdfast.errors import HoldfastError


def main(arguments: list[str] | None = None) -> int:
    """Run drills; the exit status."""
    options = _parser().parse_args(arguments)
    if options.list:
        for name, kind in DRILLS.items():
            print(f"{name:20} {kind.summary}")
        return 0
    if options.net:
        os.environ[FORCE] = options.net
    names = options.names or list(DRILLS)
    for name in names:
        if name not in DRILLS:
            print(f"no drill is called {name!r}; there are: {', '.join(DRILLS)}", file=sys.stderr)
            return 2
    if options.target == "compose" and (missing := compose.missing()):
        print(f"drills: {missing}", file=sys.stderr)
        return 2
    try:
        with unwinding():
            return run(names, options)
    except KeyboardInterrupt:
        print("drills: interrupted; nothing is left behind", file=sys.stderr)
        return INTERRUPTED


def run(names: list[str], options: argparse.Namespace) -> int:
    """Run these drills, as often as asked; the exit status."""
    counts = {"run": 0, "passed": 0, "skipped": 0, "failed": 0}
    for repetition in range(options.repeat):
        for name in names:
            outcome = _run(DRILLS[name](), options, options.seed + repetition)
            print(outcome.line(), flush=True)
            if outcome.skipped:
                counts["skipped"] += 1
                continue
            counts["run"] += 1
            counts["passed" if outcome.passed else "failed"] += 1
    if len(names) > 1 or options.repeat > 1:
        print("drills: " + " ".join(f"{what}={count}" for what, count in counts.items()))
    return 1 if counts["failed"] else 0


def _run(drill: Drill, options: argparse.Namespace, seed: int) -> Outcome:
    directory = Path(tempfile.mkdtemp(prefix=f"holdfast-drill-{drill.name}-"))
    began = datetime.now().astimezone()

    def say(text: str) -> None:
        if not options.quiet:
            print(f"{drill.name}: {text}", file=sys.stderr, flush=True)

    try:
        target = _target(drill, directory, options.target, say)
        outcome = asyncio.run(perform(drill, target, directory, say, seed=seed))
        if not outcome.skipped:
            _report(drill, outcome, options, seed, began)
    finally:
        if options.keep:
            print(f"{drill.name}: the brokers' data and logs are kept in {directory}", file=sys.stderr)
        else:
            # What root in a container wrote, or what is still mounted, is not worth failing for.
            shutil.rmtree(directory, ignore_errors=True)
    return outcome


def _target(drill: Drill, directory: Path, kind: str, say: Callable[[str], None]) -> EndedTarget:
    if kind == "compose":
        return compose.ComposeTarget(directory, drill.size, drill.settings, say)
    return LocalTarget(directory, drill.size, drill.settings)


def _report(drill: Drill, outcome: Outcome, options: argparse.Namespace, seed: int, began: datetime) -> None:
    """Write the report, and the history too when a promise was broken."""
    folder: Path = options.report_dir
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{drill.name}-{began:%Y%m%d-%H%M%S}"
    saved = folder / f"{stem}.jsonl"
    if not outcome.passed:
        outcome.history.save(saved)
        print(f"{drill.name}: judge it again: python -m holdfast.chaos.checker {saved}", file=sys.stderr)
    for violation in outcome.violations[:20]:
        print(f"{drill.name}: VIOLATION {violation}", file=sys.stderr, flush=True)
    page = folder / f"{stem}.html"
    page.write_text(
        render(
            outcome,
            summary=drill.summary,
            command=command(drill.name, options.target, seed),
            began=f"{began:%Y-%m-%d %H:%M:%S %Z}",
            history_file="" if outcome.passed else str(saved),
        ),
        encoding="utf-8",
    )
    if not options.quiet:
        print(f"{drill.name}: report: {page}", file=sys.stderr, flush=True)


def command(name: str, target: str, seed: int) -> str:
    """What repeats a run; the load's chances are those of the seed, timing is the machine's."""
    return f"make drill NAME={name} SEED={seed}" + ("" if target == "local" else f" TARGET={target}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="holdfast.chaos.drills",
        description="Break a cluster under load; judge what its clients were told.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="drills to run; none: all")
    parser.add_argument("--list", action="store_true", help="print the drills and end")
    parser.add_argument("--target", choices=("local", "compose"), default="local", help="what is broken")
    parser.add_argument(
        "--net",
        choices=("netns", "proxy"),
        help="what drills of the network break; without: what is best here",
    )
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run them N times")
    parser.add_argument("--seed", type=int, default=0, help="of the load's chances")
    parser.add_argument("--keep", action="store_true", help="keep the brokers' data and logs")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.add_argument(
        "--report-dir",
        type=Path,
        default=Path("drill-reports"),
        metavar="DIR",
        help="for reports and histories",
    )
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except HoldfastError as error:
        print(f"drills: {error}", file=sys.stderr)
        sys.exit(2)
