"""Durable without a commit: what is written ahead outlives the process, and nothing else does."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from holdfast.errors import StorageError, StorageFullError
from holdfast.storage import write_ahead
from holdfast.storage.identity import open_store
from holdfast.storage.lmdb_store import LmdbStore
from holdfast.storage.port import Table
from holdfast.storage.write_ahead import AHEAD_CHANGES, AHEAD_FILE, WriteAhead, pack_epoch

T = Table.META
_MAP = 64 << 20


def opened(path: Path) -> LmdbStore:
    return LmdbStore(path, quota_bytes=_MAP, map_size=_MAP)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    made = opened(tmp_path / "env")
    yield made
    made.close()


def crashed(store: LmdbStore, copy: Path) -> LmdbStore:
    """What a restart finds if the process ends now."""
    shutil.copytree(store.path, copy)
    return opened(copy)


def content(store: LmdbStore) -> dict[bytes, bytes]:
    with store.read() as reader:
        return dict(reader.scan(T))


def test_it_is_durable_and_shown_without_a_commit(store: LmdbStore, tmp_path: Path) -> None:
    store.writer().put(T, b"a", b"1")
    store.commit()
    store.writer().put(T, b"b", b"2")
    store.writer().delete(T, b"a")
    assert content(store) == {b"a": b"1"}
    store.persist()
    assert not store.dirty
    assert content(store) == {b"b": b"2"}
    store.writer().put(T, b"c", b"not durable")
    assert content(store) == {b"b": b"2"}
    store.show()
    assert store.dirty
    assert content(store) == {b"b": b"2", b"c": b"not durable"}
    after = crashed(store, tmp_path / "copy")
    assert content(after) == {b"b": b"2"}
    after.close()
    commits = store._side.commits
    store.commit()
    assert store._side.commits == commits + 1
    assert content(store) == {b"b": b"2", b"c": b"not durable"}


def test_records_follow_one_another_and_end_with_a_commit(store: LmdbStore, tmp_path: Path) -> None:
    for number in range(3):
        store.writer().put(T, b"k%d" % number, b"v")
        store.persist()
    store.commit()
    store.writer().put(T, b"new", b"v")
    store.persist()  # over the first record; two old ones lie behind it
    after = crashed(store, tmp_path / "copy")
    assert set(content(after)) == {b"k0", b"k1", b"k2", b"new"}
    again = crashed(after, tmp_path / "second")  # recovered twice is as once
    assert set(content(again)) == {b"k0", b"k1", b"k2", b"new"}
    after.close()
    again.close()


def test_a_record_that_was_cut_short_is_none(store: LmdbStore, tmp_path: Path) -> None:
    for key in (b"first", b"second"):
        store.writer().put(T, key, b"v" * 100)
        store.persist()
    path = store.path / "ahead.wal"
    data = bytearray(path.read_bytes())
    end = data.rindex(b"v" * 100) + 100
    for cut in (1, 50, 101):
        copy = tmp_path / f"cut{cut}"
        shutil.copytree(store.path, copy)
        torn = bytes(data[: end - cut]) + bytes(len(data) - end + cut)
        (copy / "ahead.wal").write_bytes(torn)
        after = opened(copy)
        assert list(content(after)) == [b"first"]
        after.close()


def test_a_damaged_record_that_others_follow_is_no_torn_one(store: LmdbStore, tmp_path: Path) -> None:
    """It was acknowledged, and so were those behind it: to go on without them would be to lose them."""
    for number in range(4):
        store.writer().put(T, b"k%d" % number, b"v%d" % number * 50)
        store.persist()
    data = (store.path / "ahead.wal").read_bytes()
    begins = [data.index(b"HFWA", 100 * number) for number in range(4)]
    for place in (begins[0] + 4, begins[0] + 30, begins[1] + 2, begins[2] + 60):
        copy = tmp_path / f"at{place}"
        shutil.copytree(store.path, copy)
        spoiled = bytearray(data)
        spoiled[place] ^= 1
        (copy / "ahead.wal").write_bytes(spoiled)
        with pytest.raises(StorageError, match=r"damaged in record \d"):
            opened(copy)


def test_what_others_commit_to_the_file_ends_no_epoch(store: LmdbStore, tmp_path: Path) -> None:
    """A newer program adds its tables before it looks at the log."""
    store.writer().put(T, b"k", b"v")
    store.persist()
    copy = tmp_path / "copy"
    shutil.copytree(store.path, copy)
    with lmdb.open(str(copy), map_size=_MAP, max_dbs=50) as env:
        env.open_db(b"a table of tomorrow")
    after = opened(copy)
    assert content(after) == {b"k": b"v"}
    after.close()


def test_a_table_of_a_newer_version_is_named_as_such(
    store: LmdbStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.writer().put(T, b"k", b"v")
    monkeypatch.setitem(write_ahead._NUMBERS, T, len(Table))
    store.persist()
    copy = tmp_path / "copy"
    shutil.copytree(store.path, copy)
    with pytest.raises(StorageError, match="newer version"):
        opened(copy)


def test_a_commit_of_another_process_is_no_reason_to_wait_for_ever(store: LmdbStore) -> None:
    store.writer().put(T, b"k", b"v")
    store.commit()
    with store._side.environment.env.begin(write=True) as txn:
        txn.put(b"epoch", pack_epoch(17))
    with pytest.raises(StorageError, match="another process"), store.read():
        pass


def test_the_number_of_commits_is_checked(store: LmdbStore, tmp_path: Path) -> None:
    store.writer().put(T, b"k", b"v")
    store.commit()
    copy = tmp_path / "copy"
    shutil.copytree(store.path, copy)
    with lmdb.open(str(copy), map_size=_MAP, max_dbs=50) as env, env.begin(write=True) as txn:
        row = bytearray(txn.get(b"epoch"))
        row[7] ^= 1
        txn.put(b"epoch", bytes(row))
    with pytest.raises(StorageError, match="number of the last commit is damaged"):
        opened(copy)


def test_what_is_too_much_for_it_is_committed(store: LmdbStore) -> None:
    side = store._side
    store.writer().put(T, b"large", b"v" * AHEAD_CHANGES)
    store.show()
    assert side.commits == 0
    store.persist()
    assert side.commits == 1
    for number in range(2 * AHEAD_FILE // (AHEAD_CHANGES // 2)):
        store.writer().put(T, b"k", bytes([number]) * (AHEAD_CHANGES // 2))
        store.persist()
    assert side.commits in (2, 3)  # the file was full
    for number in range(3 * AHEAD_FILE // (AHEAD_CHANGES // 2)):
        store.writer().put(T, b"k", bytes([number]) * (AHEAD_CHANGES // 2))
        store.show()
    assert side.commits in (4, 5, 6)  # nobody asked for it to be durable, and much was not
    assert set(content(store)) == {b"large", b"k"}


def test_a_dropped_transaction_loses_only_what_was_not_durable(store: LmdbStore, tmp_path: Path) -> None:
    store.writer().put(T, b"kept", b"1")
    store.persist()
    store.writer().put(T, b"dropped", b"2")
    store.abort()
    assert not store.dirty
    assert content(store) == {b"kept": b"1"}
    assert store.writer().get(T, b"kept") == b"1"
    assert store.writer().get(T, b"dropped") is None
    store.writer().put(T, b"next", b"3")
    store.persist()
    store.abort()
    after = crashed(store, tmp_path / "copy")
    assert set(content(after)) == {b"kept", b"next"}
    after.close()
    store.writer()
    store.commit()
    assert set(content(store)) == {b"kept", b"next"}


def test_closing_keeps_it(tmp_path: Path) -> None:
    store = opened(tmp_path / "env")
    store.writer().put(T, b"k", b"v")
    store.persist()
    store.close()
    store = opened(tmp_path / "env")
    assert content(store) == {b"k": b"v"}
    store.close()


def test_a_log_of_a_commit_that_is_gone_is_refused(store: LmdbStore, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store.path, copy)
    store.writer().put(T, b"k", b"v")
    store.commit()
    store.writer().put(T, b"l", b"v")
    store.persist()
    shutil.copy(store.path / "ahead.wal", copy / "ahead.wal")
    with pytest.raises(StorageError, match="lost a commit"):
        opened(copy)


def test_an_installed_snapshot_is_written_ahead_too(tmp_path: Path) -> None:
    store = open_store(tmp_path, "c", "n1", _MAP, map_size=_MAP)
    staged = store.stage()
    staged.writer().put(T, b"installed", b"1")
    staged.install()
    store.writer().put(T, b"after", b"2")
    store.persist()
    after = crashed(store, tmp_path / "copy")
    assert content(after) == {b"installed": b"1", b"after": b"2"}
    after.close()
    store.close()


def test_without_room_for_it_everything_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: WriteAhead) -> None:
        raise StorageFullError("no room")

    monkeypatch.setattr(WriteAhead, "prepare", full)
    store = opened(tmp_path / "env")
    store.writer().put(T, b"k", b"v")
    store.persist()
    assert store._side.commits == 1
    store.close()


def test_a_failed_flush_ends_the_store(store: LmdbStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(write_ahead.os, "fdatasync", broken)
    store.writer().put(T, b"k", b"v")
    with pytest.raises(StorageError, match="end the process"):
        store.persist()
    monkeypatch.undo()
    for again in (store.persist, store.commit):
        with pytest.raises(StorageError, match="end the process"):
            again()
    store.abort()
    with pytest.raises(StorageError, match="end the process"):
        store.writer()


KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
VALUES = st.sampled_from([b"", b"1", b"v" * 3000])


class Model(RuleBasedStateMachine):
    """Three dictionaries: what the writer sees, what is durable, what readers see."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.lives = 0
        self.store = opened(self.folder / "0")
        self.live: dict[bytes, bytes] = {}
        self.durable: dict[bytes, bytes] = {}
        self.shown: dict[bytes, bytes] = {}

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes) -> None:
        self.store.writer().put(T, key, value)
        self.live[key] = value

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        assert self.store.writer().delete(T, key) == (key in self.live)
        self.live.pop(key, None)

    @rule()
    def show(self) -> None:
        self.store.show()
        self.shown = dict(self.live)
        self.check()

    @rule()
    def persist(self) -> None:
        self.store.persist()
        self.durable = dict(self.live)
        self.shown = dict(self.live)
        self.check()

    @rule()
    def commit(self) -> None:
        self.store.writer()
        self.store.commit()
        self.durable = dict(self.live)
        self.shown = dict(self.live)
        self.check()

    @rule()
    def abort(self) -> None:
        self.store.abort()
        self.live, self.shown = dict(self.durable), dict(self.durable)
        assert dict(self.store.writer().scan(T)) == self.live
        self.check()

    @rule()
    def crash(self) -> None:
        self.lives += 1
        after = crashed(self.store, self.folder / str(self.lives))
        self.store.close()
        self.store = after
        self.live, self.shown = dict(self.durable), dict(self.durable)
        self.check()

    def check(self) -> None:
        assert content(self.store) == self.shown

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_what_an_ended_process_left_is_made_durable_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have ended between laying the file out and syncing it, or its place in the folder."""
    opened(tmp_path / "env").close()
    synced: set[str] = set()
    stock = os.fsync

    def fsync(fd: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))
        stock(fd)

    monkeypatch.setattr(write_ahead.os, "fsync", fsync)
    opened(tmp_path / "env").close()
    assert synced >= {str(tmp_path / "env"), str(tmp_path / "env" / "ahead.wal")}


def test_the_file_has_its_size_from_the_start(store: LmdbStore) -> None:
    """A flush then writes a block that is there, and nothing of the file system."""
    assert os.stat(store.path / "ahead.wal").st_size == AHEAD_FILE


def test_readers_see_one_moment_whatever_the_writer_does(store: LmdbStore) -> None:
    """Shows, records and commits beside threads that read: all rows of a moment, or none."""
    stop = threading.Event()
    broken: list[str] = []
    seen: set[int] = set()

    def look() -> None:
        while not stop.is_set():
            with store.read() as reader:
                first = reader.get(T, b"first")
                numbers = [int(key) for key in reader.scan_keys(Table.INDEX)]
                last = reader.get(T, b"last")
                floor = reader.floor(Table.INDEX, b"9" * 8)
                if first != last or len(numbers) != reader.count(Table.INDEX):
                    broken.append(f"{first!r} {last!r} {numbers}")
                if first is not None:
                    number = int(first)
                    seen.add(number)
                    if numbers != list(range(max(0, number - 20), number + 1)) or floor != (
                        b"%08d" % number,
                        first,
                    ):
                        broken.append(f"{number}: {numbers} {floor!r}")

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1500):
        writer = store.writer()
        value = b"%d" % number
        writer.put(T, b"first", value)
        writer.append(Table.INDEX, b"%08d" % number, value)
        if number > 20:
            writer.delete(Table.INDEX, b"%08d" % (number - 21))
        writer.put(T, b"last", value)
        (store.show, store.persist, store.show, store.commit)[
            number % 4 if number % 100 < 8 else number % 3
        ]()
    stop.set()
    for thread in threads:
        thread.join()
    assert broken == []
    assert len(seen) > 20
