"""A publish with idempotency keys: what is new of it is stored, what was stored before is answered. No I/O.

An operation with a key that is known is refused whole, so that the log never
holds a batch with holes. What was known is taken out here, and the rest is
proposed again: an answer names the records that were stored by it and those
that had been, in the caller's order.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, TypeVar

import xxhash

from holdfast.cluster.commands import encode_op
from holdfast.errors import InternalError
from holdfast.records import decode_batch, encode_batch
from holdfast.rpc.status import invalid
from holdfast.storage.marks import NO_DIGEST
from holdfast.v1 import bus_pb2, log_pb2, records_pb2

#: A key is an identifier; longer ones are somebody's payload.
MAX_KEY_BYTES = 256
#: Records of a request that has keys: each costs an entry's apply two rows and their look-ups.
MAX_RECORDS = 1000

_T = TypeVar("_T")

_TOPIC = struct.Struct(">I")
_digest = xxhash.xxh3_128_digest


class Place(NamedTuple):
    """Where a record is."""

    partition: int
    offset: int
    duplicate: bool


class Part(NamedTuple):
    """A batch of the request.

    Attributes:
        facts: as in the operation, marks included.
        data: a serialised RecordBatch.
        callers: the number in the request of each record.
        digests: of each record's key.
    """

    facts: log_pb2.AppendBatch
    data: bytes
    callers: Sequence[int]
    digests: Sequence[bytes]


class KeyedPublish:
    """One request on its way: ``op``, then ``repeated`` or ``stored``, until nothing is ``left``.

    Args:
        topic_id: of the topic.
        batches: of an operation that was checked, and their bytes.
        callers: per batch, the number in the request of each record.
        keys: of all records, in the request's order; empty: none.
    """

    def __init__(
        self,
        topic_id: int,
        batches: Iterable[tuple[log_pb2.AppendBatch, bytes]],
        callers: Iterable[Sequence[int]],
        keys: Sequence[bytes],
    ) -> None:
        self._topic_id = topic_id
        self._places: list[Place | None] = [None] * len(keys)
        self._acks: Sequence[bus_pb2.PartitionAck] = ()
        head = _TOPIC.pack(topic_id)
        digests = [_digest(head + key) if key else NO_DIGEST for key in keys]
        first: dict[bytes, int] = {}
        #: A record whose key another one of the request has -> that one.
        self._follows: dict[int, int] = {}
        for number, digest in enumerate(digests):
            if digest != NO_DIGEST and first.setdefault(digest, number) != number:
                self._follows[number] = first[digest]
        parts = [
            Part(facts, data, numbers, [digests[number] for number in numbers])
            for (facts, data), numbers in zip(batches, callers, strict=True)
        ]
        for part in parts:
            part.facts.marks = _packed(part.digests)
        self._parts = _without(parts, self._follows)

    @property
    def records(self) -> int:
        """Of the whole request."""
        return len(self._places)

    @property
    def left(self) -> bool:
        """Records wait to be stored, or to be found stored."""
        return bool(self._parts)

    @property
    def repeats(self) -> int:
        """Records that were stored before."""
        return sum(1 for number in range(len(self._places)) if self._place(number).duplicate)

    @property
    def parts(self) -> Sequence[Part]:
        """What is left, batch by batch."""
        return self._parts

    def append(self) -> tuple[log_pb2.AppendOp, list[bytes]]:
        """What an operation appends that stores what is left, and its batches."""
        append = log_pb2.AppendOp(topic_id=self._topic_id, batches=[part.facts for part in self._parts])
        return append, [part.data for part in self._parts]

    def op(self) -> bytes:
        """The operation that appends what is left."""
        append, batches = self.append()
        return encode_op(log_pb2.Op(append=append), batches)

    def repeated(self, marked: Iterable[log_pb2.MarkedRecord]) -> None:
        """The operation was refused, because these of its records are stored."""
        found: set[int] = set()
        for mark in marked:
            number = self._parts[mark.batch].callers[mark.index]
            self._places[number] = Place(mark.partition, mark.offset, True)
            found.add(number)
        if not found:
            raise InternalError("a publish was refused for its idempotency keys, and none was named")
        self._parts = _without(self._parts, found)

    def stored(self, acks: Sequence[bus_pb2.PartitionAck]) -> None:
        """The operation is in the log."""
        for part, ack in zip(self._parts, acks, strict=True):
            for index, number in enumerate(part.callers):
                self._places[number] = Place(ack.partition, ack.base_offset + index, False)
        self._acks = acks
        self._parts = []

    def response(self) -> bus_pb2.PublishResponse:
        """The answer, once nothing is left: what was stored now, and the place of each record."""
        response = bus_pb2.PublishResponse(acks=self._acks)
        add = response.positions.add
        for number in range(len(self._places)):
            place = self._place(number)
            add(partition=place.partition, offset=place.offset, duplicate=place.duplicate)
        return response

    def _place(self, number: int) -> Place:
        place = self._places[self._follows.get(number, number)]
        if place is None:
            raise InternalError("a record of a publish with idempotency keys was not answered")
        return place._replace(duplicate=True) if number in self._follows else place


def check_keys(field: str, keys: Sequence[bytes], records: int) -> None:
    """
    Raises:
        InvalidArgumentError: not one per record, or one is too long.
    """
    if len(keys) != records:
        raise invalid(field, f"{len(keys)} idempotency keys for {records} records; empty means none")
    longest = max(map(len, keys), default=0)
    if longest > MAX_KEY_BYTES:
        raise invalid(field, f"an idempotency key of {longest} bytes; at most {MAX_KEY_BYTES}")


def _without(parts: Sequence[Part], numbers: Collection[int]) -> list[Part]:
    """The parts without some records; those that lose none stay as they are, byte for byte."""
    left: list[Part] = []
    for part in parts:
        keep = [index for index, number in enumerate(part.callers) if number not in numbers]
        if len(keep) == len(part.callers):
            left.append(part)
        elif keep:
            left.append(_cut(part, keep))
    return left


def _cut(part: Part, keep: list[int]) -> Part:
    batch = decode_batch(part.data)
    times = _pick(batch.timestamps_us, keep)
    data = encode_batch(
        _pick(batch.values, keep),
        _pick(batch.keys, keep) if batch.has_keys else None,
        times,
        _pick(batch.headers, keep) if batch.has_headers else None,
        records_pb2.RecordBatch.FromString(part.data).compression,
    )
    digests = _pick(part.digests, keep)
    facts = log_pb2.AppendBatch(
        partition=part.facts.partition,
        count=len(keep),
        length=len(data),
        min_timestamp_us=min(times),
        max_timestamp_us=max(times),
        marks=_packed(digests),
    )
    return Part(facts, data, _pick(part.callers, keep), digests)


def _packed(digests: Sequence[bytes]) -> bytes:
    """As an operation has them; empty when no record has a key."""
    packed = b"".join(digests)
    return packed if any(packed) else b""


def _pick(column: Sequence[_T], keep: list[int]) -> list[_T]:
    return [column[index] for index in keep]
