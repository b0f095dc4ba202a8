"""Publishing as fast as the SDK does, for a short while, every acknowledgement looked at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import holdfast
from benchmarks.growth.offsets import Offsets

#: Calls of publish_many under way at a time: one is being acknowledged while the next is encoded.
_CALLS = 3
_TIMEOUT = 60.0
#: How long a broker may take to tell what it acknowledged; the one that is asked need not lead.
_TOLD_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Burst:
    records: int
    payload_bytes: int
    acks: int
    seconds: float

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds

    @property
    def megabytes(self) -> float:
        """MB of payload a second."""
        return self.payload_bytes / self.seconds / 1e6

    @property
    def per_ack(self) -> float:
        """Mean number of records acknowledged together: those of one call in one batch."""
        return self.records / self.acks


class Load:
    """The only publisher of a topic: each call hands in the same values."""

    def __init__(
        self,
        bus: holdfast.Client,
        topic: str,
        partitions: int,
        values: list[bytes],
        keys: Sequence[bytes] | None = None,
    ) -> None:
        self._bus = bus
        self._topic = topic
        self._partitions = partitions
        self._values = values
        self._keys = keys
        self.call_bytes = sum(map(len, values))
        self.offsets = Offsets(partitions)

    @property
    def payload_bytes(self) -> int:
        """Published so far."""
        return self.offsets.records * self.call_bytes // len(self._values)

    async def create(self) -> None:
        await self._bus.create_topic(self._topic, partitions=self._partitions, timeout=_TIMEOUT)

    def calls(self, payload_bytes: float) -> int:
        """How many calls make about so much; at least one."""
        return max(1, round(payload_bytes / self.call_bytes))

    async def burst(self, calls: int) -> Burst:
        """Publish ``calls`` times, then look at what was acknowledged; the looking is not timed.

        Raises:
            RuntimeError: the acknowledgements do not fit what was published.
            HoldfastError: a record was not acknowledged.
        """
        room = asyncio.Semaphore(_CALLS)

        async def one() -> holdfast.PublishSummary:
            async with room:
                return await self._bus.publish_many(self._topic, self._values, self._keys, timeout=_TIMEOUT)

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one()) for _ in range(calls)]
        seconds = time.perf_counter() - started
        acks = [ack for task in tasks for ack in task.result().acks]
        self.offsets.take(acks, calls * len(self._values))
        await self._told()
        return Burst(calls * len(self._values), calls * self.call_bytes, len(acks), seconds)

    async def _told(self) -> None:
        """Raises RuntimeError when a broker tells other ends than were acknowledged, and goes on so."""
        deadline = time.monotonic() + _TOLD_SECONDS
        while True:
            info = await self._bus.topic(self._topic)
            wrong = self.offsets.differing({one.partition: one.end_offset for one in info.partition_info})
            if not wrong:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._topic}: {wrong}")
            await asyncio.sleep(0.02)
