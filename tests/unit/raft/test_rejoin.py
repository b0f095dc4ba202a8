"""A node that lost its disk: what it forgot is never missed."""

from __future__ import annotations

import dataclasses

import pytest

from holdfast.chaos.sim import Divergence, SimCluster, SimNode
from holdfast.chaos.sim.storm import SHORT_LOG
from holdfast.cluster import events
from holdfast.cluster.raft.core import RaftCore
from holdfast.cluster.raft.cures import ALL
from holdfast.storage import membership
from holdfast.storage.membership import Membership
from holdfast.storage.port import Table
from holdfast.v1 import peer_pb2

CARELESS = dataclasses.replace(ALL, joining_does_not_vote=False)


def core_of(node: SimNode) -> RaftCore:
    assert node.engine is not None
    return node.engine.core


def is_voter(sim: SimCluster, node_id: str) -> bool:
    node = sim.nodes[node_id]
    return node.up and not core_of(node).rejoin.joining


def until_voter(sim: SimCluster, node_id: str, limit: float = 10.0) -> None:
    assert sim.run_until(lambda: is_voter(sim, node_id), limit), node_id


def wiped(sim: SimCluster, node_id: str) -> None:
    sim.wipe(node_id)
    sim.start(node_id)


def mark_of(node: SimNode) -> Membership | None:
    return membership.read(node.store.writer())


def others(sim: SimCluster, *without: str) -> list[str]:
    return [node_id for node_id in sim.ids if node_id not in without]


# -- the loss ------------------------------------------------------------------------


def commit_on_fewest(sim: SimCluster) -> tuple[str, str, list[str]]:
    """Acknowledge records on the leader and the fewest followers: (leader, another, the rest)."""
    leader = sim.elect().node_id
    sim.settle()
    holders = [leader, *others(sim, leader)[: len(sim.ids) // 2]]
    absent = others(sim, *holders)
    sim.network.partition(holders, absent)
    for number in range(5):
        assert sim.publish(b"acked%d" % number).ok
    return leader, holders[1], absent


def lose_a_disk_then_the_leader(nodes: int, seed: int, *, careful: bool) -> SimCluster:
    """Never more than one node is down or cut off at a time after the wipe."""
    sim = SimCluster(nodes, seed=seed, cures=ALL if careful else CARELESS)
    leader, holder, absent = commit_on_fewest(sim)
    # With five nodes, the third that holds the records is out of reach from here on.
    gone = others(sim, leader, holder, *absent)
    sim.wipe(holder)
    for node_id in (leader, *gone):
        sim.crash(node_id)
    sim.network.heal_all()
    sim.start(holder)
    # Only those without the records can be reached.
    sim.run_for(5.0)
    if sim.leader() is not None:
        sim.publish(b"another history")
    for node_id in (leader, *gone):
        sim.start(node_id)
    sim.elect(limit=10.0)
    sim.settle(limit=20.0)
    sim.check_nothing_lost()
    return sim


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_what_it_confirmed_is_not_lost(nodes: int, seed: int) -> None:
    sim = lose_a_disk_then_the_leader(nodes, seed, careful=True)
    for node_id in sim.ids:
        until_voter(sim, node_id)


@pytest.mark.parametrize("nodes", [3, 5])
def test_without_the_cure_it_is_lost(nodes: int) -> None:
    with pytest.raises(Divergence):
        lose_a_disk_then_the_leader(nodes, 1, careful=False)


def reach_the_old_leader(seed: int, *, careful: bool) -> SimCluster:
    """A deposed leader that does not know it reaches only the node that has forgotten electing another."""
    sim = SimCluster(3, seed=seed, cures=ALL if careful else CARELESS)
    old = sim.elect().node_id
    sim.settle()
    rest = others(sim, old)
    sim.network.partition([old], rest, notice_after=None)
    assert sim.run_until(lambda: any(core_of(sim.nodes[node_id]).ready_to_read for node_id in rest))
    new = next(node_id for node_id in rest if core_of(sim.nodes[node_id]).leading)
    (voter,) = others(sim, old, new)
    assert sim.publish(b"of the new leader", new).ok
    assert core_of(sim.nodes[old]).leading
    sim.wipe(voter)
    sim.network.partition([old, voter], [new], notice_after=None)
    sim.start(voter)
    stale = sim.propose(b"of the old leader", old, timeout=1.0)
    read = sim.barrier(old, timeout=1.0)
    sim.run_for(2.0)
    assert not stale.ok
    assert not read.ok
    assert not is_voter(sim, voter)
    sim.network.heal_all()
    until_voter(sim, voter)
    sim.elect()
    sim.settle()
    sim.check_nothing_lost()
    return sim


@pytest.mark.parametrize("seed", range(3))
def test_a_leader_of_old_gets_nothing_confirmed(seed: int) -> None:
    reach_the_old_leader(seed, careful=True)


@pytest.mark.parametrize("seed", range(3))
def test_without_the_cure_a_leader_of_old_goes_on(seed: int) -> None:
    with pytest.raises(Divergence):
        reach_the_old_leader(seed, careful=False)


def test_a_vote_just_before_the_wipe_is_not_given_twice() -> None:
    """n3 has voted for n1, which does not know it yet; then its disk is gone and n2 stands in that term."""
    sim = SimCluster(3, seed=8)
    sim.elect()
    sim.settle()
    for node_id in sim.ids:
        sim.crash(node_id)
    delayed: list[peer_pb2.PeerFrame] = []

    def keep_votes(sender: str, receiver: str, frame: peer_pb2.PeerFrame) -> peer_pb2.PeerFrame | None:
        body = frame.WhichOneof("body")
        if body == "vote_reply" and not frame.vote_reply.pre_vote and frame.vote_reply.granted:
            delayed.append(frame)
            return None
        return frame

    sim.network.taps.append(keep_votes)
    for node_id in ("n1", "n3"):
        sim.start(node_id)
    assert sim.run_until(lambda: bool(delayed))
    term = delayed[0].term
    voter = next(n for n in ("n1", "n3") if core_of(sim.nodes[n])._SyncObj__votedForNodeId not in (None, n))
    candidate = "n1" if voter == "n3" else "n3"
    sim.pause(candidate)
    wiped(sim, voter)
    sim.start("n2")
    sim.run_for(3.0)
    # The candidate may still win: nobody votes in that term.
    assert not is_voter(sim, voter)
    assert sim.leader() is None
    sim.network.taps.clear()
    sim.resume(candidate)
    sim.elect(limit=10.0)
    until_voter(sim, voter)
    assert core_of(sim.nodes[voter]).term >= term
    sim.settle()


# -- birth -------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_birth_takes_no_time_when_all_are_there(nodes: int) -> None:
    sim = SimCluster(nodes, seed=2)
    assert sim.run_until(lambda: all(is_voter(sim, n) for n in sim.ids), 0.1)
    sim.elect()
    sim.run_for(0.5)
    for node in sim.nodes.values():
        assert mark_of(node) is Membership.JOINED
        assert any(isinstance(event, events.Joined) and event.born for event in node.events)


@pytest.mark.parametrize("nodes", [3, 5])
def test_birth_with_a_majority(nodes: int) -> None:
    sim = SimCluster(nodes, seed=3, start=False)
    majority = sim.ids[: nodes // 2 + 1]
    for node_id in majority[:-1]:
        sim.start(node_id)
    sim.run_for(3.0)
    assert not any(is_voter(sim, node_id) for node_id in majority[:-1])
    sim.start(majority[-1])
    sim.elect(limit=3.0)
    assert sim.publish(b"first").ok
    late = others(sim, *majority)
    for node_id in late:
        sim.start(node_id)
    for node_id in late:
        until_voter(sim, node_id)
        assert not any(isinstance(event, events.Joined) and event.born for event in sim.nodes[node_id].events)
    sim.settle()
    sim.check_nothing_lost()


def test_a_node_born_and_restarted_is_a_voter_still() -> None:
    sim = SimCluster(3, seed=5, start=False)
    for node_id in ("n1", "n2"):
        sim.start(node_id)
    assert sim.run_until(lambda: is_voter(sim, "n1"))
    sim.run_for(0.01)
    sim.restart("n1")
    assert is_voter(sim, "n1")
    sim.elect()


# -- wipes ----------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [None, SHORT_LOG], ids=["log", "snapshot"])
@pytest.mark.parametrize("nodes", [3, 5])
def test_one_after_another(nodes: int, settings: object) -> None:
    sim = SimCluster(nodes, seed=6, settings=settings)  # type: ignore[arg-type]
    number = 0
    sim.elect()
    for node_id in sim.ids * 2:
        for _ in range(20):
            number += 1
            assert sim.publish(b"r%d" % number).ok
        wiped(sim, node_id)
        assert core_of(sim.nodes[node_id]).rejoin.joining
        sim.elect(limit=10.0)
        until_voter(sim, node_id)
        sim.elect()
    sim.settle()
    sim.check_nothing_lost()


def test_the_leader() -> None:
    sim = SimCluster(3, seed=7)
    leader = sim.elect().node_id
    sim.settle()
    for number in range(10):
        assert sim.publish(b"r%d" % number).ok
    term = core_of(sim.nodes[leader]).term
    wiped(sim, leader)
    new = sim.elect(limit=10.0)
    assert new.node_id != leader
    until_voter(sim, leader)
    assert core_of(sim.nodes[leader]).term > term
    sim.settle()
    sim.check_nothing_lost()


def test_while_another_is_down() -> None:
    """Of five, one is down and one wiped: the rest go on; the wiped one is fed, and waits for the other."""
    sim = SimCluster(5, seed=9, settings=SHORT_LOG)
    leader = sim.elect().node_id
    sim.settle()
    down, empty = others(sim, leader)[:2]
    sim.crash(down)
    wiped(sim, empty)
    for number in range(50):
        assert sim.publish(b"r%d" % number).ok
    sim.run_for(5.0)
    node = sim.nodes[empty]
    assert not is_voter(sim, empty)
    assert mark_of(node) is Membership.REJOINING
    assert sim.run_until(lambda: node.values() == sim.nodes[leader].values())
    # Nor does a restart make it one: it goes on as what it was.
    sim.restart(empty)
    sim.run_for(2.0)
    assert not is_voter(sim, empty)
    assert node.engine is not None
    assert node.engine.status().joining
    sim.start(down)
    until_voter(sim, empty)
    assert mark_of(node) is Membership.JOINED
    sim.settle()
    sim.check_nothing_lost()


def test_its_copies_count_for_nothing_while_it_knows_too_little() -> None:
    """Of three, one is down and one is wiped: no majority remembers, so nothing is acknowledged."""
    sim = SimCluster(3, seed=10)
    leader = sim.elect().node_id
    sim.settle()
    down, empty = others(sim, leader)
    sim.crash(down)
    wiped(sim, empty)
    sim.run_for(0.1)
    call = sim.propose(b"by whom?", leader, timeout=2.0)
    read = sim.barrier(leader, timeout=2.0)
    sim.run_for(4.0)
    assert not call.ok
    assert not read.ok
    assert sim.leader() is None
    sim.start(down)
    sim.elect()
    until_voter(sim, empty)
    assert sim.publish(b"by all").ok
    sim.settle()
    sim.check_nothing_lost()


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_of_two_the_other_has_everything(role: str) -> None:
    sim = SimCluster(2, seed=15)
    leader = sim.elect().node_id
    assert sim.publish(b"acked").ok
    sim.settle()
    empty = leader if role == "leader" else others(sim, leader)[0]
    sim.wipe(empty)
    sim.run_for(3.0)
    assert sim.leader() is None
    sim.start(empty)
    assert sim.elect().node_id != empty
    until_voter(sim, empty)
    sim.settle()
    sim.check_nothing_lost()


def test_two_of_five_at_once() -> None:
    sim = SimCluster(5, seed=11)
    leader = sim.elect().node_id
    for number in range(10):
        assert sim.publish(b"r%d" % number).ok
    for node_id in others(sim, leader)[:2]:
        sim.wipe(node_id)
    for node_id in others(sim, leader)[:2]:
        sim.start(node_id)
    for node_id in sim.ids:
        until_voter(sim, node_id)
    sim.settle()
    sim.check_nothing_lost()


def test_a_majority_of_disks_lost_is_not_taken_for_a_birth() -> None:
    """What was acknowledged may be gone: the cluster stands still rather than go on without it."""
    sim = SimCluster(3, seed=12)
    leader = sim.elect().node_id
    assert sim.publish(b"acked").ok
    sim.settle()
    for node_id in others(sim, leader):
        wiped(sim, node_id)
    sim.run_for(5.0)
    assert sim.leader() is None
    assert not any(is_voter(sim, node_id) for node_id in others(sim, leader))


def test_a_joining_node_is_not_asked_to_lead() -> None:
    sim = SimCluster(3, seed=13)
    leader = sim.elect()
    sim.settle()
    empty = others(sim, leader.node_id)[0]
    wiped(sim, empty)
    assert sim.run_until(lambda: core_of(leader).followers[empty].joining)
    assert core_of(leader).transfer_leadership(empty) is None


def test_stores_of_earlier_versions_count_as_joined() -> None:
    sim = SimCluster(3, seed=14)
    sim.elect()
    sim.settle()
    sim.run_for(1.0)
    for node_id in sim.ids:
        sim.crash(node_id)
        writer = sim.nodes[node_id].store.writer()
        writer.delete(Table.META, membership.KEY)
        sim.nodes[node_id].store.commit()
    for node_id in sim.ids:
        assert not core_of(sim.start(node_id)).rejoin.joining
    sim.elect()
