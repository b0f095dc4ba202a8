"""What our engine does where faults 5, 6, 7, 8 and 12 hit the stock classes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast.cluster.raft.cures import ALL, Cures
from holdfast.cluster.raft.journal import StoreJournal
from holdfast.cluster.raft.settings import EngineSettings
from holdfast.errors import StorageError
from holdfast.storage import journal as rows
from holdfast.storage.lmdb_store import LmdbStore
from holdfast.storage.memory_store import MemoryStore

from .ours import Frame, HandTransport, OurNode, append, put_entry, replies, vote_request, voter_store
from .stock import Clock
from .stock_storage import Compacted, LostTail, WrongCommit

QUOTA = 1 << 30


class PowerCut(BaseException):
    """The power goes in the middle of a commit."""


class FailingStore(MemoryStore):
    """Loses power at one of its commits: just before it is durable, or just after."""

    def __init__(self, cut_at: int | None, *, before: bool) -> None:
        super().__init__()
        self.commits = 0
        self._cut_at = cut_at
        self._cut_before = before

    def commit(self) -> None:
        if self.dirty:
            self._flush(super().commit)

    def persist(self) -> bool:
        if self.at_risk:
            self._flush(super().persist)
        return not self.dirty

    def _flush(self, flush: Callable[[], object]) -> None:
        self.commits += 1
        cut = self.commits == self._cut_at
        if cut and self._cut_before:
            raise PowerCut
        flush()
        if cut:
            raise PowerCut


#: Trims its log all the time.
TRIMMING = EngineSettings(keep_entries=4, trim_rows_per_turn=3)


def ours_05(clock: Clock) -> list[LostTail]:
    """A follower that trims its log loses power at every commit in turn."""
    found = []
    for before in (True, False):
        cut_at = 1
        while True:
            store = FailingStore(cut_at, before=before)
            node = OurNode(clock, "b", ("a", "c"), store=store, settings=TRIMMING)
            acked = 1
            try:
                for index in range(2, 32):
                    sent = node.receive(
                        "a", append(1, (index - 1, min(index - 2, 1)), [(index, 1, f"v{index}")], index)
                    )
                    acked = replies(sent, "append_reply")[-1].append_reply.match_index
                    node.tick(0.005)
            except PowerCut:
                pass
            else:
                assert node.engine.core.journal.base_index > 20, "the log was trimmed on the way"
                break
            last = node.last_index
            node.power_cut()
            # What was acked is in the state or in the log.
            assert node.values == [f"v{index}" for index in range(2, node.applied + 1)]
            assert node.engine.core.journal.base_index <= node.applied
            found.append(LostTail(acked, last, node.last_index))
            cut_at += 1
    return found


class Witness(HandTransport):
    """Notes what leaves while a power cut would still lose something."""

    def __init__(self) -> None:
        super().__init__()
        self.at_risk: Callable[[], bool] = lambda: False
        self.too_early: list[str] = []

    def send(self, node_id: str, frame: Frame) -> bool:
        kind = frame.WhichOneof("body")
        if self.at_risk() and kind in ("append_reply", "vote_reply", "vote_request"):
            self.too_early.append(str(kind))
        return super().send(node_id, frame)


@dataclass
class Kept:
    sent_too_early: list[str]
    acked: int
    last_index_after_power_cut: int
    votes_in_one_term: int


def ours_06(clock: Clock, cures: Cures = ALL) -> Kept:
    """A follower acks an entry and grants a vote; the power goes in the very commit, and right after it."""
    witness = Witness()
    store = voter_store(FailingStore(None, before=True))
    node = OurNode(clock, "b", ("a", "c"), store=store, transport=witness, cures=cures)
    node.tick()
    witness.at_risk = lambda: store.at_risk

    def told() -> int:
        return max((f.append_reply.match_index for f in replies(witness.sent, "append_reply")), default=0)

    node.receive("a", append(1, (1, 0), [(2, 1, "x")]))
    acked = told()
    store._cut_at, store._cut_before = store.commits + 1, True
    try:
        node.receive("a", append(1, (2, 1), [(3, 1, "y")]))
    except PowerCut:
        acked = max(acked, told())
    node.power_cut()
    kept = node.last_index

    votes = 0
    for candidate in ("a", "c"):
        node.connect(candidate)
        node.tick(2.0)
        answers = node.receive(candidate, vote_request(5, (9, 4)))
        votes += sum(f.vote_reply.granted for f in replies(answers, "vote_reply"))
        node.power_cut()
    return Kept(witness.too_early, acked, kept, votes)


def lmdb_syncs(path: Path) -> bool:
    """True when the environment that brokers run on syncs data and meta page at every commit."""
    store = LmdbStore(path, quota_bytes=QUOTA)
    try:
        flags = store._side.environment.env.flags()
    finally:
        store.close()
    return bool(flags["sync"] and flags["metasync"] and not flags["writemap"])


#: Fills a log, begins to trim it, and is killed with or without having committed that.
_TRIM_AND_DIE = """
import os, pathlib, signal, sys
from holdfast.storage import journal as rows
from holdfast.storage.lmdb_store import LmdbStore
store = LmdbStore(pathlib.Path(sys.argv[1]), quota_bytes=1 << 30)
writer = store.writer()
for index in range(2, 1102):
    rows.append(writer, index, 1, rows.EntryKind.NO_OP, b"")
rows.set_applied(writer, 1101)
store.commit()
rows.trim_to(store.writer(), 101, 1, 1000)
if sys.argv[2] == "True":
    store.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""


def ours_07(path: Path) -> list[Compacted]:
    """A process is killed (SIGKILL) while it trims, before and after the commit."""
    found = []
    for committed in (False, True):
        home = path / f"committed {committed}"
        child = subprocess.run([sys.executable, "-c", _TRIM_AND_DIE, str(home), str(committed)], check=False)
        assert child.returncode == -signal.SIGKILL
        store = LmdbStore(home, quota_bytes=QUOTA)
        with store.read() as reader:
            meta = rows.read_meta(reader)
            kept = sum(1 for _ in rows.scan_terms(reader, 1, 2000))
            assert meta.last_index == 1101
            assert meta.base_index == (101 if committed else 1)
        store.close()
        found.append(Compacted(1100, 1000 if committed else 1100, kept))
    return found


@dataclass
class StrongFile:
    last_index_past_4_gib: int
    last_index_after_torn_write: int
    error_on_damaged_entry: type[Exception] | None


def ours_08(path: Path) -> StrongFile:
    """A log whose positions exceed 32 bits, a write that was torn, a flipped bit."""
    big = 2**32 + 5
    store = LmdbStore(path / "big", quota_bytes=QUOTA)
    writer = store.writer()
    rows.set_base(writer, big, 3)
    rows.append(writer, big + 1, 3, rows.EntryKind.COMMAND, put_entry("hello"))
    store.commit()
    rows.append(store.writer(), big + 2, 3, rows.EntryKind.COMMAND, put_entry("torn"))
    # The file as a power cut leaves it with a transaction under way.
    shutil.copytree(path / "big", path / "torn")
    store.close()

    store = LmdbStore(path / "big", quota_bytes=QUOTA)
    journal = StoreJournal(store, 1 << 20)
    past = journal.last_index
    assert journal.command(past).data == put_entry("hello")
    store.close()

    torn = LmdbStore(path / "torn", quota_bytes=QUOTA)
    with torn.read() as reader:
        after = rows.read_meta(reader).last_index
    torn.close()

    data = path / "big" / "data.mdb"
    content = bytearray(data.read_bytes())
    at = content.index(b"hello")
    while at >= 0:  # every page that ever held it
        content[at] ^= 1
        at = content.find(b"hello")
    data.write_bytes(content)
    damaged = LmdbStore(path / "big", quota_bytes=QUOTA)
    error: type[Exception] | None = None
    try:
        with damaged.read() as reader:
            rows.read(reader, big + 1)
    except StorageError as caught:
        error = type(caught)
    damaged.close()
    return StrongFile(past - big, after - big, error)


def ours_12(clock: Clock) -> list[WrongCommit]:
    """The script of the stock half, with a power cut before and after each commit."""
    newer = ["new 2", "new 3", "new 4", "new 5"]
    found = []
    for before in (True, False):
        for cut_at in range(1, 5):
            store = FailingStore(cut_at, before=before)
            node = OurNode(clock, "b", ("a", "c"), store=store)
            try:
                node.receive("a", append(1, (1, 0), [(2, 1, "old 2"), (3, 1, "old 3")]))
                entries = [(at + 2, 2, value) for at, value in enumerate(newer)]
                node.receive("c", append(2, (1, 0), entries, commit=5))
                node.tick(1.5)
            except PowerCut:
                pass
            node.power_cut()
            stored = node.commit
            node.tick()
            found.append(WrongCommit(stored, node.last_index, [*node.values], [*newer]))
    return found
