"""Responses that carry stored batches, put together from slices of bytes.

A message class would copy a payload three times on its way to gRPC; here it is
copied once, by the final join. Tests compare the bytes with protobuf's own.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.cluster.delivery.reading import Slice
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
