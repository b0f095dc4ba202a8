"""Idempotency keys: what was stored under one, for as long as its topic says.

A record's key comes as a digest of 16 bytes, beside its batch. All of an
append's digests are looked up before anything is written; if one of them is
known, nothing is stored, and the result tells where each known one lies: the
service takes those out and proposes the rest (``rpc/services/keyed_publish.py``).

Times are stamped times, so all replicas know and forget the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from holdfast.cluster.state.context import EntryContext
from holdfast.errors import (
    DuplicateKeysError,
    FailedPreconditionError,
    InvalidArgumentError,
    MalformedBatchError,
    OverloadedError,
)
from holdfast.storage import cursors, marks
from holdfast.storage.marks import DIGEST_BYTES, NO_DIGEST, Mark
from holdfast.storage.topics import TopicRow
from holdfast.v1 import bus_pb2, log_pb2

#: Offset of a repeat of a key that the same operation brings for the first time.
NOT_STORED_YET = -1

#: Expired marks an operation deletes beside the ones it writes, so that a busy topic
#: cleans up after itself, whatever its rate: so many for each, and so many in any case.
_PURGED_PER_MARK = 2
_PURGED_BESIDE = 8
_FULL_RETRY_MS = 1000


class RepeatedKeysError(DuplicateKeysError):
    """Keys were known; nothing was written.

    Attributes:
        marked: which records, and where they were stored; ``NOT_STORED_YET`` for the second
            record of a key within the operation.
    """

    def __init__(self, marked: Sequence[log_pb2.MarkedRecord]) -> None:
        super().__init__(f"{len(marked)} records were stored before under their idempotency keys")
        self.marked = marked


def check_marks(context: EntryContext, topic: TopicRow, op: log_pb2.AppendOp) -> None:
    """Whether everything of an append that has keys is new, and may be remembered.

    Raises:
        RepeatedKeysError: a key is known.
        FailedPreconditionError: the topic takes no keys.
        InvalidArgumentError: a producer's append has keys.
        MalformedBatchError: not one digest per record.
        OverloadedError: as many keys are remembered as there may be.
    """
    if op.producer_id:
        raise InvalidArgumentError(
            "idempotency keys together with a producer_id", metadata={"field": "idempotency_keys"}
        )
    if not topic.idempotency_ttl_ms:
        raise takes_no_keys(topic.name)
    w, now_us, topic_id = context.w, context.time_us, topic.id
    first: dict[bytes, int] = {}
    marked: list[log_pb2.MarkedRecord] = []
    for number, batch in enumerate(op.batches):
        for index, digest in _digests(batch):
            partition, offset = first.get(digest, -1), NOT_STORED_YET
            if partition < 0:
                first[digest] = batch.partition
                mark = marks.read(w, topic_id, digest, now_us)
                if mark is None:
                    continue
                partition, offset = mark.partition, mark.offset
            marked.append(log_pb2.MarkedRecord(batch=number, index=index, partition=partition, offset=offset))
    if marked:
        raise RepeatedKeysError(marked)
    check_room(context, topic_id, len(first))


def check_room(context: EntryContext, topic_id: int, wanted: int) -> None:
    """Whether so many more marks of a topic may be written, given what ``make_room`` deletes.

    Raises:
        OverloadedError: no; expiry makes room.
    """
    w, limits = context.w, context.limits
    of_topic = cursors.marks_of(w, topic_id) + wanted - limits.max_marks_per_topic
    of_all = marks.count(w) + wanted - limits.max_marks
    if of_topic <= 0 and of_all <= 0:
        return
    expired = [found for _, found, _ in islice(marks.expired(w, context.time_us), _purged(wanted))]
    if of_topic > expired.count(topic_id) or of_all > len(expired):
        bound = limits.max_marks_per_topic if of_topic > expired.count(topic_id) else limits.max_marks
        raise OverloadedError(
            f"{bound} idempotency keys are remembered, that is the limit; they expire with the topic's "
            "idempotency_ttl_ms: try again, or make it shorter",
            metadata={"limit": str(bound)},
            retry_after_ms=_FULL_RETRY_MS,
        )


def store_marks(
    context: EntryContext, topic: TopicRow, op: log_pb2.AppendOp, acks: Iterable[bus_pb2.PartitionAck]
) -> None:
    """Remember where the records of an append lie that have keys; ``acks`` are those of its batches."""
    w, topic_id = context.w, topic.id
    expires_us = context.time_us + topic.idempotency_ttl_ms * 1000
    new = [
        (digest, Mark(expires_us, batch.partition, ack.base_offset + index))
        for batch, ack in zip(op.batches, acks, strict=True)
        for index, digest in _digests(batch)
    ]
    make_room(context, len(new))
    added = sum([marks.write(w, topic_id, digest, mark) for digest, mark in new])
    cursors.add_marks(w, topic_id, added)


def make_room(context: EntryContext, wanted: int) -> None:
    """Delete expired marks, a bounded number, before ``wanted`` are written."""
    _forget(context, _purged(wanted))


def expire_marks(context: EntryContext, op: log_pb2.ExpireMarksOp) -> log_pb2.OpResult:
    """Forget marks whose time is over, at most ``step_rows``; for topics that nothing is written to."""
    _forget(context, min(op.limit, context.limits.step_rows))
    left = next(marks.expired(context.w, context.time_us), None)
    return log_pb2.OpResult(more=left is not None)


def takes_no_keys(topic: str) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"topic {topic!r} takes no idempotency keys; give it a window first: "
        f"holdfast topic update {topic} --idempotency-ttl 1h",
        metadata={"field": "idempotency_keys", "topic": topic},
    )


def _purged(wanted: int) -> int:
    return _PURGED_PER_MARK * wanted + _PURGED_BESIDE


def _forget(context: EntryContext, limit: int) -> None:
    forgotten = Counter(marks.expire(context.w, context.time_us, limit))
    for topic_id, count in forgotten.items():
        cursors.add_marks(context.w, topic_id, -count)


def _digests(batch: log_pb2.AppendBatch) -> Iterator[tuple[int, bytes]]:
    """Index and digest of each record that has a key.

    Raises:
        MalformedBatchError: not one digest per record.
    """
    packed = batch.marks
    if packed and len(packed) != DIGEST_BYTES * batch.count:
        raise MalformedBatchError(f"{len(packed)} bytes of digests for {batch.count} records")
    for index, at in enumerate(range(0, len(packed), DIGEST_BYTES)):
        digest = packed[at : at + DIGEST_BYTES]
        if digest != NO_DIGEST:
            yield index, digest
