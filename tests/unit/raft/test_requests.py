"""Proposals and reads: forwarding, deadlines, bounds, order, and what callers are told."""

from __future__ import annotations

import pytest

from holdfast.chaos.sim import LedgerMachine, SimCluster, SimNode
from holdfast.cluster import events
from holdfast.cluster.raft.settings import EngineSettings
from holdfast.errors import (
    DeadlineExceededError,
    NoLeaderError,
    OutcomeUnknownError,
    OverloadedError,
    RecordTooLargeError,
    StorageFullError,
)
from holdfast.storage.port import Usage


def test_followers_forward_to_the_leader() -> None:
    sim = SimCluster(3, seed=1)
    leader = sim.elect()
    sim.run_for(0.1)
    for node in sim.followers():
        call = sim.publish(b"by " + node.node_id.encode(), node.node_id)
        assert call.ok
        assert call.done is not None
        assert call.done.index > 1
    sim.settle()
    assert leader.values() == [b"by " + node.node_id.encode() for node in sim.followers()]


def test_what_waits_is_appended_together_and_in_order() -> None:
    sim = SimCluster(3, seed=2)
    leader = sim.elect()
    before = leader.store.commits
    calls = [sim.propose(b"%03d" % i) for i in range(500)]
    assert sim.run_until(lambda: all(call.done for call in calls))
    assert {call.done.index for call in calls if call.done} == {calls[0].done.index if calls[0].done else 0}
    assert leader.store.commits - before <= 3
    sim.settle()
    assert leader.values() == [b"%03d" % i for i in range(500)]


def test_a_proposal_waits_for_a_leader_and_then_goes_on() -> None:
    sim = SimCluster(3, seed=3)
    call = sim.propose(b"early", "n1")
    assert sim.run_until(lambda: call.done is not None)
    assert call.ok


def test_without_a_leader_nothing_is_done() -> None:
    sim = SimCluster(3, seed=4)
    sim.elect()
    sim.crash("n2")
    sim.crash("n3")
    sim.run_for(3.0)
    call = sim.publish(b"alone", "n1")
    assert isinstance(call.error, NoLeaderError)
    assert call.error.retriable
    assert call.ended - call.started < 1.2


def test_deposed_leader_tells_that_the_outcome_is_unknown() -> None:
    sim = SimCluster(3, seed=5)
    leader = sim.elect()
    sim.network.partition([leader.node_id], [n for n in sim.ids if n != leader.node_id], notice_after=None)
    call = sim.propose(b"lost?", leader.node_id, timeout=20.0)
    sim.run_until(lambda: call.done is not None, 20.0)
    assert isinstance(call.error, OutcomeUnknownError)
    assert call.ended - call.started < 4.0


def test_deposed_leader_learns_that_nothing_was_done() -> None:
    sim = SimCluster(3, seed=6)
    leader = sim.elect()
    others = [n for n in sim.ids if n != leader.node_id]
    sim.network.partition([leader.node_id], others, notice_after=None)
    call = sim.propose(b"replaced", leader.node_id, timeout=20.0)
    sim.run_for(1.1)
    sim.publish(b"instead", sim.leader().node_id if sim.leader() is not leader else others[0])  # type: ignore[union-attr]
    sim.network.heal_all()
    sim.run_until(lambda: call.done is not None, 20.0)
    assert isinstance(call.error, NoLeaderError)
    sim.settle()
    assert b"replaced" not in leader.values()


def test_link_to_the_leader_breaks_with_a_forward_under_way() -> None:
    sim = SimCluster(3, seed=7)
    leader = sim.elect()
    sim.run_for(0.1)
    follower = sim.followers()[0]
    call = sim.propose(b"on its way", follower.node_id)
    sim.run_for(0.0001)
    sim.network.reconnect(leader.node_id, follower.node_id)
    assert sim.run_until(lambda: call.done is not None)
    assert isinstance(call.error, OutcomeUnknownError)
    sim.settle()


def test_deadlines_end_every_wait() -> None:
    sim = SimCluster(3, seed=8)
    leader = sim.elect()
    for node in sim.followers():
        sim.pause(node.node_id)
    call = sim.propose(b"stuck", leader.node_id, timeout=0.3)
    read = sim.barrier(leader.node_id, timeout=0.3)
    sim.run_for(0.45)
    assert isinstance(call.error, DeadlineExceededError)
    assert isinstance(read.error, DeadlineExceededError)


def test_queue_is_bounded() -> None:
    sim = SimCluster(3, seed=9, settings=EngineSettings(max_proposals=10))
    sim.elect()
    calls = [sim.propose(b"%d" % i) for i in range(12)]
    assert [type(call.error) for call in calls[10:]] == [OverloadedError, OverloadedError]
    assert sim.run_until(lambda: all(call.done for call in calls))
    assert all(call.ok for call in calls[:10])
    assert sim.publish(b"room again").ok


def test_queue_is_bounded_in_bytes() -> None:
    sim = SimCluster(3, seed=9, settings=EngineSettings(max_proposal_bytes=10_000))
    sim.elect()
    calls = [sim.propose(b"x" * 4000) for _ in range(4)]
    assert [call.error is None for call in calls] == [True, True, False, False]


def test_too_large_an_operation() -> None:
    sim = SimCluster(1, seed=10, settings=EngineSettings(max_op_bytes=1000))
    sim.elect()
    assert isinstance(sim.propose(b"x" * 2000).error, RecordTooLargeError)


@pytest.mark.parametrize("where", ["leader", "follower"])
def test_read_barrier_sees_what_was_acknowledged_before(where: str) -> None:
    sim = SimCluster(3, seed=11)
    leader = sim.elect()
    node = leader if where == "leader" else sim.followers()[0]
    call = sim.publish(b"seen")
    assert call.done is not None
    read = sim.barrier(node.node_id)
    assert sim.run_until(lambda: read.done is not None)
    assert read.ok
    assert read.done is not None
    assert read.done.index >= call.done.index
    assert b"seen" in node.values()


def test_deposed_leader_confirms_no_read() -> None:
    sim = SimCluster(3, seed=12)
    old = sim.elect()
    others = [n for n in sim.ids if n != old.node_id]
    sim.network.partition([old.node_id], others, notice_after=None)
    assert sim.run_until(lambda: any(sim.nodes[n].engine.core.leading for n in others))  # type: ignore[union-attr]
    new = next(n for n in others if sim.nodes[n].engine.core.leading)  # type: ignore[union-attr]
    assert sim.publish(b"newer", new).ok
    assert old.engine is not None
    assert old.engine.core.leading, "the old leader must not have noticed yet"
    read = sim.barrier(old.node_id, timeout=10.0)
    sim.run_for(0.2)
    assert read.done is None
    sim.network.heal_all()
    assert sim.run_until(lambda: read.done is not None)
    assert read.ok
    assert b"newer" in old.values()


def test_full_disk_refuses_records_and_takes_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = SimCluster(3, seed=13)
    leader = sim.elect()
    free = 10**12
    for node in sim.nodes.values():
        # With room elsewhere, the leader would let another one lead.
        monkeypatch.setattr(node.store, "usage", lambda: Usage(0, 10**12, free))
    assert sim.publish(b"fits").ok
    free = 200 << 20
    sim.run_for(0.3)
    assert isinstance(sim.publish(b"refused").error, StorageFullError)
    follower = sim.followers()[0]
    assert isinstance(sim.publish(b"refused too", follower.node_id).error, StorageFullError)
    free = 260 << 20
    sim.run_for(0.3)
    assert isinstance(sim.publish(b"not yet").error, StorageFullError)
    free = 400 << 20
    sim.run_for(0.3)
    assert sim.publish(b"again").ok
    assert [e.full for e in leader.events if isinstance(e, events.StorageFull)] == [True, False]


def test_a_burst_is_cut_where_the_room_ends() -> None:
    """Between two looks at the store more could be appended than the reserve holds."""
    mib = 1 << 20
    settings = EngineSettings(storage_reserve=2 * mib, follower_reserve=mib, entry_bytes=mib // 4)
    sim = SimCluster(3, seed=16, settings=settings)
    leader = sim.elect()
    for node in sim.nodes.values():
        node.store._quota = 6 * mib
    sim.run_for(0.3)
    calls = [sim.propose(bytes(100_000)) for _ in range(100)]
    assert sim.run_until(lambda: all(call.done for call in calls))
    taken = [call.ok for call in calls]
    assert 20 < sum(taken) < 45
    assert taken == sorted(taken, reverse=True)  # nothing overtook what was refused
    assert all(isinstance(call.error, StorageFullError) for call in calls if not call.ok)
    sim.settle()
    for node in sim.nodes.values():
        assert node.store.usage().used < 9 * mib  # this machine keeps payload a second time
    assert sim.leader() is leader


def test_followers_without_room_make_the_leader_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that no majority can store would wait for its deadline and block a deletion."""
    sim = SimCluster(3, seed=17)
    leader = sim.elect()
    sim.run_for(0.1)
    free = 200 << 20
    for follower in sim.followers():
        monkeypatch.setattr(follower.store, "usage", lambda: Usage(0, 10**12, free))
    sim.run_for(0.5)
    assert isinstance(sim.publish(b"refused").error, StorageFullError)
    assert leader.engine is not None
    assert not leader.engine.status().accepting_writes
    free = 10**12
    sim.run_for(0.5)
    assert sim.publish(b"again").ok


def test_one_follower_without_room_is_a_minority(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = SimCluster(3, seed=18)
    sim.elect()
    sim.run_for(0.1)
    full = sim.followers()[0]
    monkeypatch.setattr(full.store, "usage", lambda: Usage(0, 10**12, 200 << 20))
    sim.run_for(0.5)
    assert sim.publish(b"taken").ok
    assert sim.publish(b"forwarded by the full one", full.node_id).ok


def test_full_follower_stops_taking_log_and_catches_up(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = SimCluster(3, seed=14)
    leader = sim.elect()
    sim.run_for(0.1)
    follower = sim.followers()[0]
    free = 10 << 20
    monkeypatch.setattr(follower.store, "usage", lambda: Usage(0, 10**12, free))
    sim.run_for(0.3)
    for i in range(20):
        assert sim.publish(b"%d" % i).ok
    sim.run_for(3.0)
    assert sim.leader() is leader
    assert follower.up
    assert follower.values() == []
    free = 10**12
    sim.settle()
    assert len(follower.values()) == 20


def test_time_never_goes_back_along_the_log() -> None:
    sim = SimCluster(3, seed=15)
    first = sim.elect()
    sim.publish(b"a")
    first.clock.wall_skew_us = 3_600_000_000
    sim.publish(b"b")
    first.clock.wall_skew_us = -3_600_000_000
    sim.publish(b"c")
    sim.crash(first.node_id)
    sim.elect()
    sim.publish(b"d")
    sim.settle()
    leader = sim.leader()
    assert leader is not None
    with leader.store.read() as reader:
        times = LedgerMachine.times(reader)
    assert times == sorted(times)
    assert len(times) == 4
    jumps = [e.jump_us for e in first.events if isinstance(e, events.ClockJumped)]
    assert len(jumps) == 2


def shown(node: SimNode) -> list[bytes]:
    with node.store.read() as reader:
        return LedgerMachine.values(reader)


def test_what_a_result_tells_of_is_visible_with_it() -> None:
    """Before the leader's own disk has it: a majority has, or there would be no result."""
    sim = SimCluster(3, seed=16)
    leader = sim.elect()
    sim.run_for(0.1)
    call = sim.publish(b"early")
    assert call.done is not None
    assert leader.progress is not None
    assert leader.progress.visible_index == leader.progress.applied_index == call.done.index
    assert shown(leader) == [b"early"]
    assert leader.store.at_risk
    assert leader.progress.touched == {(1, 0)}


def test_followers_hear_of_a_commit_within_a_few_milliseconds() -> None:
    sim = SimCluster(3, seed=17)
    sim.elect()
    sim.run_for(0.1)
    for i in range(10):
        sim.publish(b"%d" % i)
        sim.run_for(0.008)
        for node in sim.nodes.values():
            assert node.engine is not None
            assert node.engine.status().applied_index == sim.nodes["n1"].engine.status().applied_index  # type: ignore[union-attr]
        for node in sim.nodes.values():
            assert len(node.values()) == i + 1


def test_what_is_queued_while_the_leader_appends_has_waited_no_negative_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sim = SimCluster(3, seed=18)
    leader = sim.elect()
    sim.run_for(0.1)
    assert leader.engine is not None
    host = leader.engine.core.host
    append = host.append_proposals

    def slow_append(now: float) -> None:
        # Another thread's publish comes after this turn has read the clock.
        if not sim.calls:
            leader.clock.lag += 0.002
            sim.propose(b"in between")
            leader.clock.lag += 0.001
        append(now)

    monkeypatch.setattr(host, "append_proposals", slow_append)
    assert sim.run_until(lambda: bool(sim.calls) and sim.calls[0].done is not None)
    timings = [e for e in leader.events if isinstance(e, events.ProposalTimings)]
    assert [round(e.queued_s, 6) for e in timings] == [0.001]
    assert timings[0].replicate_s > 0
    assert timings[0].apply_s >= 0
