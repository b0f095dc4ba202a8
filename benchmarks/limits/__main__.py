"""``make bench-limits``: what this machine allows, what Holdfast reaches of it, and where the time goes."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import uvloop

from benchmarks.limits import ledger, parts, physical, rhythm, table, takeover, timeline
from benchmarks.limits.brokers import ROOT
from benchmarks.limits.measured import Measured, measure
from benchmarks.limits.work import WORK

_README = ROOT / "benchmarks" / "README.md"
_LEDGER = ROOT / "benchmarks" / "ledger"
#: Beside the workloads of ``work``.
_FAILOVER = "failover"


def run(arguments: argparse.Namespace, tell: Callable[[str], None]) -> list[str]:
    """Measure; a page is shown, or written, as soon as it is there. The lines of the README's table."""
    measured: dict[str, Measured] = {}
    failovers: list[float] = []
    with tempfile.TemporaryDirectory(prefix="holdfast-limits-", dir=arguments.data) as scratch:
        folder = Path(scratch)
        show = _write if arguments.write else _print
        alone = physical.measure(folder, arguments.seconds / 3, tell)
        for name in arguments.only or [*WORK, _FAILOVER]:
            tell(name)
            if name == _FAILOVER:
                rounds = [uvloop.run(takeover.once(folder)) for _ in range(arguments.kills)]
                failovers = [one["done"] for one in rounds]
                show(name, takeover.table(rounds))
                continue
            closely = not arguments.quick
            sequential = name == "sequential"
            one = measure(
                name, folder, arguments.seconds, profile=closely, count_calls=sequential and closely
            )
            measured[name] = one
            page = ledger.page(one)
            if closely and (sequential or name.startswith("pipelined")):
                page += rhythm.measure(name, folder, arguments.seconds)
            if sequential:
                page += uvloop.run(timeline.run(1000, folder, usage=False))
            show(name, page)
        tell("appends once more")
        alone = replace(alone, append_after=physical.appends(folder, arguments.seconds / 3))
        show("machine", [machine(), "", *parts.parts(alone)])
    return [f"`{machine()}`", "", *table.markdown(table.rows(alone, measured, failovers))]


def _print(name: str, page: Sequence[str]) -> None:
    print(f"\n=== {name}\n")
    print("\n".join(page), flush=True)


def _write(name: str, page: Sequence[str]) -> None:
    """Into the ledger."""
    _LEDGER.mkdir(exist_ok=True)
    body = "\n".join(line.rstrip() for line in page).rstrip()
    (_LEDGER / f"{name}.txt").write_text(body + "\n")


def machine() -> str:
    load = os.getloadavg()[0]
    return f"machine: {os.cpu_count()} cores, Linux {os.uname().release.partition('-')[0]}, load {load:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-limits", description=__doc__)
    parser.add_argument("--only", action="append", choices=[*WORK, _FAILOVER], help="these workloads only")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each pass of each workload")
    parser.add_argument("--kills", type=int, default=5, help="leaders to kill for the failover's page")
    parser.add_argument("--quick", action="store_true", help="no profiles")
    parser.add_argument("--data", type=Path, help="folder for data, on the disk to be measured")
    parser.add_argument(
        "--write", action="store_true", help="into benchmarks/ledger and benchmarks/README.md"
    )
    arguments = parser.parse_args()
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", file=sys.stderr, flush=True)

    lines = run(arguments, tell)
    _print("limits", lines)
    if arguments.write:
        body = "\n".join(lines)
        _README.write_text(table.replace_between(_README.read_text(), table.BEGIN, table.END, body))
    tell("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
