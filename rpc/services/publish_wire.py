"""A large PublishRequest taken apart without copying its batches: protobuf would, three times over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from holdfast.v1 import bus_pb2
from holdfast.wire_format import OpenBatch, open_batch, read_varint

#: Smaller requests are parsed faster by protobuf, copies and all.
OPEN_BYTES = 16 << 10

_BATCHES = 0x1A
_TOPIC = 0x0A
#: The fields that are one number.
_NUMBERS = frozenset((0x20, 0x28, 0x30, 0x38, 0x40))
_MAX_PARTITION = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class OpenItem:
    """A PartitionBatch; one that has idempotency keys is left to protobuf."""

    idempotency_keys: ClassVar[tuple[bytes, ...]] = ()
    partition: int
    base_sequence: int
    batch: OpenBatch


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A PublishRequest that holds batches: ``rest`` is all but them."""

    rest: bus_pb2.PublishRequest
    batches: list[OpenItem]


def open_publish(raw: bytes) -> OpenRequest | None:
    """None when it holds no batches, or is not quite what protobuf writes: then protobuf has to read it.

    Raises:
        DecodeError: what is not a batch does not parse.
    """
    rest: list[bytes] = []
    batches: list[OpenItem] = []
    at, end = 0, len(raw)
    try:
        while at < end:
            tag = raw[at]
            if tag == _BATCHES:
                size, start = read_varint(raw, at + 1)
                item = _open_item(raw, start, start + size)
                if item is None:
                    return None
                batches.append(item)
                at = start + size
                continue
            after = at + 1
            if tag == _TOPIC:
                size, after = read_varint(raw, after)
                after += size
            elif tag in _NUMBERS:
                _, after = read_varint(raw, after)
            else:
                return None
            if after > end:
                return None
            rest.append(raw[at:after])
            at = after
    except (IndexError, ValueError):
        return None
    return OpenRequest(bus_pb2.PublishRequest.FromString(b"".join(rest)), batches) if batches else None


def _open_item(raw: bytes, at: int, end: int) -> OpenItem | None:
    partition = base_sequence = 0
    if raw[at] == 0x08:
        partition, at = read_varint(raw, at + 1)
    if raw[at] == 0x10:
        base_sequence, at = read_varint(raw, at + 1)
    if raw[at] != 0x1A or partition > _MAX_PARTITION:
        return None
    size, at = read_varint(raw, at + 1)
    batch = open_batch(raw, at, end) if at + size == end else None
    return None if batch is None else OpenItem(partition, base_sequence, batch)
