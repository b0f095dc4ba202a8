"""Power cuts of the memory store, failing commits of the LMDB store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.errors import ClosedError, StorageError
from holdfast.storage import groups, journal
from holdfast.storage.lmdb_store import LmdbStore
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Store, Table

T = Table.META


def content(store: Store) -> dict[bytes, bytes]:
    with store.read() as r:
        return dict(r.scan(T))


def commit(store: Store, **rows: bytes) -> None:
    w = store.writer()
    for key, value in rows.items():
        w.put(T, key.encode(), value)
    store.commit()


def test_a_power_cut_drops_the_open_transaction() -> None:
    store = MemoryStore()
    commit(store, a=b"1")
    w = store.writer()
    w.put(T, b"a", b"2")
    w.put(T, b"b", b"2")
    store.power_cut()
    assert content(store) == {b"a": b"1"}
    assert not store.dirty
    store.close()
    with pytest.raises(ClosedError):
        store.writer()
    store.power_cut()  # the node starts again
    commit(store, b=b"3")
    assert content(store) == {b"a": b"1", b"b": b"3"}


def test_a_power_cut_drops_what_was_shown_and_not_durable() -> None:
    store = MemoryStore()
    commit(store, a=b"1")
    store.writer().put(T, b"a", b"2")
    store.persist()
    store.writer().put(T, b"b", b"2")
    store.show()
    assert store.at_risk
    assert content(store) == {b"a": b"2", b"b": b"2"}
    store.power_cut()
    assert content(store) == {b"a": b"2"}
    assert not store.at_risk


def test_a_power_cut_drops_what_the_disk_had_not_finished() -> None:
    store = MemoryStore(lose_unsynced=True)
    commit(store, a=b"1")
    store.sync()
    commit(store, a=b"2", b=b"2")
    w = store.writer()
    w.delete(T, b"a")
    store.commit()
    w = store.writer()
    w.put(T, b"c", b"open")
    assert content(store) == {b"b": b"2"}
    with store.read() as r:
        store.power_cut()
        assert dict(r.scan(T)) == {b"b": b"2"}
    assert content(store) == {b"a": b"1"}
    used = store.usage().used
    commit(store, z=b"3")
    store.sync()
    store.power_cut()
    assert content(store) == {b"a": b"1", b"z": b"3"}
    assert store.usage().used == used + 2


def test_an_installed_snapshot_survives_a_power_cut() -> None:
    store = MemoryStore(lose_unsynced=True)
    commit(store, a=b"1")
    staged = store.stage()
    staged.writer().put(T, b"s", b"new")
    staged.install()
    store.power_cut()
    assert content(store) == {b"s": b"new"}
    commit(store, t=b"more")
    assert content(store) == {b"s": b"new", b"t": b"more"}


def test_a_full_disk_can_be_acted_out() -> None:
    store = MemoryStore(quota_bytes=1000)
    store.disk_free = 10
    assert not store.usage().has_room(11)


FULL = """
import resource, sys
from pathlib import Path
from holdfast.errors import StorageError, UnavailableError
from holdfast.storage import groups
from holdfast.storage.lmdb_store import LmdbStore

store = LmdbStore(Path(sys.argv[1]), quota_bytes=1 << 30, map_size=1 << 30)
groups.commit_offset(store.writer(), "kept", 1, 0, 1)
store.commit()
limit = (Path(sys.argv[1]) / "data.mdb").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
w = store.writer()
groups.commit_offset(w, "lost", 1, 0, 1)
from holdfast.storage.port import Table
w.put(Table.JOURNAL, b"k", bytes(1 << 20))
# Who reads for a client is told to try another broker; who writes has to end the process.
reading = lambda: store.read().__enter__()
for use, refusal in (
    (store.commit, StorageError),
    (store.commit, StorageError),
    (store.writer, StorageError),
    (reading, UnavailableError),
):
    try:
        use()
    except refusal as error:
        assert "end the process" in str(error), error
    else:
        raise SystemExit(f"{use} went on")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    store.commit()
except StorageError:
    raise SystemExit(7)
"""


def test_a_failed_commit_ends_the_store_and_a_restart_finds_the_last_good_one(tmp_path: Path) -> None:
    """A real one: the file may not grow (as on a full disk)."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "env")], check=False, capture_output=True, text=True
    )
    assert done.returncode == 7, done.stderr
    store = LmdbStore(tmp_path / "env", quota_bytes=1 << 30, map_size=1 << 30)
    with store.read() as r:
        assert groups.list_groups(r) == ["kept"]
        assert r.count(Table.JOURNAL) == 0
    store.close()


STAGED_FULL = """
import resource, sys
from pathlib import Path
from holdfast.errors import StorageFullError
from holdfast.storage.identity import open_store
from holdfast.storage.port import Table

store = open_store(Path(sys.argv[1]), "c", "n1", 1 << 30, map_size=1 << 30)
staged = store.stage()
# Some of it can be written: the last write is cut short.
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
staged.writer().put(Table.JOURNAL, b"k", bytes(1 << 20))
try:
    staged.commit()
except StorageFullError:
    staged.discard()
    store.writer().put(Table.GROUPS, b"the store in use", b"goes on")
    store.commit()
    store.close()
    raise SystemExit(7)
"""


def test_a_full_disk_costs_a_staged_snapshot_and_no_more(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STAGED_FULL, str(tmp_path / "data")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 7, done.stderr


DISK_TAKEN = """
import resource, sys
from pathlib import Path
from holdfast.storage.identity import open_store
from holdfast.storage.port import Table

store = open_store(Path(sys.argv[1]), "c", "n1", 1 << 30, map_size=1 << 30)
# The disk is full from here: no file may grow by a byte.
size = (store.path / "data.mdb").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
for number in range(100):
    store.writer().put(Table.GROUPS, b"%03d" % number, bytes(3000))
    store.commit()
store.close()
raise SystemExit(7)
"""


def test_what_must_be_written_can_be_when_others_have_filled_the_disk(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DISK_TAKEN, str(tmp_path / "data")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 7, done.stderr


KILLED = """
import os, sys
from pathlib import Path
from holdfast.storage import journal
from holdfast.storage.lmdb_store import LmdbStore

store = LmdbStore(Path(sys.argv[1]), quota_bytes=1 << 30, map_size=1 << 30)
for index in range(2, 60):
    w = store.writer()
    journal.append(w, index, 1, 0, bytes([index]) * 5000)
    journal.set_applied(w, index)
    if index == 50:
        os._exit(9)
    store.commit()
"""


def test_a_kill_loses_the_open_transaction_only(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "env")], check=False)
    assert done.returncode == 9
    store = LmdbStore(tmp_path / "env", quota_bytes=1 << 30, map_size=1 << 30)
    with store.read() as r:
        meta = journal.read_meta(r)
        assert (meta.last_index, meta.applied_index) == (49, 49)
        row = journal.read(r, 49)
        assert row is not None
        assert row.command == bytes([49]) * 5000
    store.close()


def test_a_path_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot open the environment"):
        LmdbStore(tmp_path / "file", quota_bytes=1 << 20, map_size=1 << 20)
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageError, match="cannot open the environment"):
        LmdbStore(tmp_path / "junk", quota_bytes=1 << 20, map_size=1 << 20)


def test_an_idle_reader_does_not_keep_a_writer_waiting(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "env", quota_bytes=1 << 30, map_size=1 << 30)
    with store.read() as r:
        for i in range(20):
            commit(store, key=b"%d" % i)
        assert dict(r.scan(T)) == {}
    usage = store.usage()
    assert usage.reusable > 0
    store.close()
    with pytest.raises(ClosedError):
        store.usage()
