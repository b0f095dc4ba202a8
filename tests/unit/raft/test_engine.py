"""The engine as a thread's loop: how it ends, and what it promises then."""

from __future__ import annotations

import pytest

from holdfast.chaos.sim import SimCluster
from holdfast.cluster import events
from holdfast.errors import StorageError, UnavailableError


def test_a_failing_store_ends_the_engine_and_nothing_held_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = SimCluster(3, seed=1)
    leader = sim.elect()
    sim.run_for(0.1)
    victim = sim.followers()[0]
    engine = victim.engine
    assert engine is not None
    acks: list[int] = []

    def watch(sender: str, receiver: str, frame: object) -> object:
        body = frame.WhichOneof("body")  # type: ignore[attr-defined]
        if sender == victim.node_id and body == "append_reply":
            acks.append(frame.append_reply.match_index)  # type: ignore[attr-defined]
        return frame

    sim.network.taps.append(watch)  # type: ignore[arg-type]

    def broken() -> None:
        raise StorageError("the disk is gone")

    monkeypatch.setattr(victim.store, "commit", broken)
    call = sim.publish(b"x")
    assert call.ok
    assert call.done is not None
    sim.run_for(0.5)
    assert isinstance(victim.failure, StorageError)
    assert engine.failed is victim.failure
    assert all(match < call.done.index for match in acks)
    assert any(isinstance(event, events.EngineFailed) for event in victim.events)
    with pytest.raises(UnavailableError):
        engine.propose(b"", object(), 1e9)
    assert sim.leader() is leader


def test_run_raises_what_the_store_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = SimCluster(1, seed=2)
    node = sim.nodes["n1"]
    engine = node.engine
    assert engine is not None
    assert node.transport is not None

    def broken() -> None:
        raise StorageError("the disk is gone")

    monkeypatch.setattr(node.store, "commit", broken)
    sim.world.now += 1.0
    with pytest.raises(StorageError):
        engine.run()
    assert node.transport.closed


def test_stop_hands_leadership_over() -> None:
    sim = SimCluster(3, seed=3)
    leader = sim.elect()
    sim.settle()
    engine = leader.engine
    assert engine is not None
    engine.stop()
    asked = []

    def watch(sender: str, receiver: str, frame: object) -> object:
        if frame.WhichOneof("body") == "timeout_now":  # type: ignore[attr-defined]
            asked.append(receiver)
        return frame

    sim.network.taps.append(watch)  # type: ignore[arg-type]
    engine.run()
    assert len(asked) == 1
    sim.run_for(0.005)
    sim.crash(leader.node_id)
    at = sim.world.now
    assert sim.elect().node_id == asked[0]
    assert sim.world.now - at < 0.05


def test_status_is_whole() -> None:
    sim = SimCluster(3, seed=4)
    leader = sim.elect()
    sim.publish(b"x")
    sim.settle()
    sim.run_for(0.1)
    engine = leader.engine
    assert engine is not None
    status = engine.status()
    assert status.accepting_writes
    assert status.leader_id == leader.node_id
    assert status.commit_index == status.applied_index == status.visible_index == status.last_log_index
    assert [peer.match_index for peer in status.peers] == [status.last_log_index] * 2
    assert all(peer.connected for peer in status.peers)


def test_members_must_name_the_node() -> None:
    sim = SimCluster(1, seed=5)
    sim.ids = ["other"]
    sim.crash("n1")
    with pytest.raises(ValueError, match="n1 is not one of the members"):
        sim.start("n1")
