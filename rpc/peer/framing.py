"""Frames on a peer connection, without I/O.

A frame is: body length (u32), CRC-32C of the body (u32), body, integers
big-endian; the body is a serialised PeerFrame. TCP's checksum is too weak to
trust with a log entry, and a frame that fails its CRC ends the connection:
after it nothing can be trusted to be in step.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import google_crc32c
from google.protobuf.message import DecodeError

from holdfast.rpc.peer.append_wire import OPEN_BYTES, append_parts, open_append
from holdfast.v1 import peer_pb2

_HEAD = struct.Struct(">II")
HEAD_SIZE = _HEAD.size


class FramingError(Exception):
    """The bytes on a connection are not frames of ours; the connection must end."""


def frame_parts(frame: peer_pb2.PeerFrame, commands: Sequence[bytes] = ()) -> list[bytes]:
    """One frame in parts, to be written one after the other: payloads are not copied to join them.

    Args:
        commands: of the append's entries, which lack theirs.
    """
    body = append_parts(frame, commands) if commands else [frame.SerializeToString()]
    crc = 0
    for part in body:
        crc = google_crc32c.extend(crc, part)
    return [_HEAD.pack(sum(map(len, body)), crc), *body]


def encode_frame(frame: peer_pb2.PeerFrame) -> bytes:
    """The bytes of one frame."""
    return b"".join(frame_parts(frame))


class FrameDecoder:
    """Cuts a byte stream into frames.

    Args:
        max_frame_bytes: the largest body accepted; may be raised after the
            handshake, so that a stranger cannot make the broker buffer much.
    """

    def __init__(self, max_frame_bytes: int) -> None:
        self.max_frame_bytes = max_frame_bytes
        #: What has come of a frame: less than a head, or the body in the pieces it came in.
        self._pieces: list[bytes] = []
        self._held = 0
        #: Length and CRC of the body, once its head is complete.
        self._head: tuple[int, int] | None = None

    @property
    def buffered(self) -> int:
        """Bytes held of a frame that is not complete."""
        return self._held + (HEAD_SIZE if self._head is not None else 0)

    def feed(self, data: bytes) -> Iterator[tuple[peer_pb2.PeerFrame, Sequence[bytes]]]:
        """Yield the frames that ``data`` completes, with the commands that were kept out of them.

        Raises:
            FramingError: a frame too large, damaged, or not a PeerFrame.
        """
        at = 0
        while True:
            wanted = HEAD_SIZE if self._head is None else self._head[0]
            missing = wanted - self._held
            if len(data) - at < missing:
                if at < len(data):
                    self._pieces.append(data[at:] if at else data)
                    self._held += len(data) - at
                return
            whole = data[at : at + missing]
            at += missing
            if self._pieces:
                # Joined once, whatever number of pieces it came in.
                whole = b"".join((*self._pieces, whole))
                self._pieces.clear()
                self._held = 0
            if self._head is None:
                self._head = length, _ = _HEAD.unpack(whole)
                if length > self.max_frame_bytes:
                    raise FramingError(f"frame of {length} bytes; the limit is {self.max_frame_bytes}")
                continue
            crc = self._head[1]
            self._head = None
            yield _parse(whole, crc)


def _parse(body: bytes, crc: int) -> tuple[peer_pb2.PeerFrame, Sequence[bytes]]:
    if google_crc32c.value(body) != crc:
        raise FramingError("frame fails its CRC-32C")
    try:
        opened = open_append(body) if len(body) >= OPEN_BYTES else None
        return opened if opened is not None else (peer_pb2.PeerFrame.FromString(body), ())
    except DecodeError as error:
        raise FramingError("frame is not a PeerFrame") from error
