"""Group consumers of a drill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import holdfast
from holdfast.chaos.checker.history import Acked, Assigned, Committed, Delivered

if TYPE_CHECKING:
    from holdfast.chaos.drills.load import Load

#: Where a group begins: nothing may be left out, from the very first record on.
INITIAL: Final = "earliest"
_TAKE = 200


class Member:
    """A consumer of a group; what it is assigned, given and confirmed goes into the history.

    Attributes:
        committed: the durable offset by partition, as this member was last told.
        refused: acknowledgements the brokers refused, in words.
        received: records it was given.
    """

    def __init__(
        self,
        name: str,
        group: str,
        bus: holdfast.Client,
        load: Load,
        *,
        acks: bool,
        reads: Callable[[], bool],
        max_in_flight: int,
    ) -> None:
        self.name = name
        self.group = group
        self.committed: dict[int, int] = {}
        self.refused: list[str] = []
        self.received = 0
        self._bus = bus
        self._load = load
        self._acks = acks
        self._reads = reads
        self._max_in_flight = max_in_flight
        self._sessions = 0
        self._fresh = True
        self._owned: set[tuple[str, int]] = set()
        self._subscription: holdfast.Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def session(self) -> str:
        return f"{self.name}/{self._sessions}"

    def start(self) -> None:
        self._subscription = self._bus.subscribe(
            self._load.plan.topic,
            self.group,
            initial=INITIAL,
            max_in_flight=self._max_in_flight,
            name=self.name,
            give_up_after=None,
            on_event=self._on_event,
        )
        self._task = asyncio.get_running_loop().create_task(self._run(self._subscription))

    async def abandon(self) -> None:
        """Leave at once.

        Raises:
            HoldfastError: the subscription had failed.
        """
        subscription, task = self._subscription, self._task
        self._subscription = self._task = None
        if subscription is not None:
            await subscription.abandon()
        if task is not None:
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(result, Exception):
                raise result

    async def _run(self, subscription: holdfast.Subscription) -> None:
        while True:
            while not self._reads():
                await asyncio.sleep(0.05)
            records = await subscription.take(_TAKE)
            if not records:
                return
            self._note(records)
            if self._acks:
                for record in records:
                    subscription.ack(record)

    def _note(self, records: Sequence[holdfast.Record]) -> None:
        now, session, history = self._load.now(), self.session, self._load.history
        self.received += len(records)
        for record in records:
            history.add(
                Delivered(
                    client=self.name,
                    group=self.group,
                    session=session,
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    value=record.value.decode(),
                    at=now,
                )
            )
        if not self._acks:
            return
        for topic, partition, first, last in runs(records):
            history.add(
                Acked(
                    client=self.name,
                    group=self.group,
                    session=session,
                    topic=topic,
                    partition=partition,
                    first=first,
                    last=last,
                    at=now,
                )
            )

    def _on_event(self, event: holdfast.SubscriptionEvent) -> None:
        if isinstance(event, holdfast.Disconnected):
            self._fresh = True
        elif isinstance(event, holdfast.Assigned):
            self._assigned(event)
        elif isinstance(event, holdfast.Committed):
            for (topic, partition), offset in event.offsets.items():
                self.committed[partition] = offset
                self._load.history.add(
                    Committed(
                        group=self.group,
                        topic=topic,
                        partition=partition,
                        offset=offset,
                        at=self._load.now(),
                        session=self.session,
                    )
                )
        elif isinstance(event, holdfast.AckRefused):
            self.refused.append(
                f"{self.name}: {event.topic}[{event.partition}] {event.first_offset}..{event.last_offset}: "
                f"{event.error.reason}"
            )

    def _assigned(self, event: holdfast.Assigned) -> None:
        """Note what is new: partitions that stay go on where they were."""
        if self._fresh:
            self._sessions += 1
            self._owned.clear()
            self._fresh = False
        for (topic, partition), start in event.partitions.items():
            if (topic, partition) in self._owned:
                continue
            self.committed[partition] = start
            self._load.history.add(
                Assigned(
                    client=self.name,
                    group=self.group,
                    session=self.session,
                    generation=event.generation,
                    topic=topic,
                    partition=partition,
                    start_offset=start,
                    at=self._load.now(),
                    initial=INITIAL,
                )
            )
        self._owned = set(event.partitions)


def runs(records: Sequence[holdfast.Record]) -> list[tuple[str, int, int, int]]:
    """(topic, partition, first, last) of consecutive offsets, in order."""
    found: list[tuple[str, int, int, int]] = []
    for record in records:
        if found and found[-1][:2] == (record.topic, record.partition) and found[-1][3] + 1 == record.offset:
            found[-1] = (*found[-1][:3], record.offset)
        else:
            found.append((record.topic, record.partition, record.offset, record.offset))
    return found
