"""What the benchmarks share: a cluster, repetition, medians, a table."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One figure and the figure it is to beat."""

    name: str
    value: float
    unit: str
    goal: float
    higher_is_better: bool
    spread: tuple[float, float]

    @property
    def met(self) -> bool:
        return self.value >= self.goal if self.higher_is_better else self.value <= self.goal

    def __str__(self) -> str:
        sign = "≥" if self.higher_is_better else "≤"
        low, high = self.spread
        return (
            f"{self.name:<58} {self.value:>12,.2f} {self.unit:<10} "
            f"[{low:,.2f} … {high:,.2f}]  goal {sign} {self.goal:,.2f}  {'met' if self.met else 'NOT MET'}"
        )


async def repeat(
    name: str,
    unit: str,
    goal: float,
    measure: Callable[[], Awaitable[float]],
    *,
    times: int = 5,
    higher_is_better: bool = True,
) -> Row:
    """The median of ``times`` runs after one that is not counted."""
    await measure()
    values = [await measure() for _ in range(times)]
    row = Row(name, statistics.median(values), unit, goal, higher_is_better, (min(values), max(values)))
    print(row, file=sys.stderr, flush=True)
    return row


def report(rows: list[Row], *, as_json: bool) -> None:
    """Print the table (or JSON lines) on standard output."""
    for row in rows:
        if as_json:
            print(
                json.dumps(
                    {
                        "name": row.name,
                        "value": row.value,
                        "unit": row.unit,
                        "goal": row.goal,
                        "met": row.met,
                        "low": row.spread[0],
                        "high": row.spread[1],
                    }
                )
            )
        else:
            print(row)


def calibration(folder: Path, syncs: int = 300) -> str:
    """The machine: cores, and the median of a bare 4 KiB append with fdatasync in ``folder``."""
    seconds = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(syncs):
            file.write(b"x" * 4096)
            file.flush()
            watch = Stopwatch()
            os.fdatasync(file.fileno())
            seconds.append(watch.seconds)
    load = os.getloadavg()[0]
    return (
        f"machine: {os.cpu_count()} cores, load {load:.1f}, "
        f"bare fdatasync {statistics.median(seconds) * 1e3:.2f} ms (median of {syncs})"
    )


class Stopwatch:
    """Seconds since made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start
