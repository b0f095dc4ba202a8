"""Members of groups: known to every replica, so that a new leader keeps their partitions for them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from holdfast.errors import StorageError
from holdfast.storage import flow_keys
from holdfast.storage.port import Reader, Table, Writer

_ROW = struct.Struct(">BIqB")
_FIXED = 1

#: Longest member id, and longest name kept, in bytes of UTF-8.
MAX_MEMBER_BYTES = 64
MAX_NAME_BYTES = 200


class MemberRow(msgspec.Struct, frozen=True, gc=False):
    """One member of a group."""

    name: str  # for people
    fixed: bool  # a static member
    grace_ms: int  # how long its place is kept after its stream has ended
    joined_at_us: int


def cut_name(name: str) -> str:
    """``name`` as far as it is kept."""
    return name.encode(errors="replace")[:MAX_NAME_BYTES].decode(errors="ignore")


def read(r: Reader, group: str, member: str) -> MemberRow | None:
    """None when the group has no such member."""
    value = r.get(Table.MEMBERS, _key(group, member))
    return None if value is None else _decode(value)


def write(w: Writer, group: str, member: str, row: MemberRow) -> None:
    """Set a member's row; a longer name is cut."""
    name = cut_name(row.name).encode()
    flags = _FIXED if row.fixed else 0
    w.put(
        Table.MEMBERS,
        _key(group, member),
        _ROW.pack(flags, row.grace_ms, row.joined_at_us, len(name)) + name,
    )


def delete(w: Writer, group: str, member: str) -> bool:
    """Forget a member; True when there was one."""
    return w.delete(Table.MEMBERS, _key(group, member))


def scan(r: Reader, group: str) -> Iterator[tuple[str, MemberRow]]:
    """A group's members by id: ``(id, row)``."""
    prefix = flow_keys.group_prefix(group)
    for key, value in flow_keys.scan_prefix(r, Table.MEMBERS, prefix):
        yield key[len(prefix) :].decode(), _decode(value)


def ids(r: Reader, group: str) -> list[str]:
    """The ids of a group's members, in byte order."""
    prefix = flow_keys.group_prefix(group)
    return [key[len(prefix) :].decode() for key, _ in flow_keys.scan_prefix(r, Table.MEMBERS, prefix)]


def scan_all(r: Reader, after: tuple[str, str] | None = None) -> Iterator[tuple[str, str, MemberRow]]:
    """The members of all groups behind ``after``: ``(group, id, row)``."""
    start = b"" if after is None else _key(*after) + b"\x00"
    for key, value in r.scan(Table.MEMBERS, start):
        length = int.from_bytes(key[:2])
        yield key[2 : 2 + length].decode(), key[2 + length :].decode(), _decode(value)


def count(r: Reader) -> int:
    """Members of all groups."""
    return r.count(Table.MEMBERS)


def _key(group: str, member: str) -> bytes:
    return flow_keys.group_prefix(group) + member.encode()


def _decode(value: bytes) -> MemberRow:
    flags, grace_ms, joined, length = _ROW.unpack_from(value)
    if len(value) != _ROW.size + length:
        raise StorageError("a member's row does not have the length it says")
    return MemberRow(value[_ROW.size :].decode(), bool(flags & _FIXED), grace_ms, joined)
