"""Frames survive any chunking; damaged or oversized ones end the connection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.rpc.peer.framing import HEAD_SIZE, FrameDecoder, FramingError, encode_frame
from holdfast.v1 import peer_pb2

frames = st.builds(
    lambda term, boot, data: peer_pb2.PeerFrame(
        term=term, boot_id=boot, forward_request=peer_pb2.ForwardRequest(id=1, op=data)
    ),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=300),
)


@given(st.lists(frames, max_size=8), st.integers(1, 64))
def test_any_chunking_gives_the_same_frames(sent: list[peer_pb2.PeerFrame], step: int) -> None:
    stream = b"".join(encode_frame(f) for f in sent)
    decoder = FrameDecoder(1 << 20)
    got = [f for at in range(0, len(stream), step) for f in decoder.feed(stream[at : at + step])]
    assert got == [(frame, ()) for frame in sent]
    assert decoder.buffered == 0


@given(frames, st.data())
def test_a_flipped_bit_in_the_body_is_found(frame: peer_pb2.PeerFrame, data: st.DataObject) -> None:
    stream = bytearray(encode_frame(frame))
    bit = data.draw(st.integers(HEAD_SIZE * 8, len(stream) * 8 - 1))
    stream[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(FramingError, match="CRC"):
        list(FrameDecoder(1 << 20).feed(bytes(stream)))


def test_an_oversized_frame_is_refused_before_it_is_buffered() -> None:
    decoder = FrameDecoder(100)
    with pytest.raises(FramingError, match="limit is 100"):
        list(decoder.feed(b"\x7f\xff\xff\xff\0\0\0\0"))


@given(st.binary(min_size=HEAD_SIZE, max_size=400))
def test_random_bytes_never_give_anything_but_frames_or_a_framing_error(junk: bytes) -> None:
    decoder = FrameDecoder(4096)
    try:
        for frame, _ in decoder.feed(junk):
            assert isinstance(frame, peer_pb2.PeerFrame)
    except FramingError:
        pass
