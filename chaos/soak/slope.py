"""When a series counts as flat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: The first part of a run is not judged: caches fill, the first records come of age.
WARM_UP = 1 / 3
#: A series may grow over the judged part by this share of its mean...
SHARE = 0.05
#: ...or by this much (MB), whichever is more: one arena of the allocator is no leak.
ALLOWANCE_MB = 6.0

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Trend:
    """A least-squares line through the judged part of a series.

    Attributes:
        mean: of the judged samples.
        growth: of the line over the judged part, same unit.
        per_hour: the same rate over an hour.
        flat: by the rule of this module.
    """

    mean: float
    growth: float
    per_hour: float
    flat: bool


def slope(points: Sequence[Point]) -> float:
    """Of the least-squares line, in units per second; 0 with fewer than two moments."""
    n = len(points)
    if n < 2:
        return 0.0
    mean_t = sum(t for t, _ in points) / n
    mean_v = sum(v for _, v in points) / n
    spread = sum((t - mean_t) ** 2 for t, _ in points)
    if spread == 0:
        return 0.0
    return sum((t - mean_t) * (v - mean_v) for t, v in points) / spread


def judge(
    points: Sequence[Point],
    *,
    warm_up: float = WARM_UP,
    share: float = SHARE,
    allowance: float = ALLOWANCE_MB,
) -> Trend:
    """The trend after the warm-up. Shrinking is flat; so is a series without samples."""
    if not points:
        return Trend(0.0, 0.0, 0.0, True)
    begin, end = points[0][0], points[-1][0]
    judged = [p for p in points if p[0] >= begin + (end - begin) * warm_up]
    rate = slope(judged)
    mean = sum(v for _, v in judged) / len(judged)
    growth = rate * (judged[-1][0] - judged[0][0])
    return Trend(mean, growth, rate * 3600, growth <= max(share * mean, allowance))
