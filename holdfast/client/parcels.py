"""Parcels of records, and the queues they stand in. No I/O, no clock."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import NamedTuple

from holdfast.client.types import Ack, BatchAck
from holdfast.errors import HoldfastError
from holdfast.records import Compression, Headers, decode_batch, encode_parts

#: What a waiting record costs beside its key and value, roughly.
RECORD_OVERHEAD = 64

_make_ack = partial(tuple.__new__, Ack)
_PLACE = itemgetter(0)

AckFuture = asyncio.Future[Ack]


class Delivery:
    """The records of one call of ``publish_many``, in whatever parcels they travel.

    ``future`` resolves when all are settled: to their acknowledgements, ordered by the first
    record of each, or to the first error there was.
    """

    __slots__ = ("_acks", "_error", "future", "left")

    def __init__(self, count: int, future: asyncio.Future[list[BatchAck]]) -> None:
        self.future = future
        #: Records not settled.
        self.left = count
        self._acks: list[tuple[int, BatchAck]] = []
        self._error: HoldfastError | None = None

    def acknowledge(self, at: int, ack: BatchAck) -> None:
        """These records, the first of which was the call's ``at``-th, are stored."""
        self._acks.append((at, ack))
        self._settle(ack.count)

    def fail(self, count: int, error: HoldfastError) -> None:
        """So many records are not stored, or nobody knows."""
        self._error = self._error or error
        self._settle(count)

    def _settle(self, count: int) -> None:
        self.left -= count
        if self.left or self.future.done():
            return
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self._acks.sort(key=_PLACE)
            self.future.set_result([ack for _, ack in self._acks])


class Share(NamedTuple):
    """Records within a parcel that one call of ``publish_many`` handed over, one after the other."""

    delivery: Delivery
    first: int  # index within the parcel
    records: int
    at: int  # index within the call of the first of them: acknowledgements come in this order


class Parcel:
    """Records of one partition that travel together."""

    __slots__ = (
        "alone",
        "base_sequence",
        "count",
        "data",
        "deadline",
        "epoch",
        "futures",
        "headers",
        "keys",
        "opened",
        "queue",
        "restarts",
        "settled",
        "shares",
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
        #: Of calls that wait for many records, in order.
        self.shares: list[Share] = []
        #: Told when the parcel is settled, well or not.
        self.watchers: list[asyncio.Future[None]] = []
        self.size = 0
        self.count = 0
        #: The serialised batch, in parts; empty before it is made and after it was settled.
        self.data: tuple[bytes, ...] = ()
        #: -1 until the parcel first leaves.
        self.base_sequence = -1
        self.epoch = 0
        self.uncertain = False
        self.settled = False
        #: Travels without parcels of other partitions, to find which one is refused.
        self.alone = False
        self.restarts = 0

    def extend(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes],
        times: Sequence[int],
        headers: Headers | None,
        delivery: Delivery,
        at: int,
    ) -> None:
        """Take these records of a call, from its ``at``-th on; ``headers`` go onto each."""
        first, count = len(self.values), len(values)
        if headers:
            self.headers.update(dict.fromkeys(range(first, first + count), headers))
        if self.futures is not None:
            self.futures += [None] * count
        self.values += values
        self.keys += keys
        self.times += times
        last = self.shares[-1] if self.shares else None
        if last is not None and last.delivery is delivery and last.first + last.records == first:
            self.shares[-1] = last._replace(records=last.records + count)
        else:
            self.shares.append(Share(delivery, first, count, at))

    def watch(self, new_future: Callable[[], asyncio.Future[None]]) -> asyncio.Future[None]:
        """Resolves when the parcel is settled, well or not."""
        future = new_future()
        self.watchers.append(future)
        return future

    def _settle(self) -> None:
        self.settled = True
        self.data = ()
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
        self.data = encode_parts(self.values, self.keys, self.times, headers, compression)
        self.count = len(self.values)
        self.values, self.keys, self.times, self.headers = [], [], [], {}

    def resolve(self, topic: str, base_offset: int) -> None:
        self._settle()
        if self.futures is not None:
            partition = self.queue.number
            offsets = range(base_offset, base_offset + self.count)
            acks = map(_make_ack, zip(repeat(topic), repeat(partition), offsets, repeat(False), strict=False))
            for future, ack in zip(self.futures, acks, strict=True):
                if future is not None and not future.done():
                    future.set_result(ack)
            self.futures = None
        for delivery, first, records, at in self.shares:
            delivery.acknowledge(at, BatchAck(topic, self.queue.number, base_offset + first, records))
        self.shares = []

    def fail(self, error: HoldfastError) -> bool:
        """Give up. False when records had nobody who would hear of it."""
        self._settle()
        told = 0
        for future in self.futures or ():
            if future is not None:
                told += 1
                if not future.done():
                    future.set_exception(error)
        self.futures = None
        for share in self.shares:
            told += share.records
            share.delivery.fail(share.records, error)
        self.shares = []
        return told == (self.count or len(self.values))

    def halves(self, compression: Compression) -> list[Parcel]:
        """Two parcels of the same records and sequences; they take over who waits for this one.

        Should the whole have been stored after all, the broker knows the
        halves as parts of it.
        """
        columns = decode_batch(b"".join(self.data))
        middle = self.count // 2
        halves: list[Parcel] = []
        for cut in (slice(0, middle), slice(middle, self.count)):
            half = Parcel(self.queue, self.opened, self.timeout)
            half.data = encode_parts(
                columns.values[cut],
                columns.keys[cut],
                columns.timestamps_us[cut],
                columns.headers[cut],
                compression,
            )
            half.count = len(columns.values[cut])
            half.size = sum(map(len, columns.values[cut])) + half.count * RECORD_OVERHEAD
            half.alone = True
            half.uncertain = self.uncertain
            half.epoch = self.epoch
            half.base_sequence = self.base_sequence + cut.start
            if self.futures is not None:
                half.futures = self.futures[cut]
            half.shares = _cut_shares(self.shares, cut.start, cut.stop)
            halves.append(half)
        halves[1].watchers = self.watchers
        self.settled = True
        return halves


class PartitionQueue:
    """The parcels of one partition: open, waiting to leave, under way."""

    __slots__ = ("epoch", "in_flight", "next_sequence", "number", "open", "topic", "waiting")

    def __init__(self, topic: TopicQueue, number: int) -> None:
        self.topic = topic
        self.number = number
        self.open: Parcel | None = None
        self.waiting: deque[Parcel] = deque()
        self.in_flight: deque[Parcel] = deque()
        self.epoch = topic.epoch
        self.next_sequence = 0

    def parcels(self) -> Iterator[Parcel]:
        """All of them, in order."""
        yield from self.in_flight
        yield from self.waiting
        if self.open is not None:
            yield self.open

    def first_size(self) -> int:
        """Of the parcel that is next to leave; 0: there is none."""
        parcel = self.waiting[0] if self.waiting else self.open
        return 0 if parcel is None else parcel.size

    def close(self) -> None:
        """Let nothing more into the open parcel."""
        if self.open is not None:
            self.waiting.append(self.open)
            self.open = None

    def drop(self, parcel: Parcel) -> None:
        """Take a parcel out, wherever it stands."""
        if self.open is parcel:
            self.open = None
        elif parcel in self.waiting:
            self.waiting.remove(parcel)
        elif parcel in self.in_flight:
            self.in_flight.remove(parcel)

    def clear(self) -> None:
        self.open = None
        self.waiting.clear()
        self.in_flight.clear()

    def behind(self, parcel: Parcel) -> list[Parcel]:
        """The parcels that follow this one."""
        parcels = list(self.parcels())
        return parcels[parcels.index(parcel) + 1 :]

    def new_epoch(self, parcels: Sequence[Parcel]) -> None:
        """Number these, the last ones of the queue, anew; those before them keep their sequences."""
        # Higher than that of any partition of the topic: see `join_epoch`.
        self.topic.epoch += 1
        self.epoch = self.topic.epoch
        self.next_sequence = 0
        for parcel in parcels:
            parcel.base_sequence = -1

    def join_epoch(self) -> None:
        """Go over to the topic's epoch once nothing older is left: parcels of one epoch travel together."""
        if self.epoch < self.topic.epoch and not self.in_flight and self.waiting[0].base_sequence < 0:
            self.epoch = self.topic.epoch
            self.next_sequence = 0

    def may_leave(self, parcel: Parcel) -> bool:
        """Whether the first parcel may follow those under way.

        A new epoch fences the one before: it has to wait until that is done.
        """
        return not self.in_flight or self.in_flight[-1].epoch == next_epoch(parcel)


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
        "epoch",
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

    def __init__(self, name: str, epoch: int = 0) -> None:
        self.name = name
        #: The highest one of its partitions.
        self.epoch = epoch
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


def next_epoch(parcel: Parcel) -> int:
    """The epoch the parcel leaves under."""
    return parcel.epoch if parcel.base_sequence >= 0 else parcel.queue.epoch


def _cut_shares(shares: Sequence[Share], start: int, stop: int) -> list[Share]:
    """What of them lies within these records of their parcel."""
    parts: list[Share] = []
    for delivery, first, records, at in shares:
        begin, end = max(first, start), min(first + records, stop)
        if begin < end:
            parts.append(Share(delivery, begin - start, end - begin, at))
    return parts
