"""The scrub finds every damaged row, at the rate it is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.chaos.sim import SimCluster
from holdfast.cluster import events
from holdfast.cluster.scrub import KIB, Scrub
from holdfast.errors import StorageError
from holdfast.storage import journal, partitions
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.lmdb_store import LmdbStore
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Store, Table

MIB = 1 << 20
ENTRIES = 300


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = (
        MemoryStore()
        if request.param == "memory"
        else LmdbStore(tmp_path, quota_bytes=MIB, map_size=64 * MIB)
    )
    w = made.writer()
    for index in range(2, ENTRIES + 2):
        journal.append(w, index, 1, 0, b"command %d" % index)
        if index < 50:
            partitions.add_refs(w, index, 1)
    journal.set_commit(w, 200)
    journal.set_applied(w, 200)
    journal.trim_to(w, 100, 1, 1000)
    for i in range(20):
        w.put(Table.OFFSETS, b"%d" % i, b"offset %d" % i)
    made.commit()
    yield made
    made.close()


def flip(store: Store, table: Table, key: bytes) -> None:
    if isinstance(store, MemoryStore):
        assert store.flip_bit(table, key, 77)
        return
    assert isinstance(store, LmdbStore)
    environment = store._side.environment
    with environment.env.begin(write=True) as txn:
        value = bytearray(txn.get(key, db=environment.dbs[table]))
        value[77 // 8 % len(value)] ^= 1
        txn.put(key, bytes(value), db=environment.dbs[table])


def drive(scrub: Scrub, passes: int = 1) -> float:
    """Step until everything has been read; how long that takes, seconds."""
    now = 0.0
    while scrub.counters.passes < passes:
        now = scrub.step(now)
    return now


def test_a_pass_reads_everything_at_its_rate(store: Store) -> None:
    seen: list[object] = []
    scrub = Scrub(store, seen.append, rate=200 * KIB, step_bytes=20 * KIB, emit=seen.append)
    seconds = drive(scrub)
    with store.read() as r:
        rows = sum(r.count(table) for table in Table)
    assert scrub.counters.rows == rows
    assert scrub.counters.damaged == 0
    steps = [event for event in seen if isinstance(event, events.ScrubStepped)]
    assert len(steps) == len(seen)
    assert max(step.rows for step in steps) <= 10
    assert [step.finished for step in steps] == [False] * (len(steps) - 1) + [True]
    assert rows / 100 <= seconds < rows / 100 + 0.1  # a small row counts as 2 KiB
    drive(scrub, 2)
    assert scrub.counters.rows == 2 * rows


@pytest.mark.parametrize("step_bytes", [1, 7 * KIB, MIB])
def test_what_is_damaged_is_told(store: Store, step_bytes: int) -> None:
    damaged = [
        (Table.META, b"raft.commit"),
        (Table.JOURNAL, journal.row_key(2)),
        (Table.JOURNAL, journal.row_key(150)),
        (Table.JOURNAL, journal.row_key(ENTRIES + 1)),
        (Table.REFS, journal.row_key(30)),
        (Table.OFFSETS, b"0"),
        (Table.OFFSETS, b"7"),
    ]
    for table, key in damaged:
        flip(store, table, key)
    told: list[DamagedRowError] = []
    scrub = Scrub(store, told.append, rate=MIB, step_bytes=step_bytes)
    drive(scrub)
    assert [(damage.table, damage.key) for damage in told] == damaged
    assert scrub.counters.damaged == len(damaged)


def test_missing_entries_are_told(store: Store) -> None:
    w = store.writer()
    for index in (40, 101, 180):
        w.delete(Table.JOURNAL, journal.row_key(index))
    store.commit()
    told: list[DamagedRowError] = []
    drive(Scrub(store, told.append, rate=MIB))
    assert [journal.index_of(damage.key) for damage in told] == [101, 180, 40]
    assert all("missing" in str(damage) for damage in told)


def test_a_table_that_cannot_be_read_does_not_end_the_pass(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(store, Table.OFFSETS, b"7")
    told: list[DamagedRowError] = []
    scrub = Scrub(store, told.append, rate=MIB)
    original = Scrub._pass

    def out_of_order(self: Scrub, table: Table, key: bytes) -> None:
        original(self, table, b"" if table is Table.REFS and key == journal.row_key(9) else key)

    monkeypatch.setattr(Scrub, "_pass", out_of_order)
    with pytest.raises(StorageError, match="out of order"):
        drive(scrub)
    drive(scrub)
    assert [damage.key for damage in told] == [b"7"]


def test_what_the_scrub_finds_is_repaired() -> None:
    sim = SimCluster(3, seed=1)
    sim.elect()
    for i in range(30):
        assert sim.publish(b"value %d" % i).ok
    sim.settle()
    for at, node in enumerate(sim.nodes.values()):
        # Every replica has damage, each somewhere else.
        for index in range(5 + at, 30, 3):
            assert node.store.damage(Table.JOURNAL, journal.row_key(index), 31 * index)
        assert node.store.damage(Table.INDEX, node.store.keys(Table.INDEX)[at], 9)
    for node in sim.nodes.values():
        assert node.engine is not None
        drive(Scrub(node.store, node.engine.repair, rate=MIB))
        node.touched = True
    sim.run_for(3.0)
    for node in sim.nodes.values():
        assert node.engine is not None
        again = Scrub(node.store, node.engine.repair, rate=MIB)
        drive(again)
        assert again.counters.damaged == 0
        assert node.engine.repairs.repaired == node.engine.repairs.found > 8
        assert node.engine.repairs.failed == 0
    sim.check_nothing_lost()
