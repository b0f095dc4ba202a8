"""Framing of log entries: what is framed comes back, what is malformed is refused."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cluster import commands
from holdfast.errors import StorageError
from holdfast.v1 import log_pb2

TIMES = st.integers(min_value=-(2**63), max_value=2**63 - 1)
BLOBS = st.lists(st.binary(max_size=64), max_size=4)


@st.composite
def ops(draw: st.DrawFn) -> tuple[log_pb2.Op, list[bytes]]:
    """An operation and the batches that travel with it."""
    kind = draw(st.sampled_from(["append", "create", "commit", "empty"]))
    if kind == "append":
        batches = draw(BLOBS)
        op = log_pb2.Op(append=log_pb2.AppendOp(topic_id=draw(st.integers(0, 2**32 - 1))))
        for batch in batches:
            op.append.batches.add(partition=draw(st.integers(0, 1023)), count=1, length=len(batch))
        return op, batches
    if kind == "create":
        return log_pb2.Op(create_topic=log_pb2.CreateTopicOp(name=draw(st.text(max_size=20)))), []
    if kind == "commit":
        op = log_pb2.Op(commit_offsets=log_pb2.CommitOffsetsOp(group=draw(st.text(max_size=20))))
        op.commit_offsets.offsets.add(topic_id=1, partition=2, offset=draw(TIMES))
        return op, []
    return log_pb2.Op(), []


@given(time_us=TIMES, items=st.lists(ops(), max_size=6))
def test_entry_round_trip(time_us: int, items: list[tuple[log_pb2.Op, list[bytes]]]) -> None:
    entry = commands.encode_entry(time_us, [commands.encode_op(op, batches) for op, batches in items])
    decoded_time, decoded = commands.decode_entry(entry)
    assert decoded_time == time_us
    assert [d.op for d in decoded] == [op for op, _ in items]
    blobs = [entry[d.blob_start : d.blob_start + d.blob_length] for d in decoded]
    assert blobs == [b"".join(batches) for _, batches in items]


@given(items=st.lists(ops(), max_size=4))
def test_overheads_are_what_is_added(items: list[tuple[log_pb2.Op, list[bytes]]]) -> None:
    framed = [commands.encode_op(op, batches) for op, batches in items]
    for (op, batches), data in zip(items, framed, strict=True):
        assert len(data) == commands.OP_OVERHEAD + op.ByteSize() + sum(map(len, batches))
    assert len(commands.encode_entry(0, framed)) == commands.ENTRY_OVERHEAD + sum(map(len, framed))


@given(item=ops())
def test_op_round_trip(item: tuple[log_pb2.Op, list[bytes]]) -> None:
    op, batches = item
    assert commands.check_op(commands.encode_op(op, batches)) == op


@given(item=ops(), cut=st.integers(1, 200))
def test_a_shortened_op_is_refused(item: tuple[log_pb2.Op, list[bytes]], cut: int) -> None:
    framed = commands.encode_op(*item)
    with pytest.raises(StorageError):
        commands.check_op(framed[: -min(cut, len(framed))])


@given(item=ops(), tail=st.binary(min_size=1, max_size=20))
def test_a_lengthened_op_is_refused(item: tuple[log_pb2.Op, list[bytes]], tail: bytes) -> None:
    with pytest.raises(StorageError):
        commands.check_op(commands.encode_op(*item) + tail)


@given(items=st.lists(ops(), max_size=4), cut=st.integers(1, 200))
def test_a_shortened_entry_is_refused(items: list[tuple[log_pb2.Op, list[bytes]]], cut: int) -> None:
    entry = commands.encode_entry(7, [commands.encode_op(*item) for item in items])
    with pytest.raises(StorageError):
        commands.decode_entry(entry[: -min(cut, len(entry))])


@given(items=st.lists(ops(), max_size=4), tail=st.binary(min_size=1, max_size=20))
def test_a_lengthened_entry_is_refused(items: list[tuple[log_pb2.Op, list[bytes]]], tail: bytes) -> None:
    entry = commands.encode_entry(7, [commands.encode_op(*item) for item in items])
    with pytest.raises(StorageError):
        commands.decode_entry(entry + tail)


@given(data=st.binary(max_size=200))
def test_noise_is_refused_or_read_never_anything_else(data: bytes) -> None:
    for decode in (commands.decode_entry, commands.check_op):
        with contextlib.suppress(StorageError):
            decode(data)  # type: ignore[operator]


@given(version=st.integers(0, 255).filter(lambda v: v != 1))
def test_another_layout_is_refused_by_number(version: int) -> None:
    entry = bytearray(commands.encode_entry(7, []))
    entry[0] = version
    with pytest.raises(StorageError, match=f"layout {version}"):
        commands.decode_entry(bytes(entry))


def test_a_count_beyond_the_content_is_refused() -> None:
    entry = bytearray(commands.encode_entry(7, [commands.encode_op(log_pb2.Op())]))
    struct.pack_into(">I", entry, commands.ENTRY_OVERHEAD - 4, 2**32 - 1)
    with pytest.raises(StorageError, match="ends inside"):
        commands.decode_entry(bytes(entry))


def test_an_op_that_is_no_message_is_refused() -> None:
    broken = b"\xff\xff\xff"
    framed = struct.pack(">II", len(broken), 0) + broken
    with pytest.raises(StorageError, match="does not parse"):
        commands.check_op(framed)
    with pytest.raises(StorageError, match="does not parse"):
        commands.decode_entry(commands.encode_entry(0, [framed]))


def test_lengths_that_overlap_the_next_op_are_refused() -> None:
    first = bytearray(commands.encode_op(log_pb2.Op(), [b"blob"]))
    struct.pack_into(">I", first, 4, 40)  # claims the bytes of the op behind it, and more
    with pytest.raises(StorageError):
        commands.decode_entry(commands.encode_entry(0, [bytes(first), commands.encode_op(log_pb2.Op())]))
