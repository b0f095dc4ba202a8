"""Clients that work for a defined group: handlers that take their time, fail, give up, and die."""

from __future__ import annotations

import asyncio
import random
from collections import deque

from holdfast.chaos.checker.delivery_events import GroupDefined, Spot, Verdict
from holdfast.chaos.checker.history import History, Outcome, TopicChange
from holdfast.chaos.sim.actor import Actor
from holdfast.chaos.sim.member_notes import MemberNotes
from holdfast.chaos.sim.services import Front
from holdfast.client.client import Client
from holdfast.client.events import SubscriptionEvent
from holdfast.client.failures import is_uncertain
from holdfast.client.groups import GroupDefinition, Ordering, Semantics
from holdfast.client.membership import Membership
from holdfast.client.retry import Retry
from holdfast.client.types import Record
from holdfast.errors import HoldfastError

#: What the group reads, and where its dead letters go: name -> partitions.
TOPIC, DEAD = "work", "work.dead"
TOPICS = {TOPIC: 2, DEAD: 1}
#: Seconds without a sign of life after which a member is given up: the least there may be.
_ACK_TIMEOUT = 5.0


class Work:
    """The group of a run: what its definition says, and how its handlers fare."""

    def __init__(self, rng: random.Random) -> None:
        self.group = "workers"
        self.ordering: Ordering = rng.choice(("key", "key", "none", "partition"))
        # By key there is always somebody to wait for.
        once = self.ordering != "key" and rng.random() < 0.2
        self.semantics: Semantics = "at_most_once" if once else "at_least_once"
        self.dead_letter = DEAD if not once and rng.random() < 0.6 else ""
        # Without a topic for dead letters, what is given up waits for an operator, who does not come.
        self.attempts = rng.choice((2, 3, 8)) if self.dead_letter else 0
        self.initial_ms = rng.choice((100, 500, 1_500))
        self.jitter_permille = rng.choice((0, 100, 500))
        self.max_unacked = rng.choice((3, 20, 50_000))
        self.members = rng.choice((1, 2, 2, 3))
        #: Of handlers: how many do not end with an ack.
        self.failing = rng.choice((0.0, 0.1, 0.3))
        #: The longest a handler takes; most take none.
        self.longest = rng.choice((0.1, 1.0, 5.0))

    def definition(self) -> GroupDefinition:
        """As members state it."""
        return GroupDefinition(
            topics=[TOPIC],
            ordering=self.ordering,
            semantics=self.semantics,
            retry=Retry(
                attempts=self.attempts,
                initial=self.initial_ms / 1000,
                maximum=2.0,
                multiplier=2.0,
                jitter=self.jitter_permille / 1000,
            ),
            ack_timeout=_ACK_TIMEOUT,
            dead_letter=self.dead_letter or None,
            start="earliest",
            max_unacked=self.max_unacked,
        )

    def defined(self, at: float) -> GroupDefined:
        """As the checker is told."""
        return GroupDefined(
            group=self.group,
            semantics=self.semantics,
            ordering=self.ordering,
            at=at,
            topics=[TOPIC],
            max_attempts=self.attempts,
            dead_letter=self.dead_letter,
            initial_ms=self.initial_ms,
            max_ms=2_000,
            multiplier_milli=2_000,
            jitter_permille=self.jitter_permille,
            ack_timeout_ms=round(_ACK_TIMEOUT * 1000),
            max_unacked=self.max_unacked,
        )


#: What handlers do beside acknowledging.
_FAILURES: tuple[Verdict, ...] = ("nack", "nack", "park", "reject", "release")


#: Seconds a quick handler takes.
_MOMENT = 0.002


class _Item:
    """A record that is here, and what was true as it came."""

    def __init__(self, record: Record, notes: MemberNotes, received: float) -> None:
        self.record = record
        self.notes = notes
        self.spot: Spot = (record.topic, record.partition, record.offset)
        self.session = notes.session
        self.received = received
        self.fence = notes.fence(self.spot)
        #: It was taken away.
        self.lost = False


class Worker(Actor):
    """A member of the group; stops for a while, leaves, dies without a word, and comes back."""

    lifetime = (2.0, 12.0)

    def __init__(self, front: Front, history: History, name: str, work: Work) -> None:
        super().__init__(front, history, name)
        self.work = work
        #: It comes back under the id it had.
        self._static = self.rng.random() < 0.5
        #: It stays, and its handlers take no time and do not fail.
        self.settling = False
        self._member: Membership | None = None
        self._notes: MemberNotes | None = None
        # Handlers under way, by the age of their tasks; what waits for one; and all of it, by record.
        self._running: dict[asyncio.Task[None], None] = {}
        self._lanes: dict[tuple[object, ...], deque[_Item]] = {}
        self._items: dict[Spot, _Item] = {}
        self._leaving: asyncio.Task[None] | None = None
        self._room = asyncio.Semaphore(1)

    def settle(self) -> None:
        """From now on it stays to the end, and settles all it is handed."""
        self.settling = True
        self.mortal = False

    def kill(self) -> None:
        if self._notes is not None:
            self._notes.over(known=False)
        super().kill()

    def leave(self) -> None:
        if self._member is not None and self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._leave(self._member))

    # -- a life ------------------------------------------------------------------------------

    async def live(self) -> None:
        rng, work = self.rng, self.work
        self._member = self._notes = self._leaving = None
        self._running, self._lanes, self._items = {}, {}, {}
        self._room = asyncio.Semaphore(concurrency := rng.choice((1, 4, 20)))
        async with self.client() as bus:
            while not await self._create(bus):
                if self.stopping:
                    return
                await self.pause(0.1, 0.5)
            if self.life == 1:
                self.history.add(work.defined(self.now))
            self._member = member = bus.join(
                work.group,
                work.definition(),
                max_in_flight=rng.choice((1, 5, 40)),
                concurrency=concurrency,
                member_id=self.name if self._static else f"{self.name}-{self.life}",
                static_grace=rng.choice((0.5, 3.0)) if self._static else None,
                give_up_after=None,
                on_event=self._on_event,
            )
            self._notes = notes = MemberNotes(
                self.history, self.name, self.life, member, lambda: self.now, self._lose
            )
            self._stop_sometimes()
            if self.stopping:
                self.leave()
            try:
                async for record in member:
                    self._received(_Item(record, notes, self.now))
            finally:
                notes.over(known=True)
            if self._leaving is not None:
                await self._leaving

    async def _leave(self, member: Membership) -> None:
        """In good order: handlers come to their end, what waits is given back."""
        notes = self._notes
        assert notes is not None
        member.pause()
        for waiting in self._lanes.values():
            for item in waiting:
                member.release(item.record)
            waiting.clear()
        while self._running:
            await asyncio.wait(list(self._running))
        notes.over(known=True, orderly=True)
        try:
            await member.close()
        except HoldfastError:
            return  # not durable in time: its records come again

    async def _create(self, bus: Client) -> bool:
        """True when the topics are there."""
        for topic, partitions in TOPICS.items():
            note = TopicChange(self.name, "create", topic, partitions, self.now, keeps_all=True)
            self.history.add(note)
            try:
                await bus.create_topic(topic, partitions=partitions, if_not_exists=True)
            except HoldfastError as error:
                note.outcome = Outcome.UNKNOWN if is_uncertain(error) or error.retriable else Outcome.FAIL
                note.error = f"{type(error).__name__}: {error}"[:200]
            else:
                note.outcome = Outcome.OK
            note.ended = self.now
            if note.outcome is not Outcome.OK:
                return False
        return True

    def _on_event(self, event: SubscriptionEvent) -> None:
        assert self._notes is not None
        self._notes.on_event(event)

    def _stop_sometimes(self) -> None:
        """SIGSTOP, in some lives; the longest beyond the time after which a member is given up."""
        if self.rng.random() < 0.3:
            life, length = self.life, self.rng.choice((0.2, 2.0, 6.5))
            self.world.at(self.now + 6.0 * self.rng.random(), lambda: self._freeze(life, length))

    def _freeze(self, life: int, length: float) -> None:
        process = self._process
        if life != self.life or self.state == "down" or self.settling or self.stopping or process is None:
            return
        if self._notes is not None:
            self._notes.silent(self.now + length)
        process.loop.stop_running()
        self.world.at(self.now + length, process.loop.resume)

    # -- records -----------------------------------------------------------------------------

    def _received(self, item: _Item) -> None:
        self._items[item.spot] = item
        # In a partition that is handled in order one at a time; of keys the brokers see to it.
        lane = item.spot[:2] if self.work.ordering == "partition" else item.spot
        waiting = self._lanes.get(lane)
        if waiting is not None:
            waiting.append(item)
            return
        self._lanes[lane] = waiting = deque([item])
        task = asyncio.get_running_loop().create_task(self._work_off(lane, waiting))
        self._running[task] = None
        task.add_done_callback(self._running.pop)

    async def _work_off(self, lane: tuple[object, ...], waiting: deque[_Item]) -> None:
        while waiting:
            async with self._room:
                # None, when what waited was given back.
                item = waiting.popleft() if waiting else None
                if item is not None and not item.lost:
                    await self._handle(item)
        del self._lanes[lane]

    async def _handle(self, item: _Item) -> None:
        rng, member, record = self.rng, self._member, item.record
        assert member is not None
        item.notes.handed(record, item.session, item.received, item.fence)
        # Even the quickest takes a moment: what came is known before what became of it.
        slow = not self.settling and rng.random() < 0.3
        await asyncio.sleep(self.work.longest * rng.random() ** 2 if slow else _MOMENT)
        if item.lost:
            return
        self._items.pop(item.spot, None)
        failing = 0.0 if self.settling or self.work.semantics == "at_most_once" else self.work.failing
        if rng.random() >= failing:
            item.notes.told(record, "ack")
            member.ack(record)
            return
        outcome = rng.choice(_FAILURES)
        delay = rng.choice((None, 0.0, 0.4, 2.0))
        if outcome == "reject" and not self.work.dead_letter:
            outcome = "nack"
        if outcome == "nack":
            item.notes.told(record, "nack", delay)
            member.nack(record, delay, error="drawn")
        elif outcome == "park":
            item.notes.told(record, "park", delay or 1.0)
            member.park(record, delay or 1.0)
        elif outcome == "reject":
            item.notes.told(record, "reject")
            member.reject(record, error="drawn")
        else:
            item.notes.told(record, "release")
            member.release(record)

    def _lose(self, spot: Spot) -> None:
        item = self._items.pop(spot, None)
        if item is not None:
            item.lost = True
