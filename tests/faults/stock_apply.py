"""Faults 11, 13, 14, 15 and 23 on the stock classes: votes, applying, membership, proposing."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass

import pysyncobj.pickle as wire
from pysyncobj.node import Node

from .stock import NO_OP, Lab, append, put_command


@dataclass
class WonWith:
    one_voter_twice: bool
    a_stranger: bool


def stock_11(lab: Lab) -> WonWith:
    """Five nodes, one of which votes twice; three nodes and a vote from elsewhere."""
    five = lab.node("a", ("b", "c", "d", "e"))
    five.tick(2.0)
    for _ in range(2):
        five.receive("b", {"type": "response_vote", "term": 1})
    three = lab.node("a", ("b", "c"))
    three.tick(2.0)
    three.receive("stranger", {"type": "response_vote", "term": 1})
    return WonWith(five.is_leader, three.is_leader)


@dataclass
class Stuck:
    runs_of_the_bad_entry: int
    ticks_that_raised: int
    applied: int
    heartbeats_sent: int
    heartbeats_due: int


def stock_13(lab: Lab) -> Stuck:
    """One committed entry raises when it is applied on the leader."""
    runs: list[object] = []

    def on_put(value: object) -> None:
        runs.append(value)
        raise ValueError(value)

    leader = lab.node("a", on_put=on_put)
    leader.elect("b")
    leader.ack("b", 2)
    leader.tick(0.11)
    leader.put("bad")
    leader.tick(0.11)
    leader.tick(0.11)
    leader.ack("b", 3)
    leader.outbox.sent.clear()
    raised, ticks = 0, 10
    for _ in range(ticks):
        try:
            leader.tick(0.11)
        except ValueError:
            raised += 1
    return Stuck(len(runs), raised, leader.applied, len(leader.outbox.sent), ticks)


def stock_14(lab: Lab) -> list[object]:
    """A switch to a version this node does not know, then one entry; what was applied."""
    node = lab.node("b", ("a", "c"))
    version = b"\x03" + bytes(wire.dumps(7))
    node.receive("a", append(1, (1, 0), [(version, 2, 1), (put_command("once"), 3, 1)], commit=3))
    for _ in range(3):
        node.tick(0.01)
    return node.values


@dataclass
class TwoMajorities:
    changes_in_flight: int
    index: int
    committed_by_old_leader: int
    committed_by_new_leader: int
    terms_at_index: tuple[int, int]


def stock_15(lab: Lab) -> TwoMajorities:
    """Two voters are added at once: {a, d, e} and {b, c} are both majorities to somebody."""
    a = lab.node("a", ("b", "c"), dynamicMembershipChange=True)
    a.elect("b")
    a.ack("b", 2)
    a.ack("c", 2)
    a.tick(0.11)
    a.obj.addNodeToCluster(Node("d"))
    a.obj.addNodeToCluster(Node("e"))
    a.tick()
    changes = a.last_index - 2
    for newcomer in ("d", "e"):
        a.connect(newcomer)
        a.ack(newcomer, a.last_index)
    a.tick(0.11)

    # b and c never saw either change; both hold the committed no-op of term 1.
    b = lab.node("b", ("a", "c"), dynamicMembershipChange=True)
    b.receive("a", append(1, (1, 0), [(NO_OP, 2, 1)], commit=2))
    b.elect("c")
    b.put("other")
    b.tick(0.11)
    b.ack("c", b.last_index)
    b.tick(0.11)
    terms = (dict(a.log)[3], dict(b.log)[3])
    return TwoMajorities(changes, 3, a.commit, b.commit, terms)


@dataclass
class FullPipe:
    raised: type[Exception] | None
    queued_although_raised: bool
    applied_after_retry: list[object]


def stock_23(lab: Lab) -> FullPipe:
    """A caller proposes faster than the node ticks, gets an error and tries again."""
    node = lab.node("a", ("b",), appendEntriesUseBatch=False)
    notifier = node.private("pipeNotifier")
    fcntl.fcntl(notifier._PipeNotifier__pipeW, fcntl.F_SETPIPE_SZ, 4096)  # fill it sooner
    raised: type[Exception] | None = None
    value = 0
    while raised is None:
        try:
            node.obj.put(value)
            value += 1
        except BlockingIOError as error:
            raised = type(error)
    node.elect("b")
    node.tick()
    node.obj.put(value)  # the retry
    node.tick()
    node.ack("b", node.last_index)
    node.tick()
    node.tick()
    copies = [applied for applied in node.values if applied == value]
    return FullPipe(raised, len(copies) > 1, copies)
