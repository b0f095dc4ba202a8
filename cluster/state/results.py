"""Results of operations as messages."""

from __future__ import annotations

from holdfast.cluster.state.marks import RepeatedKeysError
from holdfast.errors import HoldfastError
from holdfast.storage.topics import TopicRow
from holdfast.v1 import errors_pb2, log_pb2, topics_pb2


def error_message(error: HoldfastError) -> errors_pb2.Error:
    """An error in the form that travels inside results and streams."""
    return errors_pb2.Error(
        reason=error.reason,
        message=error.message,
        retriable=error.retriable,
        retry_after_ms=error.retry_after_ms,
        metadata=error.metadata,
    )


def error_result(error: HoldfastError) -> log_pb2.OpResult:
    marked = error.marked if isinstance(error, RepeatedKeysError) else ()
    return log_pb2.OpResult(error=error_message(error), marked=marked)


def topic_message(row: TopicRow) -> topics_pb2.Topic:
    """A topic's definition; ``partition_info`` is for the caller to add."""
    return topics_pb2.Topic(
        name=row.name,
        id=row.id,
        partitions=row.partitions,
        limits=topics_pb2.TopicLimits(
            max_record_bytes=row.max_record_bytes,
            retention_ms=row.retention_ms,
            retention_bytes=row.retention_bytes,
            idempotency_ttl_ms=row.idempotency_ttl_ms,
        ),
        created_at_us=row.created_at_us,
    )
