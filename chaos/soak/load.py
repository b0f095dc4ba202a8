"""The load: a steady stream of records, a group that acknowledges them, and comings and goings.

Modest on purpose: what is looked for grows with time, not with speed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import holdfast
from holdfast.chaos.soak.ledger import Ledger
from holdfast.errors import HoldfastError

TOPIC = "soak"
GROUP = "soakers"
PARTITIONS = 4
RECORD_BYTES = 1024
#: Each partition keeps this much, or this long: trimming is always at work.
RETENTION_BYTES = 8 << 20
RETENTION_MS = 20_000
_TICK_S = 0.05
_NUMBER_BYTES = 8
_PADDING = bytes(i * 167 & 255 for i in range(RECORD_BYTES - _NUMBER_BYTES))
_PUBLISH_TIMEOUT_S = 60.0


class Load:
    """Publishes ``records_per_s`` and consumes them; the ledger compares."""

    def __init__(self, endpoints: list[str], records_per_s: int) -> None:
        self.ledger = Ledger()
        self.published = 0
        self.unknown = 0
        self.short_lived = 0
        #: The longest time without any acknowledgement since ``begin``, and the largest of them all, seconds.
        self.longest_gap = 0.0
        self._last_ack = 0.0
        self._endpoints = endpoints
        self._per_tick = max(1, round(records_per_s * _TICK_S))
        self._waiting: set[asyncio.Future[holdfast.Ack]] = set()
        self._next = 0

    async def run(self, stop: asyncio.Event, churn_interval_s: float) -> None:
        """Until ``stop``, then until everything published has been delivered (a minute at most)."""
        async with holdfast.connect(self._endpoints, delivery_timeout=_PUBLISH_TIMEOUT_S) as bus:
            await bus.create_topic(
                TOPIC, partitions=PARTITIONS, retention_bytes=RETENTION_BYTES, retention_ms=RETENTION_MS
            )
            members = [asyncio.create_task(self._consume(bus)) for _ in range(2)]
            others = asyncio.create_task(self._come_and_go(stop, churn_interval_s))
            try:
                await self._publish(bus, stop, members)
                await others
                await self._settle(members)
            finally:
                for task in (*members, others):
                    task.cancel()
                await asyncio.gather(*members, others, return_exceptions=True)

    def offer(self, bus: holdfast.Client) -> None:
        """Hand one numbered record over."""
        number, self._next = self._next, self._next + 1
        future = bus.publish(
            TOPIC, number.to_bytes(_NUMBER_BYTES, "big") + _PADDING, timeout=_PUBLISH_TIMEOUT_S
        )
        self._waiting.add(future)
        future.add_done_callback(self._ended(number))

    def _ended(self, number: int) -> Callable[[asyncio.Future[holdfast.Ack]], None]:
        def ended(future: asyncio.Future[holdfast.Ack]) -> None:
            self._waiting.discard(future)
            if future.cancelled() or future.exception() is not None:
                self.unknown += 1
                self.ledger.note_unknown(number)
                return
            ack = future.result()
            now = time.monotonic()
            if self._last_ack:
                self.longest_gap = max(self.longest_gap, now - self._last_ack)
            self._last_ack = now
            self.published += 1
            self.ledger.note_ack(number, ack.partition, ack.offset)

        return ended

    async def _publish(
        self, bus: holdfast.Client, stop: asyncio.Event, members: list[asyncio.Task[None]]
    ) -> None:
        due = time.monotonic()
        while not stop.is_set():
            for task in members:
                if task.done():
                    task.result()  # a consumer that failed ends the run, with its reason
            for _ in range(self._per_tick):
                self.offer(bus)
            await bus.drain()
            # Late ticks are not made up for in a burst: the rate stays modest after a pause.
            due = max(due + _TICK_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
        if self._waiting:
            await asyncio.wait(set(self._waiting))

    async def _consume(self, bus: holdfast.Client) -> None:
        async with bus.subscribe(TOPIC, GROUP, max_in_flight=4000) as subscription:
            async for record in subscription:
                number = int.from_bytes(record.value[:_NUMBER_BYTES], "big")
                self.ledger.note_delivery(number, record.partition, record.offset)
                record.ack()

    async def _come_and_go(self, stop: asyncio.Event, interval_s: float) -> None:
        """Clients, topics and members that exist for a moment: what they leave behind must go."""
        while not stop.is_set():
            try:
                async with asyncio.timeout(_PUBLISH_TIMEOUT_S):
                    await self._one_visit()
            except (HoldfastError, TimeoutError):
                continue  # a broker is away; whether records survive is the ledger's question
            try:
                await asyncio.wait_for(stop.wait(), interval_s)
            except TimeoutError:
                continue

    async def _one_visit(self) -> None:
        async with holdfast.connect(self._endpoints, delivery_timeout=_PUBLISH_TIMEOUT_S) as bus:
            for _ in range(8):
                self.offer(bus)
            await bus.flush()
            name = f"visit-{self.short_lived}"
            self.short_lived += 1
            await bus.create_topic(name, partitions=2, if_not_exists=True)
            await asyncio.gather(*[bus.publish(name, _PADDING, key=str(i)) for i in range(20)])
            # Always one group: groups are kept until they can be deleted.
            async with bus.subscribe(name, "visitors") as subscription:
                left = 20
                async for record in subscription:
                    record.ack()
                    left -= 1
                    if not left:
                        break
            await bus.delete_topic(name)

    async def _settle(self, members: list[asyncio.Task[None]], timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while self.ledger.lost and time.monotonic() < deadline:
            for task in members:
                if task.done():
                    task.result()
            await asyncio.sleep(0.1)
        # A duplicate would come behind the records that were waited for.
        await asyncio.sleep(0.5)
