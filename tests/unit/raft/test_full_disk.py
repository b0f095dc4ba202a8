"""Disks without room: who leads, and who is refused."""

from __future__ import annotations

import pytest

from holdfast.chaos.sim import SimCluster, SimNode
from holdfast.chaos.sim.disk import EMPTY_DISK
from holdfast.cluster import events


def _term(sim: SimCluster) -> int:
    return max(node.engine.core.term for node in sim.nodes.values() if node.engine is not None)


def _fill(*nodes: SimNode) -> None:
    for node in nodes:
        node.store.disk_free = 0


def test_a_full_leader_lets_a_follower_with_room_lead() -> None:
    sim = SimCluster(3, seed=1)
    full = sim.elect()
    assert sim.publish(b"before").ok
    _fill(full)
    assert sim.run_until(lambda: sim.leader() not in (None, full), 2.0)
    sim.elect()
    assert sim.publish(b"after").ok
    # The full node takes its part again, and does not ask for the lead back.
    full.store.disk_free = EMPTY_DISK
    term = _term(sim)
    sim.run_for(3.0)
    assert _term(sim) == term
    sim.settle()
    sim.check_nothing_lost()


def test_a_full_leader_passes_over_a_full_follower() -> None:
    sim = SimCluster(5, seed=2)
    full = sim.elect()
    fulls = [full, sim.followers()[0]]
    _fill(fulls[1])
    sim.run_for(0.5)
    _fill(full)
    assert sim.run_until(lambda: sim.leader() not in (None, full), 2.0)
    assert sim.elect() not in fulls
    assert sim.publish(b"after").ok


@pytest.mark.parametrize("count", [2, 3])
def test_without_a_majority_that_has_room_nobody_changes_place(count: int) -> None:
    sim = SimCluster(3, seed=3)
    leader = sim.elect()
    _fill(*sim.followers()[: count - 1])
    sim.run_for(0.5)
    _fill(leader)
    # One change of place at most: while the news of the full disks is on its way.
    sim.run_for(0.5)
    term = _term(sim)
    sim.run_for(5.0)
    assert _term(sim) == term
    refused = sim.publish(b"no room")
    assert refused.error is not None
    assert refused.error.reason == "STORAGE_FULL"
    for node in sim.nodes.values():
        node.store.disk_free = EMPTY_DISK
    sim.run_for(0.5)
    assert sim.publish(b"room again").ok
    sim.settle()
    sim.check_nothing_lost()


def test_a_single_node_that_is_full_leads_on() -> None:
    sim = SimCluster(1, seed=4)
    node = sim.elect()
    _fill(node)
    sim.run_for(1.0)
    assert sim.leader() is node
    assert any(isinstance(event, events.StorageFull) for event in node.events)
