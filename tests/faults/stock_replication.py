"""Faults 1, 2, 9, 10, 16, 20, 21 on the stock classes: appending, counting acks, leading."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pysyncobj.journal

from .stock import NO_OP, Lab, append, put_entries


@dataclass
class OldHeartbeat:
    acked_up_to: int
    last_index_before: int
    last_index_after: int


def stock_01(lab: Lab) -> OldHeartbeat:
    """A follower acks entries; an empty append sent before them arrives after them."""
    follower = lab.node("b", ("a", "c"))
    answer = follower.receive("a", append(1, (1, 0), put_entries(2, 1, ["x", "y", "z"]), commit=4))
    follower.tick()
    before = follower.last_index
    follower.receive("a", append(1, (1, 0)))
    return OldHeartbeat(answer[0][1]["next_node_idx"] - 1, before, follower.last_index)


@dataclass
class Resent:
    next_index_before_ack: int
    next_index_after_ack: int
    times_sent: dict[int, int]


def stock_02(lab: Lab) -> Resent:
    """Twenty entries are in flight on a FIFO link; their acks come one by one."""
    leader = lab.node("a")
    leader.elect("b")
    leader.ack("b", 2)
    leader.tick(0.11)
    for value in range(20):
        leader.put(value)
    leader.tick(0.11)
    leader.outbox.sent.clear()
    leader.tick(0.11)
    next_index = leader.private("raftNextIndex")
    peer = next(node for node in leader.obj.otherNodes if node.id == "b")
    before = next_index[peer]
    leader.ack("b", 3)
    after = next_index[peer]
    for index in range(4, 23):
        leader.tick(0.11)
        leader.ack("b", index)
    sent: Counter[int] = Counter()
    for to, message in leader.outbox.sent:
        if to == "b":
            sent.update(index for _, index, _ in message.get("entries", []))
    return Resent(before, after, dict(sent))


@dataclass
class EarlyCommit:
    succeeded: bool
    flushes_of_the_leader: int
    live_followers_that_acked: int


def stock_09(lab: Lab) -> EarlyCommit:
    """One follower of two acks; the leader has flushed nothing."""
    flushes = count_flushes(lab)
    leader = lab.node("a", journalFile=str(lab.path / "journal"))
    leader.elect("b")
    leader.put("x")
    leader.tick(0.11)
    leader.tick(0.11)
    leader.ack("b", 3)
    leader.tick(0.11)
    return EarlyCommit(leader.succeeded("x"), sum(flushes.values()), 1)


def count_flushes(lab: Lab) -> Counter[str]:
    """Count every way in which the journal could reach the disk."""
    calls: Counter[str] = Counter()
    real = pysyncobj.journal.mmap.mmap

    class Map(real):  # type: ignore[misc, valid-type]
        def flush(self, *args: int) -> None:
            calls["mmap.flush"] += 1
            super().flush(*args)

    lab.patch.setattr(pysyncobj.journal, "mmap", type("mmap", (), {"mmap": Map}))
    for name in ("fsync", "fdatasync", "sync"):
        original = getattr(pysyncobj.journal.os, name)

        def counted(*args: int, name: str = name, original: Any = original) -> None:
            calls[name] += 1
            original(*args)

        lab.patch.setattr(pysyncobj.journal.os, name, counted)
    return calls


@dataclass
class OldAck:
    term_in_ack: bool
    commit_before: int
    commit_after: int
    succeeded: bool


def stock_10(lab: Lab) -> OldAck:
    """An ack of term 1 is delayed; its receiver loses the lead and wins it back in term 3."""
    leader = lab.node("a")
    leader.elect("b")
    leader.put("x")
    leader.put("y")
    leader.tick(0.11)
    sent = leader.tick(0.11)
    follower = lab.node("b", ("a", "c"))
    follower.receive("a", {"type": "request_vote", "term": 1, "last_log_index": 1, "last_log_term": 0})
    appends = [message for to, message in leader.outbox.sent if to == "b" and "entries" in message]
    assert sent
    acks = [answer for message in appends for answer in follower.receive("a", message)]
    late = acks[-1][1]  # confirms index 4 of term 1
    # The third node leads term 2 and overwrites everything; then a leads again.
    leader.receive("c", append(2, (1, 0), [(NO_OP, 2, 2)]))
    leader.elect("c")
    leader.put("z")
    leader.tick(0.11)
    before = leader.commit
    leader.receive("b", late)
    leader.tick(0.11)
    return OldAck("term" in late, before, leader.commit, leader.succeeded("z"))


@dataclass
class Chunked:
    finishes: int
    receiver_errors: int
    receiver_last_index: int


def stock_16(lab: Lab) -> Chunked:
    """An entry of 256 KiB random bytes, four times the batch size."""
    leader = lab.node("a")
    follower = lab.node("b", ("a", "c"))
    leader.elect("b")
    for to, message in list(leader.outbox.sent):
        if to == "b" and "entries" in message:
            follower.receive("a", message)
    leader.ack("b", 2)
    leader.tick(0.11)
    leader.outbox.sent.clear()
    leader.obj._applyCommand(random.Random(1).randbytes(256 * 1024), None, 0)
    leader.tick(0.11)
    leader.tick(0.11)
    chunks = [m for to, m in leader.outbox.sent if to == "b" and "transmission" in m]
    errors = 0
    for chunk in chunks:
        try:
            follower.receive("a", chunk)
        except Exception:  # noqa: BLE001 - the stock class lets the unpickler's error out
            errors += 1
    return Chunked(sum(c["transmission"] == "finish" for c in chunks), errors, follower.last_index)


@dataclass
class StaleLeader:
    replies_to_its_append: int
    led_alone_for_seconds: float
    stale_value_read: list[object]
    committed_by_the_others: list[object]


def stock_20(lab: Lab) -> StaleLeader:
    """A leader is cut off; the others elect a new one and commit."""
    a, b, c = lab.node("a", ("b", "c")), lab.node("b", ("a", "c")), lab.node("c", ("a", "b"))
    a.tick(2.0)
    lab.exchange(a, b, c)
    lab.settle(a, b, c)
    assert a.is_leader
    cut = lab.clock.now
    b.tick(2.0)
    lab.exchange(b, c)
    lab.settle(b, c, rounds=3)
    assert b.is_leader
    replies = b.receive("a", append(1, (1, 0)))
    replies += c.receive("a", append(1, (1, 0)))
    b.put("new")
    lab.settle(b, c, rounds=5)
    read: list[object] = a.values
    while a.is_leader and lab.clock.now < cut + 100:
        a.tick(0.5)
    return StaleLeader(len(replies), lab.clock.now - cut, read, b.values)


@dataclass
class Disturbed:
    healthy_leader_before: bool
    healthy_leader_after: bool
    term_before: int
    term_after: int


def stock_21_rejoin(lab: Lab) -> Disturbed:
    """A node that was cut off comes back while the leader is well."""
    a, b, c = lab.node("a", ("b", "c")), lab.node("b", ("a", "c")), lab.node("c", ("a", "b"))
    a.tick(2.0)
    lab.exchange(a, b, c)
    lab.settle(a, b, c)
    c.disconnect("a", "b")
    a.disconnect("c")
    b.disconnect("c")
    lab.settle(a, b, rounds=50)
    was, term = a.is_leader, a.term
    c.connect("a", "b")
    a.connect("c")
    b.connect("c")
    c.tick()
    lab.exchange(a, b, c)
    return Disturbed(was, a.is_leader, term, a.term)


def stock_21_round_trips(lab: Lab, conflicting: int) -> int:
    """How many appends a leader needs to find where a diverged follower agrees with it."""
    leader, follower = lab.node("a", ("b",)), lab.node("b", ("a",))
    for index in range(2, 2 + conflicting):
        leader.journal.add(NO_OP, index, 2)
        follower.journal.add(NO_OP, index, 1)
    leader.obj._SyncObj__raftCurrentTerm = 2
    leader.elect("b")
    leader.outbox.sent.clear()
    trips = 0
    while follower.log != leader.log:
        trips += 1
        for to, message in leader.tick(0.11):
            for _, answer in follower.receive("a", message) if to == "b" else []:
                leader.receive("b", answer)
    return trips
