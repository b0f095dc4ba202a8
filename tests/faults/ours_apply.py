"""What our engine does where faults 11, 13, 14, 15 and 23 hit the stock classes."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.cluster import commands
from holdfast.cluster.raft.cures import ALL, Cures
from holdfast.cluster.raft.settings import EngineSettings
from holdfast.cluster.state.machine import StateMachine
from holdfast.errors import HoldfastError, OverloadedError, StorageError
from holdfast.storage.memory_store import MemoryStore
from holdfast.v1 import log_pb2

from .ours import OurNode, append, append_reply, replies, vote, voter_store
from .stock import Clock
from .stock_apply import FullPipe, WonWith

VERSION, MEMBERSHIP = 3, 2  # kinds of entry that PySyncObj would unpickle


def _candidate(clock: Clock, others: tuple[str, ...], cures: Cures) -> OurNode:
    """A node that stands for election in term 1, having one vote: its own."""
    node = OurNode(clock, "a", others, cures=cures)
    node.tick()
    node.tick(2.0)
    for voter in others[: (len(others) + 1) // 2]:
        node.receive(voter, vote(0, 1, pre_vote=True))
    node.tick(0.001)
    assert (node.term, node.is_leader) == (1, False)
    return node


def ours_11(clock: Clock, cures: Cures = ALL) -> WonWith:
    five = _candidate(clock, ("b", "c", "d", "e"), cures)
    five.receive("b", vote(1, 1), vote(1, 1))
    five.disconnect("b")  # a repeat on a new link of another run does not count either
    five.connect("b")
    again = vote(1, 1)
    again.boot_id = 99
    five.receive("b", again)
    three = _candidate(clock, ("b", "c"), cures)
    three.receive("stranger", vote(1, 1))
    won = WonWith(five.is_leader, three.is_leader)
    if not won.one_voter_twice:
        five.receive("c", vote(1, 1))
        assert five.is_leader, "two different voters are enough"
    return won


@dataclass
class Carried:
    results: list[str | None]
    applied: int
    commit: int
    heartbeats_sent: int
    heartbeats_due: int


def ours_13_bad_entries() -> Carried:
    """Entries that cannot be executed: refused, of an unknown kind, unreadable. The next one can."""
    machine = StateMachine()
    store = voter_store(MemoryStore())
    bad_topic = log_pb2.Op(create_topic=log_pb2.CreateTopicOp(name="//", partitions=1))
    garbage = b"\x01not an entry"
    good = log_pb2.Op(create_topic=log_pb2.CreateTopicOp(name="good", partitions=1))
    entries = [_entry(bad_topic), _entry(log_pb2.Op()), garbage, _entry(good)]

    node = OurNode(Clock(), "b", ("a", "c"), store=store, machine=machine)
    frame = append(1, (1, 0), commit=5)
    for at, command in enumerate(entries):
        frame.append.entries.add(index=2 + at, term=1, command=command, kind=0)
    node.receive("a", frame)
    node.tick()
    reasons: list[str | None] = []
    replayed = MemoryStore()
    for at, command in enumerate(entries):
        result = StateMachine().apply(replayed.writer(), 2 + at, command).results[0]
        reasons.append(result.error.reason if result.HasField("error") else None)

    # The same node, now leading, goes on with its heartbeats.
    node.elect("c")
    node.transport.sent.clear()
    for _ in range(10):
        node.tick(node.settings.heartbeat + 0.001)
    sent = sum(1 for to, f in node.transport.sent if to == "c" and f.WhichOneof("body") == "append")
    return Carried(reasons, node.applied, 5, sent, 10)


def _entry(op: log_pb2.Op) -> bytes:
    return commands.encode_entry(1, [commands.encode_op(op)])


@dataclass
class Halted:
    runs: int
    acks_after: int
    later_proposal: type[HoldfastError] | None
    failed: bool


def ours_13_bad_disk(clock: Clock) -> Halted:
    """The store fails while an entry is applied: the node is over, and says so."""
    node = OurNode(clock, "b", ("a", "c"))
    node.receive("a", append(1, (1, 0), [(2, 1, "x")]))
    node.machine.fail_with = StorageError("reading failed")
    runs = sent = 0
    try:
        sent = len(node.receive("a", append(1, (2, 1), [(3, 1, "y")], commit=3)))
    except StorageError:
        runs = 1
    later: type[HoldfastError] | None = None
    try:
        node.put("z")
    except HoldfastError as error:
        later = type(error)
    return Halted(runs, sent, later, isinstance(node.engine.failed, StorageError))


@dataclass
class Foreign:
    last_index: int
    acked: bool
    members: set[str]
    applied: list[str]


def ours_foreign_kind(clock: Clock, kind: int, cures: Cures = ALL) -> Foreign:
    """14, 15: an append with an entry that PySyncObj would unpickle, then one entry as it should be."""
    node = OurNode(clock, "b", ("a", "c"), cures=cures)
    frame = append(1, (1, 0), commit=2)
    frame.append.entries.add(index=2, term=1, command=b"pickle", kind=kind)
    refused = node.receive("a", frame)
    node.tick()
    last = node.last_index
    acked = any(f.append_reply.success for f in replies(refused, "append_reply"))
    members = {peer.id for peer in node.engine.core.otherNodes}
    node.receive("a", append(1, (1, 0), [(2, 1, "once")], commit=2))
    for _ in range(3):
        node.tick(0.01)
    return Foreign(last, acked, members, node.machine.runs)


def ours_15_stranger(clock: Clock) -> int:
    """Acks from outside the membership: the commit index they lead to."""
    node = OurNode(clock, "a", ("b", "c"))
    node.elect("b")
    node.boots.update({"d": 7, "e": 7})
    for newcomer in ("d", "e"):
        node.connect(newcomer)
        node.receive(newcomer, append_reply(1, node.last_index))
    node.tick()
    assert {peer.id for peer in node.engine.core.otherNodes} == {"b", "c"}
    return node.commit


def ours_23(clock: Clock) -> FullPipe:
    """A caller proposes faster than the engine turns, gets an error and tries again."""
    node = OurNode(clock, "a", ("b",), settings=EngineSettings(max_proposals=10_000))
    node.elect("b")
    node.ack("b", 2)
    raised: type[Exception] | None = None
    value = 0
    while raised is None:
        try:
            node.put(str(value))
            value += 1
        except OverloadedError as error:
            raised = type(error)
    for _ in range(5):
        node.tick()
        node.ack("b", node.last_index)
    copies: list[object] = [applied for applied in node.values if applied == str(value)]
    queued = bool(copies)
    node.put(str(value))  # the retry
    for _ in range(3):
        node.tick()
        node.ack("b", node.last_index)
    copies = [applied for applied in node.values if applied == str(value)]
    return FullPipe(raised, queued, copies)
