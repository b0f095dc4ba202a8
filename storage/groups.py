"""Consumer groups: their definitions, and the offsets they have committed."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import msgspec
import xxhash

from holdfast.storage import flow_keys
from holdfast.storage.port import Reader, Table, Writer

# GROUPS: name -> number of offsets held; of a group that has been defined also its
# generation and definition. OFFSETS: flow key -> offset.
_U32 = struct.Struct(">I")
_DEFINED = struct.Struct(">IQ")
_PARTITION = struct.Struct(">II")
_OFFSET = struct.Struct(">q")

#: All that is kept of groups, transactions and idempotency keys.
_TABLES = (
    Table.GROUPS,
    Table.OFFSETS,
    Table.FLOWS,
    Table.ACKS,
    Table.RETRIES,
    Table.MEMBERS,
    Table.MARKS,
    Table.MARK_AGES,
    Table.CURSORS,
)
_LENGTHS = struct.Struct(">II")


class GroupRow(msgspec.Struct, frozen=True, gc=False):
    """One group."""

    held: int = 0  # offsets it has committed
    generation: int = 0  # log index of the last change of its definition, members or owners
    definition: bytes = b""  # a serialised GroupRow of log.proto; empty: not defined yet


class CommittedOffset(msgspec.Struct, frozen=True, gc=False):
    """A group's place in a partition: the offset of the next record to deliver."""

    topic_id: int
    partition: int
    offset: int


def read(r: Reader, group: str) -> GroupRow | None:
    """A group; None when there is none."""
    value = r.get(Table.GROUPS, group.encode())
    if value is None:
        return None
    if len(value) == _U32.size:
        return GroupRow(_U32.unpack(value)[0])
    held, generation = _DEFINED.unpack_from(value)
    return GroupRow(held, generation, value[_DEFINED.size :])


def write(w: Writer, group: str, row: GroupRow) -> None:
    """Make a group or change it."""
    if row.generation or row.definition:
        value = _DEFINED.pack(row.held, row.generation) + row.definition
    else:
        value = _U32.pack(row.held)
    w.put(Table.GROUPS, group.encode(), value)


def commit_offset(w: Writer, group: str, topic_id: int, partition: int, offset: int) -> None:
    """Set a group's offset; the group comes into being with its first."""
    key = flow_keys.flow_key(group, topic_id, partition)
    if w.get(Table.OFFSETS, key) is None:
        _add_held(w, group, 1)
    w.put(Table.OFFSETS, key, _OFFSET.pack(offset))


def commit_offsets(w: Writer, group: str, offsets: Iterable[CommittedOffset]) -> None:
    """Set many offsets of a group: its row, which counts them, is written once."""
    new = 0
    for each in offsets:
        key = flow_keys.flow_key(group, each.topic_id, each.partition)
        new += w.get(Table.OFFSETS, key) is None
        w.put(Table.OFFSETS, key, _OFFSET.pack(each.offset))
    if new:
        _add_held(w, group, new)


def set_generation(w: Writer, group: str, generation: int) -> None:
    """Note that the definition, the members or the owners of a group that exists have changed."""
    row = read(w, group) or GroupRow()
    write(w, group, GroupRow(row.held, generation, row.definition))


def committed(r: Reader, group: str, topic_id: int, partition: int) -> int | None:
    """A group's offset in a partition; None when it has none."""
    value = r.get(Table.OFFSETS, flow_keys.flow_key(group, topic_id, partition))
    return None if value is None else _OFFSET.unpack(value)[0]


def offsets(r: Reader, group: str, topic_id: int | None = None) -> Iterator[CommittedOffset]:
    """A group's offsets, of one topic or of all, by topic and partition."""
    prefix = flow_keys.group_prefix(group) if topic_id is None else flow_keys.topic_prefix(group, topic_id)
    for key, value in flow_keys.scan_prefix(r, Table.OFFSETS, prefix):
        topic, partition = _PARTITION.unpack(key[-8:])
        yield CommittedOffset(topic, partition, _OFFSET.unpack(value)[0])


def exists(r: Reader, group: str) -> bool:
    """True when the group was defined or has committed an offset, and was not deleted since."""
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
    done = drop_offsets(w, group, flow_keys.group_prefix(group), limit) < limit
    if done:
        w.delete(Table.GROUPS, group.encode())
    return done


def forget(w: Writer, group: str) -> None:
    """Delete a group at once, whatever it holds: that is swept."""
    w.delete(Table.GROUPS, group.encode())


def delete_topic(w: Writer, topic_id: int, limit: int) -> bool:
    """Delete every group's offsets in a topic, ``limit`` a call; True when done.

    A group left without offsets stays: its members may come back.
    """
    left = limit
    for group in list_groups(w):
        left -= drop_offsets(w, group, flow_keys.topic_prefix(group, topic_id), left)
        if left <= 0:
            return False
    return True


def drop_offsets(w: Writer, group: str, prefix: bytes, limit: int) -> int:
    """Delete up to ``limit`` offsets of a group, whose keys start with ``prefix``; how many."""
    doomed = flow_keys.first_keys(w, Table.OFFSETS, prefix, limit)
    for key in doomed:
        w.delete(Table.OFFSETS, key)
    if doomed and exists(w, group):
        _add_held(w, group, -len(doomed))
    return len(doomed)


def digest(r: Reader) -> bytes:
    """XXH3-128 over every row of groups, idempotency keys and transactions.

    Equal on replicas that have applied the same entries. Reads everything: for tests and drills.
    """
    hashed = xxhash.xxh3_128()
    for table in _TABLES:
        name = table.value.encode()
        for key, value in r.scan(table):
            hashed.update(name)
            hashed.update(_LENGTHS.pack(len(key), len(value)))
            hashed.update(key)
            hashed.update(value)
    return hashed.digest()


def _add_held(w: Writer, group: str, n: int) -> None:
    row = read(w, group) or GroupRow()
    write(w, group, GroupRow(row.held + n, row.generation, row.definition))
