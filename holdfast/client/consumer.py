"""Consuming as a member of a group."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from types import TracebackType

from holdfast.client.acks import PartitionAcks
from holdfast.client.backoff import Backoff
from holdfast.client.connection import Connection, settle
from holdfast.client.events import AckRefused, Assigned, Committed, SubscriptionEvent
from holdfast.client.failures import from_result
from holdfast.client.group_stream import GroupStream, Stream
from holdfast.client.positions import Place, to_position
from holdfast.client.types import Batch, Record
from holdfast.errors import (
    ClosedError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    UnavailableError,
)
from holdfast.records import decode_batch
from holdfast.v1 import bus_pb2, records_pb2

logger = logging.getLogger(__name__)

#: Acknowledgements wait this long for company.
_ACK_LINGER_SECONDS = 0.002
_Key = tuple[str, int]


class _Done:
    """An awaitable that is done. One is enough for all acknowledgements."""

    def __await__(self) -> Generator[None, None, None]:
        return iter(())  # type: ignore[return-value]


NOTHING: Awaitable[None] = _Done()


class _Delivered:
    """A batch on its way to the application."""

    __slots__ = ("dropped", "key", "records")

    def __init__(self, key: _Key, batch: Batch, subscription: Subscription) -> None:
        self.key = key
        self.records: Iterator[Record] = batch.records(subscription)
        #: Not to be handed out any more: the broker delivers it again, here or elsewhere.
        self.dropped = False


class Subscription(GroupStream):
    """Records of a group's topics, as an async iterator. Made by ``Client.subscribe``.

    Delivery is at least once: after a broken connection or a change of leader
    the records not acknowledged come again. Iterate in one task, or in
    several: each record goes to one of them.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Sequence[str],
        group: str,
        *,
        max_in_flight: int,
        initial: Place,
        auto_ack: bool,
        name: str,
        give_up_after: float | None,
        timeout: float,
        on_event: Callable[[SubscriptionEvent], None] | None,
        on_end: Callable[[Subscription], None],
    ) -> None:
        if max_in_flight < 1:
            raise InvalidArgumentError(
                "max_in_flight must be at least 1", metadata={"field": "max_in_flight"}
            )
        super().__init__(connection, give_up_after=give_up_after, timeout=timeout, on_event=on_event)
        self._max_in_flight = max_in_flight
        self._auto_ack = auto_ack
        self._on_end = on_end
        self._start = bus_pb2.SubscribeStart(
            group=group,
            topics=list(topics),
            initial=to_position(initial, "initial"),
            format=bus_pb2.FORMAT_BATCHES,
            credits=max_in_flight,
            consumer_name=name,
        )
        self._partitions: dict[_Key, PartitionAcks] = {}
        self._fences: dict[_Key, int] = {}
        self._queue: deque[_Delivered] = deque()
        self._arrived = asyncio.Event()
        self._progress = asyncio.Event()
        self._credits = 0
        #: So many acknowledgements do not wait for company: the broker could run out of credit.
        self._enough = max_in_flight // 4
        self._dirty = False
        self._flush_now = asyncio.Event()
        #: The next assignment is the first one of its stream.
        self._fresh = True
        self._runner = self._begin()

    # -- the application's side --------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Record]:
        return self._records()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def assignment(self) -> frozenset[tuple[str, int]]:
        """The (topic, partition) pairs this consumer has at the moment."""
        return frozenset(self._partitions)

    async def _records(self) -> AsyncIterator[Record]:
        queue, auto_ack = self._queue, self._auto_ack
        while True:
            while queue:
                # It stays in front until it is used up: who breaks off here goes on there.
                delivered = queue[0]
                for record in delivered.records:
                    if delivered.dropped:
                        break
                    yield record
                    if auto_ack:
                        self.ack(record)
                if queue and queue[0] is delivered:
                    queue.popleft()
            if self._failure is not None:
                raise self._failure
            if self._closing:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def take(self, limit: int) -> list[Record]:
        """The next records, at least one and at most ``limit``; none when the subscription is closed.

        Raises:
            HoldfastError: the subscription failed.
        """
        queue = self._queue
        while True:
            taken: list[Record] = []
            while queue and len(taken) < limit:
                taken += islice(queue[0].records, limit - len(taken))
                if len(taken) < limit:
                    queue.popleft()
            if taken:
                return taken
            if self._failure is not None:
                raise self._failure
            if self._closing:
                return []
            self._arrived.clear()
            await self._arrived.wait()

    def ack(self, record: Record) -> Awaitable[None]:
        """Acknowledge a record, in any order.

        Takes effect at once, awaited or not, and is sent with others a few
        milliseconds later; ``committed()`` tells when it is durable. The
        group's offset is the end of the gap-free acknowledged prefix.
        """
        partition = self._partitions.get((record.topic, record.partition))
        if partition is not None and partition.ack(record.offset):
            self._credits += 1
            if not self._dirty:
                self._dirty = True
                self._loop.call_later(_ACK_LINGER_SECONDS, self._flush_now.set)
            elif self._credits == self._enough:
                self._flush_now.set()
        return NOTHING

    @property
    def group(self) -> str:
        """The group's name."""
        return self._start.group

    def fence(self, topic: str, partition: int) -> int:
        """The generation since which this member owns the partition; 0: not known."""
        return self._fences.get((topic, partition), 0)

    def consumed(self, records: Iterable[Record]) -> None:
        """A transaction has settled these records: the broker need not hold them any more."""
        for record in records:
            self.ack(record)

    async def committed(self, timeout: float | None = None) -> dict[tuple[str, int], int]:
        """Wait until the acknowledgements so far are durable on a majority.

        Those behind a record that is not acknowledged yet cannot be.

        Returns:
            The group's durable offset by (topic, partition).

        Raises:
            DeadlineExceededError: not within ``timeout`` seconds.
            HoldfastError: the subscription failed.
        """
        goals = {key: partition.goal() for key, partition in self._partitions.items()}
        self._flush_now.set()
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout):
                while not self._reached(goals):
                    if self._failure is not None:
                        raise self._failure
                    if self._closing:
                        raise ClosedError("the subscription has been closed")
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            raise DeadlineExceededError("acknowledgements did not become durable in time") from None
        return {key: partition.committed for key, partition in self._partitions.items()}

    def _reached(self, goals: dict[_Key, int]) -> bool:
        """Partitions that went to another member are no longer ours to wait for."""
        partitions = self._partitions
        return all(key not in partitions or partitions[key].committed >= goal for key, goal in goals.items())

    async def close(self) -> None:
        """Make the acknowledgements durable, then leave the group.

        Raises:
            DeadlineExceededError: they did not become durable in time; their records will come again.
        """
        if self._closing:
            return
        try:
            if self._failure is None and self._partitions:
                await self.committed()
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Leave at once: acknowledgements not sent yet are lost, their records will come again."""
        self._closing = True
        self._drop(lambda _: True)
        self._wake()
        self._on_end(self)
        self._runner.cancel()
        await settle([self._runner])

    # -- the connection -------------------------------------------------------------

    def _wake(self) -> None:
        self._arrived.set()
        self._progress.set()

    async def _write(self, call: Stream) -> None:
        await call.write(bus_pb2.SubscribeRequest(start=self._start))
        while True:
            await self._flush_now.wait()
            self._flush_now.clear()
            self._dirty = False
            ranges: list[bus_pb2.AckRange] = []
            for (topic, number), partition in self._partitions.items():
                ranges += [
                    bus_pb2.AckRange(topic=topic, partition=number, first_offset=first, last_offset=last)
                    for first, last in partition.pending
                ]
                partition.pending.clear()
            granted, self._credits = self._credits, 0
            if ranges:
                await call.write(bus_pb2.SubscribeRequest(ack=bus_pb2.Ack(ranges=ranges)))
            if granted:
                await call.write(bus_pb2.SubscribeRequest(credit=bus_pb2.Credit(records=granted)))

    async def _read(self, call: Stream, backoff: Backoff) -> None:
        while True:
            response = await call.read()
            if not isinstance(response, bus_pb2.SubscribeResponse):
                raise UnavailableError("the broker ended the subscription")
            self._heard = self._loop.time()
            kind = response.WhichOneof("kind")
            if kind == "delivery":
                for stored in response.delivery.batches:
                    self._take(stored)
            elif kind == "assignment":
                self._connected(call, backoff)
                self._assign(response.assignment)
            elif kind == "committed":
                self._commit(response.committed)
            elif kind == "ack_refused":
                self._refused(response.ack_refused)

    def _disconnected(self) -> None:
        """What was not acknowledged comes again: forget what waits here."""
        self._fresh = True
        self._drop(lambda _: True)
        for partition in self._partitions.values():
            partition.restart(partition.committed)
        self._credits = 0

    def _take(self, stored: records_pb2.StoredBatch) -> None:
        key = (stored.topic, stored.partition)
        partition = self._partitions.get(key)
        first, last, base = stored.first_offset, stored.last_offset, stored.base_offset
        if partition is None:
            return  # taken away meanwhile
        columns = decode_batch(stored.batch)
        if not base <= first <= last < base + columns.count:
            raise InternalError(
                f"delivery of offsets {first}..{last} of a batch at {base} of {columns.count}"
            )
        known = partition.deliver(first, last)
        pick: range | list[int] = range(first - base, last - base + 1)
        if known:
            skipped = {offset - base for low, high in known for offset in range(low, high + 1)}
            self._credits += len(skipped)
            self._flush_now.set()
            pick = [index for index in pick if index not in skipped]
            if not pick:
                return
        batch = Batch(stored.topic, stored.partition, base, stored.append_time_us, columns, pick)
        self._queue.append(_Delivered(key, batch, self))
        self._arrived.set()

    def _assign(self, assignment: bus_pb2.Assignment) -> None:
        """Take the new set of partitions; those that stay keep what is under way, those that go lose it."""
        starts = {(part.topic, part.partition): part.start_offset for part in assignment.partitions}
        self._fences = {(part.topic, part.partition): part.fence for part in assignment.partitions}
        for key in [key for key in self._partitions if key not in starts]:
            # What was delivered and is not acknowledged never will be: its credit is free again.
            self._credits += self._partitions.pop(key).open_records()
            self._flush_now.set()
        self._drop(lambda key: key not in starts)
        for key, start in starts.items():
            known = self._partitions.get(key)
            if known is None:
                self._partitions[key] = PartitionAcks(start)
            elif self._fresh:
                known.restart(start)
        self._fresh = False
        self._progress.set()
        self._tell(Assigned(assignment.generation, starts))

    def _commit(self, committed: bus_pb2.Committed) -> None:
        offsets: dict[_Key, int] = {}
        for part in committed.offsets:
            key = (part.topic, part.partition)
            offsets[key] = part.offset
            partition = self._partitions.get(key)
            if partition is not None:
                partition.commit(part.offset)
        self._progress.set()
        self._tell(Committed(offsets))

    def _refused(self, refused: bus_pb2.AckRefused) -> None:
        span = refused.range
        error = from_result(refused.error)
        logger.warning(
            "ack of %s[%d] %d..%d refused: %s",
            span.topic,
            span.partition,
            span.first_offset,
            span.last_offset,
            error,
        )
        self._tell(AckRefused(span.topic, span.partition, span.first_offset, span.last_offset, error))

    def _drop(self, gone: Callable[[_Key], bool]) -> None:
        for delivered in self._queue:
            if gone(delivered.key):
                delivered.dropped = True
        kept = [delivered for delivered in self._queue if not delivered.dropped]
        self._queue.clear()
        self._queue.extend(kept)
