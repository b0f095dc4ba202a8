"""Who owns a group's share of a partition, and what of it is settled or waits.

The committed offset, the floor, is in ``groups``: a flow has a row of its own
only once there is more to say.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from holdfast.errors import StorageError
from holdfast.storage import flow_keys
from holdfast.storage.port import Reader, Table, Writer

_ROW = struct.Struct(">QIIqB")


class FlowRow(msgspec.Struct, frozen=True, gc=False):
    """One group in one partition; all zero is the same as no row."""

    fence: int = 0  # generation since which the owner owns; 0: nobody ever has
    settled_above: int = 0  # records settled above the floor
    retrying: int = 0  # rows in ``retries``
    settled_at_us: int = 0  # stamped time of the last settling
    owner: str = ""  # member id


EMPTY = FlowRow()


def read(r: Reader, group: str, topic_id: int, partition: int) -> FlowRow:
    """The row; EMPTY when there is none."""
    value = r.get(Table.FLOWS, flow_keys.flow_key(group, topic_id, partition))
    return EMPTY if value is None else _decode(value)


def write(w: Writer, group: str, topic_id: int, partition: int, row: FlowRow) -> None:
    """Set the row; an EMPTY one is none."""
    key = flow_keys.flow_key(group, topic_id, partition)
    if row == EMPTY:
        w.delete(Table.FLOWS, key)
        return
    owner = row.owner.encode()
    head = _ROW.pack(row.fence, row.settled_above, row.retrying, row.settled_at_us, len(owner))
    w.put(Table.FLOWS, key, head + owner)


def scan(r: Reader, group: str) -> Iterator[tuple[int, int, FlowRow]]:
    """A group's rows by topic and partition: ``(topic id, partition, row)``."""
    for key, value in flow_keys.scan_prefix(r, Table.FLOWS, flow_keys.group_prefix(group)):
        _, topic_id, partition, _ = flow_keys.split(key)
        yield topic_id, partition, _decode(value)


def count(r: Reader) -> int:
    """Rows of all groups."""
    return r.count(Table.FLOWS)


def _decode(value: bytes) -> FlowRow:
    fence, above, retrying, settled_at, length = _ROW.unpack_from(value)
    if len(value) != _ROW.size + length:
        raise StorageError("a row of a group's partition does not have the length it says")
    return FlowRow(fence, above, retrying, settled_at, value[_ROW.size :].decode())
