"""What gigabytes do to a broker: its memory, the bytes it writes, its restart."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from wire import Wire, request_of

from holdfast.chaos.processes import LocalCluster


@dataclass(frozen=True, slots=True)
class Growth:
    """Figures of publishing ``payload_bytes``; the worst of the three brokers."""

    payload_bytes: int
    rss_anon_mb: float
    written_per_byte: float
    restart_seconds: float


async def grow(cluster: LocalCluster, gigabytes: float, batch_bytes: int = 100_000) -> Growth:
    """Publish, watching every broker's anonymous memory; then restart a follower."""
    leader = cluster.wait_leader()
    wire = Wire(cluster.brokers[leader].client_address)
    await wire.create_topic("growth", 4)
    request = request_of("growth", batch_bytes)
    before = {n: b.written_bytes() for n, b in cluster.brokers.items()}
    total = int(gigabytes * 1e9)
    peak, sent = 0.0, 0
    step = 2000
    while sent < total:
        await wire.pipelined(request, step, 96)
        sent += step * batch_bytes
        peak = max(peak, *(b.rss_anon_bytes() / 1e6 for b in cluster.brokers.values()))
    await wire.channel.close()
    await asyncio.sleep(1.0)
    written = max(b.written_bytes() - before[n] for n, b in cluster.brokers.items())
    follower = next(n for n in cluster.brokers if n != leader)
    restart = await asyncio.to_thread(_restart, cluster, follower)
    return Growth(sent, peak, written / sent, restart)


def _restart(cluster: LocalCluster, node_id: str) -> float:
    """Seconds from the start of a killed broker to its first answer with a known leader."""
    broker = cluster.brokers[node_id]
    broker.kill()
    started = time.perf_counter()
    broker.start()
    cluster.wait_serving(node_id)
    return time.perf_counter() - started
