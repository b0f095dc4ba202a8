"""What our engine does where faults 1, 2, 9, 10, 16, 20 and 21 hit the stock classes."""

from __future__ import annotations

import random
from collections import Counter

from holdfast.chaos.sim import SimCluster
from holdfast.cluster.raft.cures import ALL, Cures
from holdfast.storage import journal as rows
from holdfast.storage.memory_store import MemoryStore

from .ours import OurNode, append, append_reply, entries_sent, exchange, put_entry, replies
from .stock import Clock
from .stock_replication import Chunked, Disturbed, EarlyCommit, OldAck, OldHeartbeat, Resent, StaleLeader


def ours_01(clock: Clock, cures: Cures = ALL, *, commit: int = 1) -> OldHeartbeat:
    node = OurNode(clock, "b", ("a", "c"), cures=cures)
    entries = [(2, 1, "x"), (3, 1, "y"), (4, 1, "z")]
    answer = node.receive("a", append(1, (1, 0), entries, commit=commit))
    acked = replies(answer, "append_reply")[0].append_reply
    assert acked.success
    before = node.last_index
    node.receive("a", append(1, (1, 0)))  # empty and old
    node.receive("a", append(1, (1, 0), entries[:1]))  # short and old
    return OldHeartbeat(acked.match_index, before, node.last_index)


def ours_02(clock: Clock, cures: Cures = ALL) -> Resent:
    leader = OurNode(clock, "a", cures=cures)
    leader.elect("b")
    leader.ack("b", 2)
    for value in range(20):
        leader.put(f"v{value}")
        leader.tick(0.001)
    core = leader.engine.core
    peer = core.followers["b"]
    before = core.next_index(peer)
    leader.ack("b", 3)
    after = core.next_index(peer)
    for index in range(4, 23):
        leader.tick(0.06)
        leader.ack("b", index)
    return Resent(before, after, dict(Counter(entries_sent(leader.transport.sent, "b"))))


def ours_09(clock: Clock, cures: Cures = ALL) -> EarlyCommit:
    """The leader has shipped an entry and is slow to flush; a follower's ack is there first."""
    leader = OurNode(clock, "a", cures=cures)
    leader.elect("b")
    leader.ack("b", 2)
    leader.tick(0.01)
    leader.put("x")
    core = leader.engine.core
    core.tick()  # what a turn does before its commit: append and ship
    assert entries_sent(leader.transport.sent, "b")[-1] == 3
    frame = append_reply(leader.term, 3)
    frame.boot_id = leader.boots["b"]
    core.receive("b", frame, clock.now)
    core.tick()
    early = leader.commit >= 3
    leader.tick()  # flushes
    leader.tick()
    assert leader.succeeded("x")
    return EarlyCommit(early, 0, 1)


def ours_10(clock: Clock, cures: Cures = ALL) -> OldAck:
    leader = OurNode(clock, "a", cures=cures)
    leader.elect("b")
    leader.ack("b", 2)
    for value in ("w", "x", "y"):
        leader.put(value)
        leader.tick()
    late = append_reply(1, 5)  # confirms index 5 of term 1
    # The third node, elected without b's knowledge of 3 to 5, overwrites them; then a leads again.
    leader.disconnect("b")
    leader.connect("b")
    leader.receive("c", append(2, (2, 1), [(3, 2, None)]))
    leader.elect("c")
    leader.put("z")
    leader.tick()
    before = leader.commit
    leader.receive("b", late)
    leader.tick()
    return OldAck(bool(late.term), before, leader.commit, leader.succeeded("z"))


def ours_16(clock: Clock) -> Chunked:
    leader, follower = OurNode(clock, "a"), OurNode(clock, "b", ("a", "c"))
    leader.elect_by_timeout(follower)
    while exchange(leader, follower):
        pass
    noise = random.Random(1).randbytes(128 * 1024).hex()  # 256 KiB of text
    leader.put(noise)
    leader.tick()
    carrying = entries_sent(leader.transport.sent, "b").count(3)
    while exchange(leader, follower):
        pass
    leader.tick(0.06)
    while exchange(leader, follower):
        pass
    assert follower.values == [noise]
    return Chunked(carrying, 0, follower.last_index)


def ours_20(seed: int = 1, cures: Cures = ALL) -> tuple[StaleLeader, bool]:
    """As in the stock half; and whether the cut-off leader answered a linearizable read."""
    sim = SimCluster(3, seed=seed, cures=cures)
    old = sim.elect()
    others = [node for node in sim.nodes.values() if node is not old]
    sim.run_for(0.2)
    cut = sim.world.now
    sim.network.partition([old.node_id], [node.node_id for node in others], notice_after=None)
    assert sim.run_until(lambda: any(n.engine and n.engine.core.ready_to_read for n in others), 3.0)
    new = next(n for n in others if n.engine and n.engine.core.leading)
    assert sim.publish(b"new", new.node_id).ok
    sim.run_for(0.01)
    read = sim.barrier(old.node_id, timeout=0.5)
    values: list[object] = [*old.values()]
    assert old.engine is not None
    engine = old.engine
    sim.run_until(lambda: not engine.core.leading, 100.0)
    led = sim.world.now - cut
    sim.run_until(lambda: read.done is not None, 2.0)

    follower = OurNode(Clock(), "b", ("a", "c"))
    follower.receive("a", append(2, (1, 0)))
    answers = follower.receive("c", append(1, (1, 0)))
    told = [frame for frame in replies(answers, "append_reply") if frame.term == 2]
    committed: list[object] = [*new.values()]
    return StaleLeader(len(told), led, values, committed), read.ok


def ours_21_rejoin(seed: int = 1, cures: Cures = ALL) -> Disturbed:
    sim = SimCluster(3, seed=seed, cures=cures)
    leader = sim.elect()
    lone = next(node for node in sim.nodes.values() if node is not leader)
    assert leader.engine is not None
    core = leader.engine.core
    sim.run_for(0.2)
    others = [node for node in sim.ids if node != lone.node_id]
    # Alone, and with links that look alive: it keeps trying.
    sim.network.partition([lone.node_id], others, notice_after=None)
    sim.run_for(10.0)
    was, term = core.leading, core.term
    sim.network.heal_all()
    sim.run_for(0.3)
    return Disturbed(was, core.leading, term, core.term)


def ours_21_round_trips(clock: Clock, conflicting: int) -> int:
    """How many appends a leader needs to find where a diverged follower agrees with it."""
    leader = OurNode(clock, "a", ("b",), store=_diverged(2, conflicting))
    follower = OurNode(clock, "b", ("a",), store=_diverged(1, conflicting))
    leader.elect_by_timeout(follower)
    trips = 0
    while follower.log != leader.log:
        sent = leader.tick(0.01)
        trips += len(replies(sent, "append"))
        exchange(leader, follower)
        assert trips < 2 * conflicting
    return trips


def _diverged(term: int, entries: int) -> MemoryStore:
    """A store whose log holds entries of one term that another term's leader may not share."""
    store = MemoryStore()
    writer = store.writer()
    for index in range(2, 2 + entries):
        rows.append(writer, index, term, rows.EntryKind.COMMAND, put_entry(f"{term} {index}"))
    rows.set_term_and_vote(writer, term, None)
    store.commit()
    return store
