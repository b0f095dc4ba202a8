"""``python -m holdfast.chaos.checker FILE``."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.chaos.checker.__main__ import main
from holdfast.chaos.checker.history import Event, History

from .checker_kit import acked, assigned, committed, created, delivered, log, offset_read, ok, read, rest


def saved(tmp_path: Path, events: list[Event]) -> str:
    path = tmp_path / "history.jsonl"
    History(events).save(path)
    return str(path)


def test_a_clean_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = [created(), *log("ab"), assigned(0, 1), *delivered("ab", 0, 2), acked(0, 1, 3), committed(2, 4)]
    events += [read("ab"), offset_read(2, 5)]
    assert main([saved(tmp_path, events)]) == 0
    assert capsys.readouterr().out == f"checker: events={len(events)} violations=0\n"


def test_violations_are_printed_one_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([saved(tmp_path, [*log("a"), ok("b", 1), ok("c", 2)])]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["lost-record", "lost-record"]


@pytest.mark.parametrize(
    "content", [b"{", b'{"type":"Nothing"}\n', b'{"type":"Publish"}\n', b"\xff\xfe\n", b"\n"]
)
def test_what_is_no_history_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(content)
    assert main([str(path)]) == 2
    assert "is not a history: line 1: " in capsys.readouterr().err


def test_a_value_published_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([saved(tmp_path, [ok("a", 0), ok("a", 1), *rest("a")])]) == 2
    assert "two publishes have the same value" in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
