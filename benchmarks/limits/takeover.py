"""Where a failover's time goes: kill -9 of the leader, step by step, to the first new acknowledgement."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import holdfast
from benchmarks.limits import marks
from benchmarks.limits.brokers import brokers
from benchmarks.limits.timeline import Log

#: (key, where, what), in order.
STEPS = (
    ("killed", "", "kill -9 of the leader has returned"),
    ("lost", "new leader", "its link to the old one is known to be broken"),
    ("asked", "new leader", "asks for votes"),
    ("led", "new leader", "has a majority of votes"),
    ("committed", "new leader", "first commit as leader: its own entry"),
    ("received", "new leader, loop", "the client's request in the handler"),
    ("acked", "new leader", "the client's record on a majority"),
    ("done", "client", "publish() has returned"),
)


async def once(folder: Path) -> dict[str, float]:
    """Milliseconds since the kill, by step; a step that was not seen is missing."""
    with tempfile.TemporaryDirectory(prefix="takeover-", dir=folder) as scratch:
        data = Path(scratch)
        files = {node: data / f"{node}.moments" for node in ("n1", "n2", "n3")}
        with brokers(data, {node: {"HF_MOMENTS": str(file)} for node, file in files.items()}) as cluster:
            async with holdfast.connect(cluster.endpoints) as bus:
                await bus.create_topic("takeover", partitions=1)
                for _ in range(50):
                    await bus.publish("takeover", b"before", timeout=20)
                old = cluster.wait_leader()
                time.sleep(0.2)
                began = time.perf_counter_ns()
                cluster.brokers[old].kill()
                killed = time.perf_counter_ns()
                await bus.publish("takeover", b"after", timeout=20)
                done = time.perf_counter_ns()
            new = cluster.wait_leader(other_than=old)
            for broker in cluster.brokers.values():
                broker.stop()
        log = Log(marks.read(files[new]))
    led = log.after("led", began)
    answered = log.before("answer", done)
    found = {
        "killed": killed,
        "lost": log.after("lost", began),
        "asked": log.after("asked", began),
        "led": led,
        "committed": log.after("committed", led) if led is not None else None,
        "received": log.before("received", answered) if answered is not None else None,
        "acked": answered,
        "done": done,
    }
    return {key: (at - began) / 1e6 for key, at in found.items() if at is not None}


def table(rounds: list[dict[str, float]]) -> list[str]:
    """Medians in ms since the kill, and the least and the most."""
    lines = [f"{'median':>8} {'least':>8} {'most':>8}  {'where':<17} step", ""]
    for key, where, what in STEPS:
        seen = [one[key] for one in rounds if key in one]
        if seen:
            figures = f"{statistics.median(seen):8.1f} {min(seen):8.1f} {max(seen):8.1f}"
        else:
            figures = f"{'-':>8} {'-':>8} {'-':>8}"
        lines.append(f"{figures}  {where:<17} {what}")
    return lines
