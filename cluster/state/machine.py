"""The deterministic state machine: log entries in, results out.

``apply`` is total: whatever an entry holds, it gives a result per operation and
leaves the state as every other replica's. Only the store's own failures are
raised, because then this replica cannot go on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.cluster.commands import ENTRY_OVERHEAD, OP_OVERHEAD, DecodedOp, decode_entry
from holdfast.cluster.ports import EventSink
from holdfast.cluster.state.append import apply_append
from holdfast.cluster.state.catalog import Catalog
from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.events import OperationRefused
from holdfast.cluster.state.group_ops import delete_group, put_group
from holdfast.cluster.state.limits import StateLimits
from holdfast.cluster.state.maintenance import expire_producers, trim
from holdfast.cluster.state.marks import expire_marks
from holdfast.cluster.state.offsets import commit_offsets
from holdfast.cluster.state.reshape import reshape
from holdfast.cluster.state.restore import restore
from holdfast.cluster.state.results import error_result
from holdfast.cluster.state.seek import seek_group
from holdfast.cluster.state.settle import settle
from holdfast.cluster.state.sweep import sweep
from holdfast.cluster.state.topic_ops import create_topic, delete_topic, update_topic
from holdfast.cluster.state.transact import transact
from holdfast.errors import HoldfastError, InternalError, InvalidArgumentError, StorageError, StorageFullError
from holdfast.storage.port import Writer
from holdfast.v1 import log_pb2

#: Where the number of operations stands in an entry (cluster/commands.py).
_OP_COUNT = struct.Struct(">I")
_OP_COUNT_AT = ENTRY_OVERHEAD - _OP_COUNT.size

#: Every operation without a blob, by its name in log.proto.
_HANDLERS: Mapping[str, Callable[[EntryContext, Any], log_pb2.OpResult]] = {
    "create_topic": create_topic,
    "update_topic": update_topic,
    "delete_topic": delete_topic,
    "commit_offsets": commit_offsets,
    "trim": trim,
    "expire_producers": expire_producers,
    "expire_marks": expire_marks,
    "put_group": put_group,
    "reshape": reshape,
    "seek_group": seek_group,
    "delete_group": delete_group,
    "restore": restore,
    "sweep": sweep,
}

#: Those with one, which they are handed as its place in the entry.
_WITH_BLOB: Mapping[str, Callable[[EntryContext, Any, int, int], log_pb2.OpResult]] = {
    "append": apply_append,
    "settle": settle,
    "transact": transact,
}

#: Those of groups that touch no topic and no log.
_GROUP_OPS = ("put_group", "reshape", "seek_group", "delete_group", "restore", "sweep")

#: Those without one that write no partition's row.
_LEAVES_PARTITIONS = frozenset(("commit_offsets", "expire_producers", "expire_marks", *_GROUP_OPS))

#: Those that write no producer's row; a trim may be a step of a topic's deletion.
_LEAVES_PRODUCERS = frozenset(("commit_offsets", "create_topic", "update_topic", "expire_marks", *_GROUP_OPS))

#: Those that write a topic's row.
_CHANGES_TOPICS = frozenset(("create_topic", "update_topic", "delete_topic"))


@dataclass(slots=True)
class Applied:
    """What an entry gave.

    Attributes:
        results: one per operation, in order.
        touched: (topic id, partition) of each log whose end moved.
        topics_changed: a topic may have been created, changed or deleted.
        groups_changed: groups whose definition or positions somebody else than their coordinator
            has changed.
    """

    results: list[log_pb2.OpResult] = field(default_factory=list)
    touched: set[tuple[int, int]] = field(default_factory=set)
    topics_changed: bool = False
    groups_changed: set[str] = field(default_factory=set)


class StateMachine:
    """Applies entries to the open write transaction; used by the engine thread only.

    Args:
        limits: the same on every node of a cluster.
        events: told of what changed (cluster/state/events.py); None: nobody.
    """

    def __init__(self, limits: StateLimits | None = None, events: EventSink | None = None) -> None:
        self.limits = limits or StateLimits()
        self._events = events
        self._catalog = Catalog()

    def reset(self) -> None:
        """Forget what was read from a transaction that was dropped or replaced."""
        self._catalog.clear()

    def apply(self, w: Writer, index: int, entry: bytes) -> Applied:
        """Execute the entry of log index ``index``.

        Raises:
            StorageError, StorageFullError: the store failed; abort the
                transaction and call ``reset``.
        """
        try:
            time_us, ops = decode_entry(entry)
        except StorageError as error:
            return Applied(_undecodable(entry, error))
        context = EntryContext(
            w,
            index,
            # Times before 1970 have no place in the rows; a leader whose clock
            # says so stamps the epoch.
            max(time_us, 0),
            memoryview(entry),
            self._catalog,
            self.limits,
            self._events,
        )
        results = [self._apply_op(context, decoded) for decoded in ops]
        context.count_references()
        return Applied(results, context.touched, context.topics_changed, context.groups_changed)

    def _apply_op(self, context: EntryContext, decoded: DecodedOp) -> log_pb2.OpResult:
        op = decoded.op
        kind = op.WhichOneof("op")
        try:
            apply = _WITH_BLOB.get(kind or "")
            if apply is not None:
                return apply(context, getattr(op, kind), decoded.blob_start, decoded.blob_length)
            if kind not in _HANDLERS:
                raise InvalidArgumentError("an operation that this version does not know")
            context.count_references()
            if kind not in _LEAVES_PARTITIONS:
                self._catalog.states.clear()
            if kind not in _LEAVES_PRODUCERS:
                self._catalog.producers.clear()
            if kind in _CHANGES_TOPICS:
                context.topics_changed = True
            return _HANDLERS[kind](context, getattr(op, kind))
        except (StorageError, StorageFullError):
            raise
        except HoldfastError as error:
            context.emit(OperationRefused(kind or "unknown", error.reason))
            return error_result(error)


def _undecodable(entry: bytes, error: StorageError) -> list[log_pb2.OpResult]:
    """An error for each operation the entry says it holds, at least one."""
    count = 1
    if len(entry) >= ENTRY_OVERHEAD:
        (claimed,) = _OP_COUNT.unpack_from(entry, _OP_COUNT_AT)
        count = max(1, min(claimed, (len(entry) - ENTRY_OVERHEAD) // OP_OVERHEAD))
    result = error_result(InternalError(f"the log entry does not decode: {error}"))
    return [result] * count
