"""Partition logs: single rules; ``test_log_model`` compares with a list."""

from __future__ import annotations

import google_crc32c
import pytest
import xxhash

from holdfast.errors import StorageError
from holdfast.storage import journal, partitions
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.partitions import NO_TIME, IndexRow, PartitionState
from holdfast.storage.port import Store, Table, Writer
from holdfast.v1 import records_pb2


def put(
    w: Writer,
    state: PartitionState,
    data: bytes,
    *,
    count: int = 1,
    at: int = 0,
    batch_hash: int | None = None,
) -> PartitionState:
    """One entry with one batch in partition (1, 0)."""
    index = journal.read_meta(w).last_index + 1
    journal.append(w, index, 1, 0, data)
    partitions.add_refs(w, index, 1)
    return partitions.append_batch(
        w,
        1,
        0,
        state,
        log_index=index,
        position=journal.ROW_HEADER,
        length=len(data),
        count=count,
        append_time_us=at,
        min_ts=at,
        max_ts=at,
        batch_hash=len(data) if batch_hash is None else batch_hash,
    )


def test_an_empty_partition(store: Store) -> None:
    w = store.writer()
    assert partitions.read_state(w, 1, 0) is None
    state = partitions.create(w, 1, 0)
    assert state == PartitionState(0, 0, 0, bytes(16), NO_TIME, NO_TIME)
    assert partitions.read_state(w, 1, 0) == state
    assert partitions.index_at(w, 1, 0, 0) is None
    assert list(partitions.index_scan(w, 1, 0, 0)) == []
    assert partitions.offset_at_time(w, 1, 0, 0, "record") == 0
    assert partitions.offset_at_time(w, 1, 9, 0, "append") == 0
    assert partitions.trim(w, 1, 0, 99, limit=9) == state
    assert partitions.drop(w, 1, 0, limit=9)
    assert partitions.read_state(w, 1, 0) is None
    assert partitions.drop(w, 1, 0, limit=9)
    with pytest.raises(StorageError, match="no partition 0 of topic 1"):
        partitions.trim(w, 1, 0, 99, limit=9)


def test_append_time_never_goes_back(store: Store) -> None:
    w = store.writer()
    state = partitions.create(w, 1, 0)
    for at in (-50, 10, 5, 20):
        state = put(w, state, b"x", at=at)
    rows = list(partitions.index_scan(w, 1, 0, 0))
    assert [row.append_time_us for row in rows] == [-50, 10, 10, 20]
    assert [row.running_max_timestamp_us for row in rows] == [-50, 10, 10, 20]
    assert [row.max_timestamp_us for row in rows] == [-50, 10, 5, 20]


def test_partitions_do_not_leak_into_each_other(store: Store) -> None:
    w = store.writer()
    state = partitions.create(w, 1, 0)
    put(w, state, b"x", count=3)
    for topic, partition in ((1, 1), (2, 0), (0, 0)):
        partitions.create(w, topic, partition)
        assert partitions.index_at(w, topic, partition, 0) is None
        assert list(partitions.index_scan(w, topic, partition, 0)) == []
    assert [(t, p) for t, p, _ in partitions.scan_states(w)] == [(0, 0), (1, 0), (1, 1), (2, 0)]
    assert [(t, p) for t, p, _ in partitions.scan_states(w, 1)] == [(1, 0), (1, 1)]


def test_the_digest_depends_on_every_fact(store: Store) -> None:
    w = store.writer()
    empty = partitions.create(w, 1, 0)
    facts = {"log_index": 2, "position": 0, "length": 9, "min_ts": 0, "max_ts": 0}
    seen = set()
    for count, at, digest in ((1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (1, 1, 1 << 127)):
        after = partitions.append_batch(
            w, 1, 0, empty, count=count, append_time_us=at, batch_hash=digest, **facts
        )
        seen.add(after.digest)
        assert len(after.digest) == 16
    assert len(seen) == 5


def test_a_time_search_sees_past_what_was_trimmed(store: Store) -> None:
    """A trimmed record from the far future must not hide the rest from searches."""
    w = store.writer()
    state = put(w, partitions.create(w, 1, 0), b"future", at=1 << 50)
    for at in range(10):
        state = put(w, PartitionState(*_with_time(state, at)), b"x", at=at)
    partitions.trim(w, 1, 0, 1, limit=9)
    assert partitions.offset_at_time(w, 1, 0, 7, "record") == 8
    assert partitions.offset_at_time(w, 1, 0, 1 << 40, "record") == 11


def _with_time(s: PartitionState, at: int) -> tuple[int, int, int, bytes, int, int]:
    return s.start_offset, s.next_offset, s.bytes, s.digest, at, s.max_timestamp_us


def batch(count: int = 2) -> bytes:
    records = records_pb2.Records(values=[b"v"] * count).SerializeToString()
    crc = google_crc32c.value(records)
    return records_pb2.RecordBatch(count=count, crc32c=crc, records=records).SerializeToString()


def test_read_batch_checks_on_demand(store: Store) -> None:
    w = store.writer()
    good = batch()
    state = put(w, partitions.create(w, 1, 0), good, count=2, batch_hash=0)
    broken = bytearray(good)
    broken[-1] ^= 1
    state = put(w, state, bytes(broken), count=2, batch_hash=0)
    state = put(w, state, b"\xff\xff", count=2, batch_hash=0)
    put(w, state, good, count=5, batch_hash=0)
    rows = list(partitions.index_scan(w, 1, 0, 0))
    assert partitions.read_batch(w, rows[0], verify=True) == good
    assert partitions.read_batch(w, rows[1]) == bytes(broken)
    for row, why in zip(rows[1:], ("CRC-32C", "does not parse", "counts 2"), strict=True):
        with pytest.raises(StorageError, match=f"topic 1 partition 0 offset {row.base_offset}.*{why}") as e:
            partitions.read_batch(w, row, verify=True)
        assert e.value.reason == "STORAGE"
        assert e.value.metadata == {
            "log_index": str(row.log_index),
            "topic_id": "1",
            "partition": "0",
            "offset": str(row.base_offset),
        }


def test_read_batch_compares_with_what_was_applied(store: Store) -> None:
    w = store.writer()
    data = batch()
    put(w, partitions.create(w, 1, 0), data, count=2, batch_hash=xxhash.xxh3_128_intdigest(data))
    row = partitions.index_at(w, 1, 0, 0)
    assert row is not None
    assert partitions.read_batch(w, row, verify=True) == data
    stored = w.get(Table.JOURNAL, journal.row_key(row.log_index)) or b""
    for bit in range(8 * row.position, 8 * len(stored)):
        spoiled = bytearray(stored)
        spoiled[bit // 8] ^= 1 << bit % 8
        w.put(Table.JOURNAL, journal.row_key(row.log_index), bytes(spoiled))
        with pytest.raises(DamagedRowError, match="not those that were applied") as e:
            partitions.read_batch(w, row, verify=True)
        assert (e.value.table, e.value.key) == (Table.JOURNAL, journal.row_key(row.log_index))


def test_a_missing_or_short_row_is_data_loss(store: Store) -> None:
    w = store.writer()
    put(w, partitions.create(w, 1, 0), b"data")
    row = partitions.index_at(w, 1, 0, 0)
    assert row is not None
    w.put(Table.JOURNAL, journal.row_key(2), b"da")
    with pytest.raises(StorageError, match="cut short"):
        partitions.read_batch(w, row)
    w.delete(Table.JOURNAL, journal.row_key(2))
    with pytest.raises(StorageError, match="missing"):
        partitions.read_batch(w, row)


def test_a_hole_in_the_index_is_data_loss(store: Store) -> None:
    w = store.writer()
    state = partitions.create(w, 1, 0)
    for at in range(3):
        state = put(w, state, b"x", at=at)
    for key in list(w.scan_keys(Table.INDEX)):
        w.delete(Table.INDEX, key)
    with pytest.raises(StorageError, match="not in the index"):
        partitions.offset_at_time(w, 1, 0, 1, "record")


def test_rows_are_values() -> None:
    row = IndexRow(1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert row == IndexRow(1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert row.next_offset == 3
    with pytest.raises(AttributeError):
        row.count = 9  # type: ignore[misc]
