"""The client's own work without a network: a batch encoded, a batch decoded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypedDict

from holdfast.client.batcher import MAX_RECORDS
from holdfast.client.options import ClientOptions
from holdfast.records import decode_batch, encode_batch


class Coded(TypedDict):
    """Records per second."""

    encode: float
    decode: float


def code(size: int, seconds: float) -> Coded:
    """Batches of the size that the SDK closes them at, records of ``size`` bytes."""
    count = max(1, min(MAX_RECORDS, ClientOptions().batch_bytes // (size + 64)))
    values = [os.urandom(size) for _ in range(count)]
    times = [time.time_ns() // 1000] * count

    batch = encode_batch(values, None, times)

    def encode() -> object:
        return encode_batch(values, None, times)

    def decode() -> object:
        return decode_batch(batch).values

    return Coded(encode=_rate(encode, seconds) * count, decode=_rate(decode, seconds) * count)


def _rate(work: Callable[[], object], seconds: float) -> float:
    times, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        work()
        times += 1
    return times / (time.perf_counter() - began)
