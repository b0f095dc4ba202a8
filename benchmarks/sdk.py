"""The SDK end to end: records of 100 B in and out."""

from __future__ import annotations

import asyncio
import random

from harness import Stopwatch

import holdfast

RECORD_BYTES = 100


def values_of(count: int) -> list[bytes]:
    """Incompressible values of 100 B."""
    source = random.Random(11)
    return [source.randbytes(RECORD_BYTES) for _ in range(count)]


async def publish_many(bus: holdfast.Client, topic: str, values: list[bytes], chunk: int = 20_000) -> float:
    """Records per second handed to the batcher in chunks, every batch awaited."""
    watch = Stopwatch()
    chunks = (values[i : i + chunk] for i in range(0, len(values), chunk))
    await asyncio.gather(*[bus.publish_many(topic, part) for part in chunks])
    return len(values) / watch.seconds


async def publish_each(bus: holdfast.Client, topic: str, values: list[bytes], window: int = 20_000) -> float:
    """Records per second when every publish() is awaited, ``window`` of them concurrently."""
    watch = Stopwatch()
    for i in range(0, len(values), window):
        await asyncio.gather(*[bus.publish(topic, value) for value in values[i : i + window]])
    return len(values) / watch.seconds


async def replay_batches(bus: holdfast.Client, topic: str, expected: int) -> float:
    """Records per second, read batch by batch with their columns decoded."""
    watch, count = Stopwatch(), 0
    async for batch in bus.replay_batches(topic):
        count += len(batch.values)
    _check(count, expected)
    return count / watch.seconds


async def replay_records(bus: holdfast.Client, topic: str, expected: int) -> float:
    """Records per second, read one by one."""
    watch, count = Stopwatch(), 0
    async for _ in bus.replay(topic):
        count += 1
    _check(count, expected)
    return count / watch.seconds


def _check(count: int, expected: int) -> None:
    if count != expected:
        raise RuntimeError(f"read {count} records where {expected} were published")
