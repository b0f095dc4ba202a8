"""First things first: elect, replicate, commit, apply, survive."""

from __future__ import annotations

import pytest

from holdfast.chaos.sim import SimCluster


@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_elects_replicates_and_applies(nodes: int) -> None:
    sim = SimCluster(nodes, seed=nodes)
    sim.elect()
    calls = [sim.propose(b"v%d" % i) for i in range(10)]
    assert sim.run_until(lambda: all(call.done for call in calls))
    assert all(call.ok for call in calls)
    sim.settle()
    sim.check_nothing_lost()
    assert sim.nodes["n1"].values() == [b"v%d" % i for i in range(10)]


def test_survives_leader_crash() -> None:
    sim = SimCluster(3, seed=7)
    leader = sim.elect()
    for i in range(20):
        assert sim.publish(b"a%d" % i).ok
    sim.crash(leader.node_id)
    crashed_at = sim.world.now
    new = sim.elect()
    assert new is not leader
    assert sim.world.now - crashed_at < 0.2
    for i in range(20):
        assert sim.publish(b"b%d" % i).ok
    sim.start(leader.node_id)
    sim.settle()
    sim.check_nothing_lost()
    assert len(leader.values()) == 40
