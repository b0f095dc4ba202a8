"""What our engine does where faults 3, 4, 17, 18, 19 and 22 hit the stock classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c
import pytest

from holdfast.chaos.sim import SimCluster
from holdfast.cluster import events
from holdfast.cluster.raft.cures import ALL, Cures
from holdfast.cluster.raft.settings import EngineSettings
from holdfast.errors import StorageError
from holdfast.storage import snapshot
from holdfast.storage.port import Reader
from holdfast.v1 import peer_pb2

from .ours import Frame, OurNode, append, append_reply, refusal, replies
from .stock import Clock
from .stock_snapshot import CorruptSnapshot, DeafTransfer, FalseSuccess

#: The log keeps next to nothing, so that a follower soon needs a snapshot.
SHORT_LOG = EngineSettings(keep_entries=5, keep_entries_for_laggards=5, entry_ops=1)


def chunk(
    term: int,
    data: bytes,
    offset: int,
    *,
    covers: tuple[int, int],
    snapshot_id: int = 1,
    last: bool = False,
) -> Frame:
    """A chunk of a snapshot; ``covers`` is (index, term)."""
    return Frame(
        term=term,
        snapshot_chunk=peer_pb2.SnapshotChunk(
            snapshot_id=snapshot_id,
            offset=offset,
            data=data,
            crc32c=google_crc32c.value(data),
            last=last,
            last_index=covers[0],
            last_term=covers[1],
        ),
    )


def snapshot_replies(sent: list[tuple[str, Frame]]) -> list[peer_pb2.SnapshotReply]:
    return [frame.snapshot_reply for frame in replies(sent, "snapshot_reply")]


def donor(values: list[str], term: int = 1) -> tuple[bytes, tuple[int, int]]:
    """A snapshot of a node that applied ``values``, and what it covers."""
    node = OurNode(Clock(), "d", ("a", "b", "c"))
    entries: list[tuple[int, int, str | None]] = [(2 + at, term, value) for at, value in enumerate(values)]
    node.receive("a", append(term, (1, 0), entries, commit=1 + len(values)))
    node.tick(0.01)
    assert node.values == values
    node.engine.core.commit_store()
    with node.store.read() as reader:
        point = snapshot.point(reader)
        return b"".join(snapshot.export(reader)), (point.last_index, point.last_term)


def ours_03(clock: Clock, cures: Cures = ALL) -> FalseSuccess:
    node = OurNode(clock, "a", cures=cures)
    node.elect("b")
    node.ack("b", 2)
    node.disconnect("b", "c")
    node.put("mine alone")
    node.tick()
    node.connect("c")
    data, covers = donor([f"v{number}" for number in range(8)], term=2)
    node.receive("c", chunk(2, data[: len(data) // 2], 0, covers=covers))
    node.tick(0.01)
    return FalseSuccess(node.succeeded("mine alone"), [*node.values])


def ours_04(clock: Clock, cures: Cures = ALL) -> tuple[CorruptSnapshot, bool]:
    """As the stock half; and whether the node has halted."""
    node = OurNode(clock, "b", ("a", "c"), cures=cures)
    node.receive("a", append(1, (1, 0), [(2, 1, "x")], commit=2))
    node.tick(0.01)
    node.engine.core.commit_store()
    node.transport.sent.clear()
    try:
        node.receive("a", chunk(1, b"not a snapshot", 0, covers=(9, 1), last=True))
    except StorageError:
        halted = True
    else:
        halted = False
    installed = any(reply.installed for reply in snapshot_replies(node.transport.sent))
    node.store.abort()
    return CorruptSnapshot(installed, 9 if installed else 0, [*node.values]), halted


@dataclass
class Spliced:
    wanted_next: list[int]
    installed: bool
    values: list[str]
    values_of_the_whole: list[str]


def ours_17(clock: Clock, cures: Cures = ALL) -> Spliced:
    """The first half of one snapshot, then the second half of another; then the other one whole."""
    old, old_covers = donor(["AAAA", "BBBB", "CCCC"])
    new, new_covers = donor(["aaaa", "bbbb", "cccc"])
    half = len(old) // 2
    node = OurNode(clock, "b", ("a", "c"), cures=cures)
    node.receive("a", chunk(1, old[:half], 0, covers=old_covers, snapshot_id=1))
    node.disconnect("a")
    node.connect("a")
    sent: list[tuple[str, Frame]] = []
    try:
        sent = node.receive("a", chunk(1, new[half:], half, covers=new_covers, snapshot_id=2, last=True))
    except StorageError:
        return Spliced([], False, [], [])
    answers = snapshot_replies(sent)
    values = [*node.values]
    node.receive("a", chunk(1, new[:half], 0, covers=new_covers, snapshot_id=2))
    damaged = chunk(1, new[half:], half, covers=new_covers, snapshot_id=2, last=True)
    damaged.snapshot_chunk.data = b"\0" * (len(new) - half)  # its CRC is that of the real one
    answers += snapshot_replies(node.receive("a", damaged))
    node.receive("a", chunk(1, new[half:], half, covers=new_covers, snapshot_id=2, last=True))
    return Spliced(
        [answer.next_offset for answer in answers],
        any(answer.installed for answer in answers),
        values,
        [*node.values],
    )


def ours_18(seed: int = 1) -> DeafTransfer:
    """A leader feeds a snapshot to the only other live node, for many times the fallback time."""
    window = 32 * 1024
    settings = EngineSettings(
        keep_entries=5,
        keep_entries_for_laggards=5,
        entry_ops=1,
        snapshot_window_bytes=window,
        snapshot_chunk_bytes=8 * 1024,
    )
    sim = SimCluster(3, seed=seed, settings=settings)
    leader = sim.elect()
    late, other = sim.followers()
    sim.crash(late.node_id)
    for number in range(60):
        assert sim.publish(b"%d " % number + b"x" * 5000).ok
    assert leader.engine is not None
    core = leader.engine.core
    chunks: list[int] = []
    answers: list[peer_pb2.SnapshotReply] = []

    def look(sender: str, receiver: str, frame: peer_pb2.PeerFrame) -> peer_pb2.PeerFrame:
        if frame.WhichOneof("body") == "snapshot_chunk" and frame.snapshot_chunk.data:
            chunks.append(len(frame.snapshot_chunk.data))
        if frame.WhichOneof("body") == "snapshot_reply":
            answers.append(frame.snapshot_reply)
        return frame

    sim.network.taps.append(look)
    sim.network.bandwidth = 40_000
    sim.start(late.node_id)
    sim.crash(other.node_id)
    assert sim.run_until(lambda: bool(chunks), 1.0)
    at_once, began, was = list(chunks), sim.world.now, core.leading
    done = sim.run_until(
        lambda: any(isinstance(event, events.SnapshotInstalled) for event in late.events), 60.0
    )
    assert done
    assert sim.world.now - began > 3 * settings.leader_fallback
    return DeafTransfer(len(at_once), sum(at_once), len(answers), was, core.leading)


def needs_snapshot(clock: Clock, settings: EngineSettings = SHORT_LOG) -> OurNode:
    """A leader whose log begins behind what follower ``b`` asks for."""
    leader = OurNode(clock, "a", settings=settings)
    leader.elect("c")
    for number in range(30):
        leader.put(f"v{number}")
        leader.tick(0.001)
        leader.ack("c", leader.last_index)
    for number in range(10):
        leader.put(f"more {number}")
        leader.tick(0.005)
        leader.ack("c", leader.last_index)
    core = leader.engine.core
    assert core.journal.base_index > 20
    leader.transport.sent.clear()
    prev = core.next_index(core.followers["b"]) - 1
    leader.receive("b", refusal(leader.term, prev, 1))
    return leader


@dataclass
class Survived:
    leads_on: bool
    malformed_chunks: int
    follower_values: list[str]
    values: list[str]
    reported: bool


class Flaky:
    """Reads of the state fail for a while, once a snapshot is under way."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.broken = True
        self.failures = 0
        self._real = snapshot.export
        patch.setattr(snapshot, "export", self._export)

    def _export(self, reader: Reader, *, chunk_bytes: int) -> Iterator[bytes]:
        for piece in self._real(reader, chunk_bytes=min(chunk_bytes, 100)):
            yield piece
            if self.broken:
                self.failures += 1
                raise StorageError("Input/output error")


def ours_19(clock: Clock, patch: pytest.MonkeyPatch) -> Survived:
    flaky = Flaky(patch)
    leader = needs_snapshot(clock)
    for _ in range(5):
        leader.tick(0.3)
        leader.receive("c", append_reply(leader.term, leader.last_index))
        leader.receive("b", refusal(leader.term, 1, 1))
    assert flaky.failures
    leads = leader.is_leader
    flaky.broken = False
    follower = OurNode(clock, "b", ("a", "c"))
    malformed = 0
    leader.transport.sent.clear()
    for _ in range(200):
        leader.tick(0.02)
        leader.receive("c", append_reply(leader.term, leader.last_index))
        sent, leader.transport.sent = leader.transport.sent, []
        for to, frame in sent:
            if to != "b" or frame.WhichOneof("body") not in ("append", "snapshot_chunk"):
                continue
            body = frame.snapshot_chunk
            malformed += bool(body.data) and google_crc32c.value(body.data) != body.crc32c
            for _, answer in follower.receive("a", frame):
                answer.boot_id = 0
                leader.receive("b", answer)
        if follower.values == leader.values:
            break
    reported = any(type(event).__name__ == "SnapshotAborted" for event in leader.events)
    return Survived(leads, malformed, [*follower.values], [*leader.values], reported)


@dataclass
class Answered:
    error_after_jump: str | None
    error_after_broken_link: str | None
    error_after_deadline: str | None
    outstanding: int


def ours_22(clock: Clock, cures: Cures = ALL) -> Answered:
    """As the stock half, and a forwarded command that is simply never answered."""
    data, covers = donor([f"v{number}" for number in range(9)], term=2)
    node = OurNode(clock, "a", cures=cures, settings=EngineSettings(outcome_wait=1000.0))
    node.elect("c")
    node.put("waiting", patience=1000.0)
    node.tick()
    node.receive("b", chunk(2, data, 0, covers=covers, last=True))
    assert node.applied == covers[0]
    jumped = node.error("waiting")

    node.put("forwarded", patience=1000.0)
    assert replies(node.tick(), "forward_request")
    node.disconnect("b")
    node.tick()
    broken = node.error("forwarded")

    node.connect("b")
    node.receive("b", append(2, covers))
    node.put("silence", patience=0.5)
    assert replies(node.tick(), "forward_request")
    for _ in range(10):
        node.receive("b", append(2, covers))
        node.tick(0.1)
    late = node.error("silence")
    reasons = [error.reason if error else None for error in (jumped, broken, late)]
    outstanding = node.engine.status().pending_proposals
    return Answered(reasons[0], reasons[1], reasons[2], outstanding)
