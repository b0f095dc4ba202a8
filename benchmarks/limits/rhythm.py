"""How a workload is cut up: turns of the engine, commits, messages, per thousand records.

With moments noted (``marks``), which takes some of the speed; the counts stay much the same.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.limits import marks
from benchmarks.limits.apart import Apart
from benchmarks.limits.brokers import brokers
from benchmarks.limits.marks import Moment
from benchmarks.limits.work import SIZES, Done

_COUNTED = (
    ("turned", "turns"),
    ("appended", "entries appended"),
    ("commit", "commits"),
    ("ship", "appends sent"),
    ("ack", "acks sent"),
    ("applied", "entries applied"),
    ("deliver", "reports to the loop"),
)


def measure(workload: str, folder: Path, seconds: float) -> list[str]:
    """Lines for the ledger's page."""
    with tempfile.TemporaryDirectory(prefix="rhythm-", dir=folder) as scratch:
        data = Path(scratch)
        files = {node: data / f"{node}.moments" for node in ("n1", "n2", "n3")}
        with brokers(data, {node: {"HF_MOMENTS": str(file)} for node, file in files.items()}) as cluster:
            cluster.wait_leader()
            client = Apart(
                "benchmarks.limits.work:run",
                addresses=cluster.endpoints,
                workload=workload,
                seconds=seconds,
                passes=1,
            )
            try:
                client.begin()
                client.heard()
                began = time.perf_counter_ns()
                client.begin()
                done: Done = client.heard()
                ended = time.perf_counter_ns()
            finally:
                client.end()
            for broker in cluster.brokers.values():
                broker.stop()
        noted = [
            [moment for moment in marks.read(file) if began <= moment[1] <= ended] for file in files.values()
        ]
    # The node that sent the most appends has led.
    noted.sort(key=lambda moments: -sum(name == "ship" for name, _, _, _ in moments))
    moments = {"leader": noted[0], "a follower": noted[1]}
    return table(moments, done["records"], SIZES.get(workload, 100))


def table(moments: dict[str, list[Moment]], records: int, size: int) -> list[str]:
    """Counts per 1,000 records of ``size`` bytes; what a commit holds and how long it takes."""
    lines = ["The engine's rhythm (with moments noted), per 1,000 records:", ""]
    for process, noted in moments.items():
        counts = {name: sum(one[0] == name for one in noted) for name, _ in _COUNTED}
        told = [f"{what} {counts[name] / records * 1e3:.1f}" for name, what in _COUNTED if counts[name]]
        lines.append(f"{process}: {', '.join(told)}")
        if counts["commit"]:
            alone = 100 * _without_append(noted) / counts["commit"]
            lines.append(
                f"    {records * size / counts['commit'] / 1e3:,.1f} KB of records per commit, which takes "
                f"{_commit_ms(noted):.2f} ms (median); {alone:.0f} % of commits hold no new entry"
            )
    return [*lines, ""]


def _commit_ms(noted: Sequence[Moment]) -> float:
    """Median time from a commit's beginning to its end."""
    took, began = [], None
    for name, at, _, _ in sorted(noted, key=lambda moment: moment[1]):
        if name == "commit":
            began = at
        elif name == "committed" and began is not None:
            took.append(at - began)
            began = None
    return statistics.median(took) / 1e6 if took else 0.0


def _without_append(noted: Sequence[Moment]) -> int:
    """Commits for nothing but effects of entries that are durable already."""
    count, appended = 0, False
    for name, _, _, _ in sorted(noted, key=lambda moment: moment[1]):
        if name == "appended":
            appended = True
        elif name == "commit":
            count += not appended
            appended = False
    return count
