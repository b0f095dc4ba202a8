"""Publishers of a drill."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import holdfast
from holdfast.chaos.checker.history import Outcome, Publish
from holdfast.errors import CorruptBatchError, DeadlineExceededError, HoldfastError, InvalidArgumentError

if TYPE_CHECKING:
    from holdfast.chaos.drills.load import Load

#: Records under way, at most: a publisher is bounded as users' programs are.
_WINDOW = 5000
_KEYS = 7


class Publisher:
    """An idempotent producer that publishes at a steady rate, whatever becomes of it.

    Attributes:
        ends: the highest acknowledged offset + 1 by partition.
    """

    def __init__(
        self,
        name: str,
        bus: holdfast.Client,
        load: Load,
        *,
        rate: float,
        burst: int,
        patience: float | None,
        value_bytes: int,
    ) -> None:
        self.name = name
        self.ends: dict[int, int] = {}
        self._bus = bus
        self._load = load
        self._pause = burst / rate
        self._burst = burst
        self._patience = patience
        self._value_bytes = value_bytes
        self._sequence = 0
        self._open: set[asyncio.Future[holdfast.Ack]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self, timeout: float) -> None:
        """Hand over nothing more, and wait for the answers, at most ``timeout`` seconds."""
        await self._end()
        if self._open:
            await asyncio.wait(set(self._open), timeout=timeout)
        if self._patience is not None:
            # Whoever stopped waiting has not stopped the delivery: the log must come to rest.
            try:
                async with asyncio.timeout(timeout):
                    await self._bus.flush()
            except (TimeoutError, HoldfastError):
                return

    async def abandon(self) -> None:
        await self._end()

    async def _end(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            # A late loop does not catch up by a flood.
            due = max(due + self._pause, loop.time())
            await asyncio.sleep(due - loop.time())
            if len(self._open) + self._burst <= _WINDOW:
                for _ in range(self._burst):
                    self.publish()

    def publish(self) -> Publish:
        """Hand over one record; the operation is completed when its answer comes."""
        load, number = self._load, self._sequence
        self._sequence += 1
        value = f"{self.name}:{number}:".ljust(self._value_bytes, "x")
        operation = Publish(
            client=self.name,
            producer=self.name,
            sequence=number,
            topic=load.plan.topic,
            value=value,
            started=load.now(),
            key=f"{self.name}-{number % _KEYS}" if number % 2 else None,
        )
        load.history.add(operation)
        try:
            future = self._bus.publish(
                operation.topic, value.encode(), key=operation.key, timeout=self._patience
            )
        except HoldfastError as error:
            self._failed(operation, error)
            return operation
        self._open.add(future)
        future.add_done_callback(lambda done: self._done(operation, done))
        return operation

    def _done(self, operation: Publish, future: asyncio.Future[holdfast.Ack]) -> None:
        self._open.discard(future)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            ack = future.result()
            operation.ended, operation.outcome = self._load.now(), Outcome.OK
            operation.partition, operation.offset = ack.partition, ack.offset
            self.ends[ack.partition] = max(self.ends.get(ack.partition, 0), ack.offset + 1)
            self._load.on_ack(operation.started, operation.ended)
        elif isinstance(error, HoldfastError):
            self._failed(operation, error)
        else:
            raise error

    def _failed(self, operation: Publish, error: HoldfastError) -> None:
        """What was refused for what it is has certainly not been stored, nor what never left the client."""
        certain = isinstance(error, InvalidArgumentError) and not isinstance(error, CorruptBatchError)
        certain |= isinstance(error, DeadlineExceededError) and "nothing was stored" in error.message
        operation.ended = self._load.now()
        operation.outcome = Outcome.FAIL if certain else Outcome.UNKNOWN
        operation.error = f"{error.reason}: {error}"
