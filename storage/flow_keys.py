"""Keys of what a group holds of a partition: its flow.

Length of the group's name, name, topic, partition: the length keeps one name
from being another's prefix, so that a scan finds the rows of one group.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from holdfast.storage.port import Reader, Table, Writer

_U16 = struct.Struct(">H")
_TOPIC = struct.Struct(">I")
_PARTITION = struct.Struct(">II")

#: Longest group name, in bytes of UTF-8, that fits every key.
MAX_GROUP_BYTES = 400


def group_prefix(group: str) -> bytes:
    """What the keys of all rows of a group start with."""
    name = group.encode()
    return _U16.pack(min(len(name), 0xFFFF)) + name


def topic_prefix(group: str, topic_id: int) -> bytes:
    """What the keys of a group's rows in one topic start with."""
    return group_prefix(group) + _TOPIC.pack(topic_id)


def flow_key(group: str, topic_id: int, partition: int) -> bytes:
    """The key of a flow, and what those of its further rows start with."""
    return group_prefix(group) + _PARTITION.pack(topic_id, partition)


def split(key: bytes) -> tuple[str, int, int, bytes]:
    """Group, topic, partition and what follows them in a key."""
    (length,) = _U16.unpack_from(key)
    at = _U16.size + length
    topic_id, partition = _PARTITION.unpack_from(key, at)
    return key[_U16.size : at].decode(), topic_id, partition, key[at + _PARTITION.size :]


def after(prefix: bytes) -> bytes | None:
    """The first key behind all that start with ``prefix``; None: there is no such key."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes((head[-1] + 1,)) if head else None


def scan_prefix(r: Reader, table: Table, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The rows whose keys start with ``prefix``."""
    return r.scan(table, prefix, after(prefix))


def first_keys(
    r: Reader, table: Table, prefix: bytes, limit: int, before: bytes | None = None
) -> list[bytes]:
    """Up to ``limit`` keys that start with ``prefix``, those before ``before``."""
    keys: list[bytes] = []
    if limit > 0:
        for key in r.scan_keys(table, prefix, after(prefix) if before is None else before):
            keys.append(key)
            if len(keys) == limit:
                break
    return keys


def drop(w: Writer, table: Table, prefix: bytes, limit: int) -> int:
    """Delete up to ``limit`` rows whose keys start with ``prefix``; how many."""
    keys = first_keys(w, table, prefix, limit)
    for key in keys:
        w.delete(table, key)
    return len(keys)


def holds(r: Reader, table: Table, prefix: bytes) -> bool:
    """Whether there is a row whose key starts with ``prefix``."""
    return bool(first_keys(r, table, prefix, 1))
