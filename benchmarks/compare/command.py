"""The command line of the comparison."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from benchmarks.compare.runner import Plan, Result, Runner, with_needed
from benchmarks.compare.workloads import WORKLOADS
from benchmarks.compare.workloads.context import Parameters
from benchmarks.peers.catalog import SYSTEMS, cluster_class
from holdfast.chaos.keeper import INTERRUPTED, unwinding

FULL = Parameters()
QUICK = Parameters(seconds=1.0, most_bytes=60_000_000, times=100)
_FAILOVERS = 20


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Raises SystemExit for arguments that make no sense."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--systems", type=_names(SYSTEMS), help="separated by commas; all that are installed")
    parser.add_argument("--workloads", type=_names(WORKLOADS), help="separated by commas; all")
    parser.add_argument("--rounds", type=int, help="repetitions, interleaved (3; quick: 1)")
    parser.add_argument("--failovers", type=int, help="kills per system, over all rounds (20; quick: 2)")
    parser.add_argument("--quick", action="store_true", help="a fraction of the work: does it run at all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, also as it comes")
    parser.add_argument("--directory", type=Path, help="for the nodes' data; on the disk to be measured")
    found = parser.parse_args(arguments)
    found.rounds = found.rounds or (1 if found.quick else 3)
    found.failovers = found.failovers or (2 if found.quick else _FAILOVERS)
    found.directory = found.directory or Path(tempfile.gettempdir())
    return found


def installed(wanted: Sequence[str] | None) -> list[str]:
    """The systems that can run here. What cannot is told on standard error, with how to install it."""
    found = []
    for name in wanted or SYSTEMS:
        try:
            missing = cluster_class(name).missing()
        except ImportError as error:
            missing = f"{error} (see benchmarks/README.md)"
        if missing is None:
            found.append(name)
        else:
            print(f"not compared: {name}: {missing}", file=sys.stderr)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    systems = installed(options.systems)
    if not systems:
        print("no system to compare", file=sys.stderr)
        return 2
    plan = Plan(
        systems,
        with_needed(options.workloads or list(WORKLOADS)),
        options.rounds,
        QUICK if options.quick else FULL,
        -(-options.failovers // options.rounds),
        options.directory,
    )

    def keep(results: list[Result]) -> None:
        if options.json:
            options.json.write_text(json.dumps([result.raw() for result in results], indent=1) + "\n")

    try:
        with unwinding():
            results = asyncio.run(Runner(plan, keep).run())
    except KeyboardInterrupt:
        return INTERRUPTED
    for result in results:
        print(json.dumps(result.raw()))
    return 0


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    def parse_names(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return [name for name in known if name in names]

    return parse_names
