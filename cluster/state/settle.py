"""SettleOp: moves a group on. Acks, failures, parks, dead letters and trims, all or none.

What fails for the last time leaves the group and enters the dead-letter topic
by the same operation, so it is never in both and never in neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from holdfast.cluster.group_definition import Definition
from holdfast.cluster.state.append import Checked, check_append, store_append
from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.flow_checks import check_within, too_large
from holdfast.cluster.state.flow_rules import FlowEdit, check_room, open_flow, ranges_of
from holdfast.cluster.state.group_view import definition_of, unknown_group
from holdfast.cluster.state.limits import StateLimits
from holdfast.cluster.state.retry_rules import LET_GO, check_cause, next_row
from holdfast.errors import (
    InvalidArgumentError,
    MalformedBatchError,
    StaleGroupError,
    UnknownTopicError,
)
from holdfast.storage import groups, retries, topics
from holdfast.storage.groups import GroupRow
from holdfast.v1 import bus_pb2, log_pb2


def settle(
    context: EntryContext, op: log_pb2.SettleOp, blob_start: int, blob_length: int
) -> log_pb2.OpResult:
    """Settle records of a group, and note what others wait for; dead letters lie in the entry's blob.

    What concerns partitions that are gone is skipped, and said with a floor of -1.
    Acks and floors may be repeated; a retry counts each time.

    Raises:
        HoldfastError: refused, nothing was written. STALE_GROUP: the leader was
            wrong about what is to become of a dead letter's record.
        StorageError: the store failed.
    """
    check_size(op.flows, context.limits)
    definition = _definition(find_group(context, op.group).definition)
    dead = _check_dead(context, op, definition, blob_start, blob_length)
    edits = _edits(context, op, definition)
    check_room(context, [edit for edit in edits if edit is not None])
    for append, checked in dead:
        store_append(context, append, checked, bus_pb2.PublishResponse().acks)
    result = log_pb2.OpResult()
    result.settle.SetInParent()
    for wanted, edit in zip(op.flows, edits, strict=True):
        if edit is not None:
            edit.write()
        add_state(result.settle, wanted, edit, [item.offset for item in wanted.retries])
    return result


def find_group(context: EntryContext, name: str) -> GroupRow:
    """
    Raises:
        UnknownGroupError: there is no such group.
    """
    row = groups.read(context.w, name)
    if row is None:
        raise unknown_group(name)
    return row


def check_size(flows: Sequence[log_pb2.FlowSettle], limits: StateLimits) -> None:
    """
    Raises:
        InvalidArgumentError: more than one operation may hold, or a partition twice.
    """
    if len({(flow.topic_id, flow.partition) for flow in flows}) < len(flows):
        raise InvalidArgumentError("a partition is named twice", metadata={"field": "flows"})
    runs = sum([max(len(flow.runs) // 2, 1) for flow in flows])
    if runs > limits.max_settle_runs:
        raise too_large(runs, "runs", limits.max_settle_runs)
    items = sum([len(flow.retries) for flow in flows])
    if items > limits.max_settle_retries:
        raise too_large(items, "retries", limits.max_settle_retries)


def add_state(
    result: log_pb2.SettleResult,
    wanted: log_pb2.FlowSettle,
    edit: FlowEdit | None,
    offsets: Iterable[int],
) -> None:
    """Say what has become of a flow, and of records in it."""
    floor = -1 if edit is None else edit.floor
    state = result.flows.add(topic_id=wanted.topic_id, partition=wanted.partition, floor=floor)
    if edit is None:
        return
    for offset in offsets:
        row = edit.retry(offset)
        if row is None:
            state.retries.add(offset=offset)
        else:
            state.retries.add(
                offset=offset,
                attempts=row.attempts,
                due_us=row.due_us,
                state=int(row.state),
            )


def _edits(context: EntryContext, op: log_pb2.SettleOp, definition: Definition) -> list[FlowEdit | None]:
    limits = context.limits
    room = limits.max_retries - retries.count(context.w)
    chunks = 0
    edits: list[FlowEdit | None] = []
    for wanted in op.flows:
        edit = open_flow(context, op.group, wanted.topic_id, wanted.partition, wanted.fence)
        edits.append(edit)
        if edit is None:
            if any(item.dead for item in wanted.retries):
                raise _stale("a dead letter comes from a partition that is gone")
            continue
        floor = _floor(edit, wanted)
        chunks += edit.settle(ranges_of(edit, wanted.base, wanted.runs), coming=floor)
        if chunks > limits.max_settle_runs:
            raise too_large(chunks, "chunks of runs", limits.max_settle_runs)
        for item in wanted.retries:
            room -= _retry(context, edit, item, definition, room)
        if wanted.HasField("floor"):
            edit.raise_floor(floor)
        edit.close()
    return edits


def _floor(edit: FlowEdit, wanted: log_pb2.FlowSettle) -> int:
    if wanted.floor < 0:
        raise InvalidArgumentError("a floor is not negative", metadata={"field": "floor"})
    check_within(edit.topic, edit.partition, edit.state, wanted.floor)
    return wanted.floor


def _retry(
    context: EntryContext, edit: FlowEdit, item: log_pb2.RetryItem, definition: Definition, room: int
) -> int:
    """Do as the item says; how many rows it adds.

    Without room for its row the record is left as it is: the leader finds it without a state, and
    hands it out again as if nothing had been said of it.
    """
    offset = item.offset
    check_cause(item)
    if offset < 0:
        raise InvalidArgumentError("an offset is not negative", metadata={"field": "retries"})
    check_within(edit.topic, edit.partition, edit.state, offset + 1)
    if edit.is_settled(offset):
        if item.dead:
            raise _stale(f"offset {offset} is settled")
        return 0
    before = edit.retry(offset)
    row, last = next_row(before, item, definition, edit.key, context.time_us)
    if item.dead:
        if not last:
            raise _stale(f"offset {offset} has attempts left")
        edit.settle([(offset, offset + 1)])
        return 0
    if before is None and (item.cause == LET_GO or room <= 0):
        return 0
    edit.put_retry(offset, row)
    return int(before is None)


def _check_dead(
    context: EntryContext, op: log_pb2.SettleOp, definition: Definition, blob_start: int, blob_length: int
) -> list[tuple[log_pb2.AppendOp, Checked]]:
    letters = sum([item.dead for flow in op.flows for item in flow.retries])
    limit = context.limits.max_dead_bytes
    if blob_length > limit and letters > 1:  # a single one may be as large as any record
        raise too_large(blob_length, "bytes of dead letters", limit)
    start = blob_start
    records = 0
    found = []
    for append in op.dead:
        _check_destination(context, append, definition)
        length = sum([batch.length for batch in append.batches])
        found.append((append, check_append(context, append, start, length)))
        start += length
        records += sum([batch.count for batch in append.batches])
    if start != blob_start + blob_length:
        raise MalformedBatchError(f"dead letters of {start - blob_start} bytes in a blob of {blob_length}")
    if records != letters:
        raise InvalidArgumentError(
            f"{records} dead letters for {letters} records that died", metadata={"field": "dead"}
        )
    return found


def _check_destination(context: EntryContext, append: log_pb2.AppendOp, definition: Definition) -> None:
    name = definition.dead_letter_topic
    if not name:
        raise _stale("the group has no dead-letter topic")
    topic = topics.find(context.w, name)
    if topic is None:
        raise UnknownTopicError(
            f"the dead-letter topic {name!r} is gone", metadata={"topic": name, "field": "dead_letter_topic"}
        )
    if append.topic_id != topic.id:
        raise _stale(f"the dead-letter topic is {name!r}, which is another one")
    # Either could leave a letter out that was stored before, while its record leaves the group.
    if append.producer_id or any(batch.marks for batch in append.batches):
        raise InvalidArgumentError(
            "dead letters have neither a producer nor idempotency keys", metadata={"field": "dead"}
        )


@lru_cache(maxsize=1024)
def _definition(stored: bytes) -> Definition:
    """As a group's row has it; of a group that was never defined, the defaults."""
    return definition_of(GroupRow(definition=stored)) or Definition()


def _stale(why: str) -> StaleGroupError:
    return StaleGroupError(f"the group has moved on: {why}")
