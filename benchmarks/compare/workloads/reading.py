"""Reading what was published: replay from the beginning, a consumer group, and a group while publishing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks.compare.payloads import first, pool
from benchmarks.compare.workloads.context import Context, Figures, calibrate

_SMALL = 100
#: The least a reader is asked for; also the step the calibration starts with.
_LEAST = 1000


async def replay(context: Context, size: int) -> Figures:
    """From the beginning of a filled topic, the fastest way: records and megabytes (10⁶) per second.

    A topic that is read before the time is over is read again from the beginning.
    """
    client, given = context.client, context.parameters

    async def read(count: int) -> None:
        records, octets = await client.replay(given.topic, count)
        if (records, octets) != (count, count * size):
            raise RuntimeError(f"replay gave {records} records, {octets} bytes; published: {count}")

    rate = await calibrate(read, _LEAST, given.records, given.seconds)
    count = _worth(rate, given.seconds, given.records)
    async with context.measured() as window:
        count = await _again_and_again(read, count, given.records, given.seconds)
    return {
        "rate": count / window.seconds,
        "megabytes": count * size / 1e6 / window.seconds,
        "records": count,
    }


async def group(context: Context) -> Figures:
    """A durable group with one member, from the beginning, every record acknowledged: records per second.

    When the topic is consumed before the time is over, another group begins.
    """
    client, given = context.client, context.parameters
    tries = 0

    async def consume(count: int) -> None:
        nonlocal tries
        tries += 1
        consumed = await client.consume(given.topic, f"group{tries}", count)
        if consumed != count:
            raise RuntimeError(f"the group consumed {consumed} records of {count}")

    rate = await calibrate(consume, _LEAST, given.records, given.seconds)
    count = _worth(rate, given.seconds, given.records)
    async with context.measured() as window:
        count = await _again_and_again(consume, count, given.records, given.seconds)
    return {"rate": count / window.seconds, "records": count}


async def mixed(context: Context) -> Figures:
    """A publisher and a group that consumes at the same time: records per second that went all the way.

    From the first publish to the last record consumed and acknowledged. 100 B, the reader on connections of
    its own.
    """
    given, records, tries = context.parameters, pool(_SMALL), 0
    most = given.most_bytes // _SMALL
    async with context.second_client() as reader:

        async def both(count: int) -> int:
            nonlocal tries
            tries += 1
            topic = f"{context.topic}{tries}"
            await context.client.create(topic)
            return await timed(topic, count)

        async def timed(topic: str, count: int) -> int:
            some, times = first(records, count)
            wanted = len(some) * times
            async with asyncio.TaskGroup() as tasks:
                consumer = tasks.create_task(reader.consume(topic, "mixed", wanted))
                tasks.create_task(context.client.publish_all(topic, some, times))
            if consumer.result() != wanted:
                raise RuntimeError(f"the group consumed {consumer.result()} records of {wanted}")
            return wanted

        rate = await calibrate(both, _LEAST, most, given.seconds)
        await context.client.create(context.topic)
        async with context.measured() as window:
            count = await timed(context.topic, _worth(rate, given.seconds, most))
    return {"rate": count / window.seconds, "records": count}


async def _again_and_again(
    once: Callable[[int], Awaitable[None]], count: int, most: int, seconds: float
) -> int:
    """``once(count)`` until half of the time has passed; how many records that made.

    What takes less time than it was thought to is done with more.
    """
    started, total = time.monotonic(), 0
    while (before := time.monotonic()) < started + seconds / 2:
        await once(count)
        total += count
        if time.monotonic() - before < seconds / 4:
            count = min(4 * count, most)
    return total


def _worth(rate: float, seconds: float, most: int) -> int:
    """As many records as ``seconds`` are worth, as far as there are so many."""
    return max(1, min(most, max(_LEAST, round(rate * seconds))))
