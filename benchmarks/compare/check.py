"""``make bench-check``: is Holdfast slower than when its ratios were last recorded?

Some figures of Holdfast alone, each divided by what the machine did bare in the same seconds, so that a slow
day or another machine changes both. Bare loop, workload, bare loop again, and so on; a ratio is the median of
several turns, each on fresh brokers. More is better for all of them:

* ``sequential``: what a bare gRPC call and a bare fdatasync take together, divided by the median publish.
* ``publishers-16``: publishes per second, divided by bare gRPC calls per second.
* ``pipelined-1k``: MB/s, divided by MB/s of bare 1 MiB appends with fdatasync.
* the others: records per second, divided by passes per second of a loop on one processor.

Exit status: 0; 1 when a ratio fell by more than 30 %; 2 when it could not be measured; 130 when interrupted.
Not part of the tests: noise must not fail honest work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from benchmarks import echo
from benchmarks.compare.cell import Cell, measure
from benchmarks.compare.workloads import WORKLOADS
from benchmarks.compare.workloads.context import Parameters
from benchmarks.limits import disk
from benchmarks.peers.holdfast import Cluster
from holdfast.chaos.keeper import INTERRUPTED, unwinding

RECORDED = Path(__file__).resolve().parents[1] / "results" / "check.json"
#: A ratio may fall to this share of the recorded one.
TOLERANCE = 0.7
_GIVEN = Parameters(seconds=2.0, most_bytes=100_000_000, times=300)
_BARE_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Bare:
    """The machine without Holdfast."""

    #: Passes per second of the loop on one processor.
    loop: float
    echo_ms: float
    sync_ms: float
    sync_megabytes: float


@dataclass(frozen=True, slots=True)
class Checked:
    """One figure: the workload's name, its own figure, and how it is divided by the machine's."""

    workload: str
    figure: str
    ratio: Callable[[float, Bare], float]


CHECKED = (
    Checked("sequential", "p50", lambda p50, bare: (bare.echo_ms + bare.sync_ms) / p50),
    Checked("publishers-16", "rate", lambda rate, bare: rate * bare.echo_ms / 1e3),
    Checked("pipelined-100", "rate", lambda rate, bare: rate / bare.loop),
    Checked("pipelined-1k", "megabytes", lambda speed, bare: speed / bare.sync_megabytes),
    Checked("replay-100", "rate", lambda rate, bare: rate / bare.loop),
    Checked("replay-1k", "rate", lambda rate, bare: rate / bare.loop),
    Checked("group", "rate", lambda rate, bare: rate / bare.loop),
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure's ratio, and the median figure itself for the reader."""

    ratio: float
    low: float
    high: float
    figure: float


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the comparison; ``recorded`` is None for a figure that has no record."""

    workload: str
    now: Ratio
    recorded: Ratio | None

    @property
    def fell(self) -> bool:
        return self.recorded is not None and self.now.ratio < TOLERANCE * self.recorded.ratio

    def __str__(self) -> str:
        if self.recorded is None:
            verdict = "not recorded"
        else:
            change = f"{self.now.ratio / self.recorded.ratio - 1:+.0%}"
            verdict = f"recorded {self.recorded.ratio:>7.3g}  {change:>5}{'  FELL' if self.fell else ''}"
        return (
            f"{self.workload:<14} {self.now.ratio:>7.3g}  "
            f"[{self.now.low:.3g} … {self.now.high:.3g}]  {verdict}"
        )


def compare(now: Mapping[str, Ratio], recorded: Mapping[str, Ratio]) -> list[Line]:
    """Every figure measured now beside its record."""
    return [Line(name, ratio, recorded.get(name)) for name, ratio in now.items()]


def summary(turns: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, Ratio]:
    """Of (figure, ratio) by workload in each turn: the medians and the lowest and highest ratio."""
    found = {}
    for name in turns[0]:
        figures, ratios = zip(*[turn[name] for turn in turns], strict=True)
        found[name] = Ratio(statistics.median(ratios), min(ratios), max(ratios), statistics.median(figures))
    return found


def read(path: Path) -> dict[str, Ratio]:
    """What was recorded. Raises ValueError for what is no such record, OSError."""
    try:
        return msgspec.convert(json.loads(path.read_text(encoding="utf-8")), dict[str, Ratio])
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {error}") from error


def write(path: Path, ratios: Mapping[str, Ratio]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = {
        name: {key: float(f"{value:.4g}") for key, value in asdict(ratio).items()}
        for name, ratio in ratios.items()
    }
    path.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")


async def bare(directory: Path) -> Bare:
    """Half a second for each."""
    small = await asyncio.to_thread(disk.append, str(directory), 4096, _BARE_SECONDS)
    bulk = await asyncio.to_thread(disk.append, str(directory), 1 << 20, _BARE_SECONDS)
    return Bare(loop(_BARE_SECONDS), await echo.sequential(200), small["micros"] / 1e3, bulk["megabytes"])


def loop(seconds: float) -> float:
    """Passes per second of a loop of plain Python and copies of memory."""
    block, passes, started = bytes(range(256)) * 256, 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        parts = [block[start : start + 100] for start in range(0, len(block), 100)]
        if b"".join(parts) != block or sum(map(len, parts)) != len(block):
            raise RuntimeError("the processor does not add up")
        passes += 1
    return passes / spent


async def turn(directory: Path) -> dict[str, tuple[float, float]]:
    """(figure, ratio) by workload, on brokers of its own. Raises RuntimeError when a workload failed."""
    found: dict[str, tuple[float, float]] = {}
    cells: dict[str, Cell] = {}
    with tempfile.TemporaryDirectory(prefix="bench-check-", dir=directory) as folder:
        cluster = Cluster(Path(folder) / "nodes")
        try:
            await cluster.start()
            before = await bare(Path(folder))
            for checked in CHECKED:
                workload, given = WORKLOADS[checked.workload], _GIVEN
                if workload.needs is not None:
                    filled = cells[workload.needs]["figures"]["total"]
                    given = replace(given, topic=workload.needs, records=filled)
                cell = await measure(cluster, workload, given, Path(folder) / "worker.log")
                if "failed" in cell:
                    raise RuntimeError(f"{checked.workload}: {cell['failed']}")
                after = await bare(Path(folder))
                cells[checked.workload] = cell
                figure = cell["figures"][checked.figure]
                found[checked.workload] = (figure, checked.ratio(figure, _mean(before, after)))
                before = after
        finally:
            await cluster.stop()
    return found


def _mean(before: Bare, after: Bare) -> Bare:
    return Bare(
        *[statistics.mean(pair) for pair in zip(asdict(before).values(), asdict(after).values(), strict=True)]
    )


async def run(turns: int, directory: Path) -> dict[str, Ratio]:
    """All turns, told on standard error."""
    found = []
    for number in range(turns):
        print(f"turn {number + 1} of {turns}", file=sys.stderr, flush=True)
        found.append(await turn(directory))
    return summary(found)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make bench-check")
    parser.add_argument("--record", action="store_true", help="make today's ratios the ones to compare with")
    parser.add_argument("--turns", type=int, default=3, choices=range(1, 21), metavar="N", help="(3)")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="for the data")
    options = parser.parse_args(arguments)
    try:
        recorded = {} if options.record else read(RECORDED)
        with unwinding():
            now = asyncio.run(run(options.turns, options.directory))
    except (RuntimeError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    lines = compare(now, recorded)
    print("ratio to the bare machine (more is better), its turns, what was recorded")
    for line in lines:
        print(line)
    if options.record:
        write(RECORDED, now)
    return 1 if any(line.fell for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
