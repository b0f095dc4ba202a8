"""The engine as a thread's loop: how it ends, and what it promises then."""

from __future__ import annotations

import pytest

from holdfast.chaos.sim import SimCluster
from holdfast.cluster import events
from holdfast.cluster.ports import PeerMessage
from holdfast.cluster.raft.host import AppliedLike
from holdfast.cluster.raft.messages import PeerFrame
from holdfast.errors import StorageError, UnavailableError
from holdfast.storage import journal
from holdfast.storage.port import Writer


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
    monkeypatch.setattr(victim.store, "persist", broken)
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
    monkeypatch.setattr(node.store, "persist", broken)
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


def test_what_was_applied_is_durable_once_the_engine_has_stopped() -> None:
    sim = SimCluster(3, seed=6)
    sim.elect()
    sim.settle()
    for i in range(5):
        sim.publish(b"%d" % i)
    sim.settle()
    follower = sim.followers()[0]
    engine, store = follower.engine, follower.store
    assert engine is not None
    assert store is not None
    assert store.dirty  # shown to readers, and not committed
    applied = engine.status().applied_index
    engine.stop()
    engine.run()
    store.abort()
    with store.read() as reader:
        assert journal.read_meta(reader).applied_index >= applied


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


def test_a_follower_acks_before_it_applies() -> None:
    sim = SimCluster(3, seed=4)
    sim.elect()
    sim.settle()
    follower = sim.followers()[0]
    engine = follower.engine
    assert engine is not None
    order: list[str] = []
    stock_apply, stock_send = engine.core.machine.apply, engine.core.outbox._transport.send

    def apply(writer: Writer, index: int, entry: bytes) -> AppliedLike:
        order.append(f"apply {index}")
        return stock_apply(writer, index, entry)

    def send(node_id: str, frame: PeerFrame) -> bool:
        if frame.WhichOneof("body") == "append_reply" and frame.append_reply.success:
            order.append(f"ack {frame.append_reply.match_index}")
        return stock_send(node_id, frame)

    engine.core.machine.apply = apply  # type: ignore[method-assign]
    engine.core.outbox._transport.send = send  # type: ignore[method-assign]
    first = sim.publish(b"1")
    assert first.done is not None
    # Its append tells the follower that the first is committed: it is acked, then the first is applied.
    second = sim.publish(b"2")
    sim.settle()
    assert second.done is not None
    assert order.index(f"ack {second.done.index}") < order.index(f"apply {first.done.index}")


def test_an_ack_that_changes_nothing_costs_no_tick() -> None:
    sim = SimCluster(3, seed=5)
    leader = sim.elect()
    sim.settle()
    engine = leader.engine
    assert engine is not None
    core = engine.core
    follower = next(iter(core.followers.values()))
    ticks = []
    stock = core.tick
    core.tick = lambda: (ticks.append(1), stock())[1]  # type: ignore[method-assign]

    def ack(match: int, *, success: bool = True) -> int:
        ticks.clear()
        frame = core.envelope.append_reply(core.term, success=success, match_index=match)
        frame.boot_id = follower.boot_id
        engine._transport.poll = lambda _: [PeerMessage(follower.node_id, frame)]  # type: ignore[method-assign]
        engine.turn(0.0)
        return len(ticks)

    engine._transport.poll = lambda _: []  # type: ignore[method-assign]
    engine.turn(0.0)
    assert ack(core.journal.last_index) == 0
    # One that is behind may have to be sent something, a refusal calls for another try.
    assert ack(core.journal.last_index - 1) == 1
    assert ack(core.journal.last_index, success=False) == 1
