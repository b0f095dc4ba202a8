"""Takes records, and decides what leaves when. No I/O, no clock of its own.

Records go into the open parcel of their partition; a parcel is encoded into
one batch when it leaves. Per partition, parcels leave, are repeated and are
acknowledged strictly in order; that and the sequence numbers make a repeated
parcel harmless.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import repeat
from operator import itemgetter
from typing import TypeVar

import xxhash

from holdfast.client.parcels import (
    RECORD_OVERHEAD,
    AckFuture,
    Delivery,
    Parcel,
    PartitionQueue,
    Request,
    TopicQueue,
    next_epoch,
)
from holdfast.client.settlement import Settlement
from holdfast.errors import HoldfastError, InvalidArgumentError, OverloadedError, RecordTooLargeError
from holdfast.records import Compression, Headers
from holdfast.v1 import bus_pb2
from holdfast.wire_format import varint

#: Bound on the batches of one request; brokers take 16 MiB, gRPC 64 MiB.
_MAX_REQUEST_BYTES = 4 << 20

#: What does not fit a message, whatever brokers are set to.
_MAX_RECORD_BYTES = 60 << 20

#: Batches are delivered whole: one of very many small records would be sent several times over to a
#: consumer that takes them a thousand at a time.
MAX_RECORDS = 4096

#: A parcel of ``publish_many`` that holds so much waits for no more: what an entry, a batch and an
#: acknowledgement cost beside it is little.
_WELL_FILLED = 64 << 10

_hash_key = xxhash.xxh64_intdigest
_T = TypeVar("_T")


class Batcher(Settlement):
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
        super().__init__(compression, on_lost)
        self._producer_id = producer_id
        self._batch_bytes = batch_bytes
        self._max_in_flight = max_in_flight
        self.max_buffered = max_buffered_bytes
        self._now = now
        self._on_work = on_work
        self._on_full = on_full
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
            topic = self.topics[name] = TopicQueue(name, self._epochs.get(name, 0))
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
        if size > _MAX_RECORD_BYTES or 0 < topic.max_record_bytes < size - RECORD_OVERHEAD:
            raise _too_large(size - RECORD_OVERHEAD, topic)
        queue = topic.queues[_hash_key(key) % topic.partitions] if key and topic.partitions else topic.sticky
        parcel = queue.open
        if (
            parcel is None
            or parcel.size + size > self._batch_bytes
            or len(parcel.values) >= MAX_RECORDS
            or parcel.timeout != timeout
        ):
            parcel = self._next_parcel(queue, size, timeout, keyed=bool(key))
        self.buffered += size
        parcel.size += size
        # Not a method of Parcel: this line is run for every record there is.
        if future is not None:
            if parcel.futures is None:
                parcel.futures = [None] * len(parcel.values)
            parcel.futures.append(future)
        elif parcel.futures is not None:
            parcel.futures.append(None)
        if headers:
            parcel.headers[len(parcel.values)] = headers
        parcel.values.append(value)
        parcel.keys.append(key)
        parcel.times.append(time_us)
        if not topic.armed:
            self._on_work(topic)

    def _next_parcel(self, queue: PartitionQueue, size: int, timeout: float, *, keyed: bool) -> Parcel:
        """An open parcel with room, when the queue's present one has none."""
        topic = queue.topic
        if queue.open is not None:
            queue.close()
            self._on_full(topic)
            if queue is topic.sticky:
                self._move_sticky(topic)
                if not keyed:
                    queue = topic.sticky
        parcel = queue.open
        if parcel is not None:
            if (
                parcel.size + size <= self._batch_bytes
                and len(parcel.values) < MAX_RECORDS
                and parcel.timeout == timeout
            ):
                return parcel
            queue.close()
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
        delivery: Delivery,
        at: int,
    ) -> None:
        """Take many records of a call, from its ``at``-th on; the topic's partitions must be known.

        ``headers`` go onto every record. Those with a key join what their partition's open parcel holds:
        over many partitions a call alone makes small batches.
        """
        if keys is None:
            step = self._fitting(_average(values))
            for start in range(0, len(values), step):
                cut = slice(start, start + step)
                part = values[cut]
                queue = topic.sticky
                queue.close()
                self._take(queue, part, [b""] * len(part), times[cut], headers, timeout, delivery, at + start)
                queue.close()
                self._move_sticky(topic)
            self._alert(topic, full=True)
            return
        full = False
        for number, rows in _spread(keys, topic.partitions, topic.sticky.number).items():
            queue = topic.queues[number]
            column = _pick(values, rows)
            step = self._fitting(_average(column))
            for start in range(0, len(rows), step):
                cut = slice(start, start + step)
                some = rows[cut]
                queue_full = self._take(
                    queue,
                    column[cut],
                    _pick(keys, some),
                    _pick(times, some),
                    headers,
                    timeout,
                    delivery,
                    at + some[0],
                )
                full = full or queue_full
        self._alert(topic, full=full)

    def whole_batches(self, values: Sequence[bytes], size: int) -> int:
        """How many of these records are about ``size`` bytes in whole batches, at least one of them."""
        average = _average(values)
        step = self._fitting(average)
        return step * max(1, size // (step * average))

    def _fitting(self, average: int) -> int:
        """How many records of this size make a batch."""
        return max(1, min(MAX_RECORDS, self._batch_bytes // average))

    def _take(
        self,
        queue: PartitionQueue,
        values: Sequence[bytes],
        keys: Sequence[bytes],
        times: Sequence[int],
        headers: Headers | None,
        timeout: float,
        delivery: Delivery,
        at: int,
    ) -> bool:
        """Put records that fit a batch into the open parcel, or a new one; True when one is full."""
        count = len(values)
        size = sum(map(len, values)) + sum(map(len, keys)) + RECORD_OVERHEAD * count
        if headers:
            size += count * sum([len(header) + len(content) for header, content in headers])
        full = False
        parcel = queue.open
        if parcel is not None and (
            parcel.size + size > self._batch_bytes
            or len(parcel.values) + count > MAX_RECORDS
            or parcel.timeout != timeout
        ):
            queue.close()
            parcel, full = None, True
        if parcel is None:
            parcel = queue.open = Parcel(queue, self._now(), timeout)
            queue.topic.pending[queue] = None
        parcel.extend(values, keys, times, headers, delivery, at)
        parcel.size += size
        self.buffered += size
        if parcel.size >= _WELL_FILLED:
            queue.close()
            full = True
        return full

    def _alert(self, topic: TopicQueue, *, full: bool) -> None:
        """Records were taken."""
        if not topic.armed:
            self._on_work(topic)
        # With a request under way, work alone waits for linger; a full parcel does not.
        if full and not topic.hurried:
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
            if parcels and size + queue.first_size() > _MAX_REQUEST_BYTES:
                continue  # it stays open for more
            parcel = self._leaving(queue)
            if parcel is None:
                emptied.append(queue)
                continue
            if not queue.may_leave(parcel) or (
                parcels
                and (
                    size + parcel.size > _MAX_REQUEST_BYTES
                    or parcel.alone
                    or next_epoch(parcel) != parcels[0].epoch
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
                queue.close()
                if queue.topic.sticky is queue:
                    self._move_sticky(queue.topic)
            queue.join_epoch()
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
        """The request on the wire, put together by hand: a message class copies the batches four times."""
        topic = request.topic.name.encode()
        parts = [b"\x0a", varint(len(topic)), topic]
        for parcel in request.parcels:
            size = sum(map(len, parcel.data))
            # The batch has the highest field number, so it ends the encoding.
            head = bus_pb2.PartitionBatch(
                partition=parcel.queue.number, base_sequence=parcel.base_sequence
            ).SerializeToString()
            head += b"\x1a" + varint(size)
            parts += (b"\x1a", varint(len(head) + size), head, *parcel.data)
        parts.append(
            bus_pb2.PublishRequest(
                producer_id=self._producer_id,
                producer_epoch=request.parcels[0].epoch,
                request_id=request.number,
            ).SerializeToString()
        )
        return b"".join(parts)

    def _move_sticky(self, topic: TopicQueue) -> None:
        if topic.queues:
            topic.sticky = topic.queues[(topic.sticky.number + 1) % topic.partitions]


def _average(values: Sequence[bytes]) -> int:
    return sum(map(len, values)) // len(values) + RECORD_OVERHEAD


def _spread(keys: Sequence[bytes], partitions: int, keyless: int) -> dict[int, list[int]]:
    """The indexes of the records by partition, in order."""
    rows: defaultdict[int, list[int]] = defaultdict(list)
    for index, number in enumerate([_hash_key(key) % partitions if key else keyless for key in keys]):
        rows[number].append(index)
    return rows


def _pick(column: Sequence[_T], rows: Sequence[int]) -> Sequence[_T]:
    """The column's entries in these rows; one statement for all."""
    if len(rows) == 1:
        return (column[rows[0]],)
    picked: tuple[_T, ...] = itemgetter(*rows)(column)
    return picked


def _too_large(size: int, topic: TopicQueue) -> RecordTooLargeError:
    limit = topic.max_record_bytes or _MAX_RECORD_BYTES
    return RecordTooLargeError(
        f"record of {size} bytes is over the limit of {limit} bytes of topic {topic.name}",
        metadata={"size": str(size), "limit": str(limit)},
    )
