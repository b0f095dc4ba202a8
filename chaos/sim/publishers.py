"""Clients that publish."""

from __future__ import annotations

import asyncio
from functools import partial

from holdfast.chaos.checker.history import History, Outcome, Publish
from holdfast.chaos.sim.actor import Actor
from holdfast.chaos.sim.services import Front
from holdfast.client.client import Client
from holdfast.client.options import ClientOptions
from holdfast.client.types import Ack
from holdfast.errors import DeadlineExceededError, HoldfastError, InvalidArgumentError, OverloadedError

#: Records without an answer, beyond which a publisher waits.
_MAX_OPEN = 150


def outcome_of(error: BaseException) -> Outcome:
    """What a failed publish says of its record."""
    if isinstance(error, OverloadedError | InvalidArgumentError):
        return Outcome.FAIL  # it was never taken
    if isinstance(error, DeadlineExceededError) and "nothing was stored" in error.message:
        return Outcome.FAIL
    return Outcome.UNKNOWN


class Publisher(Actor):
    """Bursts of records, one by one or many at once, with and without keys.

    Args:
        topics: name and weight.
        rate: records a second, roughly.
    """

    lifetime: tuple[float, float] | None = (4.0, 20.0)

    def __init__(
        self, front: Front, history: History, name: str, topics: dict[str, float], rate: float
    ) -> None:
        super().__init__(front, history, name)
        self._topics = topics
        self._rate = rate
        self._count = 0
        self._open = 0
        self._leaving = False

    def options(self) -> ClientOptions:
        rng = self.rng
        return ClientOptions(
            trace_context=False,
            linger_ms=rng.choice([0.0, 3.0, 20.0]),
            batch_bytes=rng.choice([64, 512, 256 << 10]),
            max_in_flight=rng.choice([1, 2, 5, 8]),
            delivery_timeout=rng.choice([2.0, 6.0, 12.0]),
            connect_timeout=5.0,
            timeout=5.0,
            compression=rng.choice(["none", "none", "none", "zstd"]),
        )

    def leave(self) -> None:
        self._leaving = True

    async def live(self) -> None:
        rng = self.rng
        self._open = 0
        self._leaving = False
        async with self.client() as bus:
            while not (self.stopping or self._leaving):
                burst = rng.randrange(1, 16)
                topic = rng.choices(list(self._topics), list(self._topics.values()))[0]
                if self._open < _MAX_OPEN:
                    if rng.random() < 0.25:
                        await self._many(bus, topic, burst)
                    else:
                        self._single(bus, topic, burst)
                await self.pause(0.2 * burst / self._rate, 1.8 * burst / self._rate)

    def _note(self, topic: str, key: str | None) -> Publish:
        self._count += 1
        note = Publish(
            client=self.name,
            producer=f"{self.name}.{self.life}",
            sequence=self._count,
            topic=topic,
            value=f"{self.name}-{self._count}",
            started=self.now,
            key=key,
        )
        self.history.add(note)
        return note

    def _single(self, bus: Client, topic: str, burst: int) -> None:
        rng = self.rng
        timeout = rng.choice([None, None, None, 0.5, 3.0])
        for _ in range(burst):
            key = f"k{rng.randrange(6)}" if rng.random() < 0.6 else None
            note = self._note(topic, key)
            try:
                future = bus.publish(topic, note.value.encode(), key=key, timeout=timeout)
            except HoldfastError as error:
                self._end(note, error)
                continue
            self._open += 1
            future.add_done_callback(partial(self._single_done, note))

    def _single_done(self, note: Publish, future: asyncio.Future[Ack]) -> None:
        self._open -= 1
        if future.cancelled():
            self._end(note, None)
            return
        error = future.exception()
        if error is not None:
            self._end(note, error)
            return
        ack = future.result()
        self._acked(note, ack.partition, ack.offset)

    async def _many(self, bus: Client, topic: str, burst: int) -> None:
        # One key for all, or none: then the batches of the answer are in the order of the values.
        key = f"k{self.rng.randrange(6)}" if self.rng.random() < 0.5 else None
        notes = [self._note(topic, key) for _ in range(burst)]
        try:
            summary = await bus.publish_many(
                topic, [note.value.encode() for note in notes], keys=None if key is None else [key] * burst
            )
        except HoldfastError as error:
            for note in notes:
                # The error is of the first batch that failed; others may have been stored.
                self._end(note, error, Outcome.UNKNOWN)
            return
        places = [(ack.partition, ack.base_offset + at) for ack in summary.acks for at in range(ack.count)]
        for note, (partition, offset) in zip(notes, places, strict=True):
            self._acked(note, partition, offset)

    def _acked(self, note: Publish, partition: int, offset: int) -> None:
        note.ended = self.now
        note.outcome = Outcome.OK
        note.partition = partition
        note.offset = offset

    def _end(self, note: Publish, error: BaseException | None, outcome: Outcome | None = None) -> None:
        note.ended = self.now
        note.outcome = outcome or (Outcome.UNKNOWN if error is None else outcome_of(error))
        note.error = "cancelled" if error is None else f"{type(error).__name__}: {error}"[:200]


class Straggler(Publisher):
    """Publishes a few records, a few milliseconds apart, whenever it is told to; then it is quiet.

    What follows has to be made durable without more to come: the last acknowledgement of
    a group may reach the leader as the one before it is committed.
    """

    lifetime = None
    #: Records of a round, and the seconds between them: about as long as a group's commit takes.
    _RECORDS = (2, 3)
    _APART = (0.004, 0.012)

    def __init__(
        self, front: Front, history: History, name: str, topics: dict[str, float], rate: float
    ) -> None:
        super().__init__(front, history, name, topics, rate)
        self.quiet = True
        self._bus: Client | None = None
        self._connected = asyncio.Event()
        self._left = asyncio.Event()

    def options(self) -> ClientOptions:
        return ClientOptions(trace_context=False, linger_ms=0.0, timeout=5.0, connect_timeout=5.0)

    def publish(self) -> None:
        """A round; ``quiet`` when all of it has been acknowledged, or has failed."""
        assert self._process is not None
        self.quiet = False
        self._process.loop.run(self._round())

    async def _round(self) -> None:
        await self._connected.wait()
        bus, (topic,) = self._bus, self._topics
        assert bus is not None
        for _ in range(self.rng.randint(*self._RECORDS)):
            self._single(bus, topic, 1)
            await self.pause(*self._APART)
        await bus.flush()
        self.quiet = True

    def leave(self) -> None:
        self._left.set()

    async def live(self) -> None:
        async with self.client() as bus:
            self._bus = bus
            self._connected.set()
            await self._left.wait()
