"""Export, import, and the switch to the fresh environment."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import ClosedError, StorageError, UnavailableError
from holdfast.storage import groups, identity, journal, partitions, snapshot, topics
from holdfast.storage.data_directory import DataDirectory
from holdfast.storage.identity import open_store
from holdfast.storage.lmdb_store import LmdbStore
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Reader, Store, Table
from holdfast.storage.snapshot import Importer, SnapshotPoint
from holdfast.storage.topics import TopicRow

MIB = 1 << 20
NodeStore = Callable[[str], Store]


@pytest.fixture(params=["memory", "lmdb"])
def node_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NodeStore]:
    """Makes the store of a node of cluster "c"."""
    made: list[Store] = []

    def make(node: str) -> Store:
        store: Store
        if request.param == "memory":
            store = MemoryStore()
            identity.write_identity(store.writer(), "c", node)
            store.commit()
        else:
            store = open_store(tmp_path / node, "c", node, 64 * MIB, map_size=256 * MIB)
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


def fill(store: Store, entries: int = 20, size: int = 100) -> None:
    """Entries 2.. of term 3: batches in two partitions, no-ops, and an unapplied tail."""
    w = store.writer()
    topics.write(w, TopicRow(1, "t", 2, 0, 0, 0, 5))
    states = [partitions.create(w, 1, p) for p in range(2)]
    groups.commit_offset(w, "g", 1, 0, 4)
    for index in range(2, entries + 2):
        if index % 3 == 0:
            journal.append(w, index, 3, 1, b"")
            continue
        p = index % 2
        data = b"%d" % index * size
        journal.append(w, index, 3, 0, data)
        partitions.add_refs(w, index, 1)
        states[p] = partitions.append_batch(
            w,
            1,
            p,
            states[p],
            log_index=index,
            position=journal.ROW_HEADER,
            length=len(data),
            count=2,
            append_time_us=index,
            min_ts=index,
            max_ts=index,
            batch_hash=index,
        )
    journal.set_applied(w, entries + 1)
    journal.set_commit(w, entries + 1)
    journal.append(w, entries + 2, 4, 0, b"not applied")
    journal.set_term_and_vote(w, 4, "exporter")
    partitions.trim(w, 1, 0, 4, limit=9)
    store.commit()


def state_of(r: Reader) -> dict[Table, list[tuple[bytes, bytes]]]:
    """What replicas agree on."""
    return {table: list(r.scan(table)) for table in Table if table not in (Table.META, Table.JOURNAL)}


def everything(r: Reader) -> dict[Table, list[tuple[bytes, bytes]]]:
    return {table: list(r.scan(table)) for table in Table}


def exported(store: Store, chunk_bytes: int = 1 << 20) -> list[bytes]:
    with store.read() as r:
        return list(snapshot.export(r, chunk_bytes=chunk_bytes))


def test_a_replica_from_a_snapshot(node_store: NodeStore) -> None:
    source, target = node_store("n1"), node_store("n2")
    fill(source)
    w = target.writer()
    journal.append(w, 2, 1, 0, b"old entry of the receiver")
    journal.set_term_and_vote(w, 7, "n3")
    groups.commit_offset(w, "gone", 9, 9, 9)
    target.commit()

    importer = Importer(target)
    for piece in exported(source, chunk_bytes=300):
        importer.feed(piece)
    with target.read() as before:
        assert importer.complete
        assert importer.install() == SnapshotPoint(21, 3)
        assert groups.committed(before, "gone", 9, 9) == 9  # it keeps what it sees
        assert journal.read(before, 2) is not None

    with target.read() as r, source.read() as original:
        assert state_of(r) == state_of(original)
        assert identity.read_identity(r) == (identity.FORMAT_VERSION, "c", "n2")
        meta = journal.read_meta(r)
        assert (meta.term, meta.voted_for) == (7, "n3")
        assert (meta.base_index, meta.base_term, meta.last_index) == (21, 3, 21)
        assert (meta.applied_index, meta.commit_index) == (21, 21)
        kept = [key for key, _ in r.scan(Table.JOURNAL)]
        assert kept == [key for key, _ in original.scan(Table.REFS)]
        for p in range(2):
            ours = [partitions.read_batch(r, row) for row in partitions.index_scan(r, 1, p, 0)]
            theirs = [
                partitions.read_batch(original, row) for row in partitions.index_scan(original, 1, p, 0)
            ]
            assert ours == theirs != []
    w = target.writer()
    journal.append(w, 22, 8, 0, b"the log goes on")
    partitions.trim(w, 1, 1, 99, limit=99)
    target.commit()
    with target.read() as r:
        assert partitions.read_state(r, 1, 1) is not None


def test_an_empty_store_travels_too(node_store: NodeStore) -> None:
    source, target = node_store("n1"), node_store("n2")
    importer = Importer(target)
    importer.feed(b"".join(exported(source)))
    assert importer.install() == SnapshotPoint(1, 0)
    with target.read() as r:
        assert journal.read_meta(r) == journal.RaftMeta(0, None, 1, 1, 1, 0, 1)


def test_discarding_leaves_the_store(node_store: NodeStore) -> None:
    source, target = node_store("n1"), node_store("n2")
    fill(source)
    fill(target, entries=5)
    with target.read() as r:
        before = everything(r)
    importer = Importer(target)
    importer.feed(exported(source)[0])
    importer.discard()
    importer.discard()
    with pytest.raises(StorageError, match="installed or discarded"):
        importer.feed(b"")
    with pytest.raises(StorageError, match="installed or discarded"):
        importer.install()
    with target.read() as r:
        assert everything(r) == before


def test_installing_too_early_is_refused(node_store: NodeStore) -> None:
    source, target = node_store("n1"), node_store("n2")
    fill(source)
    importer = Importer(target)
    importer.feed(b"".join(exported(source))[:-1])
    with pytest.raises(StorageError, match="not complete"):
        importer.install()


def test_an_older_snapshot_is_refused(node_store: NodeStore) -> None:
    source, target = node_store("n1"), node_store("n2")
    fill(source, entries=3)
    fill(target, entries=9)
    importer = Importer(target)
    importer.feed(b"".join(exported(source)))
    with pytest.raises(StorageError, match="covers entry 4, but the state is at 10"):
        importer.install()


def test_an_open_transaction_is_never_dropped(node_store: NodeStore) -> None:
    source, target = node_store("n1"), node_store("n2")
    fill(source)
    importer = Importer(target)
    importer.feed(b"".join(exported(source)))
    target.writer().put(Table.GROUPS, b"k", b"v")
    with pytest.raises(StorageError, match="open transaction has changes"):
        importer.install()
    target.commit()
    with target.read() as r:
        assert r.get(Table.GROUPS, b"k") == b"v"


def test_a_snapshot_of_another_cluster_is_refused(node_store: NodeStore) -> None:
    source = MemoryStore()
    identity.write_identity(source.writer(), "other", "n1")
    source.commit()
    with pytest.raises(StorageError, match="of cluster 'other'; this is 'c'"):
        Importer(node_store("n2")).feed(b"".join(exported(source)))


def test_a_missing_journal_row_stops_the_export(node_store: NodeStore) -> None:
    source = node_store("n1")
    fill(source)
    source.writer().delete(Table.JOURNAL, journal.row_key(5))
    source.commit()
    with pytest.raises(StorageError, match="log entry 5 is missing"):
        exported(source)


STREAM_SOURCE = MemoryStore()
fill(STREAM_SOURCE, entries=6, size=3)
STREAM = b"".join(exported(STREAM_SOURCE, chunk_bytes=50))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    """Flip, cut, repeat or insert: never an installed snapshot that differs."""
    stream = bytearray(STREAM)
    at = data.draw(st.integers(0, len(stream) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "insert", "repeat", "end"])):
        case "flip":
            stream[at] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del stream[at : at + data.draw(st.integers(1, 40))]
        case "insert":
            stream[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        case "repeat":
            stream[at:at] = stream[at : at + data.draw(st.integers(1, 40))]
        case "end":
            stream += data.draw(st.binary(min_size=1, max_size=20))
    target = MemoryStore()
    importer = Importer(target)
    step = data.draw(st.integers(1, 200))
    try:
        for start in range(0, len(stream), step):
            importer.feed(bytes(stream[start : start + step]))
        importer.install()
    except StorageError:
        with target.read() as r:
            assert all(r.count(table) == 0 for table in Table)
    else:
        assert bytes(stream) == STREAM  # a repeat may give back what was there


@settings(max_examples=20, deadline=None)
@given(step=st.integers(1, 300))
def test_pieces_need_not_match_frames(step: int) -> None:
    target = MemoryStore()
    importer = Importer(target)
    for start in range(0, len(STREAM), step):
        importer.feed(STREAM[start : start + step])
    importer.install()
    with target.read() as r, STREAM_SOURCE.read() as original:
        assert state_of(r) == state_of(original)


# -- LMDB: readers during the switch, and crashes within it ----------------------


def test_readers_finish_on_the_old_environment(tmp_path: Path) -> None:
    """Readers never stop and never see a mixture; the old files go with the last of them."""
    target = open_store(tmp_path / "n2", "c", "n2", 64 * MIB, map_size=64 * MIB)
    sources = []
    for round_ in range(4):
        source = MemoryStore()
        fill(source, entries=6 + round_)
        sources.append(exported(source))
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            with target.read() as r:
                applied = journal.read_meta(r).applied_index
                batches = sum(1 for p in range(2) for _ in partitions.index_scan(r, 1, p, 0))
                refs = r.count(Table.REFS)
                if journal.read_meta(r).applied_index != applied or refs != batches:
                    wrong.append((applied, batches, refs))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        with target.read() as long_lived:
            for pieces in sources:
                importer = Importer(target)
                importer.feed(b"".join(pieces))
                importer.install()
            assert journal.read_meta(long_lived).applied_index == 1
            assert (tmp_path / "n2" / "env-000001" / "data.mdb").exists()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    target.close()
    names = sorted(p.name for p in (tmp_path / "n2").iterdir())
    assert names == ["CURRENT", "LOCK", target.path.name]
    with pytest.raises(ClosedError):
        target.stage()


def test_environments_left_at_once_are_all_removed_before_close_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last readers of two old environments go in one moment, on threads of their own."""
    target = open_store(tmp_path / "n2", "c", "n2", 64 * MIB, map_size=64 * MIB)
    leave = threading.Event()

    def read(entered: threading.Event) -> None:
        with target.read():
            entered.set()
            leave.wait(60)

    readers = []
    for round_ in range(2):
        entered = threading.Event()
        readers.append(threading.Thread(target=read, args=(entered,)))
        readers[-1].start()
        assert entered.wait(60)
        source = MemoryStore()
        fill(source, entries=6 + round_)
        importer = Importer(target)
        importer.feed(b"".join(exported(source)))
        importer.install()

    meeting, started, joined = threading.Barrier(2), [], []
    all_started = threading.Event()

    class Remover(threading.Thread):
        def start(self) -> None:
            with suppress(threading.BrokenBarrierError):
                meeting.wait(0.2)  # the other gets as far as this, if it can
            super().start()
            started.append(self)
            if len(started) == 2:
                all_started.set()

        def join(self, timeout: float | None = None) -> None:
            joined.append(self)
            super().join(timeout)

    remove = DataDirectory.remove

    def remove_later(self: DataDirectory, path: Path) -> None:
        all_started.wait(60)
        remove(self, path)

    monkeypatch.setattr("holdfast.storage.lmdb_store.threading.Thread", Remover)
    monkeypatch.setattr(DataDirectory, "remove", remove_later)
    leave.set()
    for reader in readers:
        reader.join()
    target.close()
    assert len(started) == 2
    assert set(joined) == set(started)
    assert sorted(p.name for p in (tmp_path / "n2").iterdir()) == ["CURRENT", "LOCK", target.path.name]


def test_a_store_without_a_data_directory_cannot_stage(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "env", quota_bytes=MIB, map_size=4 * MIB)
    with pytest.raises(StorageError, match="no data directory"):
        Importer(store)
    store.close()


def test_a_failed_switch_ends_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not known which environment a restart opens, so neither is written or removed."""
    target = open_store(tmp_path, "c", "n2", 64 * MIB, map_size=64 * MIB)
    importer = Importer(target)
    importer.feed(STREAM)

    def broken(source: object, destination: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("holdfast.storage.data_directory.os.replace", broken)
    with pytest.raises(StorageError, match="cannot switch"):
        importer.install()
    for use in (target.writer, target.commit):
        with pytest.raises(StorageError, match="end the process"):
            use()
    # Who reads here does so for a client, and other brokers serve it.
    with pytest.raises(UnavailableError, match=r"use another one.*end the process"), target.read():
        pass
    assert len(list(tmp_path.glob("env-*/data.mdb"))) == 2
    target.close()


CRASHER = """
import os, sys
from pathlib import Path
from holdfast.storage import data_directory, environment, lmdb_store
from holdfast.storage.identity import open_store
from holdfast.storage.snapshot import Importer

directory, stream, fatal = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), int(sys.argv[3])
steps = 0

def step():
    global steps
    steps += 1
    if steps == fatal:
        os._exit(9)

def mortal(owner, name):
    original = getattr(owner, name)
    def wrapped(*args, **kwargs):
        step()
        result = original(*args, **kwargs)
        step()
        return result
    setattr(owner, name, wrapped)

store = open_store(directory, "c", "n2", 1 << 26, map_size=1 << 26)
for owner, name in (
    (lmdb_store.WriteSide, "commit"),
    (data_directory, "_sync_directory"),
    (data_directory.os, "fsync"),
    (data_directory.os, "replace"),
    (data_directory.DataDirectory, "switch"),
    (data_directory.DataDirectory, "remove"),
    (environment.Environment, "retire"),
):
    mortal(owner, name)
importer = Importer(store)
importer.feed(stream)
importer.install()
store.close()
"""


def test_a_crash_at_any_step_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    new_stream = tmp_path / "stream"
    new_stream.write_bytes(STREAM)
    fatal, outcomes = 0, []
    while True:
        fatal += 1
        directory = tmp_path / f"d{fatal}"
        store = open_store(directory, "c", "n2", 64 * MIB, map_size=64 * MIB)
        fill(store, entries=3)
        store.close()
        done = subprocess.run(
            [sys.executable, "-c", CRASHER, str(directory), str(new_stream), str(fatal)],
            check=False,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert done.returncode in (0, 9)
        store = open_store(directory, "c", "n2", 64 * MIB, map_size=64 * MIB)
        with store.read() as r:
            meta = journal.read_meta(r)
            assert (meta.term, meta.voted_for) == (4, "exporter")
            outcome = {4: "old", 7: "new"}[meta.applied_index]
            reference = MemoryStore()
            fill(reference, entries=3 if outcome == "old" else 6, size=100 if outcome == "old" else 3)
            with reference.read() as expected:
                assert state_of(r) == state_of(expected)
        store.close()
        # The restart removed what is not in use.
        assert len(list(directory.glob("env-*"))) == 1
        outcomes.append(outcome)
        if done.returncode == 0:
            break
    # The change happens once, at one step.
    assert outcomes == sorted(outcomes, reverse=True)
    assert {"old", "new"} == set(outcomes)
    assert len(outcomes) > 12
