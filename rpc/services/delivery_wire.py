"""Responses that carry stored batches, put together from slices of bytes.

A message class would copy a payload three times on its way to gRPC; here it is
copied once, by the final join. Tests compare the bytes with protobuf's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.parcels import Parcel, Picked
from holdfast.cluster.delivery.reading import Slice
from holdfast.records import decode_batch
from holdfast.rpc.services.decoding import add_records
from holdfast.v1 import bus_pb2, records_pb2
from holdfast.wire_format import varint

Parts = list[bytes]


def batches_field(topic: str, slices: Iterable[Slice]) -> tuple[Parts, int]:
    """``repeated StoredBatch batches = 1`` as byte strings, and their total length."""
    parts: Parts = []
    total = 0
    for item in slices:
        row = item.row
        data = item.data
        # The batch has the highest field number, so it ends the encoding.
        head = records_pb2.StoredBatch(
            topic=topic,
            partition=row.partition,
            base_offset=row.base_offset,
            append_time_us=row.append_time_us,
            first_offset=item.first,
            last_offset=item.last,
        ).SerializeToString()
        length = varint(len(data))
        size = len(head) + 1 + len(length) + len(data)
        prefix = b"\x0a" + varint(size) + head + b"\x3a" + length
        parts += (prefix, data)
        total += len(prefix) + len(data)
    return parts, total


def replay_response(batches: Parts, rest: bus_pb2.ReplayResponse) -> bytes:
    """A serialised ReplayResponse: ``batches`` as ``batches_field`` gives them, and all other fields."""
    return b"".join((*batches, rest.SerializeToString()))


def delivery_response(batches: Parts, length: int) -> bytes:
    """A serialised SubscribeResponse with a Delivery of stored batches."""
    return b"".join((b"\x12", varint(length), *batches))


#: The number a member knows a partition by.
SlotOf = Callable[[PartitionKey], int]

_HEARTBEAT = bus_pb2.SubscribeResponse(heartbeat=bus_pb2.Heartbeat()).SerializeToString()


def heartbeat_response() -> bytes:
    """A serialised SubscribeResponse that only says that the broker is there."""
    return _HEARTBEAT


def parcel_response(parcel: Parcel, slot_of: SlotOf) -> bytes:
    """A serialised SubscribeResponse with a member's Delivery, in batches."""
    parts: Parts = []
    length = 0
    for flow, slices in parcel.whole:
        more, size = batches_field(flow.topic, slices)
        parts += more
        length += size
    rest = bus_pb2.Delivery(lease=parcel.lease)
    for picked in parcel.sparse:
        base, runs = picked.runs()
        rest.sparse.add(
            slot=slot_of(picked.flow.key),
            base=base,
            runs=runs,
            append_time_us=picked.append_time_us,
            append_time_deltas_us=picked.append_deltas_us,
            attempts=picked.attempts,
            batch=picked.batch,
        )
    tail = rest.SerializeToString()
    parts.append(tail)
    return delivery_response(parts, length + len(tail))


def plain_response(parcel: Parcel) -> bytes:
    """A serialised SubscribeResponse with a member's Delivery, in decoded records."""
    response = bus_pb2.SubscribeResponse()
    delivery = response.delivery
    delivery.lease = parcel.lease
    for flow, slices in parcel.whole:
        for item in slices:
            batch = decode_batch(item.data)
            add_records(delivery.records.add, flow.topic, item, batch, None, 1 << 62)
    for picked in parcel.sparse:
        _add_picked(delivery, picked)
    return response.SerializeToString()


def _add_picked(delivery: bus_pb2.Delivery, picked: Picked) -> None:
    batch = decode_batch(picked.batch)
    headers = batch.headers if batch.has_headers else None
    for at, offset in enumerate(picked.offsets):
        record = delivery.records.add(
            key=batch.keys[at],
            value=batch.values[at],
            timestamp_us=batch.timestamps_us[at],
            topic=picked.flow.topic,
            partition=picked.flow.key[1],
            offset=offset,
            append_time_us=picked.append_time_us
            + (picked.append_deltas_us[at] if picked.append_deltas_us else 0),
            attempts=picked.attempts[at] if picked.attempts else 0,
        )
        for name, content in headers[at] if headers is not None else ():
            record.headers.add(name=name, value=content)
