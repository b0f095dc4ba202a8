"""Offsets as they travel: from a base, gap and length by turns, and as ranges.

A range is ``(first, end)``, the end not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.errors import InvalidArgumentError

Range = tuple[int, int]

#: Offsets are signed 64-bit integers.
_END = (1 << 63) - 1


def ranges_of(base: int, runs: Sequence[int]) -> list[Range]:
    """The ranges that ``OffsetRuns`` with these fields means, ascending; neighbours may touch.

    Raises:
        InvalidArgumentError: a gap without a length, or offsets that no partition has.
    """
    if len(runs) % 2 or base < 0:
        what = "has a gap without a length" if len(runs) % 2 else "begins below 0"
        raise InvalidArgumentError(f"runs of offsets: this one {what}", metadata={"field": "runs"})
    found: list[Range] = []
    at = base
    pairs = iter(runs)
    for gap, length in zip(pairs, pairs, strict=True):
        first = at + gap
        at = first + length
        if length:
            found.append((first, at))
    if at > _END:
        raise InvalidArgumentError("runs of offsets: they go beyond any offset", metadata={"field": "runs"})
    return found


def runs_of(ranges: Iterable[Range]) -> tuple[int, list[int]]:
    """Base and runs of ascending ranges that do not overlap."""
    base = at = -1
    runs: list[int] = []
    for first, end in ranges:
        if at < 0:
            base = at = first
        if first == at and runs:
            runs[-1] += end - first
        else:
            runs += (first - at, end - first)
        at = end
    return max(base, 0), runs


def ranges_from(offsets: Iterable[int]) -> list[Range]:
    """Ascending, distinct offsets as ranges."""
    found: list[Range] = []
    first = end = -1
    for offset in offsets:
        if offset != end:
            if end >= 0:
                found.append((first, end))
            first = offset
        end = offset + 1
    if end >= 0:
        found.append((first, end))
    return found


def count(ranges: Iterable[Range]) -> int:
    """How many offsets they hold."""
    return sum(end - first for first, end in ranges)
