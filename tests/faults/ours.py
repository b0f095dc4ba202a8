"""Our engine under the same virtual clock and with the same verbs as the stock laboratory.

A node is a whole ``Engine`` over an in-memory store that loses what was not
committed when its power is cut. Frames are serialised on the way, so that
nodes never share objects.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from holdfast.cluster import commands
from holdfast.cluster.engine import Engine
from holdfast.cluster.ports import PeerConnected, PeerDisconnected, PeerMessage, TransportEvent
from holdfast.cluster.raft.cures import ALL, Cures
from holdfast.cluster.raft.host import MachineLike
from holdfast.cluster.raft.settings import EngineSettings
from holdfast.cluster.results import Completed, Progress
from holdfast.errors import HoldfastError
from holdfast.storage import membership
from holdfast.storage.membership import Membership
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Store, Table, Writer
from holdfast.v1 import log_pb2, peer_pb2, topics_pb2

from .stock import Clock

Frame = peer_pb2.PeerFrame
PREFIX = b"test"
AnyStore = TypeVar("AnyStore", bound=MemoryStore)


class WallClock:
    """The engine's clock port over the laboratory's clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def monotonic(self) -> float:
        return self._clock.now

    def wall_us(self) -> int:
        return 1_700_000_000_000_000 + int(self._clock.now * 1_000_000)


def put_op(value: str) -> bytes:
    """An operation that appends ``value`` to the test machine's list."""
    return commands.encode_op(log_pb2.Op(create_topic=log_pb2.CreateTopicOp(name=value)))


def put_entry(*values: str) -> bytes:
    return commands.encode_entry(0, [put_op(value) for value in values])


@dataclass
class Applied:
    results: list[log_pb2.OpResult]
    touched: set[tuple[int, int]] = field(default_factory=set)
    topics_changed: bool = False
    groups_changed: set[str] = field(default_factory=set)


class ListMachine:
    """A state machine that keeps every value in the store, keyed by log index and place."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.fail_with: Exception | None = None

    def apply(self, writer: Writer, index: int, entry: bytes) -> Applied:
        if self.fail_with is not None:
            raise self.fail_with
        results = []
        for place, decoded in enumerate(commands.decode_entry(entry)[1]):
            value = decoded.op.create_topic.name
            self.runs.append(value)
            key = PREFIX + index.to_bytes(8, "big") + place.to_bytes(4, "big")
            writer.put(Table.GROUPS, key, value.encode())
            results.append(log_pb2.OpResult(topic=topics_pb2.Topic(name=value)))
        return Applied(results)

    def reset(self) -> None:
        return


def voter_store(store: AnyStore) -> AnyStore:
    """Make an empty store that of a node known to have no past: it votes at once."""
    membership.write(store.writer(), Membership.JOINED)
    store.commit()
    return store


class HandTransport:
    """Links that carry what a test hands over, and keep what was sent."""

    def __init__(self) -> None:
        self.events: list[TransportEvent] = []
        self.sent: list[tuple[str, Frame]] = []
        self.up: set[str] = set()
        self.closed = False

    def start(self) -> None:
        return

    def poll(self, timeout: float) -> Sequence[TransportEvent]:
        taken, self.events = self.events, []
        return taken

    def send(self, node_id: str, frame: Frame) -> bool:
        if node_id not in self.up:
            return False
        self.sent.append((node_id, Frame.FromString(frame.SerializeToString())))
        return True

    def send_append(self, node_id: str, frame: Frame, commands: Sequence[bytes]) -> bool:
        whole = Frame.FromString(frame.SerializeToString())
        for entry, command in zip(whole.append.entries, commands, strict=True):
            entry.command = command
        return self.send(node_id, whole)

    def backlog(self, node_id: str) -> int:
        return 0

    def wake(self) -> None:
        return

    def close(self) -> None:
        self.closed = True


class Sink:
    """Keeps what callers are told."""

    def __init__(self) -> None:
        self.completed: dict[object, Completed] = {}
        self.progress: Progress | None = None

    def deliver(self, completed: Sequence[Completed], progress: Progress) -> None:
        for item in completed:
            assert item.token not in self.completed, f"{item.token} ended twice"
            self.completed[item.token] = item
        self.progress = progress

    def awaits(self, touched: Iterable[tuple[int, int]]) -> bool:
        return False


class OurNode:
    """One engine, driven one event at a time."""

    def __init__(
        self,
        clock: Clock,
        name: str,
        others: Sequence[str] = ("b", "c"),
        *,
        store: Store | None = None,
        cures: Cures = ALL,
        settings: EngineSettings | None = None,
        seed: int = 1,
        transport: HandTransport | None = None,
        machine: MachineLike | None = None,
    ) -> None:
        self.clock = clock
        self.name = name
        self.others = tuple(others)
        self.cures = cures
        self.settings = settings or EngineSettings()
        self.store: Store = store if store is not None else voter_store(MemoryStore())
        self.events: list[object] = []
        self.boots = dict.fromkeys((*others, "stranger"), 7)
        self._seed = seed
        self.transport = transport or HandTransport()
        self._given_machine = machine
        self._start()

    def _start(self) -> None:
        self.machine = ListMachine()
        self.sink = Sink()
        self._seed += 1
        self.engine = Engine(
            settings=self.settings,
            node_id=self.name,
            members=(self.name, *self.others),
            store=self.store,
            transport=self.transport,
            clock=WallClock(self.clock),
            rng=random.Random(f"{self.name} {self._seed}"),
            machine=self._given_machine or self.machine,
            sink=self.sink,
            events=self.events.append,
            cures=self.cures,
        )
        self.engine.start()
        self.connect(*self.others)

    # -- driving ---------------------------------------------------------------

    def connect(self, *names: str) -> None:
        for name in names:
            self.transport.up.add(name)
            self.transport.events.append(PeerConnected(name, f"{name}:1"))

    def disconnect(self, *names: str, refused: bool = False) -> None:
        for name in names:
            self.transport.up.discard(name)
            self.transport.events.append(PeerDisconnected(name, refused))

    def deliver(self, sender: str, frame: Frame) -> None:
        """Put a frame on the link; the next turn takes it."""
        copy = Frame.FromString(frame.SerializeToString())
        if not copy.boot_id:
            copy.boot_id = self.boots[sender]
        self.transport.events.append(PeerMessage(sender, copy))

    def receive(self, sender: str, *frames: Frame) -> list[tuple[str, Frame]]:
        """Hand over frames and take one turn; what was sent."""
        for frame in frames:
            self.deliver(sender, frame)
        return self.tick()

    def tick(self, seconds: float = 0.0) -> list[tuple[str, Frame]]:
        """Let time pass, then take one turn; what was sent."""
        self.clock.advance(seconds)
        before = len(self.transport.sent)
        self.engine.turn(0.0)
        return self.transport.sent[before:]

    def elect(self, *voters: str) -> None:
        """Win an election: pre-vote and vote of each voter."""
        self.tick()
        self.tick(2.0)
        term = self.term + 1
        if self.cures.pre_vote:
            assert not self.is_leader
            self.receive(voters[0], vote(self.term, term, pre_vote=True))
            for voter in voters[1:]:
                self.receive(voter, vote(self.term, term, pre_vote=True))
        for _ in range(3):
            if self.term == term:
                break
            self.tick(0.001)
        assert self.term == term
        for voter in voters:
            self.receive(voter, vote(term, term))
        assert self.is_leader

    def elect_by_timeout(self, *peers: OurNode) -> None:
        """Win an election against live peers."""
        self.tick()
        self.tick(2.0)
        for _ in range(20):
            if self.is_leader:
                break
            exchange(self, *peers)
            self.clock.advance(0.001)
        assert self.is_leader

    def put(self, value: str, patience: float = 10.0) -> None:
        self.engine.propose(put_op(value), value, self.clock.now + patience)

    def ack(self, follower: str, index: int, round_number: int = 0) -> list[tuple[str, Frame]]:
        return self.receive(follower, append_reply(self.term, index, round_number))

    def power_cut(self, *, restart: bool = True) -> None:
        """Lose what was not committed; the process starts anew from the rest."""
        assert isinstance(self.store, MemoryStore)
        self.store.power_cut()
        self.transport.events.clear()
        self.transport.sent.clear()
        self.transport.up.clear()
        if restart:
            self._start()

    # -- looking ---------------------------------------------------------------

    @property
    def log(self) -> list[tuple[int, int]]:
        """(index, term) from the base on."""
        journal = self.engine.core.journal
        return [(entry[1], entry[2]) for entry in journal[0:]]

    @property
    def last_index(self) -> int:
        return self.engine.core.journal.last_index

    @property
    def commit(self) -> int:
        return self.engine.core.commit_index

    @property
    def applied(self) -> int:
        return self.engine.core.applied_index

    @property
    def term(self) -> int:
        return self.engine.core.term

    @property
    def is_leader(self) -> bool:
        return self.engine.core.leading

    @property
    def values(self) -> list[str]:
        """What the state holds, in order; also what is not committed to the store yet."""
        return read_values(self.store)

    def succeeded(self, value: str) -> bool:
        item = self.sink.completed.get(value)
        return item is not None and item.error is None

    def error(self, token: object) -> HoldfastError | None:
        item = self.sink.completed.get(token)
        return None if item is None else item.error

    def durable(self) -> bool:
        """Nothing would be lost by a power cut now."""
        return not self.store.at_risk


def read_values(store: Store) -> list[str]:
    rows = store.writer().scan(Table.GROUPS, PREFIX, PREFIX + b"\xff")
    return [value.decode() for _, value in rows]


# -- frames -------------------------------------------------------------------


def append(
    term: int,
    prev: tuple[int, int],
    entries: Sequence[tuple[int, int, str | None]] = (),
    commit: int = 1,
    round_number: int = 0,
) -> Frame:
    """An append; entries are (index, term, value), None being a no-op."""
    frame = Frame(term=term)
    body = frame.append
    body.prev_index, body.prev_term = prev
    body.commit_index = commit
    body.round = round_number
    for index, entry_term, value in entries:
        command = b"" if value is None else put_entry(value)
        body.entries.add(index=index, term=entry_term, command=command, kind=int(value is None))
    return frame


def append_reply(term: int, match: int, round_number: int = 0) -> Frame:
    reply = peer_pb2.AppendReply(success=True, match_index=match, last_index=match, round=round_number)
    return Frame(term=term, append_reply=reply)


def refusal(term: int, rejected_prev: int, last: int) -> Frame:
    reply = peer_pb2.AppendReply(success=False, rejected_prev=rejected_prev, last_index=last)
    return Frame(term=term, append_reply=reply)


def vote(term: int, for_term: int, *, pre_vote: bool = False, granted: bool = True) -> Frame:
    return Frame(term=term, vote_reply=peer_pb2.VoteReply(pre_vote=pre_vote, term=for_term, granted=granted))


def vote_request(term: int, last: tuple[int, int], *, pre_vote: bool = False) -> Frame:
    """``last`` is (index, term) of the candidate's last entry."""
    request = peer_pb2.VoteRequest(pre_vote=pre_vote, term=term, last_index=last[0], last_term=last[1])
    return Frame(term=term - 1 if pre_vote else term, vote_request=request)


def entries_sent(sent: Sequence[tuple[str, Frame]], to: str) -> list[int]:
    """Indexes of the entries sent to a node, in order, repeats included."""
    return [
        entry.index
        for name, frame in sent
        if name == to and frame.WhichOneof("body") == "append"
        for entry in frame.append.entries
    ]


def replies(sent: Sequence[tuple[str, Frame]], kind: str) -> list[Frame]:
    return [frame for _, frame in sent if frame.WhichOneof("body") == kind]


def exchange(*nodes: OurNode) -> int:
    """Deliver everything sent so far, then a turn each; how many frames that were."""
    by_name = {node.name: node for node in nodes}
    batch = []
    for node in nodes:
        batch += [(node.name, to, frame) for to, frame in node.transport.sent if to in by_name]
        node.transport.sent.clear()
    for sender, to, frame in batch:
        by_name[to].deliver(sender, frame)
    for node in nodes:
        node.engine.turn(0.0)
    return len(batch)
