"""A response taken apart by hand holds what protobuf reads from it, or is left to protobuf."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from holdfast.client.stored import ReplayMessage, open_replay, parse_replay
from holdfast.records import encode_batch
from holdfast.v1 import bus_pb2, records_pb2
from holdfast.wire_format import OpenBatch

SMALL, LARGE = encode_batch([b"value"]), encode_batch([b"v" * 20_000, b"w"])
NUMBERS = st.sampled_from([0, 1, 300, (1 << 63) - 1, -1])
STORED = st.builds(
    records_pb2.StoredBatch,
    topic=st.sampled_from(["", "orders", "ü"]),
    partition=st.sampled_from([0, 1, 300]),
    base_offset=NUMBERS,
    append_time_us=NUMBERS,
    first_offset=NUMBERS,
    last_offset=NUMBERS,
    batch=st.sampled_from([b"", b"no batch", SMALL, LARGE]),
)
RESPONSES = st.builds(
    bus_pb2.ReplayResponse,
    batches=st.lists(STORED, max_size=3),
    progress=st.lists(
        st.builds(bus_pb2.PartitionProgress, partition=st.just(3), next_offset=NUMBERS), max_size=2
    ),
    caught_up=st.booleans(),
)


def whole(message: ReplayMessage) -> bus_pb2.ReplayResponse:
    response = bus_pb2.ReplayResponse()
    response.CopyFrom(message.rest)
    del response.batches[:]
    for stored in message.batches:
        copy = response.batches.add()
        copy.CopyFrom(stored.facts)
        batch = stored.batch
        copy.batch = batch.head + batch.records if isinstance(batch, OpenBatch) else batch
    return response


@given(RESPONSES)
def test_it_is_what_protobuf_reads(response: bus_pb2.ReplayResponse) -> None:
    raw = response.SerializeToString()
    assert whole(parse_replay(raw)) == response
    opened = open_replay(raw, least=0)
    assert (opened is not None) == (
        len(response.batches) > 0 and all(stored.batch in (SMALL, LARGE) for stored in response.batches)
    )
    if opened is not None:
        assert whole(opened) == response


@given(RESPONSES.filter(lambda response: len(response.batches) > 0), st.data())
def test_damage(response: bus_pb2.ReplayResponse, data: st.DataObject) -> None:
    raw = bytearray(response.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, min(len(raw), 200) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.sampled_from([len(raw), len(raw) - 1, len(raw) // 2]))])
    try:
        opened = open_replay(cut, least=0)
    except DecodeError:
        opened = None
    if opened is not None:
        assert whole(opened) == bus_pb2.ReplayResponse.FromString(cut)


def test_small_batches_are_left_to_protobuf() -> None:
    stored = [records_pb2.StoredBatch(batch=SMALL), records_pb2.StoredBatch(batch=LARGE)]
    assert open_replay(bus_pb2.ReplayResponse(batches=stored).SerializeToString()) is None
    assert open_replay(bus_pb2.ReplayResponse(batches=stored[::-1]).SerializeToString()) is not None
