"""What is published: random bytes, which no codec makes smaller."""

from __future__ import annotations

import random


def payloads(size: int, count: int) -> list[bytes]:
    """``count`` different payloads of ``size`` bytes; the same ones in every process."""
    source = random.Random(size)
    data = source.randbytes(size * count)
    return [data[start : start + size] for start in range(0, len(data), size)]


def pool(size: int) -> list[bytes]:
    """The payloads of a throughput workload, published over and over: 2 to 4 MB, 20,000 at most."""
    return payloads(size, min(20_000, (4 << 20) // size))


def first(of: list[bytes], count: int) -> tuple[list[bytes], int]:
    """(payloads, times) that make about ``count`` records, for ``Client.publish_all``."""
    if count <= len(of):
        return of[:count], 1
    return of, round(count / len(of))
