"""From a PublishRequest to one operation of the log. No I/O, no awaiting.

This is the broker's hottest code: the request is parsed once, a batch's bytes
are checked and passed on untouched, and only what the caller sent as plain
records is encoded here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from google.protobuf.message import DecodeError

from holdfast.cluster.commands import encode_op
from holdfast.cluster.ports import Clock
from holdfast.cluster.state.marks import takes_no_keys
from holdfast.errors import RecordTooLargeError, UnknownPartitionError
from holdfast.records import BatchLimits, check_batch, encode_batch, partition_for
from holdfast.rpc.services.keyed_publish import MAX_RECORDS, KeyedPublish, check_keys
from holdfast.rpc.services.publish_wire import OPEN_BYTES, OpenItem, open_publish
from holdfast.rpc.settings import Limits
from holdfast.rpc.status import invalid
from holdfast.v1 import bus_pb2, log_pb2

_KEY = attrgetter("key")
_VALUE = attrgetter("value")
_TIME = attrgetter("timestamp_us")
_HEADERS = attrgetter("headers")
_MAX_PRODUCER_ID = (1 << 63) - 1


class TopicFacts(Protocol):
    """What publishing needs to know of a topic; sizes in bytes."""

    @property
    def id(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def partitions(self) -> int: ...

    @property
    def max_record_bytes(self) -> int: ...

    @property
    def idempotency_ttl_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A framed operation, and for plain records the partition of each.

    ``keyed``, when given, takes the place of both.
    """

    op: bytes
    spread: list[int] | None
    keyed: KeyedPublish | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """A PublishRequest; ``batches``, when given, are those taken out of ``message``."""

    message: bus_pb2.PublishRequest
    batches: list[OpenItem] | None = None


def parse_publish(raw: bytes) -> Parsed:
    """
    Raises:
        InvalidArgumentError: the bytes are no PublishRequest.
    """
    try:
        opened = open_publish(raw) if len(raw) >= OPEN_BYTES else None
        if opened is not None:
            return Parsed(opened.rest, opened.batches)
        return Parsed(bus_pb2.PublishRequest.FromString(raw))
    except DecodeError:
        raise invalid("request", "the message does not parse as a PublishRequest") from None


class PublishEncoder:
    """Checks requests against limits and turns them into operations.

    Args:
        limits: of this broker; a topic's ``max_record_bytes`` goes before them.
        clock: stamps plain records that carry no timestamp.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = BatchLimits(
            max_record_bytes=limits.max_record_bytes,
            max_batch_bytes=limits.max_batch_bytes,
            max_key_bytes=limits.max_key_bytes,
            max_headers=limits.max_headers,
            max_header_bytes=limits.max_header_bytes,
        )
        self._max_request_bytes = limits.max_request_bytes
        self._clock = clock
        self._turn = itertools.count()

    def prepare(self, parsed: Parsed, topic: TopicFacts, *, streamed: bool = False) -> Prepared:
        """The operation that appends the request's records.

        Args:
            streamed: of a PublishStream, which takes no idempotency keys.

        Raises:
            InvalidArgumentError: a field is missing, out of range or contradicts another.
            UnknownPartitionError: the topic has no such partition.
            MalformedBatchError, CorruptBatchError, RecordTooLargeError: of a batch.
            FailedPreconditionError: the topic takes no idempotency keys.
        """
        request = parsed.message
        if request.producer_id > _MAX_PRODUCER_ID:
            raise invalid("producer_id", "a producer id has at most 63 bits")
        batches = request.batches if parsed.batches is None else parsed.batches
        if batches:
            if request.records:
                raise invalid("records", "send records or batches, not both in one request")
            if request.idempotency_keys:
                raise invalid("idempotency_keys", "those of a batch's records go into the batch's own field")
            op, blobs, keyed = self._append_batches(request, batches, topic)
            self._check_total(blobs)
            if keyed:
                return _keyed_batches(request, topic, op, blobs, streamed=streamed)
            return Prepared(encode_op(op, blobs), None)
        if not request.records:
            raise invalid("records", "the request holds neither records nor batches")
        if request.idempotency_keys:
            return self._prepare_keyed_records(request, topic, streamed=streamed)
        op, blobs, spread, _ = self._append_records(request, topic)
        self._check_total(blobs)
        return Prepared(encode_op(op, blobs), spread)

    def keyed(self, request: bus_pb2.PublishRequest, topic: TopicFacts, *, keyless: int) -> KeyedPublish:
        """The request's records, with idempotency keys or without, for an operation of the caller's own.

        How much they are together is for the caller to look at.

        Args:
            keyless: decides which partition takes the records without a key.

        Raises:
            HoldfastError: as ``prepare``.
        """
        if request.batches:
            if request.records:
                raise invalid("records", "send records or batches of a topic, not both")
            op, blobs, _ = self._append_batches(request, request.batches, topic)
            keys, callers = _batch_keys(request, op)
            batches = zip(op.append.batches, blobs, strict=True)
            found = KeyedPublish(topic.id, batches, callers, keys)
        elif request.records:
            keys = request.idempotency_keys[:] or [b""] * len(request.records)
            check_keys("idempotency_keys", keys, len(request.records))
            op, blobs, _, numbers = self._append_records(request, topic, keyless)
            batches = zip(op.append.batches, blobs, strict=True)
            found = KeyedPublish(topic.id, batches, numbers, keys)
        else:
            raise invalid("records", f"there are neither records nor batches for topic {topic.name!r}")
        if any(keys):
            _check_keyed(request, topic, len(keys), streamed=False)
        return found

    def _prepare_keyed_records(
        self, request: bus_pb2.PublishRequest, topic: TopicFacts, *, streamed: bool
    ) -> Prepared:
        keys = request.idempotency_keys[:]
        check_keys("idempotency_keys", keys, len(request.records))
        if any(keys):
            _check_keyed(request, topic, len(keys), streamed=streamed)
        op, blobs, spread, callers = self._append_records(request, topic)
        self._check_total(blobs)
        if not any(keys):
            return Prepared(encode_op(op, blobs), spread)
        batches = zip(op.append.batches, blobs, strict=True)
        return Prepared(b"", None, KeyedPublish(topic.id, batches, callers, keys))

    def _append_batches(
        self,
        request: bus_pb2.PublishRequest,
        batches: Iterable[bus_pb2.PartitionBatch | OpenItem],
        topic: TopicFacts,
    ) -> tuple[log_pb2.Op, list[bytes], bool]:
        """The operation, its batches, and whether idempotency keys came with one."""
        op = log_pb2.Op()
        append = op.append
        append.topic_id = topic.id
        append.producer_id = request.producer_id
        append.producer_epoch = request.producer_epoch
        add = append.batches.add
        limits, max_record = self._limits, topic.max_record_bytes or None
        blobs: list[bytes] = []
        keyed = False
        seen = set()
        for item in batches:
            partition = item.partition
            if partition >= topic.partitions:
                raise unknown_partition(topic, partition)
            if partition in seen:
                raise invalid(
                    "batches", f"partition {partition} is named twice; at most one batch per partition"
                )
            seen.add(partition)
            if item.idempotency_keys:
                keyed = True
            batch = item.batch
            facts = check_batch(batch, limits, max_record_bytes=max_record)
            if isinstance(batch, bytes):
                blobs.append(batch)
            else:
                blobs += (batch.head, batch.records)
            add(
                partition=partition,
                base_sequence=item.base_sequence,
                count=facts.count,
                length=len(batch),
                min_timestamp_us=facts.min_timestamp_us,
                max_timestamp_us=facts.max_timestamp_us,
            )
        return op, blobs, keyed

    def _append_records(
        self, request: bus_pb2.PublishRequest, topic: TopicFacts, keyless: int | None = None
    ) -> tuple[log_pb2.Op, list[bytes], list[int], Iterable[list[int]]]:
        """The operation, its batches, the partition of each record, and the records of each batch."""
        # Column by column: one C-speed pass each instead of Python per record.
        records = list(request.records)
        keys = list(map(_KEY, records))
        spread = self._spread(request, topic, keys, keyless)
        groups: dict[int, list[int]] = {}
        for position, partition in enumerate(spread):
            groups.setdefault(partition, []).append(position)
        op = log_pb2.Op()
        append = op.append
        append.topic_id = topic.id
        append.producer_id = request.producer_id
        append.producer_epoch = request.producer_epoch
        max_record = topic.max_record_bytes or None
        now = self._clock.wall_us()
        blobs = []
        for partition, positions in groups.items():
            chosen = records if len(groups) == 1 else [records[i] for i in positions]
            chosen_keys = keys if len(groups) == 1 else [keys[i] for i in positions]
            headers = list(map(_HEADERS, chosen))
            batch = encode_batch(
                list(map(_VALUE, chosen)),
                chosen_keys if any(chosen_keys) else None,
                [time_us or now for time_us in map(_TIME, chosen)],
                [[(h.name, h.value) for h in each] for each in headers] if any(headers) else None,
            )
            facts = check_batch(batch, self._limits, max_record_bytes=max_record)
            blobs.append(batch)
            append.batches.add(
                partition=partition,
                base_sequence=request.base_sequence,
                count=facts.count,
                length=len(batch),
                min_timestamp_us=facts.min_timestamp_us,
                max_timestamp_us=facts.max_timestamp_us,
            )
        return op, blobs, spread, groups.values()

    def _spread(
        self, request: bus_pb2.PublishRequest, topic: TopicFacts, keys: list[bytes], keyless: int | None
    ) -> list[int]:
        """The partition of each record.

        Those without a key stay together, where ``keyless`` says or in the next partition round.
        """
        partitions = topic.partitions
        if request.HasField("partition"):
            if request.partition >= partitions:
                raise unknown_partition(topic, request.partition)
            return [request.partition] * len(keys)
        if request.producer_id:
            # Sequences count per partition, so a retry has to hit the same one.
            raise invalid("partition", "records with a producer_id need the partition they go to")
        turn = (next(self._turn) if keyless is None else keyless) % partitions
        return [partition_for(key, partitions) if key else turn for key in keys]

    def _check_total(self, blobs: Iterable[bytes]) -> None:
        size = sum(map(len, blobs))
        if size > self._max_request_bytes:
            raise RecordTooLargeError(
                f"the request holds {size} bytes of batches; at most {self._max_request_bytes}",
                metadata={"field": "batches", "limit": str(self._max_request_bytes)},
            )


def _keyed_batches(
    request: bus_pb2.PublishRequest,
    topic: TopicFacts,
    op: log_pb2.Op,
    blobs: list[bytes],
    *,
    streamed: bool,
) -> Prepared:
    keys, callers = _batch_keys(request, op)
    if not any(keys):
        return Prepared(encode_op(op, blobs), None)
    _check_keyed(request, topic, len(keys), streamed=streamed)
    batches = zip(op.append.batches, blobs, strict=True)
    return Prepared(b"", None, KeyedPublish(topic.id, batches, callers, keys))


def _batch_keys(request: bus_pb2.PublishRequest, op: log_pb2.Op) -> tuple[list[bytes], list[range]]:
    """The idempotency keys of all records, and which records of the request each batch holds."""
    keys: list[bytes] = []
    callers: list[range] = []
    for item, facts in zip(request.batches, op.append.batches, strict=True):
        own = item.idempotency_keys[:] or [b""] * facts.count
        check_keys("batches.idempotency_keys", own, facts.count)
        callers.append(range(len(keys), len(keys) + facts.count))
        keys += own
    return keys, callers


def _check_keyed(request: bus_pb2.PublishRequest, topic: TopicFacts, records: int, *, streamed: bool) -> None:
    if streamed:
        raise invalid("idempotency_keys", "a PublishStream takes none: send these records by Publish")
    if records > MAX_RECORDS:
        raise invalid(
            "idempotency_keys",
            f"{records} records in a request with keys; at most {MAX_RECORDS}, send several",
        )
    if request.producer_id:
        raise invalid(
            "idempotency_keys",
            "a request has a producer_id or idempotency keys, not both: a key alone makes a retry safe",
        )
    if not topic.idempotency_ttl_ms:
        raise takes_no_keys(topic.name)


def add_positions(response: bus_pb2.PublishResponse, spread: list[int]) -> None:
    """Fill in where each plain record went."""
    following = {ack.partition: ack.base_offset for ack in response.acks}
    add = response.positions.add
    for partition in spread:
        offset = following[partition]
        if offset >= 0:  # -1: a duplicate so old that its place is not remembered
            following[partition] = offset + 1
        add(partition=partition, offset=offset)


def unknown_partition(topic: TopicFacts, partition: int) -> UnknownPartitionError:
    return UnknownPartitionError(
        f"topic {topic.name!r} has partitions 0 to {topic.partitions - 1}, not {partition}",
        metadata={"field": "partition", "topic": topic.name, "partitions": str(topic.partitions)},
    )
