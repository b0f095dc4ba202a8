"""A reader never steps over what is missing or damaged."""

from __future__ import annotations

import pytest
import xxhash

from holdfast.cluster.delivery.reading import PartitionRef, Step, read_step
from holdfast.records import encode_batch
from holdfast.storage import journal, partitions
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Table

REF = PartitionRef("t", 1, 0)


def filled(batches: int = 4) -> MemoryStore:
    """Batches of two records."""
    store = MemoryStore()
    w = store.writer()
    state = partitions.create(w, 1, 0)
    for index in range(2, batches + 2):
        data = encode_batch([b"a", b"b"], timestamps_us=5)
        journal.append(w, index, 1, 0, data)
        partitions.add_refs(w, index, 1)
        state = partitions.append_batch(
            w,
            1,
            0,
            state,
            log_index=index,
            position=journal.ROW_HEADER,
            length=len(data),
            count=2,
            append_time_us=5,
            min_ts=5,
            max_ts=5,
            batch_hash=xxhash.xxh3_128_intdigest(data),
        )
    store.commit()
    return store


def step(store: MemoryStore, offset: int, stop: int | None = None) -> Step:
    with store.read() as reader:
        found = read_step(reader, REF, offset, stop=stop, max_bytes=1 << 20, max_records=99, max_rows=99)
        assert found is not None
        return found


@pytest.mark.parametrize("hole", range(4))
def test_a_missing_index_row_is_a_damaged_one(hole: int) -> None:
    store = filled()
    key = store._tables[Table.INDEX].keys[hole]
    w = store.writer()
    row = w.get(Table.INDEX, key)
    assert row is not None
    w.delete(Table.INDEX, key)
    store.commit()
    for offset in range(8):
        if offset < 2 * hole:
            assert step(store, offset).next_offset == 2 * hole
            assert step(store, offset, 2 * hole).next_offset == 2 * hole
        elif offset < 2 * hole + 2:
            with pytest.raises(DamagedRowError, match="not in the index") as caught:
                step(store, offset)
            assert (caught.value.table, caught.value.key) == (Table.INDEX, key)
        else:
            assert step(store, offset).next_offset == 8
    with store.read() as reader:
        assert partitions.lacks_batch(reader, key)
        assert not partitions.lacks_batch(reader, key[:-1] + b"\x08")
        assert not partitions.lacks_batch(reader, b"short")
    store.writer().put(Table.INDEX, key, row)
    store.commit()
    assert step(store, 0).next_offset == 8


def test_every_flipped_bit_of_a_batch_is_found() -> None:
    store = filled(2)
    key = journal.row_key(3)
    size = len(store._tables[Table.JOURNAL].values[key])
    for bit in range(8 * journal.ROW_HEADER, 8 * size):
        assert store.flip_bit(Table.JOURNAL, key, bit)
        assert step(store, 0).next_offset == 2
        with pytest.raises(DamagedRowError, match="read from another replica") as caught:
            step(store, 3)
        assert (caught.value.table, caught.value.key) == (Table.JOURNAL, key)
        assert store.flip_bit(Table.JOURNAL, key, bit)
    assert step(store, 0).next_offset == 4
