"""CommitOffsetsOp: a group's offsets, all or none."""

from __future__ import annotations

from holdfast.cluster.state.catalog import check_partition, partition_state
from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.events import GroupCreated
from holdfast.cluster.state.flow_checks import check_within
from holdfast.cluster.state.flow_rules import FlowEdit
from holdfast.cluster.state.names import check_name
from holdfast.errors import FencedError, InvalidArgumentError, LimitExceededError
from holdfast.storage import groups
from holdfast.v1 import log_pb2


def commit_offsets(context: EntryContext, op: log_pb2.CommitOffsetsOp) -> log_pb2.OpResult:
    """Move a group's offsets forward; the group is created by its first commit.

    An offset lower than the committed one changes nothing and is no error:
    commits of one group may pass each other on the way. But none may pass a seek:
    it would undo it, so that one which does not know the seek's fence is refused.

    Raises:
        HoldfastError: refused, nothing was written.
    """
    w, limits = context.w, context.limits
    group = check_name(op.group, what="group", field="group")
    edits: dict[tuple[int, int], FlowEdit] = {}
    for wanted in op.offsets:
        place = (wanted.topic_id, wanted.partition)
        edit = edits.get(place)
        if edit is None:
            edit = edits[place] = _open(context, group, *place)
        if edit.row.fence and wanted.fence != edit.row.fence:
            raise FencedError(
                f"somebody has sent group {group!r} elsewhere in {edit.topic.name!r} "
                f"partition {wanted.partition}",
                metadata={"topic": edit.topic.name, "partition": str(wanted.partition)},
            )
        if wanted.offset < 0:
            raise InvalidArgumentError("an offset is not negative", metadata={"field": "offsets"})
        check_within(edit.topic, edit.partition, edit.state, wanted.offset)
        edit.raise_floor(wanted.offset)
    if op.offsets and not groups.exists(w, group):
        if groups.count(w) >= limits.max_groups:
            raise LimitExceededError(
                f"{limits.max_groups} consumer groups exist, that is the limit",
                metadata={"limit": str(limits.max_groups)},
            )
        context.emit(GroupCreated(group))
    for edit in edits.values():
        edit.close()
        edit.write()
    return log_pb2.OpResult()


def _open(context: EntryContext, group: str, topic_id: int, partition: int) -> FlowEdit:
    topic = context.catalog.topic(context.w, topic_id)
    check_partition(topic, partition)
    return FlowEdit(context, group, topic, partition, partition_state(context.w, topic, partition))
