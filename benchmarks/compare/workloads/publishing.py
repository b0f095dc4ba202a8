"""Publishing: one after another, pipelined, by several publishers at once."""

from __future__ import annotations

import asyncio
import time

from benchmarks.compare.payloads import first, payloads, pool
from benchmarks.compare.workloads.context import Context, Figures, calibrate, percentile

#: Bytes of a payload where a workload does not say otherwise.
SMALL = 100
_WARM_UP = 50
#: A topic that is read is to hold so many bytes per second of a workload, as far as so many times its seconds
#: allow.
_FILLED_BYTES = 20_000_000
_FILL = 2.5


async def sequential(context: Context) -> Figures:
    """One publisher that awaits each acknowledgement: milliseconds of one publish of 100 B."""
    client, topic = context.client, context.topic
    await client.create(topic)
    some = payloads(SMALL, 200)
    for payload in some[:_WARM_UP]:
        await client.publish(topic, payload)
    latencies = []
    async with context.measured():
        for i in range(context.parameters.times):
            started = time.perf_counter()
            await client.publish(topic, some[i % len(some)])
            latencies.append((time.perf_counter() - started) * 1e3)
    return {"p50": percentile(latencies, 50), "p99": percentile(latencies, 99), "records": len(latencies)}


async def pipelined(context: Context, size: int, *, fill: bool = False) -> Figures:
    """``publish_all`` of records of ``size`` bytes: records and megabytes (10⁶) per second.

    With ``fill`` the topic is for those that read: a slow publisher goes on for a while after what is
    measured, so that readers have more to do than to connect. ``total`` is what the topic holds.
    """
    client, topic = context.client, context.topic
    await client.create(topic)
    records, total = pool(size), 0
    most = context.parameters.most_bytes // size

    async def burst(count: int) -> None:
        nonlocal total
        some, times = first(records, count)
        await client.publish_all(topic, some, times)
        total += len(some) * times

    rate = await calibrate(burst, 500, most, context.parameters.seconds)
    some, times = first(records, max(100, min(most, round(rate * context.parameters.seconds))))
    count = len(some) * times
    async with context.measured() as window:
        await client.publish_all(topic, some, times)
    rate, seconds = count / window.seconds, context.parameters.seconds
    if fill:
        until = time.monotonic() + _FILL * seconds
        while (total + count) * size < _FILLED_BYTES * seconds and time.monotonic() < until:
            await burst(max(100, round(rate * seconds / 10)))
    return {
        "rate": rate,
        "megabytes": rate * size / 1e6,
        "records": count,
        "total": total + count,
    }


async def concurrent(context: Context, publishers: int) -> Figures:
    """Publishers of 100 B that each await their acknowledgement before the next: records per second."""
    client, topic = context.client, context.topic
    await client.create(topic)
    some = payloads(SMALL, 200)

    async def publisher(number: int, until: float) -> int:
        acknowledged = 0
        while time.monotonic() < until:
            await client.publish(topic, some[(number + acknowledged) % len(some)])
            acknowledged += 1
        return acknowledged

    async def all_for(seconds: float) -> int:
        until = time.monotonic() + seconds
        return sum(await asyncio.gather(*[publisher(number, until) for number in range(publishers)]))

    await all_for(context.parameters.seconds / 4)
    async with context.measured() as window:
        count = await all_for(context.parameters.seconds * 0.75)
    return {"rate": count / window.seconds, "records": count}
