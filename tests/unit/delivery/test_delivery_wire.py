"""Hand-built responses are byte for byte what protobuf makes of the same content."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.cluster.delivery.reading import Slice
from holdfast.rpc.services.delivery_wire import batches_field, delivery_response, replay_response
from holdfast.storage.partitions import IndexRow
from holdfast.v1 import bus_pb2, records_pb2

TOPIC = "flights"


@st.composite
def slices(draw: st.DrawFn) -> list[Slice]:
    made = []
    for _ in range(draw(st.integers(0, 4))):
        base = draw(st.sampled_from([0, 1, 127, 128, 1 << 40]))
        count = draw(st.integers(1, 300))
        first = draw(st.integers(base, base + count - 1))
        last = draw(st.integers(first, base + count - 1))
        data = draw(st.sampled_from([b"", b"x", b"y" * 127, b"z" * 128, b"w" * 70_000]))
        row = IndexRow(
            base_offset=base,
            count=count,
            log_index=9,
            position=4,
            length=len(data),
            append_time_us=draw(st.sampled_from([0, 1_700_000_000_000_000])),
            min_timestamp_us=0,
            max_timestamp_us=0,
            running_max_timestamp_us=0,
            topic_id=3,
            partition=draw(st.sampled_from([0, 5, 1023])),
        )
        made.append(Slice(row, first, last, data))
    return made


def stored(items: list[Slice]) -> list[records_pb2.StoredBatch]:
    return [
        records_pb2.StoredBatch(
            topic=TOPIC,
            partition=item.row.partition,
            base_offset=item.row.base_offset,
            append_time_us=item.row.append_time_us,
            first_offset=item.first,
            last_offset=item.last,
            batch=item.data,
        )
        for item in items
    ]


@given(slices(), st.booleans())
def test_replay_response(items: list[Slice], caught_up: bool) -> None:
    progress = [bus_pb2.PartitionProgress(partition=1, next_offset=300, log_end_offset=1 << 33)]
    parts, length = batches_field(TOPIC, items)
    assert length == sum(map(len, parts))
    expected = bus_pb2.ReplayResponse(batches=stored(items), progress=progress, caught_up=caught_up)
    made = replay_response(parts, bus_pb2.ReplayResponse(progress=progress, caught_up=caught_up))
    assert bus_pb2.ReplayResponse.FromString(made) == expected
    # An empty StoredBatch.batch is written by hand and left out by protobuf; batches are never empty.
    if all(item.data for item in items):
        assert made == expected.SerializeToString(deterministic=True)


@given(slices())
def test_delivery_response(items: list[Slice]) -> None:
    expected = bus_pb2.SubscribeResponse(delivery=bus_pb2.Delivery(batches=stored(items)))
    made = delivery_response(*batches_field(TOPIC, items))
    assert bus_pb2.SubscribeResponse.FromString(made) == expected
    if all(item.data for item in items):
        assert made == expected.SerializeToString(deterministic=True)
