"""Our figures as fractions of what limits them. No I/O."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.limits.measured import Measured
from benchmarks.limits.physical import MESSAGE, REQUEST, Physical
from benchmarks.limits.store import Committed
from benchmarks.limits.work import SIZES

BEGIN, END = "<!-- limits: begin -->", "<!-- limits: end -->"


@dataclass(frozen=True, slots=True)
class Row:
    """One limit of one workload. ``goal``: the fraction to reach, 0 when none is set for it."""

    workload: str
    what: str
    limit: float
    ours: float
    unit: str
    more_is_better: bool = True
    goal: float = 0.0

    @property
    def reached(self) -> float:
        """1.0: as good as the limit."""
        if self.more_is_better:
            return self.ours / self.limit if self.limit else 0.0
        return self.limit / self.ours if self.ours else 0.0


def rows(physical: Physical, measured: Mapping[str, Measured], takeovers: Sequence[float]) -> list[Row]:
    """Every limit of every workload that was measured."""
    found: list[Row] = []
    for workload, one in measured.items():
        if workload == "sequential":
            found += _sequential(physical, one)
        elif workload.startswith("pipelined"):
            found += _pipelined(physical, one)
        elif workload.startswith("replay"):
            found += _replay(physical, one)
        elif workload == "delivery":
            found += _delivery(physical, one)
    if "pipelined-100" in measured:
        found += _processor(physical, measured["pipelined-100"])
    if takeovers:
        found += _takeover(physical, takeovers)
    return found


def commit_micros(commits: Sequence[Committed]) -> float:
    """An append and its commit."""
    return statistics.mean(one["append_micros"] + one["commit_micros"] for one in commits)


def _floor_ms(physical: Physical) -> float:
    """A round trip of a gRPC stream, one between brokers, and a commit while the two others commit."""
    micros = (
        physical.grpc["stream_micros"] + physical.link["micros"] + commit_micros(physical.store_small_three)
    )
    return micros / 1e3


def _sequential(physical: Physical, one: Measured) -> list[Row]:
    name, ours = "sequential publish of 100 B, p50", one.done["p50_ms"]
    sync = statistics.mean(each["micros"] for each in physical.sync_three) / 1e3
    return [
        Row(name, "4 KiB written and fdatasynced, three processes at once", sync, ours, "ms", False),
        Row(
            name,
            "the store's append and commit, three at once",
            commit_micros(physical.store_small_three) / 1e3,
            ours,
            "ms",
            False,
        ),
        Row(name, "a gRPC stream's round trip", physical.grpc["stream_micros"] / 1e3, ours, "ms", False),
        Row(
            name,
            "three engines without gRPC, one operation at a time",
            physical.engines["micros"] / 1e3,
            ours,
            "ms",
            False,
        ),
        Row(
            name,
            "floor: gRPC stream + loopback round trip + commit, three at once",
            _floor_ms(physical),
            ours,
            "ms",
            False,
        ),
    ]


def _size(one: Measured) -> int:
    return SIZES.get(one.workload, 100)


def _megabytes(one: Measured) -> float:
    return one.per_second * _size(one) / 1e6


def _pipelined(physical: Physical, one: Measured) -> list[Row]:
    size, ours = _size(one), _megabytes(one)
    name = f"pipelined publish of {size_text(size)} ({one.per_second:,.0f} records/s)"
    stores = statistics.mean(each["megabytes"] for each in physical.store_bulk_three)
    goal = 0.6 if size == 1024 else 0.0
    return [
        Row(name, "raw fdatasync bandwidth ÷ 3", physical.disk_third, ours, "MB/s", goal=goal),
        Row(
            name,
            "each of three processes that append and fdatasync",
            physical.disk_each_of_three,
            ours,
            "MB/s",
        ),
        Row(name, "the store, each of three at once", stores, ours, "MB/s"),
        Row(
            name,
            f"three engines without gRPC, {size_text(REQUEST)}",
            physical.engines["megabytes"][str(REQUEST)],
            ours,
            "MB/s",
        ),
        Row(
            name,
            f"a gRPC stream to the server, {size_text(REQUEST)}",
            physical.grpc["up"][str(REQUEST)],
            ours,
            "MB/s",
        ),
        Row(name, "the SDK encoding batches", physical.coded[size]["encode"] * size / 1e6, ours, "MB/s"),
    ]


def _replay(physical: Physical, one: Measured) -> list[Row]:
    size, ours = _size(one), _megabytes(one)
    name = f"replay of {size_text(size)} ({one.per_second:,.0f} records/s)"
    goal = 0.6 if size == 1024 else 0.0
    stream = f"a gRPC stream to the client, {size_text(MESSAGE)}"
    return [
        Row(name, stream, physical.grpc["down"][str(MESSAGE)], ours, "MB/s", goal=goal),
        Row(name, "the SDK decoding batches", physical.coded[size]["decode"] * size / 1e6, ours, "MB/s"),
        Row(name, "loopback TCP, writes of 1 MiB", physical.link["megabytes_1m"], ours, "MB/s"),
        Row(name, "memory copied once by one thread", physical.copies * 1e3, ours, "MB/s"),
    ]


def _delivery(physical: Physical, one: Measured) -> list[Row]:
    rate = f"publish to delivery at {one.per_second:,.0f} records/s"
    floor = _floor_ms(physical)
    what = "floor of a sequential publish (its answer and the delivery leave together)"
    return [
        Row(f"{rate}, p50", what, floor, one.done["p50_ms"], "ms", False),
        Row(f"{rate}, p99", what, floor, one.done["p99_ms"], "ms", False),
    ]


def _processor(physical: Physical, one: Measured) -> list[Row]:
    """CPU of the parts that cannot be left out, for the same bytes."""
    ours = one.cpu_seconds / one.done["records"] * 1e6
    gigabytes = 100 * 1e6 / 1e9
    encode = 1e6 / physical.coded[100]["encode"]
    wire = physical.grpc["cpu_per_gigabyte"] * gigabytes
    stores = 3 * physical.store_bulk["cpu_per_gigabyte"] * gigabytes
    name = "CPU per million records of 100 B"
    return [
        Row(
            name, "encode once, gRPC once, three stores, each alone", encode + wire + stores, ours, "s", False
        )
    ]


def _takeover(physical: Physical, takeovers: Sequence[float]) -> list[Row]:
    """Two votes and an entry of the new leader need a commit each, then the publish itself."""
    commits = 2 * commit_micros(physical.store_small_three) / 1e3
    rounds = 2 * physical.link["micros"] / 1e3
    what = "two round trips with a commit each (vote, first entry), then a sequential publish's floor"
    floor = commits + rounds + _floor_ms(physical)
    name = f"failover, median of {len(takeovers)}"
    return [Row(name, what, floor, statistics.median(takeovers), "ms", False)]


def size_text(size: int) -> str:
    if size >= 1 << 20:
        return f"{size >> 20} MiB"
    return f"{size / 1024:.0f} KiB" if size >= 1024 else f"{size} B"


def figure(value: float) -> str:
    """Three significant digits, as people read them."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def markdown(found: Sequence[Row]) -> list[str]:
    """The table of the README; a workload is named once."""
    lines = [
        "| workload | ours | limit, measured alone in the same run | limit | reached |",
        "|---|---|---|---|---|",
    ]
    last = ""
    for row in found:
        name, ours = (row.workload, f"{figure(row.ours)} {row.unit}") if row.workload != last else ("", "")
        last = row.workload
        reached = f"{100 * row.reached:.0f} %"
        if row.goal:
            reached += (
                f" (goal {100 * row.goal:.0f} %: {'met' if row.reached >= row.goal else '**not met**'})"
            )
        lines.append(f"| {name} | {ours} | {row.what} | {figure(row.limit)} {row.unit} | {reached} |")
    return lines


def replace_between(text: str, begin: str, end: str, body: str) -> str:
    """``text`` with ``body`` between two markers; both are added at its end when they are not there."""
    block = f"{begin}\n{body}\n{end}"
    if begin not in text:
        return text.rstrip("\n") + f"\n\n{block}\n"
    return re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: block, text, count=1, flags=re.DOTALL)
