"""Our workloads, through the SDK as the comparison drives it, the client in a process of its own."""

from __future__ import annotations

import asyncio
import functools
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypedDict

import uvloop

from benchmarks.compare.payloads import pool
from benchmarks.peers.holdfast import Client

_TOPIC = "limits"
#: The most that a pass publishes, so that a fast machine does not fill its disk.
_MOST_BYTES = 400_000_000

_pool = functools.cache(pool)


class Done(TypedDict):
    """What was done in the measured part; latencies are 0 where records were not looked at one by one."""

    records: int
    seconds: float
    p50_ms: float
    p99_ms: float


Work = Callable[[Client, float], Awaitable[Done]]


def _done(records: int, seconds: float, latencies: list[float] | None = None) -> Done:
    ordered = sorted(latencies or [0.0])
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return Done(records=records, seconds=seconds, p50_ms=statistics.median(ordered) * 1e3, p99_ms=p99 * 1e3)


async def sequential(client: Client, seconds: float) -> Done:
    payload = _pool(100)[0]
    took = []
    began = now = time.perf_counter()
    while now - began < seconds:
        await client.publish(_TOPIC, payload)
        after = time.perf_counter()
        took.append(after - now)
        now = after
    return _done(len(took), now - began, took)


def pipelined(size: int) -> Work:
    """As many records of ``size`` bytes as go, batched by the SDK."""

    async def work(client: Client, seconds: float) -> Done:
        payloads = _pool(size)
        began = time.perf_counter()
        await client.publish_all(_TOPIC, payloads, 3)
        times = max(3, round(3 * seconds / (time.perf_counter() - began)))
        times = min(times, _MOST_BYTES // (len(payloads) * size))
        began = time.perf_counter()
        await client.publish_all(_TOPIC, payloads, times)
        return _done(len(payloads) * times, time.perf_counter() - began)

    return work


async def replay(client: Client, seconds: float) -> Done:
    """The whole topic, over and over."""
    count, records = _FILL[0], 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        got, _ = await client.replay(_TOPIC, count)
        records += got
    return _done(records, time.perf_counter() - began)


async def delivery(client: Client, seconds: float) -> Done:
    """From the call of publish() to the consumer, at half the rate that 16 publishers reach one by one."""
    rate = await _rate(client, 16, min(1.0, seconds / 3)) / 2
    reader = Client(client.addresses)
    await reader.connect()
    took: list[float] = []

    async def read() -> None:
        async for payloads in reader.deliveries(_TOPIC):
            now = time.perf_counter_ns()
            took.extend((now - int.from_bytes(payload[:8])) / 1e9 for payload in payloads)

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.5)
    began, sent = time.perf_counter(), 0
    under_way: set[asyncio.Task[None]] = set()
    while (spent := time.perf_counter() - began) < seconds:
        while sent < spent * rate:
            payload = time.perf_counter_ns().to_bytes(8) + bytes(92)
            task = asyncio.create_task(client.publish(_TOPIC, payload))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            sent += 1
        await asyncio.sleep(0.001)
    await asyncio.gather(*under_way)
    deadline = time.perf_counter() + 5
    while len(took) < sent and time.perf_counter() < deadline:
        await asyncio.sleep(0.01)
    reading.cancel()
    await reader.close()
    if len(took) < sent:
        raise RuntimeError(f"{len(took)} of {sent} records were delivered")
    return _done(sent, spent, took)


async def _rate(client: Client, publishers: int, seconds: float) -> float:
    """Records per second of so many publishers that each await every acknowledgement."""
    payload = bytes(100)
    count = 0
    until = time.perf_counter() + seconds

    async def one() -> None:
        nonlocal count
        while time.perf_counter() < until:
            await client.publish(_TOPIC, payload)
            count += 1

    await asyncio.gather(*[one() for _ in range(publishers)])
    return count / seconds


WORK: dict[str, Work] = {
    "sequential": sequential,
    "pipelined-100": pipelined(100),
    "pipelined-1k": pipelined(1024),
    "pipelined-10k": pipelined(10240),
    "replay-100": replay,
    "replay-1k": replay,
    "delivery": delivery,
}
#: Bytes of a record.
SIZES = {"pipelined-1k": 1024, "pipelined-10k": 10240, "replay-1k": 1024}
#: How many records a replay reads.
_FILL = [0]


async def _run(addresses: list[str], workload: str, seconds: float, passes: int) -> None:
    client = Client(addresses)
    await client.connect()
    loop = asyncio.get_running_loop()
    try:
        await client.create(_TOPIC)
        if workload.startswith("replay"):
            payloads = _pool(SIZES.get(workload, 100))
            times = 20 if workload == "replay-100" else 30
            await client.publish_all(_TOPIC, payloads, times)
            _FILL[0] = len(payloads) * times
        work = WORK[workload]
        await work(client, min(1.0, seconds / 2))
        for _ in range(passes):
            print(json.dumps({"prepared": True}), flush=True)
            await loop.run_in_executor(None, sys.stdin.readline)
            print(json.dumps(await work(client, seconds)), flush=True)
    finally:
        await client.close()


def run(addresses: list[str], workload: str, seconds: float, passes: int) -> dict[str, float]:
    """Says ``prepared`` before each pass, waits for a line, and says what was done."""
    uvloop.run(_run(addresses, workload, seconds, passes))
    return {}
