"""Run Holdfast and its peers on this machine and print what they do as multiples of Holdfast."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from benchmarks.compare import machine
from benchmarks.compare.chart import chart
from benchmarks.compare.document import Document, System
from benchmarks.compare.report import check_markers, embedded, report
from benchmarks.compare.runner import Plan, Runner, with_needed
from benchmarks.compare.workloads import WORKLOADS
from benchmarks.compare.workloads.context import Parameters
from benchmarks.peers.catalog import SYSTEMS, cluster_class
from holdfast.chaos.keeper import INTERRUPTED, unwinding

FULL = Parameters()
QUICK = Parameters(seconds=1.0, most_bytes=60_000_000, times=100)
_FAILOVERS = 20

_ROOT = Path(__file__).resolve().parents[2]
#: What ``--write`` rewrites.
README = _ROOT / "benchmarks" / "README.md"
RAW = _ROOT / "benchmarks" / "results" / "compare.json"
CHART = _ROOT / "docs" / "compare.svg"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Raises SystemExit for arguments that make no sense."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--systems", type=_names(SYSTEMS), help="separated by commas; all that are installed")
    parser.add_argument("--workloads", type=_names(WORKLOADS), help="separated by commas; all")
    parser.add_argument("--rounds", type=_positive, help="repetitions, interleaved (3; quick: 1)")
    parser.add_argument("--failovers", type=_positive, help="kills per system in all (20; quick: 2)")
    parser.add_argument("--quick", action="store_true", help="a fraction of the work: does it run at all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, also as it comes")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="write the SVG")
    parser.add_argument(
        "--write", action="store_true", help="renew benchmarks/README.md, benchmarks/results and docs"
    )
    parser.add_argument("--directory", type=Path, help="for the nodes' data; on the disk to be measured")
    parser.add_argument("--render", type=Path, metavar="FILE", help="run nothing; report what --json wrote")
    found = parser.parse_args(arguments)
    found.rounds = found.rounds or (1 if found.quick else 3)
    found.failovers = found.failovers or (2 if found.quick else _FAILOVERS)
    found.directory = found.directory or Path(tempfile.gettempdir())
    if not found.directory.is_dir():
        parser.error(f"--directory: {found.directory} is no directory")
    return found


def available(wanted: Sequence[str] | None) -> tuple[dict[str, System], dict[str, str]]:
    """The systems that can run here, and why the others cannot, with how to install them."""
    systems, missing = {}, {}
    for name in wanted or SYSTEMS:
        try:
            found = cluster_class(name)
            reason = found.missing()
        except ImportError as error:
            missing[name] = f"{error}; .venv/bin/pip install -e '.[bench]' (benchmarks/README.md)"
            continue
        if reason is not None:
            missing[name] = reason
        else:
            systems[name] = System(
                found.title, found.durability, found.fsynced, found.version(), found.workloads
            )
    return systems, missing


def empty(options: argparse.Namespace) -> Document:
    """What is to be filled. Raises RuntimeError when there is nothing to run."""
    systems, missing = available(options.systems)
    for name, reason in missing.items():
        print(f"not compared: {name}: {reason}", file=sys.stderr)
    if not systems:
        raise RuntimeError("no system to compare")
    seconds = (QUICK if options.quick else FULL).seconds
    return Document(systems, options.rounds, seconds, missing)


def run(document: Document, options: argparse.Namespace) -> None:
    """Measure. Raises KeyboardInterrupt; what was measured by then is in the document."""
    plan = Plan(
        systems=list(document.systems),
        workloads=with_needed(options.workloads or list(WORKLOADS)),
        rounds=options.rounds,
        parameters=QUICK if options.quick else FULL,
        failovers=-(-options.failovers // options.rounds),
        directory=options.directory,
    )

    def look() -> None:
        document.machines.append(machine.look(options.directory, quick=options.quick))
        print(document.machines[-1], file=sys.stderr, flush=True)

    def keep() -> None:
        if options.json:
            document.write(options.json)

    asyncio.run(Runner(plan, document.results, look, keep).run())


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all measured; 1: a workload of Holdfast failed; 2: nothing could be measured; 130: interrupted."""
    options = parse(arguments)
    try:
        if options.write:
            check_markers(README.read_text(encoding="utf-8"), README)
        document = Document.read(options.render) if options.render else empty(options)
    except (RuntimeError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    interrupted = False
    if not options.render:
        try:
            with unwinding():
                run(document, options)
        except KeyboardInterrupt:
            interrupted = True
            if options.json:
                document.write(options.json)
            document = document.finished()
            print(f"interrupted; whole rounds: {document.rounds}", file=sys.stderr)
            if not document.rounds:
                return INTERRUPTED
        except (RuntimeError, ValueError, OSError) as error:
            print(error, file=sys.stderr)
            return 2
    _tell(document, options, everything=not interrupted)
    if interrupted:
        return INTERRUPTED
    return 1 if any(r.system == "holdfast" and r.failed for r in document.results) else 0


def _tell(document: Document, options: argparse.Namespace, *, everything: bool) -> None:
    text = report(document)
    print(text)
    if options.json and everything and not options.render:
        document.write(options.json)
    if options.chart:
        options.chart.write_text(chart(document), encoding="utf-8")
    if options.write:
        _renew(document, text)


def _renew(document: Document, text: str) -> None:
    readme = README.read_text(encoding="utf-8")
    README.write_text(embedded(readme, text, README), encoding="utf-8")
    document.write(RAW)
    CHART.write_text(chart(document), encoding="utf-8")


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    """Parses names separated by commas; in the order of ``known``."""

    def parse_names(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return [name for name in known if name in names]

    return parse_names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
