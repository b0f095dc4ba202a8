"""An append whose commands travel beside the frame has the bytes protobuf would have written."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from holdfast.rpc.peer.append_wire import append_parts, open_append
from holdfast.rpc.peer.framing import FrameDecoder, encode_frame, frame_parts
from holdfast.v1 import peer_pb2

NUMBERS = st.sampled_from([0, 1, 127, 128, 1 << 40, (1 << 64) - 1])
COMMANDS = st.sampled_from([b"", b"c", b"d" * 127, b"e" * 4096, b"f" * 20_000])
ENTRIES = st.lists(st.tuples(NUMBERS, NUMBERS, COMMANDS, st.sampled_from([0, 1, 9])), min_size=1, max_size=4)


@st.composite
def appends(draw: st.DrawFn) -> tuple[peer_pb2.PeerFrame, peer_pb2.PeerFrame, list[bytes]]:
    """A frame, the same without its commands, and these."""
    whole = peer_pb2.PeerFrame(term=draw(NUMBERS), boot_id=draw(NUMBERS))
    body = whole.append
    body.SetInParent()
    body.prev_index, body.prev_term, body.commit_index = draw(NUMBERS), draw(NUMBERS), draw(NUMBERS)
    body.round = draw(NUMBERS)
    commands = []
    for index, term, command, kind in draw(ENTRIES):
        body.entries.add(index=index, term=term, command=command, kind=kind)
        commands.append(command)
    bare = peer_pb2.PeerFrame()
    bare.CopyFrom(whole)
    for entry in bare.append.entries:
        entry.command = b""
    return whole, bare, commands


@given(appends())
def test_the_bytes_are_protobufs(made: tuple[peer_pb2.PeerFrame, peer_pb2.PeerFrame, list[bytes]]) -> None:
    whole, bare, commands = made
    assert b"".join(append_parts(bare, commands)) == whole.SerializeToString()
    assert b"".join(frame_parts(bare, commands)) == encode_frame(whole)
    assert open_append(whole.SerializeToString()) == (bare, commands)


@given(appends(), st.data())
def test_damage(
    made: tuple[peer_pb2.PeerFrame, peer_pb2.PeerFrame, list[bytes]], data: st.DataObject
) -> None:
    raw = bytearray(made[0].SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, min(len(raw), 200) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.sampled_from([len(raw), len(raw) - 1, len(raw) // 2]))])
    try:
        opened = open_append(cut)
    except DecodeError:
        opened = None
    if opened is not None:
        frame, commands = opened
        for entry, command in zip(frame.append.entries, commands, strict=True):
            entry.command = command
        assert frame == peer_pb2.PeerFrame.FromString(cut)


@given(st.lists(appends(), min_size=1, max_size=3), st.integers(1, 30_000))
def test_any_chunking(
    sent: list[tuple[peer_pb2.PeerFrame, peer_pb2.PeerFrame, list[bytes]]], step: int
) -> None:
    stream = b"".join(part for _, bare, commands in sent for part in frame_parts(bare, commands))
    decoder = FrameDecoder(1 << 20)
    step = max(step, len(stream) // 50)
    got = [made for at in range(0, len(stream), step) for made in decoder.feed(stream[at : at + step])]
    assert decoder.buffered == 0
    for (whole, bare, commands), (frame, apart) in zip(sent, got, strict=True):
        assert (frame, list(apart)) in ((bare, commands), (whole, []))


def test_what_is_no_append_is_left_to_protobuf() -> None:
    for frame in (
        peer_pb2.PeerFrame(),
        peer_pb2.PeerFrame(append=peer_pb2.AppendEntries(round=3)),
        peer_pb2.PeerFrame(term=1, timeout_now=peer_pb2.TimeoutNow()),
    ):
        assert open_append(frame.SerializeToString()) is None
