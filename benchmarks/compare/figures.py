"""Which figures there are, and how each is taken from the workloads' cells.

A figure is the median over the rounds; of a failover, over the kills of all rounds together. ``low`` and
``high`` are the lowest and highest round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.compare.document import Document, Result

#: A publisher that keeps less of its rate is behind: the latency is that of an overload.
_KEPT = 0.95

Cells = Mapping[str, Result]
Samples = Sequence[float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One column of a table.

    Attributes:
        key: its name in code and in the goals.
        group: the table it stands in.
        title, unit: the column's head.
        more: whether more is better.
        workload: the one it is taken from.
        take: the values of one round.
        of_all: what becomes of the values of all rounds.
    """

    key: str
    group: str
    title: str
    unit: str
    more: bool
    workload: str
    take: Callable[[Cells], Samples]
    of_all: Callable[[Samples], float] = statistics.median


@dataclass(frozen=True, slots=True)
class Value:
    """A figure of one system."""

    value: float
    low: float
    high: float


def _plain(workload: str, name: str) -> Callable[[Cells], Samples]:
    return lambda cells: [cells[workload].cell["figures"][name]]


def _kills(cells: Cells) -> Samples:
    samples: Samples = cells["failover"].cell["figures"]["samples"]
    return samples


def _cpu(cells: Cells) -> Samples:
    cell = cells["pipelined-100"].cell
    used = cell["cpu_seconds"] + cell["brokers"]["cpu_seconds"]
    return [used / cell["figures"]["records"] * 1e6]


def _written(cells: Cells) -> Samples:
    cell = cells["pipelined-100"].cell
    return [cell["brokers"]["written_bytes"] / cell["figures"]["records"]]


def _memory(cells: Cells) -> Samples:
    """The highest moment of any workload, the three nodes together, in MB."""
    return [
        max(
            result.cell["brokers"]["anonymous_bytes"] / 1e6
            for result in cells.values()
            if "brokers" in result.cell
        )
    ]


def _figure(
    group: str, workload: str, name: str, title: str, unit: str, *, more: bool, key: str = ""
) -> Figure:
    return Figure(key or workload, group, title, unit, more, workload, _plain(workload, name))


_PIPELINED = "Pipelined publish, 100 B, 1 KiB and 10 KiB"
_SEQUENTIAL = "Publish one after another, 100 B"
_CONCURRENT = "Concurrent publishers that await each acknowledgement, 100 B"
_DELIVERY = "Publish to delivery, 100 B"
_READING = "Reading"
_FAILOVER = "Failover: kill -9 of the leader to the first new acknowledgement"
_COST = "What a million records of 100 B cost (pipelined publish), and memory"

FIGURES = {
    figure.key: figure
    for figure in (
        _figure(_PIPELINED, "pipelined-100", "rate", "100 B", "records/s", more=True),
        _figure(_PIPELINED, "pipelined-1k", "megabytes", "1 KiB", "MB/s", more=True),
        _figure(_PIPELINED, "pipelined-10k", "megabytes", "10 KiB", "MB/s", more=True),
        _figure(_SEQUENTIAL, "sequential", "p50", "p50", "ms", more=False),
        _figure(_SEQUENTIAL, "sequential", "p99", "p99", "ms", more=False, key="sequential.p99"),
        _figure(_CONCURRENT, "publishers-1", "rate", "1", "records/s", more=True),
        _figure(_CONCURRENT, "publishers-16", "rate", "16", "records/s", more=True),
        _figure(_CONCURRENT, "publishers-128", "rate", "128", "records/s", more=True),
        _figure(_DELIVERY, "latency-half", "rate", "half load is", "records/s", more=True, key="half.rate"),
        _figure(_DELIVERY, "latency-half", "p50", "half load, p50", "ms", more=False, key="half.p50"),
        _figure(_DELIVERY, "latency-half", "p99", "half load, p99", "ms", more=False, key="half.p99"),
        _figure(_DELIVERY, "latency-1000", "p50", "1,000/s, p50", "ms", more=False, key="1000.p50"),
        _figure(_DELIVERY, "latency-1000", "p99", "1,000/s, p99", "ms", more=False, key="1000.p99"),
        _figure(_READING, "replay-100", "rate", "replay 100 B", "records/s", more=True),
        _figure(_READING, "replay-1k", "megabytes", "replay 1 KiB", "MB/s", more=True),
        _figure(_READING, "group", "rate", "consumer group 100 B", "records/s", more=True),
        _figure(_READING, "mixed", "rate", "publish and group at once", "records/s", more=True),
        Figure("failover", _FAILOVER, "median", "ms", False, "failover", _kills),
        Figure("failover.worst", _FAILOVER, "worst", "ms", False, "failover", _kills, max),
        Figure("cpu", _COST, "processor, client and nodes", "s", False, "pipelined-100", _cpu),
        Figure("written", _COST, "written by the nodes", "MB", False, "pipelined-100", _written),
        Figure("memory", _COST, "anonymous memory of the nodes, peak", "MB", False, "pipelined-100", _memory),
    )
}

#: Titles of the tables, in order.
GROUPS = list(dict.fromkeys(figure.group for figure in FIGURES.values()))


def values(document: Document) -> dict[tuple[str, str], Value]:
    """(system, figure's key) → its value, where a round gave one."""
    rounds: dict[tuple[str, int], dict[str, Result]] = {}
    for result in document.results:
        if result.failed is None:
            rounds.setdefault((result.system, result.round), {})[result.workload] = result
    found = {}
    for system in document.systems:
        for key, figure in FIGURES.items():
            each = [
                figure.take(cells)
                for (name, _), cells in rounds.items()
                if name == system and figure.workload in cells
            ]
            samples = [sample for some in each for sample in some]
            if samples:
                of_rounds = [figure.of_all(some) for some in each]
                found[system, key] = Value(figure.of_all(samples), min(of_rounds), max(of_rounds))
    return found


def _behind(result: Result) -> str | None:
    """Of an open loop: whether the publisher kept the rate."""
    kept = result.cell["figures"].get("kept", 1.0)
    return None if kept >= _KEPT else f"the client published no more than {kept:.0%} of the rate"


def reasons(document: Document) -> dict[tuple[str, str], str]:
    """(system, workload) → why there is no figure or a round is missing, or what a figure lacks."""
    found: dict[tuple[str, str], str] = {}
    for result in document.results:
        if reason := result.failed or result.cell.get("note") or _behind(result):
            found.setdefault((result.system, result.workload), reason)
    return found
