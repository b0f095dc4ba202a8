"""SweepOp: rows of groups in topics that are gone.

Ids of topics are never given out again, so such rows mean nothing; they only
take room. A sweep goes over the groups' tables one after the other, in bounded
steps: where the last one stopped is part of the state.
"""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.limits import StateLimits
from holdfast.storage import cursors, flow_keys, groups, topics
from holdfast.storage.port import Reader, Table, Writer
from holdfast.v1 import log_pb2

#: In this order. A place among them is the table's number in a byte, then a key.
_TABLES = (Table.OFFSETS, Table.FLOWS, Table.ACKS, Table.RETRIES)
_BEGINNING = b"\0"

#: Groups' topics a look for something to sweep takes in, some 5 us each.
_LOOKED_AT = 4_000


def sweep(context: EntryContext, op: log_pb2.SweepOp) -> log_pb2.OpResult:
    """Go on from where the last sweep stopped; at most ``step_rows`` rows are deleted.

    The result says ``more`` until the last table has been gone through.
    """
    w, limits = context.w, context.limits
    left = min(op.limit, limits.step_rows)
    place = cursors.sweep_at(w) or _BEGINNING
    for looked, (table, group, prefix) in enumerate(_portions(w, place)):
        place = _place(table, prefix)
        if looked >= limits.scan_rows:
            break
        if _is_gone(w, group, prefix):
            left -= _drop(w, table, group, prefix, left)
            if left <= 0:  # more of this may be left
                break
    else:
        place = b""
    cursors.set_sweep(w, place)
    return log_pb2.OpResult(more=bool(place))


def plan_sweep(
    r: Reader, after: bytes = b"", *, limits: StateLimits | None = None
) -> tuple[log_pb2.Op | None, bytes]:
    """A SweepOp when there is something to sweep, else None, and what to pass as ``after`` the next time.

    Looks at a bounded number of rows, so not at all of them in one call; propose
    one after the other while their results say ``more``.
    """
    for looked, (table, group, prefix) in enumerate(_portions(r, after or _BEGINNING)):
        if looked >= _LOOKED_AT:
            return None, _place(table, prefix)
        if _is_gone(r, group, prefix):
            op = log_pb2.SweepOp(limit=(limits or StateLimits()).step_rows)
            return log_pb2.Op(sweep=op), _place(table, prefix)
    return None, b""


def _portions(r: Reader, place: bytes) -> Iterator[tuple[Table, str, bytes]]:
    """What each table holds of each group and topic, from a place on: ``(table, group, prefix of the keys)``.

    The table may be written between one and the next.
    """
    start = place[1:]
    for table in _TABLES[place[0] :]:
        at: bytes | None = start
        while at is not None:
            key = next(r.scan_keys(table, at), None)
            if key is None:
                break
            group, topic_id, _, _ = flow_keys.split(key)
            prefix = flow_keys.topic_prefix(group, topic_id)
            yield table, group, prefix
            at = flow_keys.after(prefix)
        start = b""


def _place(table: Table, key: bytes) -> bytes:
    return bytes((_TABLES.index(table),)) + key


def _is_gone(r: Reader, group: str, prefix: bytes) -> bool:
    topic_id = int.from_bytes(prefix[-4:])
    return topics.read(r, topic_id) is None or not groups.exists(r, group)


def _drop(w: Writer, table: Table, group: str, prefix: bytes, limit: int) -> int:
    if table is Table.OFFSETS:
        return groups.drop_offsets(w, group, prefix, limit)
    return flow_keys.drop(w, table, prefix, limit)
