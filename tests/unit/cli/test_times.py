"""Times and positions as people write them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli.times import At, format_time, parse_duration_us, parse_position, parse_time


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000),
        ("1970-01-01 02:00:00+02:00", 0),
        ("1", 1_000_000),
        ("1.25", 1_250_000),
        ("-0.5", -500_000),
    ],
)
def test_times(text: str, expected: int) -> None:
    assert parse_time(text) == expected


def test_no_time() -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_time("noon")


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(9000, 1, 1)))
def test_printed_times_can_be_read_back(moment: datetime) -> None:
    micros = parse_time(moment.replace(tzinfo=UTC).isoformat())
    assert parse_time(format_time(micros)) == micros


def test_times_out_of_any_calendar_stay_numbers() -> None:
    assert format_time(1 << 62) == f"{1 << 62}us"


def test_positions() -> None:
    assert parse_position("earliest", "--from") == At("earliest")
    assert parse_position("latest", "--from") == At("latest")
    assert parse_position("42", "--from") == At("offset", 42)
    assert parse_position("1970-01-02", "--from") == At("time", 86_400_000_000)
    ago = parse_position("-15m", "--from")
    assert ago.kind == "time"
    assert abs(time.time() * 1e6 - 900e6 - ago.number) < 60e6
    with pytest.raises(typer.BadParameter, match="'-15x' is not 'earliest'"):
        parse_position("-15x", "--from")


@pytest.mark.parametrize(
    ("text", "expected"), [("250ms", 250_000), ("1.5h", 5_400_000_000), ("7d", 604_800_000_000)]
)
def test_durations(text: str, expected: int) -> None:
    assert parse_duration_us(text) == expected
