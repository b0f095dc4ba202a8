"""A request taken apart by hand holds what protobuf reads from it, or is left to protobuf."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from holdfast.records import encode_batch
from holdfast.rpc.services.publish_wire import OpenRequest, open_publish
from holdfast.v1 import bus_pb2

SMALL, LARGE = encode_batch([b"value"]), encode_batch([b"v" * 20_000, b"w"], [b"k", b""], [5, 6])
BATCHES = st.builds(
    bus_pb2.PartitionBatch,
    partition=st.sampled_from([0, 1, 127, 128, (1 << 32) - 1]),
    base_sequence=st.sampled_from([0, 1, 1 << 20, (1 << 64) - 1]),
    batch=st.sampled_from([b"", b"no batch", SMALL, LARGE]),
)
REQUESTS = st.builds(
    bus_pb2.PublishRequest,
    topic=st.sampled_from(["", "orders", "ü"]),
    batches=st.lists(BATCHES, max_size=3),
    producer_id=st.sampled_from([0, 1, (1 << 64) - 1]),
    producer_epoch=st.sampled_from([0, 3]),
    partition=st.sampled_from([None, 0, 4]),
    request_id=st.sampled_from([0, 300]),
)


def whole(opened: OpenRequest) -> bus_pb2.PublishRequest:
    request = bus_pb2.PublishRequest()
    request.CopyFrom(opened.rest)
    for item in opened.batches:
        request.batches.add(
            partition=item.partition,
            base_sequence=item.base_sequence,
            batch=item.batch.head + item.batch.records,
        )
    return request


@given(REQUESTS)
def test_it_is_what_protobuf_reads(request: bus_pb2.PublishRequest) -> None:
    opened = open_publish(request.SerializeToString())
    if opened is not None:
        assert whole(opened) == request
    ordinary = {SMALL, LARGE}
    assert (opened is not None) == (
        len(request.batches) > 0 and all(item.batch in ordinary for item in request.batches)
    )


@given(REQUESTS.filter(lambda request: len(request.batches) > 0), st.data())
def test_damage(request: bus_pb2.PublishRequest, data: st.DataObject) -> None:
    raw = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(len(raw), 200) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.sampled_from([len(raw), len(raw) - 1, len(raw) // 2]))])
    try:
        opened = open_publish(cut)
    except DecodeError:
        opened = None
    if opened is not None:
        assert whole(opened) == bus_pb2.PublishRequest.FromString(cut)


def test_records_beside_batches_are_left_to_protobuf() -> None:
    request = bus_pb2.PublishRequest(topic="t", batches=[bus_pb2.PartitionBatch(batch=SMALL)])
    request.records.add(value=b"v")
    assert open_publish(request.SerializeToString()) is None
    assert open_publish(b"") is None
