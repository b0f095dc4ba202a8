"""What is written by hand is what protobuf writes, and what is read by hand is what it reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import records
from holdfast.errors import HoldfastError
from holdfast.records import BatchFacts, check_batch, decode_batch, encode_batch
from holdfast.v1 import bus_pb2, records_pb2
from holdfast.wire_format import find_values, join_values, open_batch, read_varint, varint

NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, (1 << 64) - 1))
VALUES = st.one_of(
    st.lists(st.binary(max_size=300), min_size=1, max_size=20),
    # Of one size, and large enough to be looked at in place.
    st.builds(lambda value, count: [value] * count, st.binary(max_size=300), st.integers(1, 40)),
    st.lists(st.sampled_from([b"x" * 5000, b"y" * 9000, b""]), min_size=1, max_size=4),
)


@given(NUMBERS)
def test_varint(value: int) -> None:
    expected = bus_pb2.PublishRequest(request_id=value).SerializeToString()
    assert varint(value) == (expected[1:] or b"\x00")
    assert read_varint(b"\x00" + varint(value) + b"\xff", 1) == (value, 1 + len(varint(value)))


@pytest.mark.parametrize("data", [b"\x80\x00", b"\xff" * 9 + b"\x02", b"\xff" * 11])
def test_a_varint_longer_than_it_need_be(data: bytes) -> None:
    with pytest.raises(ValueError, match="varint"):
        read_varint(data, 0)


@given(VALUES, st.sampled_from([0, 7]))
def test_values_are_joined_as_protobuf_does(values: list[bytes], base: int) -> None:
    message = records_pb2.Records(values=values, base_timestamp_us=base)
    data = message.SerializeToString()
    assert join_values(values, records_pb2.Records(base_timestamp_us=base).SerializeToString()) == data
    column = find_values(data, len(values))
    if column is not None:
        assert column.values() == values
        assert column.sizes() == [len(value) for value in values]
        assert data[column.end :] == records_pb2.Records(base_timestamp_us=base).SerializeToString()


def test_values_found_in_place() -> None:
    for values in ([b"abc"] * 3, [b""] * 3, [b"x" * 5000, b"y" * 9000], [b"x" * 1024] * 240):
        assert find_values(join_values(values, b"\x18\x02"), len(values)) is not None
    assert find_values(join_values([b"a", b"bc"], b""), 2) is None  # protobuf is as fast


@given(
    VALUES,
    st.data(),
)
def test_damage_is_judged_as_without_short_cuts(values: list[bytes], data: st.DataObject) -> None:
    """Whatever becomes of a batch's bytes, reading in place says what protobuf says."""
    payload = bytearray(records_pb2.Records(values=values, base_timestamp_us=9).SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, min(len(payload) - 1, 400)))
        payload[at] = data.draw(st.sampled_from([0, 1, 0x0A, 0x12, 0x18, 0x7F, 0x80, 0xFF]))
    if data.draw(st.booleans()):
        payload += records_pb2.Records(values=[b"late"]).SerializeToString()
    count = len(values) + data.draw(st.sampled_from([0, 0, 0, 1, -1]))
    envelope = records._envelope(count if count > 0 else 1, 0, bytes(payload))
    assert _verdict(b"".join(envelope)) == _verdict_of_protobuf(b"".join(envelope))


def _verdict(batch: bytes) -> tuple[Any, ...]:
    try:
        facts: BatchFacts | str = check_batch(batch)
    except HoldfastError as error:
        facts = error.reason
    try:
        decoded = decode_batch(batch)
    except HoldfastError as error:
        return facts, error.reason
    return facts, decoded.values, decoded.keys, decoded.timestamps_us


def _verdict_of_protobuf(batch: bytes) -> tuple[Any, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "open_batch", lambda data: None)
        patch.setattr(records, "find_values", lambda data, count: None)
        return _verdict(batch)


def test_only_what_protobuf_writes_is_opened_by_hand() -> None:
    batch = encode_batch([b"v" * 100], compression=1)
    opened = open_batch(b"before" + batch, 6)
    assert opened is not None
    assert opened.head + opened.records == batch
    assert (opened.count, opened.compression) == (1, 1)
    other_forms = (
        b"",
        batch[:-1],
        batch + b"\x28\x01",  # a field more
        b"\x08\x81\x00" + batch[2:],  # a longer varint
        batch[:2] + b"\x10\x00" + batch[4:],  # a default that is written
        b"\x08\x00" + batch[2:],
    )
    for form in other_forms:
        assert open_batch(form) is None
    assert open_batch(batch, 0, len(batch) + 1) is None
