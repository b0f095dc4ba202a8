"""Free pages laid out in advance: there, short, and not counted as used."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.storage import journal
from holdfast.storage.identity import open_store
from holdfast.storage.lmdb_store import LmdbStore

MIB = 1 << 20


def open_with(path: Path, groundwork_bytes: int) -> LmdbStore:
    return open_store(path, "c", "n1", 256 * MIB, map_size=512 * MIB, groundwork_bytes=groundwork_bytes)


def test_it_is_room_not_use(tmp_path: Path) -> None:
    with_it, without = open_with(tmp_path / "a", 4 * MIB), open_with(tmp_path / "b", 0)
    laid, bare = with_it.usage(), without.usage()
    assert laid.used - bare.used < MIB  # the ballast
    assert laid.reusable > 3 * MIB
    size = os.path.getsize(with_it.path / "data.mdb")
    assert 3 * MIB < size < 6 * MIB
    with_it.close()
    reopened = open_with(tmp_path / "a", 4 * MIB)
    assert reopened.usage().used == laid.used
    reopened.close()
    without.close()


def test_small_pages_go_there_and_large_runs_do_not(tmp_path: Path) -> None:
    store = open_with(tmp_path, 4 * MIB)
    before = os.path.getsize(store.path / "data.mdb")
    reusable = store.usage().reusable
    payload = os.urandom(100_000)
    for index in range(2, 22):
        journal.append(store.writer(), index, 1, 0, payload)
        store.commit()
    grown = os.path.getsize(store.path / "data.mdb") - before
    assert grown == 20 * 25 * store.page_size  # the payload's pages, and nothing else
    assert reusable - store.usage().reusable < 20 * 4 * store.page_size
    store.close()
