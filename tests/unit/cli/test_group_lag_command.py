"""``holdfast group lag`` without a broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from holdfast import PartitionLag
from holdfast.cli import session
from holdfast.cli.run import INTERRUPTED, USAGE, run


class Bus:
    """Answers so often, one record less each time; then somebody presses Ctrl-C."""

    def __init__(self, answers: int) -> None:
        self.left = answers
        self.asked: list[str | None] = []

    async def lag(self, group: str | None, *, timeout: float) -> list[PartitionLag]:
        self.asked.append(group)
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return [PartitionLag("g", "t", 0, self.left, 1.5, None, 0, 9, 0, 0)]


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    found = Bus(3)

    def with_client(_: str, work: Callable[[Any], Awaitable[None]]) -> None:
        async def main() -> None:
            await work(found)

        asyncio.run(main())

    monkeypatch.setattr(session, "with_client", with_client)
    return found


def test_once(bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["group", "lag", "g"]) == 0
    assert bus.asked == ["g"]
    assert [line.split() for line in capsys.readouterr().out.splitlines()][1] == [
        *("g", "t", "0", "2", "1.5s", "0", "0")
    ]


def test_watching_goes_on_until_it_is_interrupted(bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["group", "lag", "--watch", "--every", "100ms", "--json"]) == INTERRUPTED
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["lags"][0]["records"] for each in printed] == [2, 1, 0]
    assert bus.asked == [None] * 4


@pytest.mark.parametrize(("every", "message"), [("soon", "'soon' is no duration"), ("1ms", "at least 100ms")])
def test_wrong_usage(every: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["group", "lag", "--watch", "--every", every]) == USAGE
    assert message in capsys.readouterr().err
