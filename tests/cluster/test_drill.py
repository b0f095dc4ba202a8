"""One drill from start to verdict, as `make drill` runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holdfast.chaos.checker import check
from holdfast.chaos.checker.history import Assigned, Delivered, Fault, Leader, Publish, Read, Replica
from holdfast.chaos.drills.__main__ import main
from holdfast.chaos.drills.leader_kill import LeaderKill
from holdfast.chaos.drills.stage import perform
from holdfast.chaos.drills.target import LocalTarget

pytestmark = pytest.mark.timeout(180)


def test_leader_kill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leader-kill", "--report-dir", str(tmp_path)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"drill leader-kill: acked=\d+ lost=0 duplicated=0 unknown=\d+ recovery_ms=\d+", line)
    (report,) = tmp_path.glob("leader-kill-*.html")
    assert line in report.read_text()


async def test_a_history_that_lacks_a_record_is_not_passed(tmp_path: Path) -> None:
    drill = LeaderKill()
    outcome = await perform(drill, LocalTarget(tmp_path, drill.size), tmp_path, lambda _: None)
    assert outcome.violations == []
    events = outcome.history.events
    for kind in (Publish, Read, Assigned, Delivered, Replica, Leader, Fault):
        assert any(isinstance(event, kind) for event in events), kind
    replicas = [event for event in events if isinstance(event, Replica)]
    assert {replica.node for replica in replicas} == {"n1", "n2", "n3"}
    assert sum(len(replica.records) for replica in replicas) >= 3 * outcome.tally.acked
    # The same history with the last record missing everywhere: the judge must see it.
    for replica in replicas:
        if replica.partition == 0:
            del replica.records[-1]
            replica.end_offset -= 1
    assert "lost-record" in {violation.promise for violation in check(outcome.history)}
