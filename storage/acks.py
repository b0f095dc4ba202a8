"""What a group has settled above its floor, one bit per record.

Bounded by the records between the floor and the last one handed out, whatever
the order in which they were settled; ranges would not be.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from holdfast.errors import StorageError
from holdfast.storage import bits, flow_keys
from holdfast.storage.port import Reader, Table, Writer

_CHUNK = struct.Struct(">Q")


def read(r: Reader, flow: bytes, chunk: int) -> int:
    """A chunk's bits; 0 without a row. ``flow`` is ``flow_keys.flow_key`` of it."""
    value = r.get(Table.ACKS, flow + _CHUNK.pack(chunk))
    return 0 if value is None else _unpack(value)


def write(w: Writer, flow: bytes, chunk: int, value: int) -> None:
    """Set a chunk; one without bits has no row."""
    key = flow + _CHUNK.pack(chunk)
    if value:
        w.put(Table.ACKS, key, bits.pack(value))
    else:
        w.delete(Table.ACKS, key)


def scan(r: Reader, flow: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """The chunks of a flow with ``start <= chunk < end``, ascending: ``(chunk, bits)``."""
    stop = flow_keys.after(flow) if end is None else flow + _CHUNK.pack(end)
    for key, value in r.scan(Table.ACKS, flow + _CHUNK.pack(start), stop):
        yield _CHUNK.unpack_from(key, len(flow))[0], _unpack(value)


def scan_group(r: Reader, group: str) -> Iterator[tuple[int, int, int, int]]:
    """The chunks of all flows of a group: ``(topic id, partition, chunk, bits)``."""
    for key, value in flow_keys.scan_prefix(r, Table.ACKS, flow_keys.group_prefix(group)):
        _, topic_id, partition, rest = flow_keys.split(key)
        yield topic_id, partition, _CHUNK.unpack(rest)[0], _unpack(value)


def drop(w: Writer, flow: bytes, limit: int, below: int | None = None) -> int:
    """Delete up to ``limit`` chunks, those below chunk ``below``; how many."""
    before = None if below is None else flow + _CHUNK.pack(below)
    keys = flow_keys.first_keys(w, Table.ACKS, flow, limit, before)
    for key in keys:
        w.delete(Table.ACKS, key)
    return len(keys)


def _unpack(value: bytes) -> int:
    if len(value) != bits.CHUNK_BYTES:
        raise StorageError("a row of settled records does not have the length of one")
    return bits.unpack(value)
