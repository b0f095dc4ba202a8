"""CreateTopicOp, UpdateTopicOp, DeleteTopicOp."""

from __future__ import annotations

from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.events import TopicCreated, TopicDeleted, TopicUpdated
from holdfast.cluster.state.limits import StateLimits
from holdfast.cluster.state.maintenance import purge_topic
from holdfast.cluster.state.names import HIDDEN_PREFIX, check_name
from holdfast.cluster.state.results import topic_message
from holdfast.errors import InvalidArgumentError, LimitExceededError, TopicExistsError, UnknownTopicError
from holdfast.storage import groups, partitions, topics
from holdfast.storage.port import Reader
from holdfast.storage.topics import TopicRow
from holdfast.v1 import log_pb2, topics_pb2

#: A second to a week, in milliseconds.
_SHORTEST_TTL_MS = 1_000
_LONGEST_TTL_MS = 604_800_000


def create_topic(context: EntryContext, op: log_pb2.CreateTopicOp) -> log_pb2.OpResult:
    """Define a topic and its empty partitions.

    Raises:
        HoldfastError: refused, nothing was written.
    """
    w, limits = context.w, context.limits
    name = check_name(op.name, what="topic", field="name")
    _check_limits(op.limits, limits)
    count = op.partitions or limits.default_partitions
    if count > limits.max_partitions_per_topic:
        raise InvalidArgumentError(
            f"{count} partitions; 1 to {limits.max_partitions_per_topic} allowed",
            metadata={"field": "partitions"},
        )
    existing = topics.find(w, name)
    if existing is not None:
        if op.if_not_exists and op.partitions in (0, existing.partitions):
            return log_pb2.OpResult(topic=topic_message(existing))
        raise TopicExistsError(
            f"topic {name!r} exists already; its number of partitions is {existing.partitions}",
            metadata={"topic": name, "partitions": str(existing.partitions)},
        )
    _check_room(w, count, limits)
    row = _row(topics.take_id(w), name, count, op.limits, context.time_us)
    topics.write(w, row)
    for partition in range(count):
        partitions.create(w, row.id, partition)
    context.emit(TopicCreated(row.id, name, count))
    return log_pb2.OpResult(topic=topic_message(row))


def update_topic(context: EntryContext, op: log_pb2.UpdateTopicOp) -> log_pb2.OpResult:
    """Replace all limits of a topic.

    Raises:
        HoldfastError: refused, nothing was written.
    """
    old = _find(context.w, op.name)
    _check_limits(op.limits, context.limits)
    row = _row(old.id, old.name, old.partitions, op.limits, old.created_at_us)
    topics.write(context.w, row)
    context.catalog.forget(row.id)
    context.emit(TopicUpdated(row.id, row.name))
    return log_pb2.OpResult(topic=topic_message(row))


def delete_topic(context: EntryContext, op: log_pb2.DeleteTopicOp) -> log_pb2.OpResult:
    """Delete a topic: its name is free and its records are out of reach at once.

    What it held is deleted in bounded steps: the first here, the others by
    TrimOps the leader proposes for partitions that have lost their topic.

    Raises:
        HoldfastError: refused, nothing was written.
    """
    row = _find(context.w, op.name)
    topics.remove(context.w, row.id)
    context.catalog.forget(row.id)
    # Nobody redrives from it any more. What the group held goes by sweeps.
    groups.forget(context.w, HIDDEN_PREFIX + row.name)
    purge_topic(context.w, row, context.limits.step_rows)
    context.emit(TopicDeleted(row.id, row.name))
    return log_pb2.OpResult(topic=topic_message(row))


def _row(
    topic_id: int, name: str, count: int, limits: topics_pb2.TopicLimits, created_at_us: int
) -> TopicRow:
    return TopicRow(
        id=topic_id,
        name=name,
        partitions=count,
        max_record_bytes=limits.max_record_bytes,
        retention_ms=limits.retention_ms,
        retention_bytes=limits.retention_bytes,
        idempotency_ttl_ms=limits.idempotency_ttl_ms,
        created_at_us=created_at_us,
    )


def _find(r: Reader, name: str) -> TopicRow:
    row = topics.find(r, check_name(name, what="topic", field="name"))
    if row is None:
        raise UnknownTopicError(f"no topic {name!r}", metadata={"topic": name})
    return row


def _check_limits(wanted: topics_pb2.TopicLimits, limits: StateLimits) -> None:
    if wanted.max_record_bytes > limits.max_record_bytes:
        raise InvalidArgumentError(
            f"max_record_bytes {wanted.max_record_bytes} is over the limit of {limits.max_record_bytes}",
            metadata={"field": "limits.max_record_bytes"},
        )
    if wanted.retention_ms < 0:
        raise InvalidArgumentError("retention_ms is negative", metadata={"field": "limits.retention_ms"})
    if wanted.retention_bytes < 0:
        raise InvalidArgumentError(
            "retention_bytes is negative", metadata={"field": "limits.retention_bytes"}
        )
    if wanted.idempotency_ttl_ms and not _SHORTEST_TTL_MS <= wanted.idempotency_ttl_ms <= _LONGEST_TTL_MS:
        raise InvalidArgumentError(
            f"idempotency_ttl_ms {wanted.idempotency_ttl_ms}: 0, or {_SHORTEST_TTL_MS} to {_LONGEST_TTL_MS}",
            metadata={"field": "limits.idempotency_ttl_ms"},
        )


def _check_room(r: Reader, count: int, limits: StateLimits) -> None:
    present = [row.partitions for row in topics.scan(r)]
    if len(present) >= limits.max_topics:
        raise LimitExceededError(
            f"{len(present)} topics exist, the limit is {limits.max_topics}; delete one",
            metadata={"limit": str(limits.max_topics)},
        )
    taken = sum(present)
    if taken + count > limits.max_partitions:
        raise LimitExceededError(
            f"{taken} partitions exist, the limit is {limits.max_partitions}; delete a topic",
            metadata={"limit": str(limits.max_partitions)},
        )
