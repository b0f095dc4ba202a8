"""ReshapeOp: who is a member of a group, who owns what, and where partitions begin."""

from __future__ import annotations

from msgspec.structs import replace

from holdfast.cluster.group_definition import Ordering, check
from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.flow_checks import check_flow_room, check_places, check_position, too_many
from holdfast.cluster.state.group_view import group_message, stored, unknown_group
from holdfast.cluster.state.names import check_group_name, check_member_id
from holdfast.errors import FailedPreconditionError, InvalidArgumentError, StaleGroupError
from holdfast.storage import flows, groups, members, topics
from holdfast.storage.groups import CommittedOffset, GroupRow
from holdfast.storage.members import MemberRow
from holdfast.storage.port import Table
from holdfast.v1 import log_pb2


def reshape(context: EntryContext, op: log_pb2.ReshapeOp) -> log_pb2.OpResult:
    """Take members and owners in and out; the group's generation is this entry's from now on.

    Who leaves goes before who joins, so an id may do both. A partition whose owner is
    named, the same one again included, is fenced by the new generation; the others
    keep their fences.

    Raises:
        StaleGroupError: it was worked out from another generation.
        HoldfastError: refused; nothing was written in either case.
    """
    w, name = context.w, check_group_name(op.group)
    row = groups.read(w, name)
    if row is None:
        raise unknown_group(name)
    if row.generation != op.expected:
        raise StaleGroupError(
            f"group {name!r} is at generation {row.generation}, not {op.expected}; work it out anew",
            metadata={"generation": str(row.generation)},
        )
    about = stored(row)
    if not about.HasField("definition"):
        raise FailedPreconditionError(
            f"group {name!r} has no definition; put one first", metadata={"group": name}
        )
    _check_members(context, op)
    _check_owners(context, op, check(about.definition).ordering)
    opened = _opened(context, op)

    for leaving in op.leave:
        members.delete(w, name, leaving)
    for joining in op.join:
        joined = MemberRow(joining.name, joining.fixed, joining.grace_ms, context.time_us)
        members.write(w, name, joining.id, joined)
    generation = max(row.generation + 1, context.index)
    for change in op.owners:
        flow = flows.read(w, name, change.topic_id, change.partition)
        after = replace(flow, fence=generation, owner=change.member)
        flows.write(w, name, change.topic_id, change.partition, after)
    groups.commit_offsets(w, name, opened)
    _see(context, about, op)
    held = row.held + len(opened)
    groups.write(w, name, GroupRow(held, generation, about.SerializeToString(deterministic=True)))
    return log_pb2.OpResult(group=group_message(w, name, members=False, partitions=False))


def _check_members(context: EntryContext, op: log_pb2.ReshapeOp) -> None:
    """
    Raises:
        InvalidArgumentError: an id that is none, an owner that is no member.
        LimitExceededError: too many members.
    """
    w, limits = context.w, context.limits
    joining = {check_member_id(each.id, field="join") for each in op.join}
    if len(joining) != len(op.join):
        raise InvalidArgumentError("a member joins twice", metadata={"field": "join"})
    before = set(members.ids(w, op.group))
    after = (before - set(op.leave)) | joining
    growth = len(after) - len(before)
    if growth > 0:
        if len(after) > limits.max_members_per_group:
            raise too_many(
                f"group {op.group!r} would have {len(after)} members", limits.max_members_per_group
            )
        total = members.count(w) + growth
        if total > limits.max_members:
            raise too_many(f"all groups together would have {total} members", limits.max_members)
    for change in op.owners:
        if change.member and change.member not in after:
            raise InvalidArgumentError(
                f"{change.member[:80]!r} is to own a partition and is no member", metadata={"field": "owners"}
            )


def _check_owners(context: EntryContext, op: log_pb2.ReshapeOp, ordering: Ordering) -> None:
    """
    Raises:
        HoldfastError: partitions that cannot be owned, or too many.
    """
    if op.owners and ordering != Ordering.PARTITION:
        raise InvalidArgumentError(
            f"partitions have owners with ordering partition only; this is {ordering.name.lower()}",
            metadata={"field": "owners"},
        )
    check_places(context, op.owners, "owners")
    check_flow_room(context, op.group, op.owners)


def _opened(context: EntryContext, op: log_pb2.ReshapeOp) -> list[CommittedOffset]:
    """The first positions of those partitions that have none; a position that is there stays.

    Raises:
        HoldfastError: one that cannot be, or too many.
    """
    w, most = context.w, context.limits.max_flows
    opened: list[CommittedOffset] = []
    for topic, start in zip(check_places(context, op.open, "open"), op.open, strict=True):
        offset = check_position(context, topic, start)
        if groups.committed(w, op.group, topic.id, start.partition) is None:
            opened.append(CommittedOffset(topic.id, start.partition, offset))
    if opened and w.count(Table.OFFSETS) + len(opened) > most:
        raise too_many(f"groups have positions in {w.count(Table.OFFSETS)} partitions", most)
    return opened


def _see(context: EntryContext, about: log_pb2.GroupRow, op: log_pb2.ReshapeOp) -> None:
    """Note the topics the group has met; those that are gone are forgotten, for ids do not come again."""
    known = set(about.topics_seen)
    met = known.union(op.topics_seen)
    if met != known:
        about.topics_seen[:] = [each for each in sorted(met) if topics.read(context.w, each) is not None]
