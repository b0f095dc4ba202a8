"""Sets of offsets, kept as ranges: acknowledgements mostly come in order, so most sets are one range."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator


class RangeSet:
    """Offsets as disjoint, ascending, non-adjacent ranges, inclusive on both sides."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    def __contains__(self, offset: int) -> bool:
        at = bisect_right(self._firsts, offset) - 1
        return at >= 0 and offset <= self._lasts[at]

    def add(self, offset: int) -> bool:
        """Add one; False when it was there."""
        lasts = self._lasts
        if lasts and lasts[-1] + 1 == offset:
            lasts[-1] = offset
            return True
        if offset in self:
            return False
        self.add_range(offset, offset)
        return True

    def add_range(self, first: int, last: int) -> None:
        """Add all from ``first`` to ``last``."""
        firsts, lasts = self._firsts, self._lasts
        low = bisect_right(lasts, first - 2)  # the first range that touches or follows
        high = bisect_right(firsts, last + 1)  # one past the last range that touches
        if low < high:
            first = min(first, firsts[low])
            last = max(last, lasts[high - 1])
        firsts[low:high] = [first]
        lasts[low:high] = [last]

    def drop_below(self, offset: int) -> None:
        """Forget everything below ``offset``."""
        firsts, lasts = self._firsts, self._lasts
        gone = bisect_right(lasts, offset - 1)
        del firsts[:gone], lasts[:gone]
        if firsts and firsts[0] < offset:
            firsts[0] = offset

    def overlap(self, first: int, last: int) -> list[tuple[int, int]]:
        """The parts of ``first`` to ``last`` that are in the set."""
        found = []
        for at in range(bisect_right(self._lasts, first - 1), len(self._firsts)):
            if self._firsts[at] > last:
                break
            found.append((max(first, self._firsts[at]), min(last, self._lasts[at])))
        return found

    def clear(self) -> None:
        self._firsts.clear()
        self._lasts.clear()
