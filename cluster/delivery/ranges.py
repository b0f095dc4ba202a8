"""A set of offsets as ordered, disjoint, non-touching ranges."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class OffsetRanges:
    """Half-open ranges ``[first, end)``; memory grows with gaps, not with offsets."""

    __slots__ = ("_ends", "_firsts")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        """Number of ranges."""
        return len(self._firsts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._firsts, self._ends, strict=True))

    def __contains__(self, offset: int) -> bool:
        at = bisect_right(self._firsts, offset) - 1
        return at >= 0 and offset < self._ends[at]

    def add(self, first: int, end: int) -> None:
        """Add ``[first, end)``, merging what it overlaps or touches."""
        if first >= end:
            raise ValueError(f"empty range [{first}, {end})")
        low = bisect_left(self._ends, first)  # first range that ends at or after our start
        high = bisect_right(self._firsts, end)  # first range that starts after our end
        if low < high:
            first = min(first, self._firsts[low])
            end = max(end, self._ends[high - 1])
        self._firsts[low:high] = [first]
        self._ends[low:high] = [end]

    def take_prefix(self, offset: int) -> int:
        """Drop what lies below or is connected to ``offset``; the end of the gap-free run from it."""
        cut = bisect_right(self._firsts, offset)
        if cut:
            offset = max(offset, self._ends[cut - 1])
            del self._firsts[:cut]
            del self._ends[:cut]
        return offset

    def gap_from(self, offset: int) -> tuple[int, int | None]:
        """The first gap at or after ``offset``: its first offset and its end (None: open)."""
        at = bisect_right(self._firsts, offset) - 1
        if at >= 0 and offset < self._ends[at]:
            offset = self._ends[at]
        following = bisect_left(self._firsts, offset)
        return offset, (self._firsts[following] if following < len(self._firsts) else None)
