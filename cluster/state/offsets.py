"""CommitOffsetsOp: a group's offsets, all or none."""

from __future__ import annotations

from holdfast.cluster.state.catalog import check_partition, partition_state
from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.events import GroupCreated
from holdfast.cluster.state.names import check_name
from holdfast.errors import InvalidArgumentError, LimitExceededError, OffsetOutOfRangeError
from holdfast.storage import groups
from holdfast.v1 import log_pb2


def commit_offsets(context: EntryContext, op: log_pb2.CommitOffsetsOp) -> log_pb2.OpResult:
    """Move a group's offsets forward; the group is created by its first commit.

    An offset lower than the committed one changes nothing and is no error:
    commits of one group may pass each other on the way.

    Raises:
        HoldfastError: refused, nothing was written.
    """
    w, limits = context.w, context.limits
    group = check_name(op.group, what="group", field="group")
    for wanted in op.offsets:
        _check_offset(context, wanted)
    if op.offsets and not groups.exists(w, group):
        if groups.count(w) >= limits.max_groups:
            raise LimitExceededError(
                f"{limits.max_groups} consumer groups exist, that is the limit",
                metadata={"limit": str(limits.max_groups)},
            )
        context.emit(GroupCreated(group))
    for wanted in op.offsets:
        committed = groups.committed(w, group, wanted.topic_id, wanted.partition)
        if committed is None or wanted.offset > committed:
            groups.commit_offset(w, group, wanted.topic_id, wanted.partition, wanted.offset)
    return log_pb2.OpResult()


def _check_offset(context: EntryContext, wanted: log_pb2.GroupOffset) -> None:
    topic = context.catalog.topic(context.w, wanted.topic_id)
    check_partition(topic, wanted.partition)
    state = partition_state(context.w, topic, wanted.partition)
    if wanted.offset < 0:
        raise InvalidArgumentError("an offset is not negative", metadata={"field": "offsets"})
    if wanted.offset > state.next_offset:
        raise OffsetOutOfRangeError(
            f"offset {wanted.offset} is past the end of {topic.name!r} partition {wanted.partition}, "
            f"which is {state.next_offset}",
            metadata={
                "topic": topic.name,
                "partition": str(wanted.partition),
                "start_offset": str(state.start_offset),
                "end_offset": str(state.next_offset),
            },
        )
