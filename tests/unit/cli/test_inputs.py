"""Events from arguments, lines, NDJSON and CSV."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli.inputs import Event, Fields, InputFormat, format_of, from_stream, from_values
from holdfast.errors import InvalidArgumentError


def read(text: bytes, kind: InputFormat, **fields: str) -> list[Event]:
    return list(from_stream(io.BytesIO(text), kind, Fields(**fields), "input"))


def test_arguments_take_key_and_time_literally() -> None:
    events = list(from_values(["a", "b"], Fields(key="k", timestamp="1970-01-01T00:00:01Z")))
    assert events == [Event(b"a", b"k", 1_000_000), Event(b"b", b"k", 1_000_000)]


def test_lines_skip_empty_ones_and_keep_bytes() -> None:
    assert read(b"one\r\n\n\xff two \n", InputFormat.LINES) == [Event(b"one"), Event(b"\xff two ")]


def test_ndjson_takes_key_and_time_from_fields() -> None:
    text = b'{"id": "x", "n": 7, "at": "2013-07-04T12:00:00Z"}\n\n{"id": "y", "n": null, "at": 2}\n'
    first, second = read(text, InputFormat.NDJSON, key="n", timestamp="at")
    assert first == Event(text.splitlines()[0], b"7", 1_372_939_200_000_000)
    assert second.key == b""
    assert second.timestamp_us == 2_000_000


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        (b'{"a": 1}\nnonsense\n', {}, "input line 2: not JSON"),
        (b"[1]\n", {"key": "id"}, "input line 1: not a JSON object"),
        (b'{"tailnum": 1}\n', {"key": "tailnun"}, "did you mean 'tailnum'"),
        (b'{"at": "noon"}\n', {"timestamp": "at"}, "input line 1: 'noon' is no time"),
    ],
)
def test_bad_ndjson_is_named_by_its_line(text: bytes, fields: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        read(text, InputFormat.NDJSON, **fields)


def test_csv_rows_become_json_objects() -> None:
    text = b'\xef\xbb\xbfid,note\n1,"two\nlines"\n\n2,\xc3\xa9\n'
    events = read(text, InputFormat.CSV, key="id")
    assert [json.loads(e.value) for e in events] == [
        {"id": "1", "note": "two\nlines"},
        {"id": "2", "note": "é"},
    ]
    assert [e.key for e in events] == [b"1", b"2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "input: empty"),
        (b"a,b\n1\n", "input line 2: 1 fields, but 2 column names"),
        (b"a,b\n1,\xff\n", "input line 2: not UTF-8"),
        (b'a,b\n1,"open\n', "unexpected end of data"),
    ],
)
def test_bad_csv_is_named_by_its_line(text: bytes, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        read(text, InputFormat.CSV)


def test_csv_names_a_missing_column_before_reading_rows() -> None:
    with pytest.raises(InvalidArgumentError, match="did you mean 'tailnum'"):
        read(b"tailnum\n", InputFormat.CSV, key="tail_num")


def test_progress_is_told_every_byte() -> None:
    seen: list[int] = []
    text = b"a\nbc\n"
    list(from_stream(io.BytesIO(text), InputFormat.LINES, Fields(), "input", seen.append))
    assert sum(seen) == len(text)


def test_formats_by_name() -> None:
    assert format_of(Path("x.CSV")) is InputFormat.CSV
    assert format_of(Path("x.jsonl")) is InputFormat.NDJSON
    with pytest.raises(InvalidArgumentError, match="--format"):
        format_of(Path("x.parquet"))


@given(st.binary(max_size=300), st.sampled_from(InputFormat))
def test_any_bytes_are_events_or_a_clear_error(text: bytes, kind: InputFormat) -> None:
    problem = ""
    try:
        events = read(text, kind)
    except InvalidArgumentError as error:
        events, problem = [], str(error)
    assert all(isinstance(event.value, bytes) for event in events)
    assert problem == "" or problem.startswith("input")
