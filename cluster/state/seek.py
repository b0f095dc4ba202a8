"""SeekGroupOp: a group goes on elsewhere, and forgets what it had settled and put off there."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from msgspec.structs import replace

from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.flow_checks import check_flow_room, check_places, check_position
from holdfast.cluster.state.group_view import group_message, unknown_group
from holdfast.cluster.state.names import check_group_name
from holdfast.errors import InvalidArgumentError
from holdfast.storage import acks, bits, flow_keys, flows, groups, retries
from holdfast.storage.groups import CommittedOffset
from holdfast.storage.port import Writer
from holdfast.v1 import groups_pb2, log_pb2


class _Goal(NamedTuple):
    topic: str
    topic_id: int
    partition: int
    offset: int


def seek_group(context: EntryContext, op: log_pb2.SeekGroupOp) -> log_pb2.OpResult:
    """Set positions; what was settled above them or waits is forgotten, and members are fenced out.

    In steps of ``step_rows`` partitions and rows of a table, partition by partition:
    the result's ``group.partitions`` are those that are done, and with ``more`` the
    others are to be sought again. One amid its steps is fenced, and keeps its position.

    Raises:
        HoldfastError: refused, nothing was written.
    """
    w, name, step = context.w, check_group_name(op.group), context.limits.step_rows
    row = groups.read(w, name)
    if row is None:
        raise unknown_group(name)
    goals = _goals(context, op)
    now = goals[:step]
    check_flow_room(context, name, now)

    generation = max(row.generation + 1, context.index)
    left = step
    done: list[_Goal] = []
    for goal in now:
        deleted = clear_flow(w, name, goal.topic_id, goal.partition, left)
        if deleted >= left:
            _fence(w, name, goal, generation)
            break
        left -= deleted
        _fence(w, name, goal, generation, settled_above=0, retrying=0, settled_at_us=context.time_us)
        done.append(goal)
    groups.commit_offsets(w, name, [CommittedOffset(g.topic_id, g.partition, g.offset) for g in done])
    groups.set_generation(w, name, generation)
    context.groups_changed.add(name)
    result = log_pb2.OpResult(
        group=group_message(w, name, members=False, partitions=False), more=len(done) < len(goals)
    )
    for goal in done:
        result.group.partitions.append(
            groups_pb2.GroupPartition(
                topic=goal.topic, partition=goal.partition, floor=goal.offset, fence=generation
            )
        )
    return result


def _goals(context: EntryContext, op: log_pb2.SeekGroupOp) -> list[_Goal]:
    """
    Raises:
        HoldfastError: a partition or an offset that is not there.
    """
    if not op.flows:
        raise InvalidArgumentError("no partitions are named", metadata={"field": "flows"})
    return [
        _Goal(topic.name, topic.id, wanted.partition, check_position(context, topic, wanted))
        for topic, wanted in zip(check_places(context, op.flows, "flows"), op.flows, strict=True)
    ]


def _fence(w: Writer, group: str, goal: _Goal, generation: int, **changes: int) -> None:
    """The owner keeps the partition, and what it says under its old fence is refused."""
    flow = flows.read(w, group, goal.topic_id, goal.partition)
    flows.write(w, group, goal.topic_id, goal.partition, replace(flow, fence=generation, **changes))


def clear_flow(w: Writer, group: str, topic_id: int, partition: int, limit: int) -> int:
    """Forget what is settled above the floor and what waits, ``limit`` rows of each; fewer: all is gone.

    For whoever moves a floor: what was left below it would mean something again.
    """
    key = flow_keys.flow_key(group, topic_id, partition)
    row = flows.read(w, group, topic_id, partition)
    lowest = (groups.committed(w, group, topic_id, partition) or 0) // bits.CHUNK_BITS
    chunks = list(islice(acks.scan(w, key), limit))
    for chunk, _ in chunks:
        acks.write(w, key, chunk, 0)
    waited = retries.drop(w, key, limit)
    counted = sum(value.bit_count() for chunk, value in chunks if chunk >= lowest)
    left = replace(row, settled_above=row.settled_above - counted, retrying=row.retrying - waited)
    if left != row:
        flows.write(w, group, topic_id, partition, left)
    return max(len(chunks), waited)
