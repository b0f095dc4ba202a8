"""What hangs costs one cell of the table, and what was measured stays."""

from __future__ import annotations

import asyncio
import io
import json
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import cell, command, runner, worker
from benchmarks.compare.cell import Cell, measure
from benchmarks.compare.document import Document, System
from benchmarks.compare.runner import Plan, Runner
from benchmarks.compare.workloads import WORKLOADS
from benchmarks.compare.workloads.context import Channel, Parameters
from benchmarks.peers import holdfast
from benchmarks.peers.system import Cluster
from holdfast.chaos.keeper import INTERRUPTED

from ..machine import MACHINE
from .runs import cell as measured


class Nowhere(holdfast.Cluster):
    """Nodes that never run."""

    forever = False

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def addresses(self) -> list[str]:
        return ["127.0.0.1:1"]

    def pids(self) -> list[list[int]]:
        return []

    async def leader_of(self, topic: str) -> int:
        raise RuntimeError("nobody leads")

    async def restart(self, node: int) -> None:
        await asyncio.sleep(3600)


class Said:
    """A worker's standard input and output."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.stdout = asyncio.StreamReader()
        self.stdout.feed_data("".join(f"{json.dumps(message)}\n" for message in messages).encode())
        self.stdout.feed_eof()
        self.answers: list[dict[str, Any]] = []
        self.stdin = self

    def write(self, data: bytes) -> None:
        self.answers.append(json.loads(data))


RESULT = {"event": "result", "figures": {"p50": 1.0}, "seconds": 1.0, "cpu_seconds": 1.0}


async def test_a_workload_that_hangs_is_given_up_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell, "_GRACE_SECONDS", 1.0)
    ended: list[int] = []
    monkeypatch.setattr(cell, "forget", ended.append)
    workload = replace(WORKLOADS["failover"], deadline=0.0, kills=False)  # it tries for ever
    found = await measure(Nowhere(tmp_path), workload, Parameters(), tmp_path / "log")
    assert found["failed"] == "not done after 1 s"
    assert found["stalled"]
    with pytest.raises(ProcessLookupError):
        os.killpg(ended[0], 0)


async def test_a_node_that_does_not_return_ends_its_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell, "_RESTART_SECONDS", 0.05)
    said: Any = Said({"event": "restart"}, RESULT)
    talk = cell._Conversation(Nowhere(tmp_path), said)
    talk._killed = 0
    found = await asyncio.wait_for(talk.run(), 10)
    assert said.answers == [{"ended": 1}]
    assert found["figures"] == {"p50": 1.0}
    assert found["note"] == "fewer kills: TimeoutError: the killed node was not back after 0 s"


async def test_without_a_leader_the_kills_end(tmp_path: Path) -> None:
    said: Any = Said({"event": "kill", "topic": "t"}, RESULT)
    found = await cell._Conversation(Nowhere(tmp_path), said).run()
    assert said.answers == [{"ended": 1}]
    assert found["note"] == "fewer kills: RuntimeError: nobody leads"


async def test_the_worker_s_note_is_kept(tmp_path: Path) -> None:
    said: Any = Said(RESULT | {"note": "fewer kills: silence"})
    assert (await cell._Conversation(Nowhere(tmp_path), said).run())["note"] == "fewer kills: silence"


async def test_a_failure_is_told_before_the_library_s_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    end, output = threading.Event(), io.StringIO()

    class Stuck:
        async def connect(self) -> None:
            asyncio.get_running_loop().run_in_executor(None, end.wait)
            raise OSError("no message came")

    monkeypatch.setattr(worker, "make_client", lambda *_: Stuck())
    try:
        await worker.told("nats", WORKLOADS["sequential"], [], Parameters(), Channel(output, io.StringIO()))
        told = json.loads(output.getvalue())
    finally:
        end.set()
    assert (told["event"], told["reason"]) == ("failed", "OSError: no message came")


def _runner(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cells: Callable[[str], Awaitable[Cell]],
    *workloads: str,
) -> Runner:
    async def measured_here(cluster: Cluster, workload: Any, given: Any, log: Path) -> Cell:
        return await cells(workload.name)

    monkeypatch.setattr(runner, "measure", measured_here)
    monkeypatch.setattr(runner, "cluster_class", lambda _: Nowhere)
    plan = Plan(["holdfast"], workloads, 1, Parameters(), 1, tmp_path)
    return Runner(plan, [], lambda: None, lambda: None)


@pytest.mark.parametrize(
    ("stalls", "tried"), [("01", 2), ("0", 4), ("02", 4)], ids=["two in a row", "one", "two apart"]
)
async def test_a_system_that_stalls_twice_in_a_row_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stalls: str, tried: int
) -> None:
    names = ["sequential", "publishers-1", "publishers-16", "publishers-128"]
    asked: list[str] = []

    async def cells(name: str) -> Cell:
        asked.append(name)
        if str(names.index(name)) in stalls:
            return {"failed": "not done after 80 s", "unsupported": False, "stalled": True}
        return measured(rate=1.0)

    run = _runner(tmp_path, monkeypatch, cells, *names)
    await run.run()
    assert asked == names[:tried]
    assert len(run.results) == 4
    left = "not tried: the last 2 workloads were not done in time"
    assert [result.failed for result in run.results[tried:]] == [left] * (4 - tried)
    assert list(tmp_path.iterdir()) == []


def _interrupted(whole_rounds: int) -> Callable[[Document, Any], None]:
    """A run that is interrupted in the round after so many."""

    def run(document: Document, _options: Any) -> None:
        for number in range(whole_rounds + 1):
            document.machines.append(MACHINE)
            figures = measured(rate=number + 1.0, records=1)
            document.results.append(runner.Result(number, "holdfast", "pipelined-100", figures))
        raise KeyboardInterrupt

    return run


@pytest.mark.parametrize("whole", [0, 2])
def test_an_interrupted_run_keeps_its_whole_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], whole: int
) -> None:
    system = System("Holdfast", "fsynced on a majority", True, "0.1")
    monkeypatch.setattr(command, "available", lambda _: ({"holdfast": system}, {}))
    monkeypatch.setattr(command, "run", _interrupted(whole))
    readme = tmp_path / "README.md"
    readme.write_text("<!-- compare: begin -->\nold\n<!-- compare: end -->\n")
    for name, path in (("README", readme), ("RAW", tmp_path / "raw"), ("CHART", tmp_path / "chart")):
        monkeypatch.setattr(command, name, path)
    assert command.main(["--write", "--json", str(tmp_path / "all.json")]) == INTERRUPTED
    assert f"whole rounds: {whole}" in capsys.readouterr().err
    # Everything as data, the finished rounds as tables.
    assert len(Document.read(tmp_path / "all.json").results) == whole + 1
    if not whole:
        assert "old" in readme.read_text()
        return
    assert len(Document.read(tmp_path / "raw").results) == 2
    assert "Medians of 2 rounds" in readme.read_text()
    assert "| **Holdfast — fsynced on a majority** | 1.50 (1.00) |" in readme.read_text()
