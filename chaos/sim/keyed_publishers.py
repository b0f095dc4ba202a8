"""Clients that publish with idempotency keys: new ones, their own again, and each other's."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from functools import partial

from holdfast.chaos.checker.history import History, Keyed, Outcome, TopicChange
from holdfast.chaos.sim.actor import Actor
from holdfast.chaos.sim.publishers import outcome_of
from holdfast.chaos.sim.services import Front
from holdfast.client.client import Client
from holdfast.client.failures import is_uncertain
from holdfast.client.options import ClientOptions
from holdfast.client.types import Ack
from holdfast.errors import HoldfastError

_TOPIC = "keyed"
_PARTITIONS = 2
#: Records without an answer, beyond which a publisher waits.
_MAX_OPEN = 60
#: How many keys are remembered for being used again, by all.
_RECENT = 30
_REPEATED = 0.5


class KeyedTopic:
    """The topic these clients share, and the keys they have used of late.

    Attributes:
        window_ms: for how long the topic knows a key. Short ones are over within a run, and before a
            client has given up.
    """

    def __init__(self, rng: random.Random) -> None:
        self.window_ms = rng.choice((1_000, 2_000, 4_000, 60_000))
        self.recent: deque[str] = deque(maxlen=_RECENT)


class KeyedPublisher(Actor):
    """Bursts of records, some of whose keys have been used before, also within the burst."""

    lifetime = (4.0, 20.0)

    def __init__(self, front: Front, history: History, name: str, topic: KeyedTopic) -> None:
        super().__init__(front, history, name)
        self._topic = topic
        self._count = 0
        self._open = 0
        self._leaving = False

    def options(self) -> ClientOptions:
        rng = self.rng
        return ClientOptions(
            trace_context=False,
            batch_bytes=rng.choice([200, 1000, 256 << 10]),
            delivery_timeout=rng.choice([2.0, 6.0, 12.0]),
            connect_timeout=5.0,
            timeout=5.0,
        )

    def leave(self) -> None:
        self._leaving = True

    async def live(self) -> None:
        rng = self.rng
        self._open = 0
        self._leaving = False
        async with self.client() as bus:
            while not (self.stopping or self._leaving) and not await self._create(bus):
                await self.pause(0.1, 0.5)
            while not (self.stopping or self._leaving):
                if self._open < _MAX_OPEN:
                    for _ in range(rng.randrange(1, 8)):
                        self._publish(bus)
                await self.pause(0.05, 0.8)

    async def _create(self, bus: Client) -> bool:
        """True when the topic is there."""
        note = TopicChange(self.name, "create", _TOPIC, _PARTITIONS, self.now, keeps_all=True)
        self.history.add(note)
        try:
            await bus.create_topic(
                _TOPIC,
                partitions=_PARTITIONS,
                idempotency_ttl_ms=self._topic.window_ms,
                if_not_exists=True,
            )
        except HoldfastError as error:
            note.outcome = Outcome.UNKNOWN if is_uncertain(error) or error.retriable else Outcome.FAIL
            note.error = f"{type(error).__name__}: {error}"[:200]
        else:
            note.outcome = Outcome.OK
        note.ended = self.now
        return note.outcome is Outcome.OK

    def _key(self) -> str:
        recent = self._topic.recent
        if recent and self.rng.random() < _REPEATED:
            return self.rng.choice(recent)
        key = f"{self.name}/{self._count}"
        recent.append(key)
        return key

    def _publish(self, bus: Client) -> None:
        rng = self.rng
        self._count += 1
        note = Keyed(
            client=self.name,
            topic=_TOPIC,
            idempotency_key=self._key(),
            value=f"{self.name}-{self._count}",
            window=self._topic.window_ms / 1000,
            started=self.now,
        )
        self.history.add(note)
        try:
            future = bus.publish(
                _TOPIC,
                note.value.encode(),
                key=f"k{rng.randrange(4)}" if rng.random() < 0.7 else None,
                timeout=rng.choice([None, None, None, 0.5, 3.0]),
                idempotency_key=note.idempotency_key,
            )
        except HoldfastError as error:
            self._end(note, error)
            return
        self._open += 1
        future.add_done_callback(partial(self._done, note))

    def _done(self, note: Keyed, future: asyncio.Future[Ack]) -> None:
        self._open -= 1
        if future.cancelled():
            self._end(note, None)
            return
        error = future.exception()
        if error is not None:
            self._end(note, error)
            return
        ack = future.result()
        note.ended = self.now
        note.outcome = Outcome.OK
        note.partition, note.offset, note.duplicate = ack.partition, ack.offset, ack.duplicate

    def _end(self, note: Keyed, error: BaseException | None) -> None:
        note.ended = self.now
        note.outcome = Outcome.UNKNOWN if error is None else outcome_of(error)
        note.error = "cancelled" if error is None else f"{type(error).__name__}: {error}"[:200]
