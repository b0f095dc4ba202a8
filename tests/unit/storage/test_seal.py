"""A flipped bit in a stored row is found whenever the row is read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.storage import identity, journal, seal
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.identity import open_store
from holdfast.storage.lmdb_store import LmdbStore
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Store, Table

MIB = 1 << 20
SMALL = [table for table in Table if table is not Table.JOURNAL]
Fresh = Callable[[], AbstractContextManager[Store]]


def flip(store: Store, table: Table, key: bytes, bit: int) -> None:
    """Flip a bit of what is stored, seal included."""
    if isinstance(store, MemoryStore):
        assert store.flip_bit(table, key, bit)
        return
    assert isinstance(store, LmdbStore)
    environment = store._side.environment
    with environment.env.begin(write=True) as txn:
        value = bytearray(txn.get(key, db=environment.dbs[table]))
        at = bit % (8 * len(value))
        value[at // 8] ^= 1 << at % 8
        txn.put(key, bytes(value), db=environment.dbs[table])


@settings(deadline=None, max_examples=60)
@given(
    table=st.sampled_from(SMALL),
    key=st.binary(min_size=1, max_size=40),
    value=st.binary(min_size=1, max_size=200),
    bit=st.integers(min_value=0, max_value=1 << 20),
)
def test_no_flipped_bit_is_read(fresh_store: Fresh, table: Table, key: bytes, value: bytes, bit: int) -> None:
    with fresh_store() as store:
        store.writer().put(table, key, value)
        store.commit()
        flip(store, table, key, bit)
        with store.read() as r:
            for read in (
                lambda: r.get(table, key),
                lambda: r.get_slice(table, key, 0, 1),
                lambda: list(r.scan(table)),
                lambda: list(r.scan(table, reverse=True)),
                lambda: r.floor(table, key + b"\x00"),
            ):
                with pytest.raises(DamagedRowError) as caught:
                    read()
                assert (caught.value.table, caught.value.key) == (table, key)
            assert list(r.scan_keys(table)) == [key]
        with pytest.raises(DamagedRowError):
            store.writer().get(table, key)
        store.abort()
        store.writer().put(table, key, b"anew")
        store.commit()
        with store.read() as r:
            assert r.get(table, key) == b"anew"


@settings(deadline=None, max_examples=60)
@given(command=st.binary(max_size=100), bit=st.integers(min_value=0, max_value=1 << 20))
def test_no_flipped_bit_of_a_log_entry_is_read(fresh_store: Fresh, command: bytes, bit: int) -> None:
    with fresh_store() as store:
        journal.append(store.writer(), 2, 7, 0, command)
        store.commit()
        flip(store, Table.JOURNAL, journal.row_key(2), bit)
        with store.read() as r:
            for read in (journal.read, journal.verified_term):
                with pytest.raises(DamagedRowError) as caught:
                    read(r, 2)
                assert journal.index_of(caught.value.key) == 2
        journal.rewrite(store.writer(), journal.JournalRow(2, 7, 0, command))
        store.commit()
        with store.read() as r:
            assert journal.expect(r, 2).command == command


def test_a_seal_belongs_to_its_table_and_key() -> None:
    stored = seal.sealed(Table.OFFSETS, b"k", b"value")
    assert seal.unsealed(Table.OFFSETS, b"k", stored) == b"value"
    for table, key in ((Table.OFFSETS, b"j"), (Table.PARTITIONS, b"k")):
        with pytest.raises(DamagedRowError):
            seal.unsealed(table, key, stored)
    for length in range(len(stored)):
        with pytest.raises(DamagedRowError):
            seal.unsealed(Table.OFFSETS, b"k", stored[:length])


def test_damage_survives_an_aborted_repair() -> None:
    store = MemoryStore()
    store.writer().put(Table.OFFSETS, b"k", b"v")
    store.commit()
    assert store.flip_bit(Table.OFFSETS, b"k", 3)
    store.writer().put(Table.OFFSETS, b"k", b"v")
    store.power_cut()
    with store.read() as r, pytest.raises(DamagedRowError):
        r.get(Table.OFFSETS, b"k")
    assert not store.flip_bit(Table.OFFSETS, b"absent", 0)


def test_a_directory_of_format_1_is_sealed_when_it_is_opened(tmp_path: Path) -> None:
    store = open_store(tmp_path, "c", "n1", 64 * MIB, map_size=64 * MIB)
    w = store.writer()
    rows = [(table, b"%d" % i, b"value %d" % i) for table in SMALL for i in range(30)]
    for table, key, value in rows:
        w.put(table, key, value)
    journal.append(w, 2, 1, 0, b"command")
    store.commit()
    path = store.path
    store.close()
    with lmdb.open(str(path), max_dbs=len(Table), map_size=64 * MIB) as env:
        for table in SMALL:
            db = env.open_db(table.value.encode())
            with env.begin(write=True, db=db) as txn:
                for key, stored in list(txn.cursor()):
                    txn.put(key, stored[: -seal.SEAL_BYTES])
        with env.begin(write=True, db=env.open_db(b"meta")) as txn:
            txn.put(b"format", (1).to_bytes(4, "big"))
    for _ in range(2):
        store = open_store(tmp_path, "c", "n1", 64 * MIB, map_size=64 * MIB)
        with store.read() as r:
            assert identity.read_identity(r) == (identity.FORMAT_VERSION, "c", "n1")
            for table, key, value in rows:
                assert r.get(table, key) == value
            assert journal.expect(r, 2).command == b"command"
        store.close()
