"""Appends go to simulated peers the way they go over TCP: large ones with their commands beside the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from holdfast.chaos.sim.cluster import SimCluster
from holdfast.chaos.sim.network import SimTransport
from holdfast.chaos.sim.plan import SETTINGS, make_plan
from holdfast.chaos.sim.run import run
from holdfast.cluster.ports import PeerMessage, TransportEvent
from holdfast.cluster.raft.settings import EngineSettings


class Came:
    """Appends with entries, as nodes got them: how many with their commands beside the frame, and without."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.apart = self.whole = 0
        stock = SimTransport.push

        def push(transport: SimTransport, event: TransportEvent) -> None:
            self._look(event)
            stock(transport, event)

        patch.setattr(SimTransport, "push", push)

    def _look(self, event: TransportEvent) -> None:
        if not isinstance(event, PeerMessage) or not event.frame.append.entries:
            assert not getattr(event, "commands", ())
            return
        inside: Sequence[bytes] = [entry.command for entry in event.frame.append.entries if entry.command]
        if event.commands:
            assert not inside
            assert len(event.commands) == len(event.frame.append.entries)
            self.apart += 1
        else:
            self.whole += 1


@pytest.fixture
def came(monkeypatch: pytest.MonkeyPatch) -> Came:
    return Came(monkeypatch)


def test_commands_travel_beside_the_frame(came: Came) -> None:
    sim = SimCluster(3, seed=1, settings=EngineSettings(apart_bytes=0))
    sim.elect()
    assert all(sim.publish(b"%d" % number).ok for number in range(5))
    sim.settle()
    sim.check_nothing_lost()
    assert came.apart > 5
    assert came.whole == 0


def test_they_arrive_again_as_they_were_sent(came: Came) -> None:
    sim = SimCluster(3, seed=1, settings=EngineSettings(apart_bytes=0))
    sim.network.keep_frames = True
    leader = sim.elect()
    assert sim.publish(b"x").ok
    sim.settle()
    before = came.apart
    follower = sim.followers()[0]
    assert sim.network.echo(leader.node_id, follower.node_id, "append", 500) > 1
    assert came.apart > before
    assert sim.publish(b"y").ok
    sim.settle()
    sim.check_nothing_lost()


def test_plans_go_both_ways(came: Came) -> None:
    plan = next(plan for plan in map(make_plan, range(1, 100)) if SETTINGS[plan.settings].apart_bytes < 1000)
    assert not run(plan).violations
    assert came.apart > 10
    assert came.whole > 10


def test_what_went_apart_changes_nothing_else() -> None:
    """A run is the same to the event whichever way its appends go."""
    plan = next(plan for plan in map(make_plan, range(1, 100)) if SETTINGS[plan.settings].apart_bytes < 1000)
    known = SETTINGS[plan.settings]
    traces = set()
    for apart_bytes in (0, 1 << 30):
        with pytest.MonkeyPatch.context() as patch:
            changed = [*SETTINGS]
            changed[plan.settings] = replace(known, apart_bytes=apart_bytes)
            patch.setattr("holdfast.chaos.sim.run.SETTINGS", changed)
            traces.add(run(plan).trace)
    assert len(traces) == 1
