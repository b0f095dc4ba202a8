"""What of one partition a group has settled: a floor, and bits above it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from holdfast.cluster.delivery.runs import Range, ranges_of
from holdfast.storage.bits import CHUNK_BITS, CHUNK_BYTES, FULL, span, trailing_ones, trailing_zeros, unpack


class Settled:
    """The leader's mirror of a flow's floor and chunks, with what it took in since.

    Everything below ``floor`` is settled. What is in here and not durable yet is
    the settling's to know.
    """

    __slots__ = ("_chunks", "floor")

    def __init__(self, floor: int = 0) -> None:
        self.floor = floor
        self._chunks: dict[int, int] = {}

    def load(self, floor: int, chunks: Iterable[tuple[int, int]]) -> None:
        """Begin anew with what rows say: the floor, and ``(chunk, bits)`` as ``storage.acks`` has them."""
        self.floor = floor
        self._chunks = {chunk: value for chunk, value in chunks if (chunk + 1) * CHUNK_BITS > floor and value}
        self.advance()

    def merge(self, floor: int, chunks: Iterable[tuple[int, int]]) -> None:
        """What rows say is settled too; nothing that is settled here stops being so."""
        for chunk, value in chunks:
            self._chunks[chunk] = self._chunks.get(chunk, 0) | value
        self._move(max(floor, self.floor))
        self.advance()

    def add(self, base: int, runs: Sequence[int]) -> int:
        """Settle ``OffsetRuns``; how many of them were not. The floor stays: see ``advance``.

        Raises:
            InvalidArgumentError: see ``runs.ranges_of``.
        """
        return sum(self.add_range(first, end) for first, end in ranges_of(base, runs))

    def add_range(self, first: int, end: int) -> int:
        """Settle ``first`` up to, not including, ``end``; how many of them were not."""
        if first <= self.floor:
            first = self.floor
            if end <= first:
                return 0
            if not self._chunks:
                # Acks in order, the common case: no bit is ever set.
                self.floor = end
                return end - first
        new = 0
        chunk, bit = divmod(first, CHUNK_BITS)
        while first < end:
            stop = min(end, (chunk + 1) * CHUNK_BITS)
            had = self._chunks.get(chunk, 0)
            fresh = span(bit, bit + stop - first) & ~had
            if fresh:
                self._chunks[chunk] = had | fresh
                new += fresh.bit_count()
            first = stop
            chunk += 1
            bit = 0
        return new

    def add_offsets(self, offsets: Iterable[int]) -> None:
        """Settle single offsets, none of them below the floor."""
        fresh: dict[int, bytearray] = {}
        for offset in offsets:
            chunk, bit = divmod(offset, CHUNK_BITS)
            if chunk not in fresh:
                fresh[chunk] = bytearray(CHUNK_BYTES)
            fresh[chunk][bit >> 3] |= 1 << (bit & 7)
        for chunk, found in fresh.items():
            self._chunks[chunk] = self._chunks.get(chunk, 0) | unpack(bytes(found))

    def __contains__(self, offset: int) -> bool:
        if offset < self.floor:
            return True
        bits = self._chunks.get(offset // CHUNK_BITS)
        return bits is not None and bool(bits >> offset % CHUNK_BITS & 1)

    def next_open(self, offset: int) -> int:
        """The first offset at or after ``offset`` that is not settled."""
        chunk, bit = divmod(max(offset, self.floor), CHUNK_BITS)
        while True:
            bits = self._chunks.get(chunk)
            if bits is None:
                return chunk * CHUNK_BITS + bit
            bit += trailing_ones(bits >> bit)
            if bit < CHUNK_BITS:
                return chunk * CHUNK_BITS + bit
            chunk += 1
            bit = 0

    def next_settled(self, offset: int) -> int | None:
        """The first offset at or after ``offset`` that is settled; None: nothing from there on is."""
        if offset < self.floor:
            return offset
        chunk, bit = divmod(offset, CHUNK_BITS)
        for each in sorted(each for each in self._chunks if each >= chunk):
            bits = self._chunks[each]
            if each == chunk:
                bits &= FULL ^ span(0, bit)
            if bits:
                return each * CHUNK_BITS + trailing_zeros(bits)
        return None

    def open_ranges(self, first: int, end: int) -> Iterator[Range]:
        """What is not settled of ``first`` up to, not including, ``end``."""
        at = self.next_open(first)
        while at < end:
            stop = self.next_settled(at)
            if stop is None or stop >= end:
                yield at, end
                return
            yield at, stop
            at = self.next_open(stop)

    def advance(self) -> bool:
        """Move the floor through what is settled above it; True when it moved."""
        if not self._chunks:
            return False
        floor = self.next_open(self.floor)
        if floor == self.floor:
            return False
        self._move(floor)
        return True

    def raise_floor(self, floor: int) -> bool:
        """Everything below ``floor`` is settled; True when that moves the floor."""
        if floor <= self.floor:
            return False
        self._move(floor)
        self.advance()
        return True

    @property
    def top(self) -> int:
        """Everything at or after it is not settled."""
        if not self._chunks:
            return self.floor
        chunk = max(self._chunks)
        return max(self.floor, chunk * CHUNK_BITS + self._chunks[chunk].bit_length())

    @property
    def above(self) -> int:
        """How many records above the floor are settled."""
        low = self.floor // CHUNK_BITS
        below = self._chunks.get(low, 0) & span(0, self.floor % CHUNK_BITS)
        return sum(bits.bit_count() for bits in self._chunks.values()) - below.bit_count()

    def _move(self, floor: int) -> None:
        self.floor = floor
        low = floor // CHUNK_BITS
        for chunk in [chunk for chunk in self._chunks if chunk < low]:
            del self._chunks[chunk]
        bits = self._chunks.get(low)
        if bits is not None and not bits >> floor % CHUNK_BITS:
            del self._chunks[low]  # it has no bit above the floor
