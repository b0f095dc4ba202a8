"""The publisher process: rows of the table as orders, paced, under idempotency keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import holdfast
from holdfast.chaos.demo import flights
from holdfast.chaos.pipeline import rows

#: Rows handed over together; a restart begins with the last one that was not reported.
CHUNK = 250


async def publish(endpoints: Sequence[str], first: int, end: int, seconds: float) -> None:
    """Publish rows ``first`` up to, not including, ``end`` in about so many seconds; report each chunk."""
    departures = flights.load()[:end]
    began = time.monotonic()
    async with holdfast.connect(endpoints, delivery_timeout=60.0) as bus:
        for start in range(first, end, CHUNK):
            stop = min(start + CHUNK, end)
            await asyncio.gather(
                *[
                    bus.publish(
                        rows.ORDERS,
                        rows.order(number, departures[number].value),
                        key=departures[number].key or None,
                        idempotency_key=f"row-{number}",
                    )
                    for number in range(start, stop)
                ]
            )
            print(stop, flush=True)
            due = began + seconds * (stop - first) / max(1, end - first)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
