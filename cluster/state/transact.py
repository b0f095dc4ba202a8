"""TransactOp: batches into several topics and records out of several groups, all or nothing.

What makes it exactly once is that a record is settled once: an operation that
consumes one that somebody has settled is refused whole, whoever leads and
whatever was tried before. Fences are for consumers with state: from the moment
a partition has a new owner, nothing that its old one proposes lands.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.cluster.state import flow_rules
from holdfast.cluster.state import marks as mark_rules
from holdfast.cluster.state.append import Checked, check_append, store_append
from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.events import GroupCreated
from holdfast.cluster.state.flow_rules import FlowEdit, open_flow, ranges_of
from holdfast.cluster.state.group_view import unknown_group
from holdfast.cluster.state.marks import RepeatedKeysError
from holdfast.cluster.state.names import check_group_name, is_hidden
from holdfast.errors import (
    AlreadySettledError,
    HoldfastError,
    InvalidArgumentError,
    LimitExceededError,
    MalformedBatchError,
    TransactionTooLargeError,
    UnknownTopicError,
)
from holdfast.storage import cursors, groups, marks
from holdfast.v1 import log_pb2

#: How long an answer may be kept, in milliseconds: a second to a day.
_SHORTEST_KEEP_MS = 1_000
_LONGEST_KEEP_MS = 86_400_000

_Append = tuple[log_pb2.AppendOp, Checked]


def transact(
    context: EntryContext, op: log_pb2.TransactOp, blob_start: int, blob_length: int
) -> log_pb2.OpResult:
    """Store the batches and settle the records, or do nothing.

    A repeat, by the transaction's id, is given the first answer for ``keep_ms``.
    The hidden group of a dead-letter topic comes into being with the first record
    consumed from it; every other has to be there.

    Raises:
        HoldfastError: refused, nothing was written.
        StorageError: the store failed.
    """
    if len(op.transaction_id) != marks.DIGEST_BYTES:
        raise _invalid(
            "transaction_id", f"of a transaction has {len(op.transaction_id)} bytes, not {marks.DIGEST_BYTES}"
        )
    known = marks.read_transaction(context.w, op.transaction_id, context.time_us)
    if known is not None:
        result = log_pb2.OpResult(transact=log_pb2.TransactResult.FromString(known))
        result.transact.repeated_call = True
        return result
    _check_bounds(context, op, blob_length)
    appends = _check_appends(context, op, blob_start, blob_length)
    edits = _check_consumption(context, op)
    mark_rules.check_room(context, marks.TRANSACTIONS, 1)
    return _store(context, op, appends, edits)


def _check_bounds(context: EntryContext, op: log_pb2.TransactOp, blob_length: int) -> None:
    limits = context.limits
    if not op.appends and not op.consume:
        raise _invalid("appends", "of a transaction are none, and it consumes nothing")
    if not _SHORTEST_KEEP_MS <= op.keep_ms <= _LONGEST_KEEP_MS:
        raise _invalid("keep_ms", f"is {op.keep_ms}: {_SHORTEST_KEEP_MS} to {_LONGEST_KEEP_MS} are allowed")
    if blob_length > limits.max_transaction_bytes:
        raise _too_large("bytes", blob_length, limits.max_transaction_bytes)
    batches = sum(len(append.batches) for append in op.appends)
    if batches > limits.max_batches_per_append:
        raise _too_large("batches", batches, limits.max_batches_per_append)
    runs = sum(max(1, len(flow.runs) // 2) for settle in op.consume for flow in settle.flows)
    if max(runs, len(op.consume)) > limits.max_settle_runs:
        raise _too_large("runs of consumed records", runs, limits.max_settle_runs)


def _check_appends(
    context: EntryContext, op: log_pb2.TransactOp, blob_start: int, blob_length: int
) -> list[_Append]:
    """
    Raises:
        RepeatedKeysError: records of any of the appends are stored; batches are counted through all of them.
    """
    checked: list[_Append] = []
    repeated: list[log_pb2.MarkedRecord] = []
    seen: set[int] = set()
    start, batches = blob_start, 0
    for append in op.appends:
        if append.topic_id in seen:
            raise _invalid("appends", "of a transaction name a topic twice")
        seen.add(append.topic_id)
        if append.producer_id:
            raise _invalid("producer_id", "of a transaction's append is set: the transaction's id is enough")
        length = sum(batch.length for batch in append.batches)
        try:
            checked.append((append, check_append(context, append, start, length)))
        except RepeatedKeysError as error:
            for mark in error.marked:
                mark.batch += batches
            repeated += error.marked
        start += length
        batches += len(append.batches)
    if start != blob_start + blob_length:
        raise MalformedBatchError(f"batches of {start - blob_start} bytes in a blob of {blob_length}")
    if repeated:
        raise RepeatedKeysError(repeated)
    return checked


def _check_consumption(context: EntryContext, op: log_pb2.TransactOp) -> list[FlowEdit]:
    edits: list[FlowEdit] = []
    seen: set[tuple[str, int, int]] = set()
    chunks = new_groups = 0
    for settle in op.consume:
        group = check_group_name(settle.group)
        if settle.dead or not settle.flows:
            raise _invalid("consume", "of a transaction names records to settle, and nothing else")
        if not groups.exists(context.w, group):
            if not is_hidden(group):
                raise unknown_group(group)
            new_groups += all(group != name for name, _, _ in seen)
        for flow in settle.flows:
            place = group, flow.topic_id, flow.partition
            if place in seen:
                raise _invalid("consume.flows", "of a transaction name a partition of a group twice")
            seen.add(place)
            if flow.retries or flow.HasField("floor"):
                raise _invalid("consume.flows", "of a transaction hold more than runs")
            edit, concerned = _check_flow(context, group, flow)
            chunks += concerned
            edits.append(edit)
    if chunks > context.limits.max_settle_runs:
        raise _too_large("chunks of consumed records", chunks, context.limits.max_settle_runs)
    flow_rules.check_room(context, edits)
    if new_groups and groups.count(context.w) + new_groups > context.limits.max_groups:
        raise LimitExceededError(
            f"{context.limits.max_groups} consumer groups exist, that is the limit; delete one",
            metadata={"limit": str(context.limits.max_groups)},
        )
    return edits


def _check_flow(context: EntryContext, group: str, flow: log_pb2.FlowSettle) -> tuple[FlowEdit, int]:
    """What happens to the flow, and how many chunks of bits that concerns.

    Raises:
        AlreadySettledError: one of the records is settled.
        FencedError: the partition has been given to somebody else.
    """
    edit = open_flow(context, group, flow.topic_id, flow.partition, flow.fence)
    if edit is None:
        raise UnknownTopicError(
            f"the topic of id {flow.topic_id}, or its partition {flow.partition}, was deleted",
            metadata={"topic_id": str(flow.topic_id), "partition": str(flow.partition)},
        )
    ranges = ranges_of(edit, flow.base, flow.runs)
    if not ranges:
        raise _invalid("consume.flows.runs", "of a transaction name no record")
    settled = edit.first_settled(ranges)
    if settled is not None:
        raise AlreadySettledError(
            f"offset {settled} of {edit.topic.name!r} partition {flow.partition} is settled already in group "
            f"{group!r}; nothing of the transaction was done",
            metadata={
                "group": group,
                "topic": edit.topic.name,
                "partition": str(flow.partition),
                "offset": str(settled),
            },
        )
    if edit.state.start_offset > edit.floor:
        # What retention has taken is settled by that: it must not hold the floor.
        edit.raise_floor(edit.state.start_offset)
    concerned = edit.settle(ranges)
    edit.close()
    return edit, concerned


def _store(
    context: EntryContext, op: log_pb2.TransactOp, appends: Iterable[_Append], edits: Iterable[FlowEdit]
) -> log_pb2.OpResult:
    w = context.w
    result = log_pb2.OpResult()
    # Not empty even when nothing was appended: that is how a transaction's answer is told from none.
    result.transact.SetInParent()
    for append, checked in appends:
        done = result.transact.appends.add(topic=context.catalog.topic(w, append.topic_id).name)
        store_append(context, append, checked, done.acks)
    for edit in edits:
        if not groups.exists(w, edit.group):
            groups.write(w, edit.group, groups.GroupRow())
            context.emit(GroupCreated(edit.group))
        edit.write()
        if op.unleased and _is_defined(context, edit.group):
            # Others have no leases that would have to be read anew.
            context.groups_changed.add(edit.group)
    mark_rules.make_room(context, 1)
    answer = result.transact.SerializeToString(deterministic=True)
    expires_us = context.time_us + op.keep_ms * 1_000
    new = marks.write_transaction(w, op.transaction_id, expires_us, answer)
    cursors.add_marks(w, marks.TRANSACTIONS, int(new))
    return result


def _is_defined(context: EntryContext, group: str) -> bool:
    row = groups.read(context.w, group)
    return row is not None and bool(row.definition)


def _invalid(field: str, what: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{field} {what}", metadata={"field": field})


def _too_large(what: str, size: int, limit: int) -> HoldfastError:
    return TransactionTooLargeError(
        f"a transaction of {size} {what}; at most {limit} are taken: make it several",
        metadata={"size": str(size), "limit": str(limit)},
    )
