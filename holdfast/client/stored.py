"""Responses with stored batches, taken apart without copying these: protobuf would, three times over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.v1 import bus_pb2, records_pb2
from holdfast.wire_format import OpenBatch, open_batch, read_varint

#: Responses that begin with a smaller batch are parsed faster by protobuf, copies and all.
_OPEN_BYTES = 16 << 10

_TEXT = 0x0A
_NUMBERS = frozenset((0x10, 0x18, 0x20, 0x28, 0x30))


@dataclass(frozen=True, slots=True)
class Stored:
    """A StoredBatch: ``facts`` are all its fields but the batch, which is here."""

    facts: records_pb2.StoredBatch
    batch: OpenBatch | bytes


@dataclass(frozen=True, slots=True)
class ReplayMessage:
    """A ReplayResponse: ``rest`` is all but its batches."""

    rest: bus_pb2.ReplayResponse
    batches: Sequence[Stored]


def parse_replay(raw: bytes) -> ReplayMessage:
    """
    Raises:
        DecodeError: it is no ReplayResponse.
    """
    opened = open_replay(raw)
    if opened is not None:
        return opened
    response = bus_pb2.ReplayResponse.FromString(raw)
    return ReplayMessage(response, [Stored(stored, stored.batch) for stored in response.batches])


def open_replay(raw: bytes, least: int = _OPEN_BYTES) -> ReplayMessage | None:
    """None when it does not begin with a batch of ``least`` bytes, or is not quite what brokers write.

    Raises:
        DecodeError: what is not a batch does not parse.
    """
    batches: list[Stored] = []
    at, end = 0, len(raw)
    try:
        while at < end and raw[at] == _TEXT:
            size, start = read_varint(raw, at + 1)
            at = start + size
            if not batches and size < least:
                return None
            stored = _open_stored(raw, start, at)
            if stored is None:
                return None
            batches.append(stored)
    except (IndexError, ValueError):
        return None
    if not batches:
        return None
    rest = bus_pb2.ReplayResponse.FromString(raw[at:])
    return None if rest.batches else ReplayMessage(rest, batches)


def _open_stored(raw: bytes, start: int, end: int) -> Stored | None:
    at = start
    while raw[at] in _NUMBERS or raw[at] == _TEXT:
        text = raw[at] == _TEXT
        value, at = read_varint(raw, at + 1)
        at += value if text else 0
    if raw[at] != 0x3A:
        return None
    size, batch = read_varint(raw, at + 1)
    opened = open_batch(raw, batch, end) if batch + size == end else None
    return None if opened is None else Stored(records_pb2.StoredBatch.FromString(raw[start:at]), opened)
