"""What a producer has taken and not yet seen acknowledged. No I/O, no clock of its own.

Records go into the open parcel of their partition; a parcel is encoded into
one batch when it leaves. Per partition, parcels leave, are repeated and are
acknowledged strictly in order; that and the sequence numbers make a repeated
parcel harmless.

A parcel is *uncertain* when a try of it ended without a verdict: it may be
stored. It may then be repeated under the same sequence only. When it is given
up, so are the parcels behind it that were under way too: under new sequences
they could be stored twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat

import xxhash

from holdfast.client.failures import from_result, is_uncertain
from holdfast.client.types import Ack, BatchAck
from holdfast.errors import (
    DeadlineExceededError,
    HoldfastError,
    InternalError,
    InvalidArgumentError,
    OutcomeUnknownError,
    OverloadedError,
    RecordTooLargeError,
    SequenceGapError,
    UnknownPartitionError,
    UnknownTopicError,
)
from holdfast.records import Compression, Headers, decode_batch, encode_batch
from holdfast.v1 import bus_pb2

#: What a waiting record costs beside its key and value, roughly.
RECORD_OVERHEAD = 64
#: Bound on the batches of one request; brokers take 16 MiB, gRPC 64 MiB.
_MAX_REQUEST_BYTES = 4 << 20
#: Fresh starts of a parcel whose sequence the broker does not expect.
_MAX_RESTARTS = 3

_hash_key = xxhash.xxh64_intdigest
_make_ack = partial(tuple.__new__, Ack)

AckFuture = asyncio.Future[Ack]
DoneFuture = asyncio.Future[BatchAck]


class Parcel:
    """Records of one partition that travel together."""

    __slots__ = (
        "alone",
        "base_sequence",
        "count",
        "data",
        "deadline",
        "done",
        "epoch",
        "futures",
        "headers",
        "keys",
        "opened",
        "queue",
        "restarts",
        "settled",
        "size",
        "timeout",
        "times",
        "uncertain",
        "values",
        "watchers",
    )

    def __init__(self, queue: PartitionQueue, opened: float, timeout: float) -> None:
        self.queue = queue
        self.opened = opened
        self.timeout = timeout
        self.deadline = opened + timeout
        self.values: list[bytes] = []
        self.keys: list[bytes] = []
        self.times: list[int] = []
        #: Sparse: by index within the parcel.
        self.headers: dict[int, Headers] = {}
        #: One per record once a record brought one.
        self.futures: list[AckFuture | None] | None = None
        self.done: DoneFuture | None = None
        #: Told when the parcel is settled, well or not.
        self.watchers: list[asyncio.Future[None]] = []
        self.size = 0
        self.count = 0
        self.data = b""
        #: -1 until the parcel first leaves.
        self.base_sequence = -1
        self.epoch = 0
        self.uncertain = False
        self.settled = False
        #: Travels without parcels of other partitions, to find which one is refused.
        self.alone = False
        self.restarts = 0

    def add(
        self, value: bytes, key: bytes, time_us: int, headers: Headers | None, future: AckFuture | None
    ) -> None:
        if future is not None:
            if self.futures is None:
                self.futures = [None] * len(self.values)
            self.futures.append(future)
        elif self.futures is not None:
            self.futures.append(None)
        if headers:
            self.headers[len(self.values)] = headers
        self.values.append(value)
        self.keys.append(key)
        self.times.append(time_us)

    def watch(self, new_future: Callable[[], asyncio.Future[None]]) -> asyncio.Future[None]:
        """Resolves when the parcel is settled, well or not."""
        future = new_future()
        self.watchers.append(future)
        return future

    def _settle(self) -> None:
        self.settled = True
        self.data = b""
        for watcher in self.watchers:
            if not watcher.done():
                watcher.set_result(None)

    def encode(self, compression: Compression) -> None:
        """Make the batch; the columns are let go.

        Raises:
            MalformedBatchError: a record does not fit the wire.
        """
        headers = None
        if self.headers:
            headers = [self.headers.get(index) for index in range(len(self.values))]
        self.data = encode_batch(self.values, self.keys, self.times, headers, compression)
        self.count = len(self.values)
        self.values, self.keys, self.times, self.headers = [], [], [], {}

    def resolve(self, topic: str, base_offset: int) -> None:
        self._settle()
        if self.futures is not None:
            partition = self.queue.number
            offsets = range(base_offset, base_offset + self.count)
            acks = map(_make_ack, zip(repeat(topic), repeat(partition), offsets, strict=False))
            for future, ack in zip(self.futures, acks, strict=True):
                if future is not None and not future.done():
                    future.set_result(ack)
            self.futures = None
        if self.done is not None and not self.done.done():
            self.done.set_result(BatchAck(topic, self.queue.number, base_offset, self.count))

    def fail(self, error: HoldfastError) -> bool:
        """Give up. False when records had nobody who would hear of it."""
        self._settle()
        silent = self.futures is None and self.done is None
        for future in self.futures or ():
            if future is None:
                silent = True
            elif not future.done():
                future.set_exception(error)
        self.futures = None
        if self.done is not None and not self.done.done():
            self.done.set_exception(error)
        return not silent


class PartitionQueue:
    """The parcels of one partition: open, waiting to leave, under way."""

    __slots__ = ("epoch", "in_flight", "next_sequence", "number", "open", "topic", "waiting")

    def __init__(self, topic: TopicQueue, number: int) -> None:
        self.topic = topic
        self.number = number
        self.open: Parcel | None = None
        self.waiting: deque[Parcel] = deque()
        self.in_flight: deque[Parcel] = deque()
        self.epoch = 0
        self.next_sequence = 0

    def parcels(self) -> Iterator[Parcel]:
        """All of them, in order."""
        yield from self.in_flight
        yield from self.waiting
        if self.open is not None:
            yield self.open

    def behind(self, parcel: Parcel) -> list[Parcel]:
        """The parcels that follow this one."""
        parcels = list(self.parcels())
        return parcels[parcels.index(parcel) + 1 :]

    def new_epoch(self, parcels: Sequence[Parcel]) -> None:
        """Number these, the last ones of the queue, anew; those before them keep their sequences."""
        self.epoch += 1
        self.next_sequence = 0
        for parcel in parcels:
            parcel.base_sequence = -1

    def may_leave(self, parcel: Parcel) -> bool:
        """Whether the first parcel may follow those under way.

        A new epoch fences the one before: it has to wait until that is done.
        """
        return not self.in_flight or self.in_flight[-1].epoch == _next_epoch(parcel)


@dataclass(eq=False, slots=True)
class Request:
    """Parcels that travel in one PublishRequest: one log entry, all or none."""

    number: int
    topic: TopicQueue
    parcels: list[Parcel]
    #: Set when the broker refused it.
    error: HoldfastError | None = None


class TopicQueue:
    """The partitions of one topic. Until their number is known, all records wait in ``limbo``."""

    __slots__ = (
        "armed",
        "due",
        "hurried",
        "in_flight",
        "limbo",
        "max_record_bytes",
        "name",
        "partitions",
        "pending",
        "queues",
        "sticky",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.partitions = 0
        self.max_record_bytes = 0
        self.queues: list[PartitionQueue] = []
        self.limbo = PartitionQueue(self, -1)
        #: Takes the keyless records until its parcel leaves.
        self.sticky = self.limbo
        #: Requests under way.
        self.in_flight = 0
        #: Queues that hold something to send, oldest first.
        self.pending: dict[PartitionQueue, None] = {}
        #: Somebody will look at this topic; true whenever it holds something to send.
        self.armed = False
        #: A look is scheduled for this turn of the event loop.
        self.hurried = False
        #: Linger is over: what is here leaves as soon as there is room.
        self.due = False

    def all_queues(self) -> Iterator[PartitionQueue]:
        yield self.limbo
        yield from self.queues


class Batcher:
    """All topics of one producer.

    Args:
        on_work: called with a topic that had nothing to send and now has; sets ``armed``.
        on_full: called with a topic that has a full parcel.
        on_lost: called with the error of records nobody waits for one by one.
    """

    def __init__(
        self,
        *,
        producer_id: int,
        batch_bytes: int,
        max_in_flight: int,
        max_buffered_bytes: int,
        compression: Compression,
        now: Callable[[], float],
        on_work: Callable[[TopicQueue], None],
        on_full: Callable[[TopicQueue], None],
        on_lost: Callable[[HoldfastError], None],
    ) -> None:
        self._producer_id = producer_id
        self._batch_bytes = batch_bytes
        self._max_in_flight = max_in_flight
        self.max_buffered = max_buffered_bytes
        self._compression = compression
        self._now = now
        self._on_work = on_work
        self._on_full = on_full
        self._on_lost = on_lost
        self.topics: dict[str, TopicQueue] = {}
        self.buffered = 0
        #: Under way, in order.
        self.requests: deque[Request] = deque()
        #: Answered with an error, in order: nothing more leaves until ``on_break`` has settled them.
        self.refused: list[Request] = []
        self._numbers = 0

    # -- taking records ----------------------------------------------------------

    def topic(self, name: str) -> TopicQueue:
        """The topic's queue.

        Raises:
            InvalidArgumentError: no name.
        """
        topic = self.topics.get(name)
        if topic is None:
            if not isinstance(name, str) or not name:
                raise InvalidArgumentError("topic must be a name", metadata={"field": "topic"})
            topic = self.topics[name] = TopicQueue(name)
        return topic

    def add(
        self,
        name: str,
        value: bytes,
        key: bytes,
        time_us: int,
        headers: Headers | None,
        future: AckFuture | None,
        timeout: float,
    ) -> None:
        """Take one record.

        Raises:
            OverloadedError: ``max_buffered_bytes`` are waiting already.
            RecordTooLargeError: over the limit the topic is known to have.
        """
        topic = self.topics.get(name) or self.topic(name)
        size = len(value) + len(key) + RECORD_OVERHEAD
        if headers:
            size += sum([len(header) + len(content) for header, content in headers])
        if self.buffered + size > self.max_buffered and self.buffered:
            raise self._overloaded(size)
        if topic.max_record_bytes and size - RECORD_OVERHEAD > topic.max_record_bytes:
            raise _too_large(size - RECORD_OVERHEAD, topic)
        queue = topic.queues[_hash_key(key) % topic.partitions] if key and topic.partitions else topic.sticky
        parcel = queue.open
        if parcel is None or parcel.size + size > self._batch_bytes or parcel.timeout != timeout:
            parcel = self._next_parcel(queue, size, timeout, keyed=bool(key))
        self.buffered += size
        parcel.size += size
        parcel.add(value, key, time_us, headers, future)
        if not topic.armed:
            self._on_work(topic)

    def _next_parcel(self, queue: PartitionQueue, size: int, timeout: float, *, keyed: bool) -> Parcel:
        """An open parcel with room, when the queue's present one has none."""
        topic = queue.topic
        if queue.open is not None:
            self._close(queue)
            self._on_full(topic)
            if queue is topic.sticky:
                self._move_sticky(topic)
                if not keyed:
                    queue = topic.sticky
        parcel = queue.open
        if parcel is not None:
            if parcel.size + size <= self._batch_bytes and parcel.timeout == timeout:
                return parcel
            self._close(queue)
        parcel = queue.open = Parcel(queue, self._now(), timeout)
        topic.pending[queue] = None
        return parcel

    def add_columns(
        self,
        topic: TopicQueue,
        values: Sequence[bytes],
        keys: Sequence[bytes] | None,
        times: Sequence[int],
        headers: Headers | None,
        timeout: float,
        done: Callable[[], DoneFuture],
    ) -> list[DoneFuture]:
        """Take many records at once; the topic's partitions must be known.

        ``headers`` go onto every record. Returns what resolves when they are acknowledged.
        """
        made: list[DoneFuture] = []
        if keys is None:
            step = self._step(values)
            for at in range(0, len(values), step):
                part = values[at : at + step]
                queue = topic.sticky
                keyless = [b""] * len(part)
                stamps = list(times[at : at + step])
                self._take(queue, list(part), keyless, stamps, headers, timeout, made, done)
                self._move_sticky(topic)
            return made
        columns: dict[int, tuple[list[bytes], list[bytes], list[int]]] = {}
        partitions, sticky = topic.partitions, topic.sticky.number
        for value, key, time_us in zip(values, keys, times, strict=True):
            number = _hash_key(key) % partitions if key else sticky
            column = columns.get(number)
            if column is None:
                column = columns[number] = ([], [], [])
            column[0].append(value)
            column[1].append(key)
            column[2].append(time_us)
        for number, (some_values, some_keys, some_times) in columns.items():
            step = self._step(some_values)
            for at in range(0, len(some_values), step):
                cut = slice(at, at + step)
                self._take(
                    topic.queues[number],
                    some_values[cut],
                    some_keys[cut],
                    some_times[cut],
                    headers,
                    timeout,
                    made,
                    done,
                )
        return made

    def _step(self, values: Sequence[bytes]) -> int:
        """How many of these records make a batch."""
        average = sum(map(len, values)) // len(values) + RECORD_OVERHEAD
        return max(1, self._batch_bytes // average)

    def _take(
        self,
        queue: PartitionQueue,
        values: list[bytes],
        keys: list[bytes],
        times: list[int],
        headers: Headers | None,
        timeout: float,
        made: list[DoneFuture],
        done: Callable[[], DoneFuture],
    ) -> None:
        topic = queue.topic
        self._close(queue)
        parcel = Parcel(queue, self._now(), timeout)
        parcel.values, parcel.keys, parcel.times = values, keys, times
        parcel.size = sum(map(len, values)) + sum(map(len, keys)) + RECORD_OVERHEAD * len(values)
        if headers:
            parcel.headers = dict.fromkeys(range(len(values)), headers)
            parcel.size += len(values) * sum([len(header) + len(content) for header, content in headers])
        parcel.done = done()
        made.append(parcel.done)
        self.buffered += parcel.size
        queue.waiting.append(parcel)
        topic.pending[queue] = None
        if not topic.armed:
            self._on_work(topic)
        elif not topic.hurried:
            self._on_full(topic)

    def route(self, topic: TopicQueue, partitions: int, max_record_bytes: int) -> None:
        """The topic's partitions are known: records that waited for that go to theirs."""
        topic.partitions = partitions
        topic.max_record_bytes = max_record_bytes
        topic.queues = [PartitionQueue(topic, number) for number in range(partitions)]
        topic.sticky = topic.queues[self._producer_id % partitions]
        limbo = topic.limbo
        waiting = list(limbo.parcels())
        limbo.waiting.clear()
        limbo.open = None
        topic.pending.pop(limbo, None)
        for parcel in waiting:
            self.buffered -= parcel.size
            self._reroute(topic, parcel)

    def _reroute(self, topic: TopicQueue, parcel: Parcel) -> None:
        futures = parcel.futures or repeat(None)
        rows = zip(parcel.values, parcel.keys, parcel.times, futures, strict=False)
        bound, self.max_buffered = self.max_buffered, 1 << 62  # they were let in before
        for index, (value, key, time_us, future) in enumerate(rows):
            try:
                self.add(topic.name, value, key, time_us, parcel.headers.get(index), future, parcel.timeout)
            except RecordTooLargeError as error:
                if future is None:
                    self._on_lost(error)
                elif not future.done():
                    future.set_exception(error)
        self.max_buffered = bound

    def forget(self, topic: TopicQueue, error: HoldfastError) -> None:
        """The topic is of no use: fail what waits for it; the next record asks anew."""
        if self.topics.get(topic.name) is topic:
            del self.topics[topic.name]
        for queue in topic.all_queues():
            for parcel in list(queue.parcels()):
                self._fail(parcel, error)
            self._clear(queue)
        topic.pending.clear()

    def _overloaded(self, size: int) -> OverloadedError:
        return OverloadedError(
            f"{self.buffered} bytes wait for acknowledgement; {size} more would exceed max_buffered_bytes="
            f"{self.max_buffered}: await drain() between publishes",
        )

    # -- sending -----------------------------------------------------------------

    def ready(self, topic: TopicQueue) -> bool:
        """Whether something should leave now.

        With nothing under way, everything. Else full parcels, and small ones
        when linger is over and not more than one request is on its way:
        under load, waiting for an answer makes better batches than haste.
        """
        if self.refused or topic.in_flight >= self._max_in_flight:
            return False
        if not topic.pending or not topic.partitions:
            return False
        if topic.in_flight == 0 or (topic.due and topic.in_flight < 2):
            return True
        return any(queue.waiting for queue in topic.pending)

    def next_request(self, topic: TopicQueue) -> Request | None:
        """Take the next parcels of the topic, at most one per partition; None when none may leave."""
        parcels: list[Parcel] = []
        size = 0
        emptied: list[PartitionQueue] = []
        for queue in topic.pending:
            parcel = self._leaving(queue)
            if parcel is None:
                emptied.append(queue)
                continue
            if not queue.may_leave(parcel) or (
                parcels
                and (
                    size + parcel.size > _MAX_REQUEST_BYTES
                    or parcel.alone
                    or _next_epoch(parcel) != parcels[0].epoch
                )
            ):
                continue
            self._depart(queue, parcel)
            parcels.append(parcel)
            size += parcel.size
            if not queue.waiting and queue.open is None:
                emptied.append(queue)
            if parcel.alone:
                break
        sent = {parcel.queue for parcel in parcels}
        for queue in emptied:
            topic.pending.pop(queue, None)
        for queue in [queue for queue in topic.pending if queue in sent]:
            # To the back, so that a small request bound serves all in turn.
            del topic.pending[queue]
            topic.pending[queue] = None
        if not topic.pending:
            topic.due = False
        if not parcels:
            return None
        self._numbers += 1
        request = Request(self._numbers, topic, parcels)
        topic.in_flight += 1
        self.requests.append(request)
        return request

    def _leaving(self, queue: PartitionQueue) -> Parcel | None:
        """The queue's next parcel, encoded; those that cannot be are given up."""
        while True:
            if not queue.waiting:
                if queue.open is None:
                    return None
                self._close(queue)
                if queue.topic.sticky is queue:
                    self._move_sticky(queue.topic)
            parcel = queue.waiting[0]
            if parcel.data:
                return parcel
            try:
                parcel.encode(self._compression)
            except HoldfastError as error:
                queue.waiting.popleft()
                self._fail(parcel, error)
            else:
                return parcel

    def _depart(self, queue: PartitionQueue, parcel: Parcel) -> None:
        queue.waiting.popleft()
        if parcel.base_sequence < 0:
            parcel.epoch = queue.epoch
            parcel.base_sequence = queue.next_sequence
            queue.next_sequence += parcel.count
        queue.in_flight.append(parcel)

    def message(self, request: Request) -> bytes:
        """The request on the wire."""
        return bus_pb2.PublishRequest(
            topic=request.topic.name,
            producer_id=self._producer_id,
            producer_epoch=request.parcels[0].epoch,
            request_id=request.number,
            batches=[
                bus_pb2.PartitionBatch(
                    partition=parcel.queue.number, base_sequence=parcel.base_sequence, batch=parcel.data
                )
                for parcel in request.parcels
            ],
        ).SerializeToString()

    def _close(self, queue: PartitionQueue) -> None:
        if queue.open is not None:
            queue.waiting.append(queue.open)
            queue.open = None

    def _move_sticky(self, topic: TopicQueue) -> None:
        if topic.queues:
            topic.sticky = topic.queues[(topic.sticky.number + 1) % topic.partitions]

    # -- verdicts -------------------------------------------------------------------

    def on_result(self, result: bus_pb2.PublishResult) -> Request:
        """The broker's answer to the oldest request; an error of it is in ``refused`` then.

        Raises:
            InternalError: it answers something else.
        """
        if not self.requests or self.requests[0].number != result.request_id:
            raise InternalError(f"the broker answered request {result.request_id} out of turn")
        request = self.requests.popleft()
        places = {ack.partition: ack for ack in result.response.acks}
        if result.HasField("error"):
            request.error = from_result(result.error)
        else:
            request.error = _incomplete(request, places)
        if request.error is not None:
            self.refused.append(request)
            return request
        request.topic.in_flight -= 1
        for parcel in request.parcels:
            if not parcel.settled:
                parcel.queue.in_flight.remove(parcel)
                self.buffered -= parcel.size
                parcel.resolve(request.topic.name, places[parcel.queue.number].base_offset)
        return request

    def on_break(self) -> None:
        """The stream is over: settle what was refused, put back what has to leave again.

        Requests without an answer are uncertain.
        """
        under_way = sorted([*self.requests, *self.refused], key=lambda request: request.number)
        self.requests.clear()
        self.refused.clear()
        for request in under_way:
            request.topic.in_flight -= 1
            if request.error is None or is_uncertain(request.error):
                for parcel in request.parcels:
                    parcel.uncertain = True
        # Back into the queues first, so that a verdict finds all that stands behind a parcel.
        queues = dict.fromkeys(parcel.queue for request in under_way for parcel in request.parcels)
        for queue in queues:
            queue.waiting.extendleft(reversed(queue.in_flight))
            queue.in_flight.clear()
        for request in under_way:
            if request.error is not None and not request.error.retriable:
                self._judge(request, request.error)
        for queue in queues:
            if queue.waiting or queue.open is not None:
                queue.topic.pending[queue] = None

    def _judge(self, request: Request, error: HoldfastError) -> None:
        """A refusal that repeating does not cure."""
        if isinstance(error, InternalError):
            return  # uncertain: tried again until its deadline
        live = [parcel for parcel in request.parcels if not parcel.settled]
        if isinstance(error, UnknownTopicError):
            self.forget(request.topic, error)
            return
        if isinstance(error, SequenceGapError) and any(map(_follows, live)):
            return  # it only has to follow an earlier parcel that was refused
        if len(request.parcels) > 1:
            for parcel in live:
                parcel.alone = True
            return
        for parcel in live:
            if isinstance(error, SequenceGapError):
                self._restart(parcel, error)
            elif isinstance(error, RecordTooLargeError) and parcel.count > 1:
                self._split(parcel)
            else:
                self._give_up(parcel, error)
        if isinstance(error, UnknownPartitionError):
            self.forget(request.topic, error)

    def _restart(self, parcel: Parcel, error: HoldfastError) -> None:
        """The broker does not know what came before this parcel, though it was acknowledged.

        The producer was idle for so long that it was forgotten, or the topic
        was made anew: sequences start again, unless an earlier try of the
        parcel may have been stored.
        """
        queue = parcel.queue
        parcel.restarts += 1
        if parcel.uncertain or parcel.restarts > _MAX_RESTARTS:
            self._give_up(parcel, error)
        else:
            queue.new_epoch([parcel, *queue.behind(parcel)])

    def _split(self, parcel: Parcel) -> None:
        """One of these records is too large: halve the batch until it stands alone.

        The halves keep the sequences: should the whole have been stored after
        all, the broker knows them as parts of it.
        """
        queue = parcel.queue
        columns = decode_batch(parcel.data)
        middle = parcel.count // 2
        halves: list[Parcel] = []
        for cut in (slice(0, middle), slice(middle, None)):
            half = Parcel(queue, parcel.opened, parcel.timeout)
            half.data = encode_batch(
                columns.values[cut],
                columns.keys[cut],
                columns.timestamps_us[cut],
                columns.headers[cut],
                self._compression,
            )
            half.count = len(columns.values[cut])
            half.size = sum(map(len, columns.values[cut])) + half.count * RECORD_OVERHEAD
            half.alone = True
            half.uncertain = parcel.uncertain
            half.epoch = parcel.epoch
            half.base_sequence = parcel.base_sequence + (cut.start or 0)
            if parcel.futures is not None:
                half.futures = parcel.futures[cut]
            halves.append(half)
        self.buffered += halves[0].size + halves[1].size - parcel.size
        if parcel.done is not None:
            _join(parcel.done, halves)
        halves[1].watchers = parcel.watchers
        parcel.settled = True
        at = queue.waiting.index(parcel)
        del queue.waiting[at]
        queue.waiting.insert(at, halves[1])
        queue.waiting.insert(at, halves[0])

    def _give_up(self, parcel: Parcel, error: HoldfastError) -> None:
        """Fail a parcel for good, and those behind it that could otherwise be stored twice."""
        queue = parcel.queue
        behind = queue.behind(parcel)
        doubtful = parcel.uncertain or parcel in queue.in_flight
        self._drop(parcel)
        self._fail(parcel, error)
        if parcel.base_sequence < 0:
            return  # it never left: nothing behind it did
        kept = []
        for other in behind:
            if doubtful and (other.uncertain or other in queue.in_flight):
                self._drop(other)
                text = f"given up with an earlier batch of {queue.topic.name}: {error.message}"
                self._fail(other, OutcomeUnknownError(text))
            else:
                kept.append(other)
        queue.new_epoch(kept)

    def expire(self, now: float, because: str = "") -> None:
        """Give up parcels whose delivery timeout is over; ``because`` goes into their errors."""
        reason = f": {because}" if because else ""
        for topic in list(self.topics.values()):
            for queue in topic.all_queues():
                # In order, but for timeouts that differ; almost always only the first is looked at.
                for parcel in list(queue.parcels()):
                    if parcel.deadline <= now and not parcel.settled:
                        self._give_up(
                            parcel,
                            DeadlineExceededError(
                                f"not acknowledged by {topic.name} within {parcel.timeout:g} s{reason}"
                            ),
                        )

    def close_older(self, opened_before: float) -> None:
        """Close parcels that have been open for long, so that deadlines stay those of their records."""
        for topic in self.topics.values():
            for queue in topic.all_queues():
                if queue.open is not None and queue.open.opened < opened_before:
                    self._close(queue)

    def outstanding(self) -> list[Parcel]:
        """All parcels not settled."""
        return [
            parcel
            for topic in self.topics.values()
            for queue in topic.all_queues()
            for parcel in queue.parcels()
            if not parcel.settled
        ]

    def fail_all(self, error: HoldfastError) -> None:
        """The client closes: nothing waits any longer."""
        for topic in list(self.topics.values()):
            self.forget(topic, error)
        self.requests.clear()

    def _drop(self, parcel: Parcel) -> None:
        queue = parcel.queue
        if queue.open is parcel:
            queue.open = None
        elif parcel in queue.waiting:
            queue.waiting.remove(parcel)
        elif parcel in queue.in_flight:
            queue.in_flight.remove(parcel)

    def _clear(self, queue: PartitionQueue) -> None:
        queue.open = None
        queue.waiting.clear()
        queue.in_flight.clear()

    def _fail(self, parcel: Parcel, error: HoldfastError) -> None:
        if parcel.settled:
            return
        self.buffered -= parcel.size
        if not parcel.fail(error):
            self._on_lost(error)


def _follows(parcel: Parcel) -> bool:
    """Whether an earlier parcel has to be stored first, or this one is numbered anew."""
    waiting = parcel.queue.waiting
    return parcel.base_sequence < 0 or not waiting or waiting[0] is not parcel


def _incomplete(request: Request, places: Mapping[int, bus_pb2.PartitionAck]) -> InternalError | None:
    for parcel in request.parcels:
        place = places.get(parcel.queue.number)
        if place is None or (place.count != parcel.count and not parcel.settled):
            return InternalError(f"the broker's answer leaves out partition {parcel.queue.number}")
    return None


def _next_epoch(parcel: Parcel) -> int:
    return parcel.epoch if parcel.base_sequence >= 0 else parcel.queue.epoch


def _join(done: DoneFuture, halves: Sequence[Parcel]) -> None:
    """Resolve the future of a parcel when both its halves are acknowledged."""
    loop = done.get_loop()
    made: list[DoneFuture] = []

    def finish(half: DoneFuture) -> None:
        error = half.exception()
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        elif all(one.done() and not one.exception() for one in made):
            first = made[0].result()
            done.set_result(replace(first, count=sum([one.result().count for one in made])))

    for parcel in halves:
        future: DoneFuture = loop.create_future()
        parcel.done = future
        made.append(future)
        future.add_done_callback(finish)


def _too_large(size: int, topic: TopicQueue) -> RecordTooLargeError:
    return RecordTooLargeError(
        f"record of {size} bytes is over the limit of {topic.max_record_bytes} bytes of topic {topic.name}",
        metadata={"size": str(size), "limit": str(topic.max_record_bytes)},
    )
