"""A laboratory for PySyncObj's stock classes: virtual clock, own transport, nothing replaced.

Nodes are driven one call at a time: a test hands a node a message, lets it
tick, and looks at what it sent and what it holds. Messages go through pickle,
as they do on the library's own wire, so that nodes never share objects.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pysyncobj.pickle as wire
import pysyncobj.syncobj
import pytest
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.node import Node
from pysyncobj.transport import Transport

Message = dict[str, Any]
Entry = tuple[bytes, int, int]  # command, index, term: the library's own shape

NO_OP = b"\x01"


@contextmanager
def leaks_allowed() -> Iterator[None]:
    """The stock journal leaves files to the garbage collector; ours must not, so this is no global filter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Ledger(SyncObj):  # type: ignore[misc]
    """A replicated list; ``on_put`` lets a test see or break the apply step."""

    def __init__(self, *args: Any, on_put: Callable[[object], None] | None = None, **kwargs: Any) -> None:
        self.on_put = on_put  # set before the base class: not part of its snapshots
        super().__init__(*args, **kwargs)
        self.values: list[Any] = []

    @replicated  # type: ignore[untyped-decorator]
    def put(self, value: object) -> int:
        if self.on_put is not None:
            self.on_put(value)
        self.values.append(value)
        return len(self.values)


def put_command(value: object) -> bytes:
    """The log command of ``Ledger.put(value)``; the method's number is 0, being the only one."""
    return b"\x00" + bytes(wire.dumps((0, (value,))))


def put_entries(first: int, term: int, values: Iterable[object]) -> list[Entry]:
    """Log entries of ``Ledger.put``, one per value, from index ``first``."""
    return [(put_command(value), first + i, term) for i, value in enumerate(values)]


class Outbox(Transport):  # type: ignore[misc]
    """Keeps what a node sends; delivery is the test's business."""

    def __init__(self, owner: SyncObj, self_node: Node, others: Iterable[Node]) -> None:
        super().__init__(owner, self_node, others)
        self.sent: list[tuple[str, Message]] = []
        self.on_send: Callable[[str, Message], None] | None = None

    def send(self, node: Node, message: Message) -> bool:
        copy = wire.loads(wire.dumps(message))
        self.sent.append((node.id, copy))
        if self.on_send is not None:
            self.on_send(node.id, copy)
        return True


class StockNode:
    """One stock ``SyncObj`` and short names for what a test wants of it."""

    def __init__(self, clock: Clock, name: str, others: Sequence[str], **conf: Any) -> None:
        self.clock = clock
        self.name = name
        self.others = tuple(others)
        self.outcomes: dict[object, list[tuple[object, int]]] = {}
        on_put = conf.pop("on_put", None)
        made: list[Outbox] = []

        def transport(*args: Any) -> Outbox:
            made.append(Outbox(*args))
            return made[0]

        self.obj = Ledger(
            Node(name),
            [Node(other) for other in others],
            conf=SyncObjConf(autoTick=False, **conf),
            transportClass=transport,
            on_put=on_put,
        )
        self.outbox = made[0]
        self.connect(*others)

    # -- driving ---------------------------------------------------------------

    def connect(self, *names: str) -> None:
        for name in names:
            self.outbox._onNodeConnected(Node(name))

    def disconnect(self, *names: str) -> None:
        for name in names:
            self.outbox._onNodeDisconnected(Node(name))

    def receive(self, sender: str, message: Message) -> list[tuple[str, Message]]:
        """Hand over a message; what the node sent in answer."""
        before = len(self.outbox.sent)
        self.outbox._onMessageReceived(Node(sender), wire.loads(wire.dumps(message)))
        return self.outbox.sent[before:]

    def tick(self, seconds: float = 0.0) -> list[tuple[str, Message]]:
        """Let time pass, then tick once; what the node sent."""
        before = len(self.outbox.sent)
        self.clock.advance(seconds)
        self.obj.doTick(0.0)
        return self.outbox.sent[before:]

    def elect(self, *voters: str) -> None:
        """Let the election time out, hand in the voters' votes."""
        self.tick(2.0)
        for voter in voters:
            self.receive(voter, {"type": "response_vote", "term": self.term})
        assert self.is_leader

    def put(self, value: object) -> None:
        """Propose; the outcome arrives in ``outcomes[value]``."""
        results = self.outcomes.setdefault(value, [])
        self.obj.put(value, callback=lambda result, error: results.append((result, error)))

    def ack(self, follower: str, index: int) -> None:
        """A follower's confirmation of everything up to ``index``."""
        self.receive(
            follower,
            {"type": "next_node_idx", "next_node_idx": index + 1, "reset": False, "success": True},
        )

    def close(self) -> None:
        self.obj.destroy()

    # -- looking ---------------------------------------------------------------

    def private(self, name: str) -> Any:
        return getattr(self.obj, f"_SyncObj__{name}")

    @property
    def journal(self) -> Any:
        return self.private("raftLog")

    @property
    def log(self) -> list[tuple[int, int]]:
        """(index, term) of every entry held."""
        return [(index, term) for _, index, term in self.journal[0:]]

    @property
    def last_index(self) -> int:
        return int(self.journal[-1][1])

    @property
    def commit(self) -> int:
        return int(self.obj.raftCommitIndex)

    @property
    def applied(self) -> int:
        return int(self.obj.raftLastApplied)

    @property
    def term(self) -> int:
        return int(self.obj.raftCurrentTerm)

    @property
    def is_leader(self) -> bool:
        return bool(self.obj._isLeader())

    @property
    def values(self) -> list[Any]:
        return list(self.obj.values)

    def succeeded(self, value: object) -> bool:
        """True when the caller was told that ``value`` is in."""
        return any(error == 0 for _, error in self.outcomes[value])


def append(term: int, prev: tuple[int, int], entries: Sequence[Entry] = (), commit: int = 1) -> Message:
    """The library's append message; ``prev`` is (index, term)."""
    return {
        "type": "append_entries",
        "term": term,
        "commit_index": commit,
        "entries": list(entries),
        "prevLogIdx": prev[0],
        "prevLogTerm": prev[1],
    }


def snapshot_chunk(term: int, data: bytes, *, first: bool, last: bool, commit: int = 1) -> Message:
    return {"type": "append_entries", "term": term, "commit_index": commit, "serialized": (data, first, last)}


class Lab:
    """Makes stock nodes that share a virtual clock and seeded randomness."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.clock = Clock()
        self.patch = monkeypatch
        self.path = tmp_path
        self.nodes: list[StockNode] = []
        monkeypatch.setattr(pysyncobj.syncobj, "monotonicTime", self.clock.monotonic)
        rng = random.Random(1)
        monkeypatch.setattr(pysyncobj.syncobj, "random", SimpleNamespace(random=rng.random))

    def node(self, name: str, others: Sequence[str] = ("b", "c"), **conf: Any) -> StockNode:
        node = StockNode(self.clock, name, others, **conf)
        self.nodes.append(node)
        return node

    def exchange(self, *nodes: StockNode) -> int:
        """Deliver everything sent so far, once; how many messages that were."""
        by_name = {node.name: node for node in nodes}
        batch = []
        for node in nodes:
            batch += [(node.name, to, message) for to, message in node.outbox.sent if to in by_name]
            node.outbox.sent.clear()
        for sender, to, message in batch:
            by_name[to].receive(sender, message)
        return len(batch)

    def settle(self, *nodes: StockNode, rounds: int = 10, seconds: float = 0.11) -> None:
        """Ticks and deliveries in turn."""
        for _ in range(rounds):
            for node in nodes:
                node.tick()
            while self.exchange(*nodes):
                pass
            self.clock.advance(seconds)

    def close(self) -> None:
        for node in self.nodes:
            node.close()
