"""PutGroupOp and DeleteGroupOp: groups come, are redefined, and go."""

from __future__ import annotations

from holdfast.cluster import group_definition
from holdfast.cluster.group_definition import Definition
from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.events import GroupCreated, GroupDeleted
from holdfast.cluster.state.group_view import group_message, stored, unknown_group
from holdfast.cluster.state.names import check_group_name
from holdfast.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    LimitExceededError,
    UnknownTopicError,
)
from holdfast.storage import flow_keys, groups, topics
from holdfast.storage.groups import GroupRow
from holdfast.storage.port import Reader, Table
from holdfast.storage.topics import TopicRow
from holdfast.v1 import log_pb2

#: What a dead letter may have beyond its record: headers that say where it came from and why it died.
DEAD_LETTER_ROOM = 16 << 10

#: What a group holds beside its members and offsets.
_HELD = (Table.RETRIES, Table.ACKS, Table.FLOWS)


def put_group(context: EntryContext, op: log_pb2.PutGroupOp) -> log_pb2.OpResult:
    """Make a group, or redefine it; what it holds of partitions stays.

    A subscription that defines nothing (``implicit``) changes no definition that
    somebody gave.

    Raises:
        HoldfastError: refused, nothing was written.
    """
    w, name = context.w, check_group_name(op.group)
    wanted = group_definition.check(op.definition)
    check_dead_letter_topic(w, wanted)
    row = groups.read(w, name)
    if row is None:
        _check_room(context)
        row = GroupRow()
        context.emit(GroupCreated(name))
    about = stored(row)
    if about.HasField("definition"):
        if op.implicit and not about.implicit:
            return _result(context, name)
        has = group_definition.check(about.definition)
        _check_change(context, op, about, wanted, has)
        if wanted == has and op.implicit == about.implicit:
            return _result(context, name)
    else:
        about.created_at_us = context.time_us
    about.definition.CopyFrom(group_definition.to_message(wanted))
    about.implicit = op.implicit
    generation = max(row.generation + 1, context.index)
    groups.write(w, name, GroupRow(row.held, generation, about.SerializeToString(deterministic=True)))
    context.groups_changed.add(name)
    return _result(context, name)


def delete_group(context: EntryContext, op: log_pb2.DeleteGroupOp) -> log_pb2.OpResult:
    """Delete a group and all it holds, at most ``step_rows`` rows of a table; the group itself goes last.

    As long as rows are left the result says ``more``: repeat the operation.

    Raises:
        HoldfastError: refused, nothing was written.
    """
    w, step, name = context.w, context.limits.step_rows, check_group_name(op.group)
    if not groups.exists(w, name):
        raise unknown_group(name)
    prefix = flow_keys.group_prefix(name)
    if flow_keys.holds(w, Table.MEMBERS, prefix):
        raise FailedPreconditionError(
            f"group {name!r} has members, which would bring it back; stop them first",
            metadata={"group": name},
        )
    # Fewer than a step: nothing of that table is left.
    emptied = [flow_keys.drop(w, table, prefix, step) < step for table in _HELD]
    gone = all(emptied) and groups.delete_group(w, name, step)
    context.groups_changed.add(name)
    if gone:
        context.emit(GroupDeleted(name))
    return log_pb2.OpResult(more=not gone)


def check_dead_letter_topic(r: Reader, definition: Definition, default_bytes: int = 0) -> None:
    """That the dead-letter topic is there and takes whatever the group reads now, with what is added to it.

    Args:
        default_bytes: the largest record of a topic that sets no limit of its
            own, where that is known; two topics without one go together.

    Raises:
        UnknownTopicError, InvalidArgumentError: field ``dead_letter_topic``.
    """
    name = definition.dead_letter_topic
    if not name:
        return
    dead = topics.find(r, name)
    if dead is None:
        raise UnknownTopicError(
            f"no topic {name!r} to take dead letters; create it first",
            metadata={"field": "dead_letter_topic", "topic": name},
        )
    for source in topics.scan_by_name(r):
        if definition.reads(source.name):
            _check_room_for(source, dead, default_bytes)


def _check_room_for(source: TopicRow, dead: TopicRow, default_bytes: int) -> None:
    if not source.max_record_bytes and not dead.max_record_bytes:
        return
    largest = source.max_record_bytes or default_bytes
    room = dead.max_record_bytes or default_bytes
    if largest and room and room < largest + DEAD_LETTER_ROOM:
        raise InvalidArgumentError(
            f"dead_letter_topic {dead.name!r} takes records of {room} bytes; those of {source.name!r} may "
            f"have {largest}, and {DEAD_LETTER_ROOM} more as dead letters: raise its max_record_bytes",
            metadata={"field": "dead_letter_topic", "topic": dead.name, "source": source.name},
        )


def _check_change(
    context: EntryContext,
    op: log_pb2.PutGroupOp,
    about: log_pb2.GroupRow,
    wanted: Definition,
    has: Definition,
) -> None:
    """
    Raises:
        GroupConflictError: the group cannot become this.
    """
    if op.create_only:
        error = group_definition.difference(wanted, has)
    elif about.implicit and not flow_keys.holds(context.w, Table.MEMBERS, flow_keys.group_prefix(op.group)):
        error = None  # nobody relies on what nobody asked for
    else:
        error = group_definition.fixed_conflict(wanted, has)
    if error is not None:
        raise error


def _check_room(context: EntryContext) -> None:
    most = context.limits.max_groups
    if groups.count(context.w) >= most:
        raise LimitExceededError(
            f"{most} consumer groups exist, that is the limit; delete one", metadata={"limit": str(most)}
        )


def _result(context: EntryContext, name: str) -> log_pb2.OpResult:
    return log_pb2.OpResult(group=group_message(context.w, name, members=False, partitions=False))
