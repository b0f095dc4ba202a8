"""Topic definitions: by id, by name, and the next id to give out."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from holdfast.errors import StorageError
from holdfast.storage.port import Reader, Table, Writer

# Keys: "i" + id -> row; "n" + name -> id; "x" -> next id. A row ends with the name; behind it, after
# a byte no name holds, what came later, when it is not 0.
_ID = struct.Struct(">cI")
_U32 = struct.Struct(">I")
_ROW = struct.Struct(">IIqqq")
_TTL = struct.Struct(">q")
_END_OF_NAME = b"\0"
_NEXT = b"x"
_IDS = (b"i", b"j")
_NAMES = (b"n", b"o")


class TopicRow(msgspec.Struct, frozen=True, gc=False):
    """One topic. Ids are never given out twice; names may be, after a deletion."""

    id: int
    name: str
    partitions: int
    max_record_bytes: int
    retention_ms: int  # 0: for ever
    retention_bytes: int  # of one partition; 0: no limit
    created_at_us: int
    idempotency_ttl_ms: int = 0  # 0: takes no idempotency keys


def read(r: Reader, topic_id: int) -> TopicRow | None:
    """The topic of this id."""
    value = r.get(Table.TOPICS, _ID.pack(b"i", topic_id))
    return None if value is None else _decode(topic_id, value)


def find(r: Reader, name: str) -> TopicRow | None:
    """The topic of this name."""
    value = r.get(Table.TOPICS, b"n" + name.encode())
    if value is None:
        return None
    (topic_id,) = _U32.unpack(value)
    row = read(r, topic_id)
    if row is None:
        raise StorageError(f"topic {name!r} has id {topic_id}, which is not defined")
    return row


def scan(r: Reader) -> Iterator[TopicRow]:
    """All topics, by id."""
    for key, value in r.scan(Table.TOPICS, *_IDS):
        yield _decode(_ID.unpack(key)[1], value)


def scan_by_name(r: Reader) -> Iterator[TopicRow]:
    """All topics, by name."""
    for key in r.scan_keys(Table.TOPICS, *_NAMES):
        row = find(r, key[1:].decode())
        if row is not None:
            yield row


def count(r: Reader) -> int:
    """How many topics there are."""
    return sum(1 for _ in r.scan_keys(Table.TOPICS, *_IDS))


def next_id(r: Reader) -> int:
    """The id the next topic gets; the first is 1."""
    value = r.get(Table.TOPICS, _NEXT)
    return 1 if value is None else _U32.unpack(value)[0]


def take_id(w: Writer) -> int:
    """Give out the next id."""
    topic_id = next_id(w)
    w.put(Table.TOPICS, _NEXT, _U32.pack(topic_id + 1))
    return topic_id


def write(w: Writer, row: TopicRow) -> None:
    """Define or redefine a topic; its name is fixed.

    Raises:
        StorageError: the name belongs to another topic, or the topic had another name.
    """
    by_name = b"n" + row.name.encode()
    holder = w.get(Table.TOPICS, by_name)
    known = read(w, row.id)
    if holder is not None and _U32.unpack(holder)[0] != row.id:
        raise StorageError(f"topic name {row.name!r} belongs to topic {_U32.unpack(holder)[0]}")
    if known is not None and known.name != row.name:
        raise StorageError(f"topic {row.id} is named {known.name!r}, not {row.name!r}")
    w.put(Table.TOPICS, by_name, _U32.pack(row.id))
    w.put(
        Table.TOPICS,
        _ID.pack(b"i", row.id),
        _ROW.pack(
            row.partitions, row.max_record_bytes, row.retention_ms, row.retention_bytes, row.created_at_us
        )
        + row.name.encode()
        + (_END_OF_NAME + _TTL.pack(row.idempotency_ttl_ms) if row.idempotency_ttl_ms else b""),
    )


def remove(w: Writer, topic_id: int) -> bool:
    """Forget the definition (partitions, offsets, producers are dropped by their own modules)."""
    row = read(w, topic_id)
    if row is None:
        return False
    w.delete(Table.TOPICS, _ID.pack(b"i", topic_id))
    w.delete(Table.TOPICS, b"n" + row.name.encode())
    return True


def _decode(topic_id: int, value: bytes) -> TopicRow:
    partitions, max_record, retention_ms, retention_bytes, created = _ROW.unpack_from(value)
    name, end, later = value[_ROW.size :].partition(_END_OF_NAME)
    ttl_ms = _TTL.unpack(later)[0] if end else 0
    return TopicRow(
        topic_id, name.decode(), partitions, max_record, retention_ms, retention_bytes, created, ttl_ms
    )
