"""Where work done in bounded steps goes on, and counts: part of the state, so that replicas go on alike."""

from __future__ import annotations

import struct

from holdfast.storage.port import Reader, Table, Writer

_SWEEP = b"sweep"
_MARKS = struct.Struct(">5sI")
_U64 = struct.Struct(">Q")


def sweep_at(r: Reader) -> bytes:
    """Where the next sweep goes on; empty: at the beginning."""
    return r.get(Table.CURSORS, _SWEEP) or b""


def set_sweep(w: Writer, key: bytes) -> None:
    """The next sweep goes on at ``key``."""
    if key:
        w.put(Table.CURSORS, _SWEEP, key)
    else:
        w.delete(Table.CURSORS, _SWEEP)


def marks_of(r: Reader, topic_id: int) -> int:
    """Idempotency keys a topic remembers; of topic 0: transactions."""
    value = r.get(Table.CURSORS, _MARKS.pack(b"marks", topic_id))
    return 0 if value is None else _U64.unpack(value)[0]


def add_marks(w: Writer, topic_id: int, n: int) -> None:
    """Count ``n`` more, or fewer."""
    key = _MARKS.pack(b"marks", topic_id)
    total = marks_of(w, topic_id) + n
    if total:
        w.put(Table.CURSORS, key, _U64.pack(total))
    else:
        w.delete(Table.CURSORS, key)
