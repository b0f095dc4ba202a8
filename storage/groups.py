"""Consumer groups and the offsets they have committed."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from holdfast.storage.port import Reader, Table, Writer

# GROUPS: name -> number of offsets held. OFFSETS: length of the name, name,
# topic, partition -> offset; the length keeps one name from being another's prefix.
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_PARTITION = struct.Struct(">II")
_OFFSET = struct.Struct(">q")

#: Longest group name, in bytes of UTF-8, that fits a key.
MAX_GROUP_BYTES = 500


class CommittedOffset(msgspec.Struct, frozen=True, gc=False):
    """A group's place in a partition: the offset of the next record to deliver."""

    topic_id: int
    partition: int
    offset: int


def commit_offset(w: Writer, group: str, topic_id: int, partition: int, offset: int) -> None:
    """Set a group's offset; the group comes into being with its first."""
    key = _prefix(group) + _PARTITION.pack(topic_id, partition)
    if w.get(Table.OFFSETS, key) is None:
        _add_held(w, group, 1)
    w.put(Table.OFFSETS, key, _OFFSET.pack(offset))


def committed(r: Reader, group: str, topic_id: int, partition: int) -> int | None:
    """A group's offset in a partition; None when it has none."""
    value = r.get(Table.OFFSETS, _prefix(group) + _PARTITION.pack(topic_id, partition))
    return None if value is None else _OFFSET.unpack(value)[0]


def offsets(r: Reader, group: str, topic_id: int | None = None) -> Iterator[CommittedOffset]:
    """A group's offsets, of one topic or of all, by topic and partition."""
    start = _prefix(group)
    if topic_id is not None:
        start += _U32.pack(topic_id)
    for key, value in r.scan(Table.OFFSETS, start, _after(start)):
        topic, partition = _PARTITION.unpack(key[-8:])
        yield CommittedOffset(topic, partition, _OFFSET.unpack(value)[0])


def exists(r: Reader, group: str) -> bool:
    """True when the group has committed an offset and was not deleted since."""
    return r.get(Table.GROUPS, group.encode()) is not None


def list_groups(r: Reader, after: str = "", limit: int | None = None) -> list[str]:
    """Names in byte order, those after ``after``."""
    names: list[str] = []
    start = after.encode() + b"\x00" if after else b""
    for key in r.scan_keys(Table.GROUPS, start):
        if len(names) == limit:
            break
        names.append(key.decode())
    return names


def count(r: Reader) -> int:
    """How many groups there are."""
    return r.count(Table.GROUPS)


def delete_group(w: Writer, group: str, limit: int) -> bool:
    """Delete a group's offsets, ``limit`` a call, then the group; True when it is gone."""
    done = _delete_offsets(w, group, _prefix(group), limit) < limit
    if done:
        w.delete(Table.GROUPS, group.encode())
    return done


def delete_topic(w: Writer, topic_id: int, limit: int) -> bool:
    """Delete every group's offsets in a topic, ``limit`` a call; True when done.

    A group left without offsets stays: its members may come back.
    """
    left = limit
    for group in list_groups(w):
        left -= _delete_offsets(w, group, _prefix(group) + _U32.pack(topic_id), left)
        if left <= 0:
            return False
    return True


def _prefix(group: str) -> bytes:
    name = group.encode()
    return _U16.pack(min(len(name), 0xFFFF)) + name


def _after(prefix: bytes) -> bytes:
    """The first key after all that start with ``prefix``."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes((head[-1] + 1,))


def _add_held(w: Writer, group: str, n: int) -> None:
    key = group.encode()
    value = w.get(Table.GROUPS, key)
    w.put(Table.GROUPS, key, _U32.pack((0 if value is None else _U32.unpack(value)[0]) + n))


def _delete_offsets(w: Writer, group: str, start: bytes, limit: int) -> int:
    doomed: list[bytes] = []
    for key in w.scan_keys(Table.OFFSETS, start, _after(start)):
        if len(doomed) == limit:
            break
        doomed.append(key)
    for key in doomed:
        w.delete(Table.OFFSETS, key)
    if doomed:
        _add_held(w, group, -len(doomed))
    return len(doomed)
