"""Times and positions as people write them."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import typer

_UNITS_US = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


@dataclass(frozen=True, slots=True)
class At:
    """A place to read from or to: ``number`` is an offset or microseconds since the epoch."""

    kind: Literal["earliest", "latest", "offset", "time"]
    number: int = 0


def parse_time(text: str) -> int:
    """Microseconds since the epoch of an ISO 8601 time (UTC unless it says) or of seconds since the epoch.

    Raises:
        ValueError: it is neither.
    """
    text = text.strip()
    try:
        moment = datetime.fromisoformat(text) if not re.fullmatch(r"-?\d+(\.\d+)?", text) else None
    except ValueError:
        raise ValueError(f"{text!r} is no time: write it like 2013-07-04T12:30:00Z") from None
    if moment is None:
        whole, _, fraction = text.partition(".")
        micros = int((fraction + "000000")[:6])
        return int(whole) * 1_000_000 + (-micros if text.startswith("-") else micros)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def parse_duration_us(text: str) -> int:
    """Microseconds of ``90s``, ``15m``, ``1.5h``, ``7d`` or ``250ms``.

    Raises:
        ValueError: not of that form.
    """
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is no duration: write it like 90s, 15m, 12h or 7d")
    return int(float(found[1]) * _UNITS_US[found[2]])


def parse_position(text: str, option: str) -> At:
    """``earliest``, ``latest``, an offset, a time, or how long ago (``-15m``).

    Raises:
        typer.BadParameter: it is none of these.
    """
    text = text.strip()
    if text in ("earliest", "latest"):
        return At("earliest" if text == "earliest" else "latest")
    if text.isascii() and text.isdigit():
        return At("offset", int(text))
    try:
        if text.startswith("-"):
            return At("time", time.time_ns() // 1000 - parse_duration_us(text[1:]))
        return At("time", parse_time(text))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not 'earliest', 'latest', an offset, a time like 2013-07-04T12:00:00Z, or '-15m'.",
            param_hint=f"'{option}'",
        ) from None


def format_time(time_us: int) -> str:
    """ISO 8601 in UTC, with as many decimals as it needs; times beyond year 9999 stay numbers."""
    try:
        moment = datetime.fromtimestamp(time_us // 1_000_000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{time_us}us"
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    micros = time_us % 1_000_000
    if micros:
        text += f".{micros:06d}".rstrip("0")
    return text + "Z"
