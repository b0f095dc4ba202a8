"""Publish to delivery, in an open loop: records leave at a rate, whether earlier ones have arrived or not."""

from __future__ import annotations

import asyncio
import math
import struct
import time
from dataclasses import dataclass, field

from benchmarks.compare.payloads import payloads
from benchmarks.compare.workloads.context import Context, Figures, percentile
from benchmarks.peers.system import Client

_SMALL = 100
_STAMP = struct.Struct("<q")
#: Stamp of the records that only find out whether deliveries have begun.
_PROBE = -1
_PROBE_SECONDS = 0.05
_PATIENCE_SECONDS = 20.0
#: Timers go off up to a millisecond late; a publisher that is later is behind, and its records wait.
_TIMER_NS = 1_500_000
#: This part of a run, at its beginning, is not counted.
_WARM_UP = 0.2
#: Batches of a rate of many thousands: what comes together within 5 ms.
_TICK_SECONDS = 0.005


@dataclass(slots=True)
class Arrivals:
    """What came, and when: nanoseconds of the monotonic clock."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    stamps: list[bytes] = field(default_factory=list)
    batches: list[tuple[int, int]] = field(default_factory=list)

    async def take(self, client: Client, topic: str) -> None:
        async for some in client.deliveries(topic):
            now = time.monotonic_ns()
            self.stamps += [bytes(payload[:8]) for payload in some]
            self.batches.append((now, len(some)))
            self.started.set()

    def latencies(self) -> list[tuple[int, float]]:
        """(stamp, milliseconds) of every record but the probes, as they arrived."""
        found, stamps = [], iter(self.stamps)
        for now, count in self.batches:
            for _ in range(count):
                (stamp,) = _STAMP.unpack(next(stamps))
                if stamp != _PROBE:
                    found.append((stamp, (now - stamp) / 1e6))
        return found


async def at_rate(context: Context, *, share: float | None = None) -> Figures:
    """Milliseconds from a record's time to leave to its arrival in the reader, 100 B.

    The rate is ``Parameters.rate``, ``share`` of it if given. Up to 2,000 records/s leave one by one through
    ``publish``, more as what is due every 5 ms through ``publish_all``. The first fifth is not counted.
    ``kept`` is the part of the rate that was published; less than 1 means that the publisher was behind, and
    the latency is that of an overload.
    """
    rate = context.parameters.rate * (1.0 if share is None else share)
    arrivals = Arrivals()
    await context.client.create(context.topic)
    async with context.second_client() as reader:
        taking = asyncio.create_task(arrivals.take(reader, context.topic))
        try:
            probes = await _until_delivering(context, arrivals, taking)
            async with context.measured():
                began, sent, seconds = await _publish(context, rate)
                await _until_arrived(arrivals, sent + probes, taking)
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
    counted_from = began + int(context.parameters.seconds * _WARM_UP * 1e9)
    found = arrivals.latencies()
    if len(found) != sent:
        raise RuntimeError(f"{len(found)} records arrived, {sent} were published")
    counted = [ms for stamp, ms in found if stamp >= counted_from]
    return {
        "p50": percentile(counted, 50),
        "p99": percentile(counted, 99),
        "rate": rate,
        "kept": min(1.0, sent / seconds / rate),
        "records": sent,
    }


async def _until_delivering(context: Context, arrivals: Arrivals, taking: asyncio.Task[None]) -> int:
    """Publish probes until one has arrived; how many will have arrived in the end.

    A probe from before the reader was there may arrive or not, by the system: so the last one tells.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    probe = payloads(_SMALL - _STAMP.size, 1)[0]
    while not arrivals.started.is_set():
        _check(taking)
        if time.monotonic() > deadline:
            raise RuntimeError("nothing was delivered")
        await context.client.publish(context.topic, _STAMP.pack(_PROBE) + probe)
        await asyncio.sleep(_PROBE_SECONDS)
    await asyncio.sleep(10 * _PROBE_SECONDS)
    return len(arrivals.stamps)


async def _until_arrived(arrivals: Arrivals, count: int, taking: asyncio.Task[None]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while len(arrivals.stamps) < count:
            _check(taking)
            await asyncio.wait({taking}, timeout=0.01)


def _check(taking: asyncio.Task[None]) -> None:
    """Raises what ended the deliveries, if anything did."""
    if taking.done():
        taking.result()
        raise RuntimeError("the deliveries ended")


async def _publish(context: Context, rate: float) -> tuple[int, int, float]:
    """(when it began, in ns; records; seconds until the last one left), all acknowledged."""
    client, topic, seconds = context.client, context.topic, context.parameters.seconds
    singly = rate <= 2000
    interval = max(1 / rate, 0.001) if singly else _TICK_SECONDS
    tails = payloads(_SMALL - _STAMP.size, 5000)
    ticks, sent = math.ceil(seconds / interval), 0
    async with asyncio.TaskGroup() as tasks:
        began = time.monotonic_ns()
        for tick in range(1, ticks + 1):
            due = began + int(tick * interval * 1e9)
            if (early := due - time.monotonic_ns()) > 0:
                await asyncio.sleep(early / 1e9)
            else:
                await asyncio.sleep(0)  # behind: the loop has other work too
            now = time.monotonic_ns()
            stamp = _STAMP.pack(now if now - due <= _TIMER_NS else due)
            count = int(tick * interval * rate + 1e-6) - sent
            some = [stamp + tails[(sent + i) % len(tails)] for i in range(count)]
            sent += count
            if singly:
                for payload in some:
                    tasks.create_task(client.publish(topic, payload))
            elif some:
                tasks.create_task(client.publish_all(topic, some, 1))
        left = (time.monotonic_ns() - began) / 1e9
    return began, sent, left
