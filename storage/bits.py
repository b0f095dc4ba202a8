"""Sets of offsets as bits, in chunks of 4,096.

A chunk is an int whose bit *i* stands for offset ``chunk * 4096 + i``; on disk
it is 512 bytes, little-endian. Pure: no table, no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

CHUNK_BITS = 4096
CHUNK_BYTES = CHUNK_BITS // 8
FULL = (1 << CHUNK_BITS) - 1


def pack(bits: int) -> bytes:
    """A chunk as it is stored."""
    return bits.to_bytes(CHUNK_BYTES, "little")


def unpack(stored: bytes) -> int:
    """A chunk from what is stored."""
    return int.from_bytes(stored, "little")


def span(first: int, end: int) -> int:
    """A chunk whose bits from ``first`` up to, not including, ``end`` are set."""
    return (1 << end) - (1 << first)


def chunks_of(ranges: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Ranges of offsets, ``(first, end)`` with the end not in it, as chunks."""
    found: dict[int, int] = {}
    for first, end in ranges:
        at = first
        while at < end:
            chunk, bit = divmod(at, CHUNK_BITS)
            stop = min(end, (chunk + 1) * CHUNK_BITS)
            found[chunk] = found.get(chunk, 0) | span(bit, bit + stop - at)
            at = stop
    return found


def count_chunks(ranges: Iterable[tuple[int, int]]) -> int:
    """In how many chunks these ranges lie, which ascend and of which none is empty."""
    count, last = 0, -1
    for first, end in ranges:
        low, high = first // CHUNK_BITS, (end - 1) // CHUNK_BITS
        count += high - max(low - 1, last)
        last = high
    return count


def ranges_of(chunk: int, bits: int) -> Iterator[tuple[int, int]]:
    """The runs of set bits of a chunk as ranges of offsets, ascending."""
    base = chunk * CHUNK_BITS
    at = 0
    while bits:
        gap = trailing_zeros(bits)
        bits >>= gap
        length = trailing_ones(bits)
        bits >>= length
        yield base + at + gap, base + at + gap + length
        at += gap + length


def trailing_ones(bits: int) -> int:
    """How many bits from the lowest on are set."""
    return (~bits & (bits + 1)).bit_length() - 1


def trailing_zeros(bits: int) -> int:
    """How many bits from the lowest on are clear; ``bits`` is not 0."""
    return (bits & -bits).bit_length() - 1
