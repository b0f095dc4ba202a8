"""The contract of ``storage.port``, run on every implementation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.errors import ClosedError, StorageError, StorageFullError
from holdfast.storage.port import Reader, Store, Table, Usage

T = Table.META


def fill(store: Store, *keys: bytes, table: Table = T) -> None:
    w = store.writer()
    for key in keys:
        w.put(table, key, b"v" + key)
    store.commit()


def rows(reader: Reader, **kwargs: Any) -> list[bytes]:
    return [key for key, _ in reader.scan(T, **kwargs)]


def test_get_put_delete(store: Store) -> None:
    w = store.writer()
    w.put(T, b"k", b"one")
    assert w.get(T, b"k") == b"one"
    w.put(T, b"k", b"two")
    assert w.get(T, b"k") == b"two"
    w.put(T, b"empty", b"")
    assert w.get(T, b"empty") == b""
    assert w.delete(T, b"k") is True
    assert w.delete(T, b"k") is False
    assert w.get(T, b"k") is None
    store.commit()
    with store.read() as r:
        assert r.get(T, b"k") is None
        assert r.get(T, b"empty") == b""
        assert r.get(T, b"x" * 600) is None


def test_tables_are_apart(store: Store) -> None:
    w = store.writer()
    for table in Table:
        w.put(table, b"k", table.value.encode())
    store.commit()
    with store.read() as r:
        for table in Table:
            assert list(r.scan(table)) == [(b"k", table.value.encode())]
            assert r.count(table) == 1


def test_get_slice(store: Store) -> None:
    value = bytes(range(256)) * 100
    store.writer().put(T, b"k", value)
    store.commit()
    with store.read() as r:
        assert r.get_slice(T, b"k", 0, 3) == value[:3]
        assert r.get_slice(T, b"k", 5000, 1000) == value[5000:6000]
        assert r.get_slice(T, b"k", len(value) - 2, 10) == value[-2:]
        assert r.get_slice(T, b"k", 0, 0) == b""
        assert r.get_slice(T, b"other", 0, 3) is None
        assert type(r.get_slice(T, b"k", 0, 3)) is bytes


@pytest.mark.parametrize("committed", [True, False])
def test_scan_bounds(store: Store, committed: bool) -> None:
    keys = [b"b", b"d", b"dd", b"f"]
    w = store.writer()
    for key in reversed(keys):
        w.put(T, key, b"v" + key)

    def check(r: Reader) -> None:
        assert rows(r) == keys
        assert rows(r, reverse=True) == keys[::-1]
        assert list(r.scan(T, b"d", b"f")) == [(b"d", b"vd"), (b"dd", b"vdd")]
        assert list(r.scan(T, b"d", b"f", reverse=True)) == [(b"dd", b"vdd"), (b"d", b"vd")]
        for reverse in (False, True):
            order = slice(None, None, -1 if reverse else 1)
            assert rows(r, start=b"a", reverse=reverse) == keys[order]
            assert rows(r, start=b"c", stop=b"e", reverse=reverse) == [b"d", b"dd"][order]
            assert rows(r, start=b"g", reverse=reverse) == []
            assert rows(r, stop=b"b", reverse=reverse) == []
            assert rows(r, start=b"e", stop=b"c", reverse=reverse) == []
            assert rows(r, stop=b"z", reverse=reverse) == keys[order]
            assert list(r.scan_keys(T, b"c", b"e", reverse=reverse)) == [b"d", b"dd"][order]
            assert list(r.scan_keys(T, reverse=reverse)) == keys[order]
            assert list(r.scan_keys(Table.REFS, reverse=reverse)) == []

    if committed:
        store.commit()
        with store.read() as r:
            check(r)
    else:
        check(w)


def test_floor_and_last_key(store: Store) -> None:
    w = store.writer()
    assert w.floor(T, b"x") is None
    assert w.last_key(T) is None
    for key in (b"b", b"d"):
        w.put(T, key, b"v" + key)
    assert w.floor(T, b"a") is None
    assert w.floor(T, b"b") == (b"b", b"vb")
    assert w.floor(T, b"c") == (b"b", b"vb")
    assert w.floor(T, b"d") == (b"d", b"vd")
    assert w.floor(T, b"zz") == (b"d", b"vd")
    assert w.last_key(T) == b"d"


def test_append_only_in_order(store: Store) -> None:
    w = store.writer()
    w.append(T, b"a", b"1")
    w.append(T, b"c", b"2")
    store.commit()
    for wrong in (b"b", b"c"):
        w = store.writer()
        with pytest.raises(StorageError, match="out of order"):
            w.append(T, wrong, b"3")
        with pytest.raises(StorageError, match="abort"):
            store.commit()
        store.abort()
    store.writer().append(T, b"d", b"3")
    store.commit()
    with store.read() as r:
        assert rows(r) == [b"a", b"c", b"d"]


@pytest.mark.parametrize("key", [b"", b"k" * 512])
def test_key_bounds(store: Store, key: bytes) -> None:
    with pytest.raises(StorageError, match=f"key of {len(key)} bytes"):
        store.writer().put(T, key, b"v")
    store.abort()
    fill(store, b"k" * 511)


def test_a_read_is_a_snapshot(store: Store) -> None:
    fill(store, b"a", b"b")
    with store.read() as before:
        w = store.writer()
        w.put(T, b"a", b"changed")
        w.delete(T, b"b")
        w.put(T, b"c", b"new")
        assert rows(before) == [b"a", b"b"]
        with store.read() as during:
            assert dict(during.scan(T)) == {b"a": b"va", b"b": b"vb"}
            store.commit()
            assert dict(during.scan(T)) == {b"a": b"va", b"b": b"vb"}
            assert during.count(T) == 2
        assert dict(before.scan(T)) == {b"a": b"va", b"b": b"vb"}
        with store.read() as after:
            assert dict(after.scan(T)) == {b"a": b"changed", b"c": b"new"}


def test_abort_drops_everything_since_the_commit(store: Store) -> None:
    fill(store, b"a", b"b")
    w = store.writer()
    w.put(T, b"a", b"changed")
    w.put(T, b"a", b"again")
    w.delete(T, b"b")
    w.put(T, b"c", b"new")
    w.delete(T, b"c")
    store.abort()
    assert not store.dirty
    with store.read() as r:
        assert dict(r.scan(T)) == {b"a": b"va", b"b": b"vb"}
    assert dict(store.writer().scan(T)) == {b"a": b"va", b"b": b"vb"}
    store.abort()
    store.abort()


def test_dirty(store: Store) -> None:
    assert not store.dirty
    w = store.writer()
    assert not store.dirty
    w.get(T, b"k")
    assert w.delete(T, b"k") is False
    assert not store.dirty
    w.put(T, b"k", b"v")
    assert store.dirty
    store.commit()
    assert not store.dirty
    store.writer().delete(T, b"k")
    assert store.dirty
    store.abort()
    assert not store.dirty
    store.commit()  # clean: nothing to do


def test_the_writer_of_a_new_transaction_sees_the_last(store: Store) -> None:
    fill(store, b"a")
    assert store.writer().get(T, b"a") == b"va"
    store.commit()
    assert store.writer().get(T, b"a") == b"va"


def test_map_full_is_said_and_leaves_the_store_usable(make_store: Callable[..., Store]) -> None:
    store = make_store(map_size=2 << 20)
    fill(store, b"kept")
    w = store.writer()

    def overfill() -> None:
        for i in range(1000):
            w.put(T, b"%d" % i, b"x" * 10_000)

    with pytest.raises(StorageFullError) as caught:
        overfill()
    assert caught.value.retriable
    with pytest.raises(StorageError, match="abort"):
        store.commit()
    store.abort()
    with store.read() as r:
        assert rows(r) == [b"kept"]
    fill(store, b"more")


def test_usage_counts_freed_pages_as_room(store: Store) -> None:
    empty = store.usage()
    assert empty.used < 1 << 20
    assert empty.quota == 64 << 20
    assert empty.disk_free > 1 << 20
    w = store.writer()
    for i in range(40):
        w.put(T, b"%03d" % i, b"x" * 100_000)
    assert store.usage().used == empty.used
    store.commit()
    full = store.usage()
    assert 4_000_000 <= full.used <= 5_000_000
    w = store.writer()
    for i in range(40):
        w.delete(T, b"%03d" % i)
    store.commit()
    freed = store.usage()
    assert freed.used < empty.used + 100_000
    assert freed.has_room(60 << 20)
    assert not freed.has_room(65 << 20)


def test_room() -> None:
    assert Usage(used=10, quota=20, disk_free=100).has_room(10)
    assert not Usage(used=10, quota=20, disk_free=100).has_room(11)
    assert not Usage(used=10, quota=1000, disk_free=5).has_room(11)
    assert Usage(used=10, quota=1000, disk_free=5, reusable=20).has_room(11)
    # Holes may be too short: half of the reserve has to be free on the disk.
    assert not Usage(used=10, quota=1000, disk_free=5, reusable=200).has_room(12)
    assert Usage(used=10, quota=100, disk_free=50).room(20) == 30
    assert Usage(used=10, quota=50, disk_free=500).room(20) == 20
    assert Usage(used=50, quota=50, disk_free=500).room(20) == -20


def test_readers_that_are_over_hold_nothing(store: Store) -> None:
    """LMDB has a bounded table of readers, and coroutines keep what they once read with."""
    fill(store, b"a")
    kept = []
    for _ in range(1000):
        with store.read() as r:
            assert r.count(T) == 1
        kept.append(r)


def test_closed(store: Store) -> None:
    fill(store, b"a")
    store.writer().put(T, b"b", b"lost")
    with store.read() as r:
        store.close()
        assert rows(r) == [b"a"]
    store.close()
    with pytest.raises(ClosedError), store.read():
        pass
    with pytest.raises(ClosedError):
        store.writer()
    with pytest.raises(ClosedError):
        store.commit()


def test_readers_on_other_threads_see_whole_commits(store: Store) -> None:
    """A writer moves a token between keys; no reader ever sees none or two."""
    fill(store, b"0")
    stop = threading.Event()
    wrong: list[list[bytes]] = []

    def read() -> None:
        while not stop.is_set():
            with store.read() as r:
                seen = rows(r)
            if len(seen) != 1:
                wrong.append(seen)
                return

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for i in range(50):
            w = store.writer()
            w.delete(T, b"%d" % i)
            w.put(T, b"%d" % (i + 1), b"")
            store.commit()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
