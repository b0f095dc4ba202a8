"""Events from arguments, lines, NDJSON and CSV.

Everything is read as it is needed: the size of a file does not matter.
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from holdfast.cli.times import parse_time
from holdfast.errors import InvalidArgumentError


class InputFormat(StrEnum):
    """How the bytes of an input become events."""

    LINES = "lines"
    NDJSON = "ndjson"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Event:
    """A record to be published; ``timestamp_us`` None: stamped on arrival."""

    value: bytes
    key: bytes | None = None
    timestamp_us: int | None = None
    idempotency_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Fields:
    """``--key``, ``--timestamp`` and ``--idempotency-key``: fields of NDJSON and CSV, else the values."""

    key: str | None = None
    timestamp: str | None = None
    idempotency_key: str | None = None


def format_of(path: Path) -> InputFormat:
    """The format a file's name says.

    Raises:
        InvalidArgumentError: the name does not say.
    """
    known = {".ndjson": InputFormat.NDJSON, ".jsonl": InputFormat.NDJSON, ".csv": InputFormat.CSV}
    if path.suffix.lower() in known:
        return known[path.suffix.lower()]
    if path.suffix.lower() in (".txt", ".log"):
        return InputFormat.LINES
    raise InvalidArgumentError(f"{path}: tell how to read it: --format lines, ndjson or csv")


def from_values(values: Iterable[str], fields: Fields) -> Iterator[Event]:
    """One event per argument."""
    key, timestamp = _constants(fields)
    once = fields.idempotency_key
    token = None if once is None else once.encode("utf-8", "surrogateescape")
    for value in values:
        yield Event(value.encode("utf-8", "surrogateescape"), key, timestamp, token)


def from_stream(
    stream: BinaryIO,
    kind: InputFormat,
    fields: Fields,
    name: str,
    advance: Callable[[int], None] = lambda _count: None,
) -> Iterator[Event]:
    """Events of an open file or pipe; ``advance`` is told the bytes of each line read.

    Raises:
        InvalidArgumentError: a line that cannot be read; the message names it.
    """
    if kind is InputFormat.NDJSON:
        return _ndjson(_counted(stream, advance), fields, name)
    if kind is InputFormat.CSV:
        return _csv(_counted(stream, advance), fields, name)
    return _lines(_counted(stream, advance), fields)


def _counted(stream: BinaryIO, advance: Callable[[int], None]) -> Iterator[bytes]:
    for line in stream:
        advance(len(line))
        yield line


def _constants(fields: Fields) -> tuple[bytes | None, int | None]:
    key = fields.key.encode("utf-8", "surrogateescape") if fields.key is not None else None
    return key, _time(fields.timestamp, "--timestamp") if fields.timestamp is not None else None


def _lines(lines: Iterator[bytes], fields: Fields) -> Iterator[Event]:
    key, timestamp = _constants(fields)
    for line in lines:
        value = line.rstrip(b"\r\n")
        if value:
            yield Event(value, key, timestamp)


def _ndjson(lines: Iterator[bytes], fields: Fields, name: str) -> Iterator[Event]:
    for number, line in enumerate(lines, 1):
        value = line.strip()
        if not value:
            continue
        where = f"{name} line {number}"
        try:
            parsed = json.loads(value)
        except ValueError as error:
            raise InvalidArgumentError(f"{where}: not JSON: {error}") from None
        if not isinstance(parsed, dict) and (fields.key or fields.timestamp or fields.idempotency_key):
            raise InvalidArgumentError(f"{where}: not a JSON object, so it has no fields to take a key from")
        yield _picked(value, parsed, fields, where)


def _csv(lines: Iterator[bytes], fields: Fields, name: str) -> Iterator[Event]:
    reader = csv.reader(_text(lines, name), strict=True)
    try:
        header = next(reader, None)
        if not header:
            raise InvalidArgumentError(f"{name}: empty; a CSV file starts with a line of column names")
        for wanted in (fields.key, fields.timestamp, fields.idempotency_key):
            if wanted is not None and wanted not in header:
                raise _unknown_field(wanted, header, name)
        for row in reader:
            if not row:
                continue
            where = f"{name} line {reader.line_num}"
            if len(row) != len(header):
                raise InvalidArgumentError(f"{where}: {len(row)} fields, but {len(header)} column names")
            record = dict(zip(header, row, strict=True))
            value = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
            yield _picked(value, record, fields, where)
    except csv.Error as error:
        raise InvalidArgumentError(f"{name} line {reader.line_num}: {error}") from None


def _text(lines: Iterator[bytes], name: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(f"{name} line {number}: not UTF-8: {error.reason}") from None


def _picked(value: bytes, record: Any, fields: Fields, where: str) -> Event:
    key = timestamp = token = None
    if fields.key is not None:
        key = _field(record, fields.key, where).encode()
    if fields.timestamp is not None:
        timestamp = _time(_field(record, fields.timestamp, where), where)
    if fields.idempotency_key is not None:
        token = _field(record, fields.idempotency_key, where).encode()
        if not token:
            raise InvalidArgumentError(
                f"{where}: field {fields.idempotency_key!r} is empty; every record needs an idempotency key"
            )
    return Event(value, key, timestamp, token)


def _field(record: dict[str, Any], name: str, where: str) -> str:
    if name not in record:
        raise _unknown_field(name, record, where)
    found = record[name]
    if found is None:
        return ""
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _unknown_field(name: str, known: Iterable[str], where: str) -> InvalidArgumentError:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names[:20])}"
    return InvalidArgumentError(f"{where}: no field {name!r}; {hint}")


def _time(text: str, where: str) -> int:
    try:
        return parse_time(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{where}: {error}") from None
