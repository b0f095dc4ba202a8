"""Clients that consume as members of a group."""

from __future__ import annotations

import asyncio

from holdfast.chaos.checker.history import Acked, Assigned, Committed, Delivered, History
from holdfast.chaos.sim.actor import Actor
from holdfast.chaos.sim.services import Front
from holdfast.client import events
from holdfast.client.consumer import Subscription
from holdfast.client.types import Record
from holdfast.errors import HoldfastError


class Consumer(Actor):
    """Takes records, acknowledges them at once, late, out of order or never; leaves, dies, comes back."""

    lifetime = (3.0, 12.0)

    def __init__(self, front: Front, history: History, name: str, group: str, topics: list[str]) -> None:
        super().__init__(front, history, name)
        self.group = group
        self.topics = topics
        self._session = ""
        self._streams = 0
        self._mine: set[tuple[str, int]] = set()
        self._subscription: Subscription | None = None
        self._late: list[Record] = []
        self._closing: asyncio.Task[None] | None = None
        #: It stays, and acknowledges all it is given at once.
        self.settling = False

    def settle(self) -> None:
        """From now on it stays to the end, and keeps nothing back."""
        self.settling = True
        self.mortal = False
        if self._process is not None and self.state == "up":
            self._process.loop.call_soon(self._catch_up_now, self.life)

    def _catch_up_now(self, life: int) -> None:
        if life == self.life and self._subscription is not None and self._closing is None:
            self._catch_up(self._subscription)

    def leave(self) -> None:
        if self._subscription is not None and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(self._subscription))

    async def _close(self, subscription: Subscription) -> None:
        self._acknowledge(subscription, self._late)
        self._late = []
        try:
            await subscription.close()
        except HoldfastError:
            return  # not durable in time: its records come again

    async def live(self) -> None:
        rng = self.rng
        self._streams = 0
        self._subscription = None
        self._closing = None
        self._late = []
        self._mine = set()
        self._next_session()
        async with self.client() as bus:
            subscription = bus.subscribe(
                self.topics,
                self.group,
                max_in_flight=rng.choice([3, 20, 1000]),
                on_event=self._on_event,
                give_up_after=None,
            )
            self._subscription = subscription
            diligence = rng.choice([0.5, 0.9, 1.0])
            while taken := await subscription.take(rng.choice([1, 10, 100])):
                for record in taken:
                    self._delivered(record)
                self._handle(subscription, taken, diligence)
                if self.stopping:
                    self.leave()
            if self._closing is not None:
                await self._closing

    def _handle(self, subscription: Subscription, taken: list[Record], diligence: float) -> None:
        rng = self.rng
        if rng.random() < 0.2:
            taken = rng.sample(taken, len(taken))
        if self.settling:
            diligence = 1.0
        now = [record for record in taken if rng.random() < diligence]
        self._acknowledge(subscription, now)
        kept = set(map(id, now))
        self._late += [record for record in taken if id(record) not in kept]
        if self._late:
            # Later, so that credit does not run out: a member that acknowledges nothing is given nothing.
            asyncio.get_running_loop().call_later(0.05 + rng.random(), self._catch_up, subscription)

    def _catch_up(self, subscription: Subscription) -> None:
        late, self._late = self._late, []
        self._acknowledge(subscription, late)

    def _acknowledge(self, subscription: Subscription, records: list[Record]) -> None:
        for record in records:
            if (record.topic, record.partition) not in self._mine:
                continue
            self.history.add(
                Acked(
                    client=self.name,
                    group=self.group,
                    session=self._session,
                    topic=record.topic,
                    partition=record.partition,
                    first=record.offset,
                    last=record.offset,
                    at=self.now,
                )
            )
            subscription.ack(record)

    def _delivered(self, record: Record) -> None:
        self.history.add(
            Delivered(
                client=self.name,
                group=self.group,
                session=self._session,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                value=record.value.decode(),
                at=self.now,
            )
        )

    def _next_session(self) -> None:
        self._streams += 1
        self._session = f"{self.name}.{self.life}.{self._streams}"

    def _on_event(self, event: events.SubscriptionEvent) -> None:
        if isinstance(event, events.Assigned):
            self._mine = set(event.partitions)
            for (topic, partition), start in event.partitions.items():
                self.history.add(
                    Assigned(
                        client=self.name,
                        group=self.group,
                        session=self._session,
                        generation=event.generation,
                        topic=topic,
                        partition=partition,
                        start_offset=start,
                        at=self.now,
                        initial="earliest",
                    )
                )
        elif isinstance(event, events.Committed):
            for (topic, partition), offset in event.offsets.items():
                self.history.add(Committed(self.group, topic, partition, offset, self.now, self._session))
        elif isinstance(event, events.Disconnected):
            self._next_session()
