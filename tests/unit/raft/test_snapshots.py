"""A follower that the log no longer reaches gets the whole state."""

from __future__ import annotations

from dataclasses import replace

import google_crc32c
import pytest

from holdfast.chaos.sim import SimCluster, SimNode
from holdfast.chaos.sim.storm import SHORT_LOG
from holdfast.cluster import events
from holdfast.storage.memory_store import MemoryStore
from holdfast.v1 import peer_pb2


def far_behind(sim: SimCluster, values: int = 120, size: int = 2000) -> SimNode:
    """Stop a follower, then write until the log it would need is gone."""
    sim.elect()
    node = sim.followers()[0]
    sim.crash(node.node_id)
    for i in range(values):
        assert sim.publish(b"%d-" % i + b"x" * size).ok
    leader = sim.leader()
    assert leader is not None
    assert leader.engine is not None
    assert leader.engine.status().first_log_index > 60
    return node


def installed(node: SimNode) -> list[events.SnapshotInstalled]:
    return [event for event in node.events if isinstance(event, events.SnapshotInstalled)]


@pytest.mark.parametrize("seed", range(3))
def test_follower_far_behind_gets_a_snapshot(seed: int) -> None:
    sim = SimCluster(3, seed=seed, settings=SHORT_LOG)
    node = far_behind(sim)
    sim.start(node.node_id)
    sim.settle()
    assert len(installed(node)) == 1
    sim.check_nothing_lost()
    # And it takes part as before.
    other = next(n for n in sim.followers() if n is not node)
    sim.crash(other.node_id)
    assert sim.publish(b"with the newcomer").ok
    sim.restart(node.node_id)
    sim.settle()
    sim.check_nothing_lost()


def test_a_follower_without_room_for_a_snapshot_keeps_its_reserve() -> None:
    settings = replace(SHORT_LOG, follower_reserve=1 << 20)
    sim = SimCluster(3, seed=6, settings=settings)
    node = far_behind(sim)
    sim.start(node.node_id)
    node.store.disk_free = (1 << 20) + 100_000  # less than the state takes
    sim.run_for(3.0)
    assert node.up
    assert not installed(node)
    leader = sim.leader()
    assert leader is not None
    reasons = {e.reason for e in leader.events if isinstance(e, events.SnapshotAborted)}
    assert reasons == {"refused"}
    assert sim.publish(b"the others go on").ok
    node.store.disk_free = 1 << 40
    sim.settle()
    assert len(installed(node)) == 1
    sim.check_nothing_lost()


def test_publishing_goes_on_while_a_snapshot_is_sent() -> None:
    sim = SimCluster(3, seed=4, settings=SHORT_LOG)
    node = far_behind(sim)
    sim.network.bandwidth = 200_000
    sim.start(node.node_id)
    leader = sim.elect()
    for i in range(50):
        assert sim.publish(b"during-%d" % i).ok
    assert sim.leader() is leader
    sim.settle(limit=30)
    assert installed(node)
    sim.check_nothing_lost()


def test_lost_chunks_are_sent_again() -> None:
    sim = SimCluster(3, seed=6, settings=SHORT_LOG)
    node = far_behind(sim)
    dropped = 0

    def lose_some(sender: str, receiver: str, frame: peer_pb2.PeerFrame) -> peer_pb2.PeerFrame | None:
        nonlocal dropped
        if frame.WhichOneof("body") == "snapshot_chunk" and sim.world.rng.random() < 0.3:
            dropped += 1
            return None
        return frame

    sim.network.taps.append(lose_some)
    sim.start(node.node_id)
    sim.settle(limit=60)
    assert dropped
    assert installed(node)
    sim.check_nothing_lost()


def test_transfer_begins_anew_with_a_new_leader() -> None:
    sim = SimCluster(3, seed=6, settings=SHORT_LOG)
    node = far_behind(sim)
    sim.network.bandwidth = 100_000
    sim.start(node.node_id)
    leader = sim.elect()
    sim.run_for(0.5)
    assert not installed(node)
    sim.crash(leader.node_id)
    sim.run_for(1.0)
    sim.start(leader.node_id)
    sim.network.bandwidth = None
    sim.settle(limit=30)
    assert installed(node)
    sim.check_nothing_lost()


def test_a_snapshot_that_does_not_load_halts_and_acks_nothing() -> None:
    sim = SimCluster(3, seed=8, settings=SHORT_LOG)
    node = far_behind(sim)
    replies: list[peer_pb2.SnapshotReply] = []

    def spoil(sender: str, receiver: str, frame: peer_pb2.PeerFrame) -> peer_pb2.PeerFrame:
        kind = frame.WhichOneof("body")
        if kind == "snapshot_chunk" and frame.snapshot_chunk.data:
            # Whole by its CRC, and still not a snapshot.
            data = b"z" * len(frame.snapshot_chunk.data)
            frame.snapshot_chunk.data = data
            frame.snapshot_chunk.crc32c = google_crc32c.value(data)
        if kind == "snapshot_reply":
            replies.append(frame.snapshot_reply)
        return frame

    sim.network.taps.append(spoil)
    sim.start(node.node_id)
    assert sim.run_until(lambda: node.failure is not None)
    assert not node.up
    assert not any(reply.installed for reply in replies)
    # Its own state is as it was: without the damage it recovers.
    sim.network.taps.clear()
    sim.start(node.node_id)
    sim.settle()
    sim.check_nothing_lost()


def test_wiped_follower_is_rebuilt() -> None:
    sim = SimCluster(3, seed=9, settings=SHORT_LOG)
    node = far_behind(sim)
    assert isinstance(node.store, MemoryStore)
    node.store = type(node.store)(node.clock, sim.world.rng)
    sim.start(node.node_id)
    sim.settle()
    assert installed(node)
    sim.check_nothing_lost()
