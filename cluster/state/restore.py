"""RestoreOp: parked records are due again, or settled."""

from __future__ import annotations

import msgspec

from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.flow_rules import FlowEdit, Range, check_room, open_flow, ranges_of
from holdfast.cluster.state.settle import add_state, check_size, find_group
from holdfast.errors import InvalidArgumentError, LimitExceededError
from holdfast.storage import retries
from holdfast.storage.retries import State
from holdfast.v1 import log_pb2

_PARKED = frozenset((State.PARKED, State.PARKED_FOR_GOOD))


def restore(context: EntryContext, op: log_pb2.RestoreOp) -> log_pb2.OpResult:
    """Take the parked ones out of the records that are named; attempts and errors stay.

    The result names those it took, at most ``max_settle_retries``. When it says
    ``more``, others are left: repeat the operation.

    Raises:
        HoldfastError: refused, nothing was written.
    """
    limits = context.limits
    check_size(op.flows, limits)
    find_group(context, op.group)
    search = _Search(limits.max_settle_retries, limits.max_settle_runs)
    edits: list[FlowEdit | None] = []
    taken: list[list[int]] = []
    for wanted in op.flows:
        if wanted.HasField("floor") or wanted.retries:
            raise InvalidArgumentError(
                "records to be restored are named by runs, and by nothing else", metadata={"field": "flows"}
            )
        edit = open_flow(context, op.group, wanted.topic_id, wanted.partition, wanted.fence)
        edits.append(edit)
        taken.append([])
        if edit is not None:
            taken[-1] = search.parked(context, edit, ranges_of(edit, wanted.base, wanted.runs))
            _take(context, edit, taken[-1], settled=op.settle)
    if search.stopped and not any(taken):
        raise LimitExceededError(
            f"none of the first {limits.max_settle_runs} records that wait there is parked; name fewer",
            metadata={"limit": str(limits.max_settle_runs)},
        )
    check_room(context, [edit for edit in edits if edit is not None])
    if any(taken):
        context.groups_changed.add(op.group)
    result = log_pb2.OpResult(more=search.stopped)
    result.settle.SetInParent()
    for wanted, edit, offsets in zip(op.flows, edits, taken, strict=True):
        if edit is not None:
            edit.write()
        add_state(result.settle, wanted, edit, offsets)
    return result


class _Search:
    """Looks for parked records until it has found enough, or looked at too many others.

    Attributes:
        stopped: it did not look at all it was asked to.
    """

    def __init__(self, to_find: int, to_look_at: int) -> None:
        self.stopped = False
        self._to_find = to_find
        self._to_look_at = to_look_at

    def parked(self, context: EntryContext, edit: FlowEdit, ranges: list[Range]) -> list[int]:
        found: list[int] = []
        if not edit.row.retrying:
            return found
        for first, end in ranges:
            for offset, row in retries.scan(context.w, edit.key, first, end):
                if not self._to_find or not self._to_look_at:
                    self.stopped = True
                    return found
                self._to_look_at -= 1
                if row.state in _PARKED and not edit.is_settled(offset):
                    self._to_find -= 1
                    found.append(offset)
        return found


def _take(context: EntryContext, edit: FlowEdit, offsets: list[int], *, settled: bool) -> None:
    if settled:
        edit.settle([(offset, offset + 1) for offset in offsets])
    else:
        for offset in offsets:
            row = edit.retry(offset)
            if row is not None:
                due = msgspec.structs.replace(row, state=State.WAITING, due_us=context.time_us)
                edit.put_retry(offset, due)
    edit.close()
