"""The client's own work without a network: a batch encoded, a batch decoded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypedDict

from holdfast.client.options import ClientOptions
from holdfast.records import decode_batch, encode_batch
from holdfast.v1 import bus_pb2, records_pb2


class Coded(TypedDict):
    """Records per second."""

    encode: float
    decode: float


def code(size: int, seconds: float) -> Coded:
    """Batches of the size that the SDK closes them at, with their messages; records of ``size`` bytes."""
    count = max(1, ClientOptions().batch_bytes // (size + 64))
    values = [os.urandom(size) for _ in range(count)]
    times = [time.time_ns() // 1000] * count

    def encode() -> bytes:
        batch = encode_batch(values, None, times)
        item = bus_pb2.PartitionBatch(partition=0, batch=batch)
        return bus_pb2.PublishRequest(topic="t", request_id=1, batches=[item]).SerializeToString()

    stored = records_pb2.StoredBatch(batch=encode_batch(values, None, times), last_offset=count - 1)
    message = bus_pb2.ReplayResponse(batches=[stored] * 4).SerializeToString()

    def decode() -> int:
        got = 0
        for batch in bus_pb2.ReplayResponse.FromString(message).batches:
            got += len(decode_batch(batch.batch).values)
        return got

    return Coded(encode=_rate(encode, seconds) * count, decode=_rate(decode, seconds) * count * 4)


def _rate(work: Callable[[], object], seconds: float) -> float:
    times, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        work()
        times += 1
    return times / (time.perf_counter() - began)
