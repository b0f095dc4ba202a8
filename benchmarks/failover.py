"""Kill -9 of the leader to the first new ack, as a publishing client sees it."""

from __future__ import annotations

import asyncio
import time

import holdfast
from holdfast.chaos.processes import LocalCluster


async def failovers(cluster: LocalCluster, topic: str, times: int) -> list[float]:
    """Milliseconds from the kill to the first ack of a record published after it, per kill."""
    measured = []
    async with holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic(topic, partitions=3, if_not_exists=True)
        for _ in range(times):
            await bus.publish(topic, b"before", timeout=20)
            leader = await asyncio.to_thread(cluster.wait_leader)
            await asyncio.sleep(0.3)  # let the restarted broker of the last round settle
            cluster.brokers[leader].kill()
            killed = time.perf_counter()
            await bus.publish(topic, b"after", timeout=20)
            measured.append((time.perf_counter() - killed) * 1e3)
            await asyncio.to_thread(cluster.start)
    return measured
