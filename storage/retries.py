"""Records of a group that failed and wait for another attempt, or are parked."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

import msgspec

from holdfast.errors import StorageError
from holdfast.storage import flow_keys
from holdfast.storage.port import Reader, Table, Writer

_OFFSET = struct.Struct(">Q")
_ROW = struct.Struct(">HHBqqQB")
_ERROR = struct.Struct(">qB")

#: Errors kept of a record, the last ones, and bytes of UTF-8 of each: larger rows would take whole pages.
MAX_ERRORS = 5
MAX_ERROR_BYTES = 200

#: The due time of what waits for somebody to restore it.
NEVER_US = (1 << 63) - 1


class State(IntEnum):
    """Why a record is not handed out, or how; the numbers of ``RecordState`` in log.proto."""

    WAITING = 1  # until it is due
    PARKED = 2  # until it is due
    PARKED_FOR_GOOD = 3  # until somebody restores it
    SUSPECT = 4  # a member died while it worked on it: handed out alone


class RetryRow(msgspec.Struct, frozen=True):
    """One record."""

    attempts: int  # charged so far
    losses: int  # of them by members that died
    state: State
    due_us: int  # not handed out before; stamped time
    first_failed_us: int
    lane: int = 0  # hash of the record's key
    errors: tuple[tuple[int, str], ...] = ()  # (stamped time, text), oldest first


def cut(error: str) -> str:
    """``error`` as far as it is kept."""
    return error.encode(errors="replace")[:MAX_ERROR_BYTES].decode(errors="ignore")


def read(r: Reader, flow: bytes, offset: int) -> RetryRow | None:
    """The row of a record. ``flow`` is ``flow_keys.flow_key`` of its group and partition."""
    value = r.get(Table.RETRIES, flow + _OFFSET.pack(offset))
    return None if value is None else _decode(value)


def write(w: Writer, flow: bytes, offset: int, row: RetryRow) -> None:
    """Set the row of a record; errors beyond the bounds are cut."""
    errors = [(at, cut(text).encode()) for at, text in row.errors[-MAX_ERRORS:]]
    head = _ROW.pack(
        min(row.attempts, 0xFFFF),
        min(row.losses, 0xFFFF),
        row.state,
        row.due_us,
        row.first_failed_us,
        row.lane,
        len(errors),
    )
    parts = [head]
    for at, text in errors:
        parts += (_ERROR.pack(at, len(text)), text)
    w.put(Table.RETRIES, flow + _OFFSET.pack(offset), b"".join(parts))


def delete(w: Writer, flow: bytes, offset: int) -> bool:
    """Forget a record; True when there was a row."""
    return w.delete(Table.RETRIES, flow + _OFFSET.pack(offset))


def scan(r: Reader, flow: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, RetryRow]]:
    """The rows of a flow with ``start <= offset < end``, ascending: ``(offset, row)``."""
    stop = flow_keys.after(flow) if end is None else flow + _OFFSET.pack(end)
    for key, value in r.scan(Table.RETRIES, flow + _OFFSET.pack(start), stop):
        yield _OFFSET.unpack_from(key, len(flow))[0], _decode(value)


def offsets(r: Reader, flow: bytes, start: int, end: int) -> Iterator[int]:
    """The offsets of the rows of a flow with ``start <= offset < end``, ascending."""
    for key in r.scan_keys(Table.RETRIES, flow + _OFFSET.pack(start), flow + _OFFSET.pack(end)):
        yield _OFFSET.unpack_from(key, len(flow))[0]


def scan_group(
    r: Reader, group: str, after: tuple[int, int, int] | None = None
) -> Iterator[tuple[int, int, int, RetryRow]]:
    """The rows of a group behind ``after``, in order: ``(topic id, partition, offset, row)``."""
    prefix = flow_keys.group_prefix(group)
    start = prefix
    if after is not None:
        topic_id, partition, offset = after
        start = flow_keys.flow_key(group, topic_id, partition) + _OFFSET.pack(offset) + b"\0"
    for key, value in r.scan(Table.RETRIES, start, flow_keys.after(prefix)):
        _, topic_id, partition, rest = flow_keys.split(key)
        yield topic_id, partition, _OFFSET.unpack(rest)[0], _decode(value)


def drop(w: Writer, flow: bytes, limit: int, below: int | None = None) -> int:
    """Delete up to ``limit`` rows, those below offset ``below``; how many."""
    before = None if below is None else flow + _OFFSET.pack(below)
    keys = flow_keys.first_keys(w, Table.RETRIES, flow, limit, before)
    for key in keys:
        w.delete(Table.RETRIES, key)
    return len(keys)


def count(r: Reader) -> int:
    """Rows of all groups."""
    return r.count(Table.RETRIES)


def _decode(value: bytes) -> RetryRow:
    attempts, losses, state, due, first, lane, n = _ROW.unpack_from(value)
    errors = []
    at = _ROW.size
    for _ in range(n):
        time_us, length = _ERROR.unpack_from(value, at)
        at += _ERROR.size + length
        errors.append((time_us, value[at - length : at].decode()))
    if at != len(value):
        raise StorageError("a row of a record that waits does not have the length it says")
    return RetryRow(attempts, losses, State(state), due, first, lane, tuple(errors))
