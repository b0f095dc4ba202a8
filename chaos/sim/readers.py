"""Clients that replay, and one that changes topics."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.chaos.checker.history import History, Outcome, Read, TopicChange
from holdfast.chaos.sim.actor import Actor
from holdfast.chaos.sim.services import Front
from holdfast.client.client import Client
from holdfast.client.failures import is_uncertain
from holdfast.errors import HoldfastError


class Replayer(Actor):
    """Reads ranges of partitions: all, from somewhere to the end, windows; linearizable or not."""

    lifetime = (8.0, 30.0)

    def __init__(
        self, front: Front, history: History, name: str, topics: dict[str, int], every: float
    ) -> None:
        super().__init__(front, history, name)
        self._topics = topics
        self._every = every
        self._ends: dict[tuple[str, int], int] = {}
        self._reading: Read | None = None
        self._from_earliest = False
        self._leaving = False

    def leave(self) -> None:
        self._leaving = True

    def replay_began(
        self, address: str, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]
    ) -> None:
        """``Observer``: a broker says where the read starts."""
        read = self._reading
        if read is None:
            return
        if self._from_earliest:
            read.start_offset = starts[read.partition]
        read.replica = address.partition(":")[0]
        self._ends[topic, read.partition] = ends[read.partition]

    async def live(self) -> None:
        rng = self.rng
        self._leaving = False
        async with self.client(observer=self) as bus:
            while not (self.stopping or self._leaving):
                topic = rng.choice(list(self._topics))
                await self._read(bus, topic, rng.randrange(self._topics[topic]))
                await self.pause(0.5 * self._every, 1.5 * self._every)

    async def _read(self, bus: Client, topic: str, partition: int) -> None:
        rng = self.rng
        end = self._ends.get((topic, partition), 0)
        kind = rng.random()
        start: int | str = "earliest"
        stop: int | None = None
        if kind > 0.2 and end:
            # Mostly near the end: there it is that replicas may differ.
            start = max(0, end - rng.choice([0, 5, 30, 200]))
            if kind > 0.7:
                start = rng.randrange(end)
                stop = min(end, start + rng.randrange(1, 50))
        read = Read(
            client=self.name,
            topic=topic,
            partition=partition,
            from_offset=start if isinstance(start, int) else 0,
            started=self.now,
            records=[],
            to_end=stop is None,
            linearizable=rng.random() < 0.6,
        )
        self.history.add(read)
        self._reading = read
        self._from_earliest = isinstance(start, str)
        try:
            async for batch in bus.replay_batches(
                topic,
                start="earliest" if isinstance(start, str) else start,
                end=stop,
                partitions=[partition],
                linearizable=read.linearizable,
                timeout=4.0,
            ):
                read.records += zip(batch.offsets, [value.decode() for value in batch.values], strict=True)
        except HoldfastError as error:
            read.outcome = Outcome.FAIL
            read.error = f"{type(error).__name__}: {error}"[:200]
        else:
            read.outcome = Outcome.OK
        finally:
            read.ended = self.now
            self._reading = None


class Admin(Actor):
    """Creates the topics of a run, then creates, changes and deletes another one over and over.

    Args:
        topics: name -> partitions.
        trimmed: the one of them that keeps only its last bytes.
        passing: the topic that comes and goes.
    """

    def __init__(
        self, front: Front, history: History, name: str, topics: dict[str, int], trimmed: str, passing: str
    ) -> None:
        super().__init__(front, history, name)
        self._topics = topics
        self._trimmed = trimmed
        self._passing = passing
        self._made: set[str] = set()

    async def live(self) -> None:
        rng = self.rng
        async with self.client() as bus:
            for topic, partitions in self._topics.items():
                while topic not in self._made and not self.stopping:
                    kept = 1_500 if topic == self._trimmed else 0
                    await self._change(bus, "create", topic, partitions, kept)
            exists = False
            while not self.stopping:
                await self.pause(1.0, 5.0)
                if self.stopping:
                    return
                if not exists:
                    exists = await self._change(bus, "create", self._passing, rng.randrange(1, 4), 0)
                elif rng.random() < 0.5:
                    await self._change(bus, "update", self._trimmed, 0, rng.choice([500, 1_500, 5_000]))
                else:
                    exists = not await self._change(bus, "delete", self._passing, 0, 0)

    async def _change(self, bus: Client, kind: str, topic: str, partitions: int, kept: int) -> bool:
        """True when it is done."""
        note = TopicChange(
            client=self.name,
            kind=kind,
            topic=topic,
            partitions=partitions,
            started=self.now,
            keeps_all=not kept,
        )
        self.history.add(note)
        try:
            if kind == "create":
                await bus.create_topic(topic, partitions=partitions, retention_bytes=kept, if_not_exists=True)
                self._made.add(topic)
            elif kind == "update":
                await bus.update_topic(topic, retention_bytes=kept)
            else:
                await bus.delete_topic(topic)
        except HoldfastError as error:
            note.outcome = Outcome.UNKNOWN if is_uncertain(error) or error.retriable else Outcome.FAIL
            note.error = f"{type(error).__name__}: {error}"[:200]
            note.ended = self.now
            return kind == "delete" and error.reason == "UNKNOWN_TOPIC"
        note.outcome = Outcome.OK
        note.ended = self.now
        return True
