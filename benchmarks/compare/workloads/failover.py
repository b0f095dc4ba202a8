"""Kill -9 of the topic's leader to the first new acknowledgement, as a publishing client sees it."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

from benchmarks.compare.payloads import payloads
from benchmarks.compare.workloads.context import Context, Figures, percentile

#: Acknowledgements before each kill: the system is at work, not idle.
_BEFORE = 30
#: After a restart, for what the nodes still tell each other.
_SETTLE_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0


async def failover(context: Context) -> Figures:
    """Milliseconds without an acknowledgement after ``kill -9``, each kill after the last node's return.

    One publisher, one record after another, all the time. See ``outage``. Ends early, with a note, when a
    node does not come back or nothing is acknowledged any more; the silence that was given up counts as far
    as it was waited for.
    """
    client, topic = context.client, context.topic
    await client.create(topic)
    payload = payloads(100, 1)[0]
    outages: list[float] = []
    for _ in range(context.parameters.times):
        await asyncio.sleep(_SETTLE_SECONDS)
        seconds = await _one(context, topic, payload)
        if seconds is None:
            break
        outages.append(seconds * 1e3)
        if context.note or "ended" in await context.channel.ask(event="restart"):
            break
    if not outages:
        raise RuntimeError(context.note or "there was no leader to kill")
    return {"p50": percentile(outages, 50), "worst": max(outages), "samples": outages}


async def _one(context: Context, topic: str, payload: bytes) -> float | None:
    """Seconds; None without a kill."""
    patience = f"{_PATIENCE_SECONDS:.0f} s"
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            for _ in range(_BEFORE):
                await context.client.publish_through_failure(topic, payload)
    except TimeoutError:
        context.note = f"fewer kills: nothing was acknowledged for {patience} after a node's return"
        return None
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await _until_acknowledged(context, topic, payload)
    except TimeoutError:
        context.note = f"fewer kills: no new acknowledgement within {patience}, which count as the outage"
        return _PATIENCE_SECONDS


async def _until_acknowledged(context: Context, topic: str, payload: bytes) -> float | None:
    kill = asyncio.create_task(context.channel.ask(event="kill", topic=topic))
    acknowledged = [time.monotonic()]
    while True:
        began = time.monotonic()
        await context.client.publish_through_failure(topic, payload)
        acknowledged.append(time.monotonic())
        if kill.done() and "ended" in kill.result():
            return None
        if kill.done() and began > kill.result()["gone"]:
            return outage(acknowledged, kill.result()["began"])
        await asyncio.sleep(0)


def outage(acknowledged: list[float], killed: float) -> float:
    """The longest time without an acknowledgement from ``killed`` on, in seconds.

    ``killed`` is when the kill began. A node of several processes takes some milliseconds to die; what it
    still acknowledges meanwhile is not new, so the time counts from the last such acknowledgement.
    """
    return max(
        (after - max(before, killed) for before, after in pairwise(acknowledged) if after > killed),
        default=0.0,
    )
