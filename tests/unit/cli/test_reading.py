"""What readers are told besides records."""

from __future__ import annotations

import pytest

import holdfast
from holdfast.cli.consuming import Outages
from holdfast.errors import NoLeaderError


def test_an_outage_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    outages = Outages()
    gone = holdfast.Disconnected(NoLeaderError("no leader is known"))
    for event in (gone, gone, holdfast.Assigned(1, {("t", 0): 0}), gone):
        outages.on_event(event)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert (
        printed.err.splitlines()
        == ["holdfast: the connection failed and is made again: no leader is known"] * 2
    )
