"""Framing of log entries: many operations, each with an opaque blob.

An entry is what one engine turn proposes. Its bytes are::

    u8  layout version (1)
    i64 stamped time, microseconds since the Unix epoch
    u32 number of operations
    then per operation:
    u32 length of op, u32 length of blob, op (a serialised Op), blob

all integers big-endian. The blob holds the batches of an AppendOp one after
the other, so that a broker reaches and stores them without parsing or copying
them, and an index row can name the exact place of a batch within an entry.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.errors import StorageError
from holdfast.v1 import log_pb2

_VERSION = 1
_HEAD = struct.Struct(">BqI")
_OP = struct.Struct(">II")

#: Bytes an entry adds to its operations, and an operation to its content.
ENTRY_OVERHEAD = _HEAD.size
OP_OVERHEAD = _OP.size


def encode_op(op: log_pb2.Op, batches: Sequence[bytes] = ()) -> bytes:
    """One framed operation: what is proposed, and forwarded to a leader."""
    head = op.SerializeToString()
    return b"".join((_OP.pack(len(head), sum(map(len, batches))), head, *batches))


def encode_entry(time_us: int, ops: Sequence[bytes]) -> bytes:
    """An entry of operations framed by ``encode_op``."""
    return b"".join((_HEAD.pack(_VERSION, time_us, len(ops)), *ops))


@dataclass(frozen=True, slots=True)
class DecodedOp:
    """An operation and where its blob lies within the entry."""

    op: log_pb2.Op
    blob_start: int
    blob_length: int


def check_op(framed: bytes) -> log_pb2.Op:
    """Parse a framed operation that came from a peer.

    Raises:
        StorageError: the framing or the operation is malformed.
    """
    if len(framed) < _OP.size:
        raise StorageError("operation too short for its framing")
    op_length, blob_length = _OP.unpack_from(framed)
    if _OP.size + op_length + blob_length != len(framed):
        raise StorageError("operation length does not match its framing")
    return _parse_op(framed[_OP.size : _OP.size + op_length])


def decode_entry(entry: bytes) -> tuple[int, list[DecodedOp]]:
    """Time stamp and operations of an entry.

    Raises:
        StorageError: unknown layout, or lengths that do not add up.
    """
    if len(entry) < _HEAD.size:
        raise StorageError("log entry too short")
    version, time_us, count = _HEAD.unpack_from(entry)
    if version != _VERSION:
        raise StorageError(f"log entry of layout {version}; this version reads layout {_VERSION}")
    ops = []
    at = _HEAD.size
    for _ in range(count):
        if at + _OP.size > len(entry):
            raise StorageError("log entry ends inside an operation")
        op_length, blob_length = _OP.unpack_from(entry, at)
        start = at + _OP.size
        blob = start + op_length
        at = blob + blob_length
        if at > len(entry):
            raise StorageError("log entry ends inside an operation")
        ops.append(DecodedOp(_parse_op(entry[start:blob]), blob, blob_length))
    if at != len(entry):
        raise StorageError("log entry has bytes after its last operation")
    return time_us, ops


def _parse_op(data: bytes) -> log_pb2.Op:
    try:
        return log_pb2.Op.FromString(data)
    except Exception as error:  # protobuf raises DecodeError from its C core
        raise StorageError(f"operation does not parse: {error}") from error


def entry_time_us(entry: bytes) -> int:
    """The stamped time of an entry, without parsing its operations.

    Raises:
        StorageError: unknown layout.
    """
    if len(entry) < _HEAD.size or entry[0] != _VERSION:
        raise StorageError("log entry of an unknown layout")
    time_us: int = _HEAD.unpack_from(entry)[1]
    return time_us


def carries_batches(framed: bytes) -> bool:
    """True when a framed operation has a blob: it is an append of records."""
    return framed[4:8] != b"\0\0\0\0"
