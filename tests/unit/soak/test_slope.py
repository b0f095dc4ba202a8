"""What counts as flat."""

import random

import pytest

from holdfast.chaos.soak.slope import judge, slope


def test_slope_of_a_line() -> None:
    assert slope([(t, 3.0 + 0.5 * t) for t in range(100)]) == pytest.approx(0.5)
    assert slope([(1.0, 5.0)]) == 0.0
    assert slope([(1.0, 5.0), (1.0, 9.0)]) == 0.0


def test_noise_around_a_level_is_flat() -> None:
    source = random.Random(5)
    assert judge([(float(t), 80 + source.uniform(-8, 8)) for t in range(0, 1800, 5)]).flat


def test_a_slow_leak_is_not() -> None:
    source = random.Random(5)
    leak = judge([(float(t), 80 + t * 0.01 + source.uniform(-4, 4)) for t in range(0, 1800, 5)])
    assert not leak.flat
    assert leak.per_hour == pytest.approx(36, rel=0.2)


def test_the_warm_up_is_not_judged_and_shrinking_is_flat() -> None:
    assert judge([(float(t), min(t, 600) / 6) for t in range(0, 1801, 5)]).flat
    assert judge([(float(t), 300 - t / 10) for t in range(0, 1801, 5)]).flat


def test_a_series_without_samples_says_nothing() -> None:
    assert judge([]).flat
