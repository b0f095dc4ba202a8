"""Appends with large commands, put together and taken apart by hand.

Protobuf would copy each command into the frame and the frame into its bytes, and as often on
the way back. The bytes are those protobuf writes.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.v1 import peer_pb2
from holdfast.wire_format import read_varint, varint

#: Smaller frames are parsed faster by protobuf, copies and all.
OPEN_BYTES = 16 << 10

#: A smaller command is joined to what stands around it: a part costs more than its copy.
_PART_BYTES = 4 << 10

_APPEND = 0x22
_ENTRY = 0x22
_COMMAND = 0x1A
#: The fields before these, all numbers: of the frame and of an append, and of an entry.
_NUMBERS = frozenset((0x08, 0x10, 0x18))


def append_parts(frame: peer_pb2.PeerFrame, commands: Sequence[bytes]) -> list[bytes]:
    """The body of a frame with an append, in parts; its entries lack their ``commands``."""
    append = frame.append
    heads: list[bytes] = []
    size = 0
    for entry, command in zip(append.entries, commands, strict=True):
        before = peer_pb2.LogEntry(index=entry.index, term=entry.term).SerializeToString()
        if command:
            before += b"\x1a" + varint(len(command))
        after = peer_pb2.LogEntry(kind=entry.kind).SerializeToString()
        length = varint(len(before) + len(command) + len(after))
        heads += (b"\x22" + length + before, after)
        size += len(heads[-2]) + len(command) + len(after)
    first = peer_pb2.AppendEntries(
        prev_index=append.prev_index, prev_term=append.prev_term, commit_index=append.commit_index
    ).SerializeToString()
    last = peer_pb2.AppendEntries(round=append.round).SerializeToString()
    start = peer_pb2.PeerFrame(term=frame.term, boot_id=frame.boot_id).SerializeToString()
    parts: list[bytes] = []
    between = [start, b"\x22", varint(len(first) + size + len(last)), first]
    for place, command in enumerate(commands):
        between.append(heads[2 * place])
        if len(command) >= _PART_BYTES:
            parts += (b"".join(between), command)
            between = []
        else:
            between.append(command)
        between.append(heads[2 * place + 1])
    parts.append(b"".join((*between, last)))
    return [part for part in parts if part]


def open_append(body: bytes) -> tuple[peer_pb2.PeerFrame, list[bytes]] | None:
    """The frame without the commands of its append's entries, and these; each is copied once.

    None when it is no append with entries, or not what protobuf writes.

    Raises:
        DecodeError: what is not a command does not parse.
    """
    try:
        at = _after_numbers(body, 0)
        if body[at] != _APPEND:
            return None
        size, start = read_varint(body, at + 1)
        if start + size != len(body):
            return None
        frame = peer_pb2.PeerFrame.FromString(body[:at])
        at = _after_numbers(body, start)
        rest = [body[start:at]]
        commands: list[bytes] = []
        while at < len(body) and body[at] == _ENTRY:
            size, first = read_varint(body, at + 1)
            at = first + size
            after = _after_numbers(body, first)
            if after < at and body[after] == _COMMAND:
                size, command = read_varint(body, after + 1)
                commands.append(body[command : command + size])
                entry = body[first:after] + body[command + size : at]
                if command + size > at:
                    return None
            else:
                commands.append(b"")
                entry = body[first:at]
            rest += (b"\x22", varint(len(entry)), entry)
        if not commands or at > len(body):
            return None
        rest.append(body[at:])
    except (IndexError, ValueError):
        return None
    append = peer_pb2.AppendEntries.FromString(b"".join(rest))
    if len(append.entries) != len(commands) or any(entry.command for entry in append.entries):
        return None
    frame.append.CopyFrom(append)
    return frame, commands


def _after_numbers(data: bytes, at: int) -> int:
    while at < len(data) and data[at] in _NUMBERS:
        _, at = read_varint(data, at + 1)
    return at
