"""A data directory is one node's, one process's, and of a format this program reads."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import lmdb
import pytest

from holdfast.errors import DataDirectoryError
from holdfast.storage import identity
from holdfast.storage.identity import open_store
from holdfast.storage.lmdb_store import LmdbStore
from holdfast.storage.port import Table

MIB = 1 << 20


def reopen(path: Path, cluster: str = "c", node: str = "n1") -> LmdbStore:
    return open_store(path, cluster, node, 64 * MIB, map_size=64 * MIB)


def test_what_is_committed_is_there_after_a_restart(tmp_path: Path) -> None:
    store = reopen(tmp_path / "new" / "dir")
    w = store.writer()
    w.put(Table.GROUPS, b"k", b"kept")
    store.commit()
    w = store.writer()
    w.put(Table.GROUPS, b"k", b"lost")
    store.close()
    store = reopen(tmp_path / "new" / "dir")
    with store.read() as r:
        assert r.get(Table.GROUPS, b"k") == b"kept"
        assert identity.read_identity(r) == (identity.FORMAT_VERSION, "c", "n1")
    assert (tmp_path / "new" / "dir" / "CURRENT").read_text() == "env-000001\n"
    store.close()


@pytest.mark.parametrize(
    ("cluster", "node", "why"),
    [("other", "n1", "belongs to cluster 'c', not to 'other'"), ("c", "n2", "belongs to node 'n1'")],
)
def test_a_foreign_directory_is_refused(tmp_path: Path, cluster: str, node: str, why: str) -> None:
    reopen(tmp_path).close()
    with pytest.raises(DataDirectoryError, match=why) as caught:
        reopen(tmp_path, cluster, node)
    assert not caught.value.retriable
    reopen(tmp_path).close()  # and nothing is locked or lost


@pytest.mark.parametrize("version", [2, 3])
def test_an_older_format_becomes_the_present_one(tmp_path: Path, version: int) -> None:
    store = reopen(tmp_path)
    store.writer().put(Table.META, b"format", struct.pack(">I", version))
    store.writer().put(Table.OFFSETS, b"k", b"kept")
    store.commit()
    path = store.path
    store.close()
    later = [
        Table.FLOWS,
        Table.ACKS,
        Table.RETRIES,
        Table.MEMBERS,
        Table.MARKS,
        Table.MARK_AGES,
        Table.CURSORS,
    ]
    with lmdb.open(str(path), max_dbs=len(Table), map_size=64 * MIB) as env:
        for table in later:
            with env.begin(write=True) as txn:
                txn.drop(env.open_db(table.value.encode(), txn=txn))
    for _ in range(2):
        store = reopen(tmp_path)
        with store.read() as r:
            assert identity.read_identity(r) == (identity.FORMAT_VERSION, "c", "n1")
            assert r.get(Table.OFFSETS, b"k") == b"kept"
            assert [r.count(table) for table in later] == [0] * len(later)
        store.close()


@pytest.mark.parametrize(
    ("version", "advice"), [(identity.FORMAT_VERSION + 1, "newer version"), (0, "cannot migrate")]
)
def test_another_format_is_refused(tmp_path: Path, version: int, advice: str) -> None:
    store = reopen(tmp_path)
    store.writer().put(Table.META, b"format", struct.pack(">I", version))
    store.commit()
    store.close()
    with pytest.raises(DataDirectoryError, match=f"format version {version}.*{advice}"):
        reopen(tmp_path)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = reopen(tmp_path)
    with pytest.raises(DataDirectoryError, match=rf"in use by another broker \(process {os.getpid()}\)"):
        reopen(tmp_path)
    with store.read():
        store.close()
        # A reader is still in: the files are in use, so the directory is too.
        with pytest.raises(DataDirectoryError, match="in use"):
            reopen(tmp_path)
    reopen(tmp_path).close()


def test_a_crash_while_setting_up_is_begun_again(tmp_path: Path) -> None:
    reopen(tmp_path).close()
    (tmp_path / "CURRENT").unlink()
    (tmp_path / "env-000002").mkdir()
    reopen(tmp_path).close()
    assert [p.name for p in sorted(tmp_path.glob("env-*"))] == ["env-000001"]


def test_a_lost_pointer_never_costs_the_data(tmp_path: Path) -> None:
    store = reopen(tmp_path)
    store.writer().put(Table.GROUPS, b"k", b"v")
    store.commit()
    store.close()
    (tmp_path / "CURRENT").unlink()
    with pytest.raises(DataDirectoryError, match="no CURRENT file; write the line env-000001"):
        reopen(tmp_path)
    (tmp_path / "CURRENT").write_text("env-000001\n")
    store = reopen(tmp_path)
    with store.read() as r:
        assert r.get(Table.GROUPS, b"k") == b"v"
    store.close()


@pytest.mark.parametrize("pointer", ["env-000007\n", "../elsewhere\n", "", "\xff"])
def test_a_damaged_pointer_is_refused(tmp_path: Path, pointer: str) -> None:
    reopen(tmp_path).close()
    (tmp_path / "CURRENT").write_bytes(pointer.encode("latin-1"))
    with pytest.raises(DataDirectoryError, match="CURRENT"):
        reopen(tmp_path)
    assert (tmp_path / "env-000001" / "data.mdb").exists()


def test_what_is_not_in_use_is_removed_at_the_start(tmp_path: Path) -> None:
    reopen(tmp_path).close()
    stale = tmp_path / "env-000009"
    stale.mkdir()
    (stale / "data.mdb").write_bytes(b"junk")
    (tmp_path / "CURRENT.new").write_text("env-0")
    (tmp_path / "mine.txt").write_text("not ours to touch")
    reopen(tmp_path).close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["CURRENT", "LOCK", "env-000001", "mine.txt"]


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryError, match="cannot use the data directory"):
        reopen(tmp_path / "file")


def test_an_environment_without_identity_is_refused(tmp_path: Path) -> None:
    store = reopen(tmp_path)
    store.writer().delete(Table.META, b"format")
    store.commit()
    store.close()
    with pytest.raises(DataDirectoryError, match="holds no Holdfast identity"):
        reopen(tmp_path)
