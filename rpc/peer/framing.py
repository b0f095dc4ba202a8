"""Frames on a peer connection, without I/O.

A frame is: body length (u32), CRC-32C of the body (u32), body, integers
big-endian; the body is a serialised PeerFrame. TCP's checksum is too weak to
trust with a log entry, and a frame that fails its CRC ends the connection:
after it nothing can be trusted to be in step.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c
from google.protobuf.message import DecodeError

from holdfast.v1 import peer_pb2

_HEAD = struct.Struct(">II")
HEAD_SIZE = _HEAD.size


class FramingError(Exception):
    """The bytes on a connection are not frames of ours; the connection must end."""


def frame_parts(frame: peer_pb2.PeerFrame) -> tuple[bytes, bytes]:
    """Head and body of one frame, apart: a body of megabytes is not copied to join them."""
    body = frame.SerializeToString()
    return _HEAD.pack(len(body), google_crc32c.value(body)), body


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
        self._buffer = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes held of a frame that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[peer_pb2.PeerFrame]:
        """Yield the frames that ``data`` completes.

        Raises:
            FramingError: a frame too large, damaged, or not a PeerFrame.
        """
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= HEAD_SIZE:
                length, crc = _HEAD.unpack_from(buffer, at)
                if length > self.max_frame_bytes:
                    raise FramingError(f"frame of {length} bytes; the limit is {self.max_frame_bytes}")
                end = at + HEAD_SIZE + length
                if len(buffer) < end:
                    break
                with memoryview(buffer) as view:
                    body = bytes(view[at + HEAD_SIZE : end])
                at = end
                yield _parse(body, crc)
        finally:
            # One move of the rest per call, not one per frame.
            del buffer[:at]


def _parse(body: bytes, crc: int) -> peer_pb2.PeerFrame:
    if google_crc32c.value(body) != crc:
        raise FramingError("frame fails its CRC-32C")
    try:
        return peer_pb2.PeerFrame.FromString(body)
    except DecodeError as error:
        raise FramingError("frame is not a PeerFrame") from error
