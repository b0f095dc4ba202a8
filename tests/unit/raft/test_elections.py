"""Who leads, when, and who must not disturb."""

from __future__ import annotations

import pytest

from holdfast.chaos.sim import SimCluster
from holdfast.cluster import events
from holdfast.cluster.results import Role


@pytest.mark.parametrize("seed", range(20))
def test_killed_leader_is_replaced_fast(seed: int) -> None:
    sim = SimCluster(3, seed=seed)
    leader = sim.elect()
    sim.run_for(0.3)
    sim.crash(leader.node_id)
    at = sim.world.now
    node = next(n for n in sim.ids if n != leader.node_id)
    # The first may have been on its way to the dead leader: its outcome is unknown, and said so at once.
    while not sim.publish(b"after", node).ok:
        pass
    assert sim.world.now - at < 0.15


@pytest.mark.parametrize("seed", range(5))
def test_silent_leader_is_replaced_after_the_timeout(seed: int) -> None:
    sim = SimCluster(3, seed=seed)
    leader = sim.elect()
    sim.run_for(0.3)
    sim.pause(leader.node_id)
    at = sim.world.now
    sim.elect()
    assert 0.35 < sim.world.now - at < 2.0
    sim.resume(leader.node_id)
    sim.settle()
    assert leader.engine is not None
    assert not leader.engine.core.leading


def test_rejoining_node_does_not_disturb() -> None:
    sim = SimCluster(3, seed=3)
    leader = sim.elect()
    assert leader.engine is not None
    term = leader.engine.core.term
    follower = sim.followers()[0]
    sim.network.partition([follower.node_id], [n for n in sim.ids if n != follower.node_id])
    sim.run_for(10.0)
    sim.network.heal_all()
    sim.run_for(2.0)
    assert sim.leader() is leader
    assert leader.engine.core.term == term


def test_follower_that_lost_only_its_link_to_the_leader_does_not_disturb() -> None:
    sim = SimCluster(3, seed=4)
    leader = sim.elect()
    assert leader.engine is not None
    term = leader.engine.core.term
    follower = sim.followers()[0]
    sim.network.cut(leader.node_id, follower.node_id, notice_after=0.0)
    sim.run_for(5.0)
    assert sim.leader() is leader
    assert leader.engine.core.term == term
    sim.network.heal_all()
    sim.settle()


def test_a_silent_leader_is_not_named_until_it_is_heard_again() -> None:
    sim = SimCluster(3, seed=6)
    leader = sim.elect()
    alone, other = sim.followers()
    assert alone.engine is not None
    assert other.engine is not None
    sim.network.cut(leader.node_id, alone.node_id)
    sim.run_for(3.0)
    assert alone.engine.status().leader_id is None
    assert other.engine.status().leader_id == leader.node_id
    sim.network.heal(leader.node_id, alone.node_id)
    sim.run_for(1.0)
    assert sim.leader() is leader
    assert alone.engine.status().leader_id == leader.node_id


def test_isolated_leader_steps_down() -> None:
    sim = SimCluster(3, seed=5)
    leader = sim.elect()
    others = [n for n in sim.ids if n != leader.node_id]
    sim.network.partition([leader.node_id], others, notice_after=None)
    sim.run_for(1.6)
    assert leader.engine is not None
    assert leader.engine.status().role is Role.FOLLOWER


def test_leadership_can_be_handed_over() -> None:
    sim = SimCluster(3, seed=6)
    leader = sim.elect()
    assert leader.engine is not None
    for i in range(5):
        sim.publish(b"%d" % i)
    sim.settle()
    at = sim.world.now
    target = leader.engine.core.transfer_leadership()
    assert target is not None
    assert sim.run_until(lambda: sim.nodes[target].engine.core.ready_to_read, 1.0)  # type: ignore[union-attr]
    assert sim.world.now - at < 0.1
    sim.publish(b"onwards")
    sim.settle()
    sim.check_nothing_lost()


def test_single_node_leads_at_once_and_recovers() -> None:
    sim = SimCluster(1, seed=7)
    sim.elect(limit=0.1)
    for i in range(10):
        assert sim.publish(b"%d" % i).ok
    sim.restart("n1")
    sim.elect(limit=0.1)
    assert sim.publish(b"more").ok
    sim.settle()
    sim.check_nothing_lost()
    assert len(sim.nodes["n1"].values()) == 11


def test_events_tell_the_story() -> None:
    sim = SimCluster(3, seed=8)
    leader = sim.elect()
    kinds = {type(event) for event in leader.events}
    assert {events.ElectionStarted, events.RoleChanged, events.LeaderChanged, events.PeerLinkChanged} <= kinds
    sim.publish(b"x")
    assert any(isinstance(e, events.TurnCompleted) and e.appended_entries for e in leader.events)
