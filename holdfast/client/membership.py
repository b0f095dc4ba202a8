"""A member of a defined group: consuming with acks, nacks, parks and leases."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import TracebackType

from holdfast.client.backoff import Backoff
from holdfast.client.connection import Connection, settle
from holdfast.client.consumer import NOTHING
from holdfast.client.events import (
    AckRefused,
    Assigned,
    Committed,
    Lost,
    Paused,
    Revoking,
    SubscriptionEvent,
    Welcomed,
)
from holdfast.client.failures import from_result
from holdfast.client.group_stream import GroupStream, Stream
from holdfast.client.handed import Handed, Nack, Slot
from holdfast.client.handlers.errors import MAX_DELAY
from holdfast.client.sparse import sparse_records
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

#: What is said waits this long for company while the broker has plenty of credit to work with.
_LINGER_SECONDS = 0.002
#: Reasons in words.
_REASONS = {
    bus_pb2.PAUSE_REASON_MAX_UNACKED: "max_unacked",
    bus_pb2.PAUSE_REASON_RETRIES_FULL: "retries_full",
    bus_pb2.PAUSE_REASON_PARKED: "parked",
    bus_pb2.PAUSE_REASON_STORAGE: "storage",
    bus_pb2.PAUSE_REASON_BY_CLIENT: "by_client",
}


class Membership(GroupStream):
    """Records of a defined group, as an async iterator. Made by ``Client.join``.

    Say of each record what became of it: ``ack``, ``nack``, ``park``, ``reject`` or ``release``, in any
    order and from any task of this loop. All take effect at once, awaited or not; ``settled()`` tells when
    they are durable. While the process lives and its event loop turns, records stay this member's.
    """

    def __init__(
        self,
        connection: Connection,
        hello: bus_pb2.SubscribeStart,
        *,
        max_in_flight: int,
        give_up_after: float | None,
        timeout: float,
        on_event: Callable[[SubscriptionEvent], None] | None,
        on_end: Callable[[Membership], None],
    ) -> None:
        super().__init__(connection, give_up_after=give_up_after, timeout=timeout, on_event=on_event)
        self._hello = hello
        self._max_in_flight = max_in_flight
        self._on_end = on_end
        self._handed = Handed(in_order=True)
        self._queue: deque[tuple[Slot, int, list[Record]]] = deque()
        self._at = 0  # records of the first list that have been taken
        self._committed: dict[tuple[str, int], int] = {}
        self._paused = False
        #: As the broker was told it on this connection.
        self._paused_there = False
        #: Records it may still be handed since it was resumed with a limit; None: no limit.
        self._limit: int | None = None
        #: Records the broker may send before it is granted more.
        self._granted = 0
        self._leaving = False
        self._arrived = asyncio.Event()
        self._progress = asyncio.Event()
        self._flush_now = asyncio.Event()
        self._flush_planned = False
        self._heartbeat_s = 1.0
        self._said = 0.0
        #: Names this connection in transactions; empty between connections.
        self.session = ""
        #: Once welcomed: what the group is.
        self.definition: bus_pb2.GroupDefinition | None = None
        self._runner = self._begin()

    @property
    def group(self) -> str:
        """The group's name."""
        return self._hello.group

    @property
    def member_id(self) -> str:
        """Under which the group knows this member, over all its connections."""
        return self._hello.member_id

    @property
    def in_order(self) -> bool:
        """The group's ordering is by partition: when a record fails, those behind it are taken back."""
        return self._handed.in_order

    @property
    def assignment(self) -> frozenset[tuple[str, int]]:
        """The (topic, partition) pairs this member is handed records of at the moment."""
        return frozenset(self._handed.by_place)

    # -- the application's side --------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Record]:
        return self._records()

    async def __aenter__(self) -> Membership:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _records(self) -> AsyncIterator[Record]:
        while True:
            record = self.take_one()
            if record is not None:
                yield record
                continue
            if not await self._more():
                return

    async def take(self, limit: int) -> list[Record]:
        """The next records, at least one and at most ``limit``; none when the membership is closed.

        In a group ordered by partition, what is taken here behind a record that fails is lost with it.

        Raises:
            HoldfastError: it failed.
        """
        while True:
            taken: list[Record] = []
            while len(taken) < limit and (record := self.take_one()) is not None:
                taken.append(record)
            if taken or not await self._more():
                return taken

    def take_one(self) -> Record | None:
        """The next record if one is here."""
        queue, begin = self._queue, self._handed.begin
        while queue:
            slot, lease, records = queue[0]
            at = self._at
            if at == len(records):
                queue.popleft()
                self._at = 0
                continue
            self._at = at + 1
            record = records[at]
            if begin(slot, record.offset, lease):
                return record
        return None

    async def _more(self) -> bool:
        """Wait for records; False when there will be none."""
        if self._failure is not None:
            raise self._failure
        if self._closing:
            return False
        self._arrived.clear()
        await self._arrived.wait()
        return True

    def ack(self, record: Record) -> Awaitable[None]:
        """The record has been handled."""
        if self._handed.ack(record.topic, record.partition, record.offset):
            self._soon()
        return NOTHING

    def ack_through(self, record: Record) -> Awaitable[None]:
        """All records of its partition up to this one have been handled."""
        if self._handed.ack_through(record.topic, record.partition, record.offset):
            self._soon()
        return NOTHING

    def nack(self, record: Record, delay: float | None = None, error: str = "") -> Awaitable[None]:
        """See ``Record.nack``."""
        return self._nack(record, Nack(bus_pb2.NACK_KIND_RETRY, _milliseconds(delay), error))

    def park(self, record: Record, delay: float | None = None, error: str = "") -> Awaitable[None]:
        """See ``Record.park``."""
        return self._nack(record, Nack(bus_pb2.NACK_KIND_PARK, _milliseconds(delay), error))

    def reject(self, record: Record, error: str = "") -> Awaitable[None]:
        """See ``Record.reject``."""
        return self._nack(record, Nack(bus_pb2.NACK_KIND_REJECT, None, error))

    def release(self, record: Record) -> Awaitable[None]:
        """See ``Record.release``."""
        return self._nack(record, Nack(bus_pb2.NACK_KIND_RELEASE))

    def extend(self, record: Record, seconds: float) -> Awaitable[None]:
        """See ``Record.extend``."""
        by_ms = _milliseconds(seconds, "seconds") or 0
        if self._handed.extend(record.topic, record.partition, record.offset, by_ms):
            self._soon()
        return NOTHING

    def _nack(self, record: Record, nack: Nack) -> Awaitable[None]:
        if self._handed.nack(record.topic, record.partition, record.offset, nack):
            self._soon()
            self._tell_lost()
        return NOTHING

    def lease(self, record: Record) -> tuple[int, int] | None:
        """Slot and lease under which the record is this member's, for a transaction; None: it is not."""
        return self._handed.lease(record.topic, record.partition, record.offset)

    def consumed(self, records: Iterable[Record]) -> None:
        """A transaction has settled these records."""
        for record in records:
            self._handed.consumed(record.topic, record.partition, record.offset)
        self._soon()

    def pause(self) -> None:
        """Be handed nothing more until ``resume``; what is here stays."""
        if not self._paused:
            self._paused = True
            self._flush_now.set()

    def resume(self, limit: int | None = None) -> None:
        """Be handed records again; at most ``limit`` until the next call, None: as many as agreed."""
        self._limit = limit
        self._paused = False
        self._flush_now.set()

    def release_waiting(self) -> int:
        """Give back what the application has not begun; how many records."""
        waiting = [(slot.place, offset) for slot, offset in self._handed.waiting()]
        released = Nack(bus_pb2.NACK_KIND_RELEASE)
        for place, offset in waiting:
            self._handed.nack(*place, offset, released)
        self._queue.clear()
        self._at = 0
        if waiting:
            self._soon()
        return len(waiting)

    async def settled(self, timeout: float | None = None) -> None:
        """Wait until what was said so far is durable on a majority, or refused.

        Raises:
            DeadlineExceededError: not within ``timeout`` seconds.
            HoldfastError: the membership failed.
        """
        self._flush_now.set()
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout):
                while self._handed.unconfirmed:
                    if self._failure is not None:
                        raise self._failure
                    if self._closing:
                        raise ClosedError("the membership has been closed")
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            raise DeadlineExceededError("what was said of records did not become durable in time") from None

    @property
    def committed(self) -> dict[tuple[str, int], int]:
        """The group's durable offsets as last heard, by (topic, partition)."""
        return dict(self._committed)

    async def close(self) -> None:
        """Give back what was not begun, make durable what was said, and leave the group.

        Raises:
            DeadlineExceededError: it did not become durable in time; those records come again.
        """
        if self._closing:
            return
        try:
            if self._failure is None:
                self.pause()
                self.release_waiting()
                await self.settled()
                self._leaving = True
                self._flush_now.set()
                # The broker ends the stream: the others get the partitions at once.
                await asyncio.wait([self._runner], timeout=self._timeout)
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """End at once, without a word: what was not settled comes again."""
        self._closing = True
        self._queue.clear()
        self._wake()
        self._on_end(self)
        self._runner.cancel()
        await settle([self._runner])

    # -- to the broker ---------------------------------------------------------------

    def _soon(self) -> None:
        """Send what was said: with the present turn of the loop, or in a moment, with more."""
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._plan)

    def _plan(self) -> None:
        """The turn is over: send now, or wait for company."""
        if 2 * self._handed.open < self._max_in_flight:
            # The broker may be waiting for it: with few records in flight the linger would be the round trip.
            self._flush_now.set()
        else:
            self._loop.call_later(_LINGER_SECONDS, self._flush_now.set)

    async def _write(self, call: Stream) -> None:
        await self._send(call, self._greeting())
        while True:
            await self._due()
            self._flush_now.clear()
            self._flush_planned = False
            if self._stream is not call:
                continue  # before the assignment there are no slots to speak of
            for request in self._messages():
                await self._send(call, request)
            if self._handed.due:
                self._flush_now.set()
            if self._leaving:
                await self._send(call, bus_pb2.SubscribeRequest(leave=bus_pb2.Leave()))
                await call.done_writing()
                await asyncio.Event().wait()  # the reader ends the call
            if self._loop.time() - self._said >= self._heartbeat_s / 2:
                await self._send(call, bus_pb2.SubscribeRequest(heartbeat=bus_pb2.Heartbeat()))

    def _greeting(self) -> bus_pb2.SubscribeRequest:
        """The first message of a connection."""
        hello = bus_pb2.SubscribeStart()
        hello.CopyFrom(self._hello)
        hello.holding.extend(self._handed.disconnect())
        self._granted = 0
        hello.credits = self._grant()
        self._paused_there = False
        return bus_pb2.SubscribeRequest(start=hello)

    def _messages(self) -> Iterator[bus_pb2.SubscribeRequest]:
        """What there is to say now, each message made when the one before it is sent."""
        settles = self._handed.collect()
        if settles:
            settles[-1].credits = self._grant()
        for message in settles:
            yield bus_pb2.SubscribeRequest(settle=message)
        if self._paused_there != self._paused:
            self._paused_there = self._paused
            yield bus_pb2.SubscribeRequest(pause=bus_pb2.PauseRequest(paused=self._paused_there))
            self._granted = 0  # a pause takes them back
        granted = self._grant()
        if granted:
            yield bus_pb2.SubscribeRequest(credit=bus_pb2.Credit(records=granted))

    def _grant(self) -> int:
        """Further records the broker may send."""
        if self._paused:
            return 0
        room = self._max_in_flight - self._handed.open
        if self._limit is not None:
            room = min(room, self._limit)
        granted = max(0, room - self._granted)
        self._granted += granted
        return granted

    async def _due(self) -> None:
        """Return when there is something to say, or it is time for a heartbeat."""
        timer = self._loop.call_later(self._heartbeat_s / 2, self._flush_now.set)
        try:
            await self._flush_now.wait()
        finally:
            timer.cancel()

    async def _send(self, call: Stream, request: bus_pb2.SubscribeRequest) -> None:
        await call.write(request)
        self._said = self._loop.time()

    # -- from the broker ---------------------------------------------------------------

    async def _read(self, call: Stream, backoff: Backoff) -> None:
        while True:
            response = await call.read()
            if not isinstance(response, bus_pb2.SubscribeResponse):
                if self._leaving:
                    return
                raise UnavailableError("the broker ended the subscription")
            self._heard = self._loop.time()
            if self._hear(response) == "assignment":
                self._connected(call, backoff)
                self._flush_now.set()

    def _hear(self, response: bus_pb2.SubscribeResponse) -> str | None:
        """Take a message; its kind."""
        kind: str | None = response.WhichOneof("kind")
        if kind == "delivery":
            self._take(response.delivery)
        elif kind == "settled":
            self._confirmed(response.settled)
        elif kind == "committed":
            self._commit(response.committed)
        elif kind == "welcome":
            self._welcome(response.welcome)
        elif kind == "assignment":
            self._assign(response.assignment)
        elif kind == "revoking":
            self._revoke(response.revoking)
        elif kind == "paused":
            paused = response.paused
            reason = _REASONS.get(paused.reason, "")
            self._tell(Paused(paused.topic, paused.partition, paused.paused, reason, paused.offset))
        return kind

    def _disconnected(self) -> None:
        self.session = ""
        self._queue.clear()
        self._at = 0

    def _wake(self) -> None:
        self._arrived.set()
        self._progress.set()

    def _welcome(self, welcome: bus_pb2.Welcome) -> None:
        self.session = welcome.session
        self.definition = welcome.definition
        self._heartbeat_s = welcome.heartbeat_ms / 1000
        self._handed.in_order = welcome.definition.ordering == bus_pb2.ORDERING_PARTITION
        self._handed.welcome(welcome.kept)
        self._tell(Welcomed(welcome.member_id, welcome.note))

    def _assign(self, assignment: bus_pb2.Assignment) -> None:
        self._handed.assign(assignment.partitions)
        self._tell_lost()
        starts = {(part.topic, part.partition): part.start_offset for part in assignment.partitions}
        self._progress.set()
        self._soon()
        self._tell(Assigned(assignment.generation, starts))

    def _revoke(self, revoking: bus_pb2.Revoking) -> None:
        numbers = set(revoking.slots)
        released = Nack(bus_pb2.NACK_KIND_RELEASE)
        for slot, offset in list(self._handed.waiting()):
            if slot.number in numbers:
                self._handed.nack(*slot.place, offset, released)
        self._soon()
        places = tuple(slot.place for slot in self._handed.slots.values() if slot.number in numbers)
        self._tell(Revoking(places, revoking.within_ms / 1000))

    def _take(self, delivery: bus_pb2.Delivery) -> None:
        for stored in delivery.batches:
            self._take_stored(stored, delivery.lease)
        for sparse in delivery.sparse:
            slot = self._handed.slots.get(sparse.slot)
            place = ("", 0) if slot is None else slot.place
            self._enqueue(sparse.slot, delivery.lease, sparse_records(place, sparse, self))

    def _take_stored(self, stored: records_pb2.StoredBatch, lease: int) -> None:
        slot = self._handed.by_place.get((stored.topic, stored.partition))
        columns = decode_batch(stored.batch)
        first, last, base = stored.first_offset, stored.last_offset, stored.base_offset
        if not base <= first <= last < base + columns.count:
            raise InternalError(
                f"delivery of offsets {first}..{last} of a batch at {base} of {columns.count}"
            )
        pick = range(first - base, last - base + 1)
        batch = Batch(stored.topic, stored.partition, base, stored.append_time_us, columns, pick)
        self._enqueue(0 if slot is None else slot.number, lease, list(batch.records(self)))

    def _enqueue(self, slot_number: int, lease: int, records: list[Record]) -> None:
        self._granted = max(0, self._granted - len(records))
        if self._limit is not None:
            self._limit = max(0, self._limit - len(records))
        slot = self._handed.deliver(slot_number, lease, [record.offset for record in records])
        if slot is None:
            self._soon()
            return
        self._queue.append((slot, lease, records))
        self._arrived.set()

    def _confirmed(self, settled: bus_pb2.Settled) -> None:
        self._handed.settled(settled.number)
        self._progress.set()
        for refusal in settled.refusals:
            slot = self._handed.slots.get(refusal.slot)
            topic, partition = ("", 0) if slot is None else slot.place
            error = from_result(refusal.error)
            logger.debug(
                "%s[%d] %d..%d refused: %s",
                topic,
                partition,
                refusal.first_offset,
                refusal.last_offset,
                error,
            )
            self._tell(AckRefused(topic, partition, refusal.first_offset, refusal.last_offset, error))

    def _commit(self, committed: bus_pb2.Committed) -> None:
        offsets = {(part.topic, part.partition): part.offset for part in committed.offsets}
        self._committed.update(offsets)
        self._progress.set()
        self._tell(Committed(offsets))

    def _tell_lost(self) -> None:
        lost, self._handed.lost = self._handed.lost, []
        for place in lost:
            self._tell(Lost(*place))


def _milliseconds(delay: float | None, field: str = "delay") -> int | None:
    """
    Raises:
        InvalidArgumentError: it is more than seven days: brokers would end the stream for it.
    """
    if delay is None:
        return None
    if not delay <= MAX_DELAY:
        raise InvalidArgumentError(
            f"{field} is {delay!r}: up to {MAX_DELAY:.0f} are allowed", metadata={"field": field}
        )
    return round(max(delay, 0.0) * 1000)
