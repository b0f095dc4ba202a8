"""Printing records as they are read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import holdfast
from holdfast.cli.output import note, readable, text_or_base64
from holdfast.cli.times import At, format_time


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """What ``holdfast replay`` was asked for."""

    topic: str
    start: At
    end: At | None
    partitions: tuple[int, ...]
    follow: bool
    limit: int | None
    basis: Literal["record", "append"]
    linearizable: bool


def say_waiting(group: str = "") -> None:
    """For the person who sees an empty screen."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        note(f"waiting for records{f' of group {group}' if group else ''}; Ctrl-C stops")


async def print_replay(bus: holdfast.Client, request: ReplayRequest, *, as_json: bool) -> None:
    """Print what the request names, as it comes."""
    write = printer(as_json)
    left = request.limit
    records = bus.replay(
        request.topic,
        start=to_place(request.start),
        end=None if request.end is None else to_place(request.end),
        partitions=request.partitions,
        follow=request.follow,
        linearizable=request.linearizable,
        time_basis=request.basis,
    )
    if request.follow:
        say_waiting()
    async with aclosing(records):
        async for record in records:
            write(record)
            if request.follow:
                sys.stdout.flush()
            if left is not None:
                left -= 1
                if left == 0:
                    return


def to_place(at: At) -> datetime | int | Literal["earliest", "latest"]:
    """A position as the client takes it."""
    if at.kind == "time":
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at.number)
    return at.number if at.kind == "offset" else at.kind


def printer(as_json: bool) -> Callable[[holdfast.Record], None]:
    out = sys.stdout.write
    if as_json:
        return lambda record: _write_json(record, out)
    return lambda record: _write_line(record, out)


def _write_line(record: holdfast.Record, out: Callable[[str], object]) -> None:
    key = "-" if record.key is None else readable(record.key)
    place = f"{record.partition}:{record.offset}"
    out(f"{place}\t{format_time(record.timestamp_us)}\t{key}\t{readable(record.value)}\n")


def _write_json(record: holdfast.Record, out: Callable[[str], object]) -> None:
    row: dict[str, object] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": format_time(record.timestamp_us),
        "timestamp_us": record.timestamp_us,
        "append_time_us": record.append_time_us,
    }
    row |= {"key": None} if record.key is None else text_or_base64("key", record.key)
    row |= text_or_base64("value", record.value)
    if record.headers:
        row["headers"] = [{"name": name, **text_or_base64("value", value)} for name, value in record.headers]
    out(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
