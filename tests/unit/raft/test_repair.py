"""A damaged row is never shipped, applied or served; it is fetched from another replica."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from holdfast.chaos.sim import SimCluster, SimNode
from holdfast.chaos.sim.cluster import SimCall
from holdfast.chaos.sim.storm import SHORT_LOG
from holdfast.cluster import events
from holdfast.cluster.engine import EngineSettings
from holdfast.cluster.raft.repair import RepairCounters
from holdfast.errors import StorageError
from holdfast.storage import journal
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Table

#: Nothing is remembered: every row is read back from the store.
NO_CACHE = EngineSettings(cache_bytes=0)


def rot(node: SimNode, table: Table, key: bytes, bit: int) -> None:
    if node.engine is not None:
        node.engine.core.persist_store()  # what is not on the disk cannot rot there
    assert node.store.damage(table, key, bit)


def rotten(node: SimNode, index: int, bit: int = 200) -> DamagedRowError:
    """Flip a bit of a log entry; the error its reader gets."""
    rot(node, Table.JOURNAL, journal.row_key(index), bit)
    with node.store.read() as reader, pytest.raises(DamagedRowError) as caught:
        journal.expect(reader, index)
    return caught.value


def sound(node: SimNode) -> bool:
    """Everything the node keeps can be read."""
    with node.store.read() as reader:
        for table in Table:
            for key, _ in reader.scan(table):
                if table is Table.JOURNAL:
                    journal.expect(reader, journal.index_of(key))
    return True


def counters(node: SimNode) -> RepairCounters:
    assert node.engine is not None
    return node.engine.repairs


def last(node: SimNode) -> int:
    assert node.engine is not None
    return node.engine.status().last_log_index


def tell(node: SimNode, damage: DamagedRowError, seconds: float = 2.0) -> SimCall:
    assert node.engine is not None
    call = SimCall(b"", node.node_id, node.clock.monotonic())
    node.engine.repair(damage, call, node.clock.monotonic() + seconds)
    node.touched = True
    return call


@pytest.mark.parametrize("bit", [0, 40, 95, 96, 104, 300])
def test_a_reader_has_a_row_repaired(bit: int) -> None:
    sim = SimCluster(3, seed=1)
    sim.elect()
    for i in range(5):
        assert sim.publish(b"value %d" % i).ok
    sim.settle()
    for node in sim.nodes.values():  # the leader too
        call = tell(node, rotten(node, 4, bit))
        began = sim.world.now
        sim.run_until(lambda call=call: call.done is not None)  # type: ignore[misc]
        assert call.ok
        assert sim.world.now - began < 0.2
        assert sound(node)
        assert (counters(node).found, counters(node).repaired, counters(node).failed) == (1, 1, 0)
        assert [e for e in node.events if isinstance(e, events.DamageFound)] == [
            events.DamageFound("journal", 4, repairable=True)
        ]
    sim.check_nothing_lost()


def test_an_index_row_is_repaired() -> None:
    sim = SimCluster(3, seed=2)
    leader = sim.elect()
    for i in range(5):
        assert sim.publish(b"value %d" % i).ok
    sim.settle()
    key = leader.store.keys(Table.INDEX)[2]
    rot(leader, Table.INDEX, key, 5)
    with pytest.raises(DamagedRowError) as caught:
        leader.values()
    call = tell(leader, caught.value)
    sim.run_until(lambda: call.done is not None)
    assert call.ok
    sim.check_nothing_lost()


def test_rows_of_the_state_are_told_about_and_not_guessed() -> None:
    sim = SimCluster(3, seed=3)
    leader = sim.elect()
    assert sim.publish(b"value").ok
    sim.settle()
    key = leader.store.keys(Table.GROUPS)[0]
    rot(leader, Table.GROUPS, key, 5)
    with pytest.raises(DamagedRowError, match="empty its data directory") as caught:
        leader.digest()
    call = tell(leader, caught.value)
    sim.run_until(lambda: call.done is not None)
    assert isinstance(call.error, StorageError)
    assert events.DamageFound("groups", None, repairable=False) in leader.events
    # Apply needs it: this node halts, the others go on.
    sim.publish(b"another", timeout=2.0)
    assert isinstance(leader.failure, DamagedRowError)
    sim.elect()
    assert sim.publish(b"a third").ok
    # Restarting does not help, an empty disk does.
    sim.start(leader.node_id)
    sim.run_for(3.0)
    assert not leader.up
    sim.wipe(leader.node_id)
    sim.start(leader.node_id)
    sim.settle()
    sim.check_nothing_lost()


def test_a_damaged_row_is_repaired_before_it_is_applied() -> None:
    sim = SimCluster(3, seed=4, settings=NO_CACHE)
    sim.elect()
    for i in range(5):
        assert sim.publish(b"value %d" % i).ok
    sim.settle()
    follower = sim.followers()[0]
    follower.store.power = "cut_after"  # stored, not acknowledged, not applied
    call = sim.publish(b"the last one")
    assert call.ok
    sim.run_until(lambda: not follower.up)
    with follower.store.read() as reader:
        meta = journal.read_meta(reader)
    assert meta.applied_index < meta.last_index
    rotten(follower, meta.last_index)
    sim.start(follower.node_id)
    sim.settle()
    assert counters(follower).repaired == 1
    assert sound(follower)
    sim.check_nothing_lost()


def test_a_follower_goes_on_claiming_what_it_cannot_read() -> None:
    """Its copy was counted: a vote that denied it could lose the entry."""
    sim = SimCluster(3, seed=5, settings=NO_CACHE)
    leader = sim.elect()
    assert sim.publish(b"value").ok
    sim.settle()
    keeper, away = sim.followers()
    sim.crash(away.node_id)
    assert sim.publish(b"on two nodes").ok
    index = last(leader)
    sim.crash(leader.node_id)
    sim.restart(keeper.node_id)
    rotten(keeper, index)
    sim.start(away.node_id)
    # It may lead, but then cannot go on and ends; the other cannot be elected without it.
    sim.run_for(20.0)
    if not keeper.up:
        assert "damaged on this leader" in str(keeper.failure)
        sim.start(keeper.node_id)
    assert b"on two nodes" not in away.values()
    sim.start(leader.node_id)
    sim.run_for(1.0)
    for node in sim.nodes.values():
        sim.start(node.node_id)
    sim.settle(limit=30)
    assert b"on two nodes" in away.values()
    assert all(sound(node) for node in sim.nodes.values())
    sim.check_nothing_lost()


def test_a_leader_repairs_what_it_ships() -> None:
    sim = SimCluster(3, seed=6, settings=NO_CACHE)
    leader = sim.elect()
    assert sim.publish(b"value").ok
    sim.settle()
    away = sim.followers()[0]
    sim.crash(away.node_id)
    first = last(leader) + 1
    for i in range(5):
        assert sim.publish(b"while it was away %d" % i).ok
    rotten(leader, first)
    rotten(leader, first + 3)
    sim.start(away.node_id)
    sim.settle()
    assert counters(leader).repaired == 2
    assert sim.leader() is leader
    sim.check_nothing_lost()


def test_a_leader_that_cannot_ship_ends() -> None:
    sim = SimCluster(3, seed=7, settings=replace(NO_CACHE, leader_fallback=60.0, repair_deadline=1.0))
    leader = sim.elect()
    assert sim.publish(b"value").ok
    sim.settle()
    others = {node.node_id for node in sim.followers()}
    for other in others:
        sim.network.cut(leader.node_id, other)
        sim.network.cut(other, leader.node_id)
    lost = sim.propose(b"on the leader only", leader.node_id)
    sim.run_for(0.02)
    index = last(leader)
    sim.propose(b"this one is still in memory", leader.node_id)
    sim.run_for(0.02)
    rotten(leader, index)
    for other in others:
        sim.network.heal(leader.node_id, other)
        sim.network.heal(other, leader.node_id)
    sim.run_for(10.0)
    # Either it was deposed in the meantime, or it could not lead.
    assert leader.up or "damaged on this leader" in str(leader.failure)
    assert not lost.ok
    sim.start(leader.node_id)
    sim.elect()
    assert sim.publish(b"afterwards").ok
    sim.settle()
    assert sound(leader)
    sim.check_nothing_lost()


def test_what_is_damaged_leaves_in_no_snapshot() -> None:
    sim = SimCluster(3, seed=8, settings=SHORT_LOG)
    sim.elect()
    away = sim.followers()[0]
    sim.crash(away.node_id)
    for i in range(120):
        assert sim.publish(b"%d-" % i + b"x" * 2000).ok
    leader = sim.elect()
    key = leader.store.keys(Table.INDEX)[10]
    rot(leader, Table.INDEX, key, 99)
    sim.start(away.node_id)
    sim.settle(limit=30)
    assert any(isinstance(event, events.SnapshotInstalled) for event in away.events)
    assert any(isinstance(event, events.SnapshotAborted) for event in leader.events)
    assert counters(leader).repaired == 1
    sim.check_nothing_lost()


def test_another_node_leads_when_the_state_cannot_be_read() -> None:
    sim = SimCluster(3, seed=9, settings=SHORT_LOG)
    sim.elect()
    away = sim.followers()[0]
    sim.crash(away.node_id)
    for i in range(120):
        assert sim.publish(b"%d-" % i + b"x" * 2000).ok
    leader = sim.elect()
    # A row that apply does not need.
    leader.store.writer().put(Table.OFFSETS, b"row", b"value")
    leader.store.commit()
    rot(leader, Table.OFFSETS, b"row", 1)
    sim.start(away.node_id)
    sim.settle(limit=30)
    assert any(isinstance(event, events.SnapshotInstalled) for event in away.events)
    assert sim.leader() is not leader
    sim.check_nothing_lost()


def test_a_row_nobody_has_is_given_up() -> None:
    sim = SimCluster(3, seed=10)
    leader = sim.elect()
    assert sim.publish(b"value").ok
    sim.settle()
    damages = [rotten(node, 3) for node in sim.nodes.values()]
    call = tell(leader, damages[0], 30.0)
    sim.run_until(lambda: call.done is not None, 10.0)
    assert isinstance(call.error, StorageError)
    assert "read from another replica" in str(call.error)
    assert counters(leader).failed == 1
    # The others found theirs when they were asked.
    assert all(counters(node).found == 1 for node in sim.nodes.values())
    late = tell(leader, damages[0], 0.2)
    sim.run_until(lambda: late.done is not None, 10.0)
    assert "in time" in str(late.error)
    assert leader.up


@pytest.mark.parametrize("seed", range(20))
def test_one_rotten_node_of_three_loses_nothing(seed: int) -> None:
    sim = SimCluster(3, seed=seed, settings=replace(SHORT_LOG, cache_bytes=0))
    rng = random.Random(seed)
    bad = sim.nodes[rng.choice(sim.ids)]
    sim.elect()
    for round_number in range(12):
        for i in range(rng.randrange(1, 12)):
            sim.elect(10.0)
            sim.propose(b"%d.%d" % (round_number, i) + b"x" * rng.randrange(300))
            sim.run_for(rng.random() * 0.01)
        keys = bad.store.keys(Table.JOURNAL)
        if keys:
            bad.store.damage(Table.JOURNAL, rng.choice(keys), rng.randrange(1 << 20))
        action = rng.randrange(4)
        if action == 0:
            sim.restart(bad.node_id)
        elif action == 1:
            sim.restart(rng.choice(sim.ids))
        sim.run_for(rng.random())
        for node_id in sim.ids:
            sim.start(node_id)
    sim.settle(limit=60)
    sim.check_nothing_lost()
