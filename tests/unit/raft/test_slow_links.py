"""A frame that takes longer than an election timeout deposes nobody."""

from __future__ import annotations

import pytest

from holdfast.chaos.sim import SimCluster
from holdfast.cluster import events

MB = 1_000_000


@pytest.mark.parametrize(("size", "count"), [(100_000, 60), (1 * MB, 6), (4 * MB, 2), (12 * MB, 1)])
def test_large_frames_on_a_slow_link_make_no_election(size: int, count: int) -> None:
    sim = SimCluster(3, seed=1)
    leader = sim.elect()
    sim.run_for(1.0)
    before = {node_id: len(node.events) for node_id, node in sim.nodes.items()}
    sim.network.bandwidth = 1 * MB
    calls = [sim.propose(b"%d-" % i + b"x" * size, leader.node_id, timeout=60.0) for i in range(count)]
    sim.run_for(3.0 * size * count / MB + 2.0)
    assert all(call.ok for call in calls)
    started = [
        event
        for node_id, node in sim.nodes.items()
        for event in node.events[before[node_id] :]
        if isinstance(event, events.ElectionStarted)
    ]
    assert not started


def test_a_leader_that_falls_silent_within_a_frame_is_replaced() -> None:
    sim = SimCluster(3, seed=2)
    leader = sim.elect()
    sim.run_for(1.0)
    sim.network.bandwidth = 1 * MB
    sim.propose(b"x" * (8 * MB), leader.node_id, timeout=60.0)
    sim.run_for(1.0)
    for other in sim.followers():
        sim.network.cut(leader.node_id, other.node_id, notice_after=None)
    assert sim.run_until(
        lambda: any(n is not leader and n.engine is not None and n.engine.status().role.name == "LEADER"
                    for n in sim.nodes.values()),
        limit=2.0,
    )  # fmt: skip
