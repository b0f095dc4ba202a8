"""Partition logs: an index row per batch, pointing into the journal.

A batch is stored once, inside the journal row of the entry that carried it;
``INDEX`` says which bytes of which row are the batch at an offset. ``REFS``
counts, per journal row, the batches still wanted, so that a row goes with the
last of them. Offsets start at 0, have no gaps and never change their meaning.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

import google_crc32c
import msgspec
import xxhash
from google.protobuf.message import DecodeError

from holdfast.errors import StorageError
from holdfast.storage import journal
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Reader, Table, Writer
from holdfast.v1 import records_pb2

_PARTITION = struct.Struct(">II")  # topic, partition
_KEY = struct.Struct(">IIQ")  # topic, partition, base offset
_STATE = struct.Struct(">QQQ16sqq")
_ROW = struct.Struct(">IQIIqqqqQ")
_ROW_1 = struct.Struct(">IQIIqqqq")  # of format 1: without the hash
_U32 = struct.Struct(">I")
_LINK = struct.Struct(">16s16sQIq")  # previous digest, batch hash, base offset, count, append time

#: What a partition without records has as its times: earlier than any record's.
NO_TIME = -(1 << 63)

#: Batches a time search looks at one by one after its binary search; see offset_at_time.
_TIME_SCAN_LIMIT = 10_000

_HASH_MASK = (1 << 128) - 1
_CHECK_MASK = (1 << 64) - 1

_Bytes = bytes  # PartitionState has a field of that name


class PartitionState(msgspec.Struct, frozen=True, gc=False):
    """What is known about a partition without looking at its batches."""

    start_offset: int  # first offset still there
    next_offset: int  # offset the next record gets
    bytes: int  # length of the batches still there
    digest: _Bytes  # 16 bytes, chained over every batch ever appended
    last_append_us: int  # NO_TIME before the first batch
    max_timestamp_us: int  # over every batch ever appended; NO_TIME before the first


class IndexRow(msgspec.Struct, frozen=True, gc=False):
    """One batch: its offsets, its times, and where it lies."""

    base_offset: int
    count: int
    log_index: int
    position: int  # byte offset within the journal row's value
    length: int
    append_time_us: int
    min_timestamp_us: int
    max_timestamp_us: int
    running_max_timestamp_us: int  # over this and all earlier batches
    check: int = 0  # the lower half of the batch's XXH3-128; 0: not known, from format 1
    topic_id: int = 0
    partition: int = 0

    @property
    def next_offset(self) -> int:
        """The offset after the batch's last record."""
        return self.base_offset + self.count


def _hash_batch(data: _Bytes) -> int:
    """The lower half of XXH3-128, whose whole enters the digest."""
    return xxhash.xxh3_128_intdigest(data) & _CHECK_MASK


_EMPTY = PartitionState(0, 0, 0, bytes(16), NO_TIME, NO_TIME)


def read_state(r: Reader, topic_id: int, partition: int) -> PartitionState | None:
    """None when the partition does not exist."""
    value = r.get(Table.PARTITIONS, _PARTITION.pack(topic_id, partition))
    return None if value is None else PartitionState(*_STATE.unpack(value))


def create(w: Writer, topic_id: int, partition: int) -> PartitionState:
    """An empty partition."""
    _write_state(w, topic_id, partition, _EMPTY)
    return _EMPTY


def append_batch(
    w: Writer,
    topic_id: int,
    partition: int,
    state: PartitionState,
    *,
    log_index: int,
    position: int,
    length: int,
    count: int,
    append_time_us: int,
    min_ts: int,
    max_ts: int,
    batch_hash: int,
) -> PartitionState:
    """Add a batch after ``state``, the partition's state as it stands in ``w``.

    ``position`` is within the journal row's *value* (``journal.ROW_HEADER``
    included). The append time is raised to the last one when it is lower.
    ``batch_hash`` (of the batch's bytes, up to 128 bits) enters the digest.
    Call ``add_refs`` for the entry as well: once, with its number of batches.
    """
    base = state.next_offset
    time_us = append_time_us if append_time_us > state.last_append_us else state.last_append_us
    running = max_ts if max_ts > state.max_timestamp_us else state.max_timestamp_us
    w.put(
        Table.INDEX,
        _KEY.pack(topic_id, partition, base),
        _ROW.pack(
            count, log_index, position, length, time_us, min_ts, max_ts, running, batch_hash & _CHECK_MASK
        ),
    )
    link = _LINK.pack(state.digest, (batch_hash & _HASH_MASK).to_bytes(16, "big"), base, count, time_us)
    after = PartitionState(
        state.start_offset,
        base + count,
        state.bytes + length,
        xxhash.xxh3_128_digest(link),
        time_us,
        running,
    )
    _write_state(w, topic_id, partition, after)
    return after


def add_refs(w: Writer, log_index: int, n: int) -> None:
    """``n`` more batches of the entry at ``log_index`` are wanted.

    Raises:
        StorageError: a later entry has been given references before this one;
            entries are applied in order.
    """
    key = journal.row_key(log_index)
    old = w.get(Table.REFS, key)
    if old is None:
        w.append(Table.REFS, key, _U32.pack(n))
    else:
        w.put(Table.REFS, key, _U32.pack(n + _U32.unpack(old)[0]))


def index_at(r: Reader, topic_id: int, partition: int, offset: int) -> IndexRow | None:
    """The batch that holds ``offset``; None when no batch does."""
    if offset < 0:
        return None
    found = r.floor(Table.INDEX, _KEY.pack(topic_id, partition, offset))
    if found is None:
        return None
    key, value = found
    row_topic, row_partition, base = _KEY.unpack(key)
    if row_topic != topic_id or row_partition != partition:
        return None
    row = _decode(topic_id, partition, base, value)
    return row if offset < base + row.count else None


def missing_batch(r: Reader, topic_id: int, partition: int, offset: int) -> DamagedRowError:
    """No index row has ``offset``, which lies within the partition: names the row to repair."""
    found = r.floor(Table.INDEX, _KEY.pack(topic_id, partition, offset))
    base = 0
    if found is not None and found[0][:8] == _PARTITION.pack(topic_id, partition):
        base = _decode(topic_id, partition, _KEY.unpack(found[0])[2], found[1]).next_offset
    state = read_state(r, topic_id, partition)
    if state is not None and state.start_offset > base:
        base = state.start_offset
    return DamagedRowError(
        Table.INDEX,
        _KEY.pack(topic_id, partition, base),
        f"topic {topic_id} partition {partition} offset {base}: not in the index",
        metadata={"topic_id": str(topic_id), "partition": str(partition), "offset": str(base)},
    )


def lacks_batch(r: Reader, key: bytes) -> bool:
    """True when there should be an index row of this key and is none."""
    if len(key) != _KEY.size or r.get(Table.INDEX, key) is not None:
        return False
    topic_id, partition, base = _KEY.unpack(key)
    state = read_state(r, topic_id, partition)
    if state is None or not state.start_offset <= base < state.next_offset:
        return False
    return index_at(r, topic_id, partition, base) is None


def index_scan(r: Reader, topic_id: int, partition: int, from_offset: int) -> Iterator[IndexRow]:
    """The batches from the one that holds ``from_offset`` on, in order.

    Before the partition's start: from its first batch.
    """
    first = index_at(r, topic_id, partition, from_offset)
    start = max(from_offset, 0) if first is None else first.base_offset
    for key, value in r.scan(Table.INDEX, *_range(topic_id, partition, start)):
        base = int.from_bytes(key[8:], "big")
        yield _decode(topic_id, partition, base, value)


def offset_at_time(
    r: Reader, topic_id: int, partition: int, time_us: int, basis: Literal["record", "append"]
) -> int:
    """First offset of the first batch that can hold a record with time >= ``time_us``.

    The partition's next offset when there is none, 0 when there is no such
    partition. By record time the answer may be too early, never too late:
    callers skip records below ``time_us``. It is exact unless more than 10,000
    batches follow a trimmed batch whose times lay ahead of theirs.
    """
    state = read_state(r, topic_id, partition)
    if state is None:
        return 0
    by_append = basis == "append"
    # Both times rise with the offset. Invariant: every batch below `low` is too
    # early, the batch at `high` (if any) is not.
    low, high = state.start_offset, state.next_offset
    while low < high:
        row = index_at(r, topic_id, partition, (low + high) // 2)
        if row is None:
            raise _hole(topic_id, partition, (low + high) // 2)
        if (row.append_time_us if by_append else row.running_max_timestamp_us) >= time_us:
            high = row.base_offset
        else:
            low = row.next_offset
    if by_append:
        return low
    # The running maximum remembers trimmed batches too: step over those that
    # are "late enough" only because of one of them.
    for scanned, row in enumerate(index_scan(r, topic_id, partition, low)):
        if row.max_timestamp_us >= time_us or scanned == _TIME_SCAN_LIMIT:
            return row.base_offset
    return state.next_offset


def read_batch(r: Reader, row: IndexRow, *, verify: bool = False) -> bytes:
    """The batch's bytes, as the producer sent them.

    ``verify`` compares them with the hash taken when they were applied.

    Raises:
        DamagedRowError: the batch is not there, cut short or (``verify``) damaged;
            names topic id, partition and offset. The row at fault is the log entry's.
    """
    data = r.get_slice(Table.JOURNAL, journal.row_key(row.log_index), row.position, row.length)
    if data is None:
        raise _damaged(row, f"log entry {row.log_index} is missing")
    if len(data) != row.length:
        raise _damaged(row, f"log entry {row.log_index} is cut short")
    if verify and row.check:
        if _hash_batch(data) != row.check:
            raise _damaged(row, "the bytes are not those that were applied")
    elif verify:
        try:
            batch = records_pb2.RecordBatch.FromString(data)
        except DecodeError as error:
            raise _damaged(row, "the batch does not parse") from error
        if google_crc32c.value(batch.records) != batch.crc32c:
            raise _damaged(row, "CRC-32C does not match")
        if batch.count != row.count:
            raise _damaged(row, f"the batch counts {batch.count} records, the index {row.count}")
    return data


def trim(w: Writer, topic_id: int, partition: int, before_offset: int, limit: int) -> PartitionState:
    """Drop whole batches that end at or before ``before_offset``, ``limit`` at most.

    Journal rows go with their last batch, unless the log still needs them.
    Call again while the start offset moves.

    Raises:
        StorageError: there is no such partition.
    """
    state = read_state(w, topic_id, partition)
    if state is None:
        raise StorageError(f"there is no partition {partition} of topic {topic_id} to trim")
    dropped: list[IndexRow] = []
    if limit > 0 and before_offset > state.start_offset:
        for row in index_scan(w, topic_id, partition, state.start_offset):
            if row.next_offset > before_offset:
                break
            dropped.append(row)
            if len(dropped) == limit:
                break
    if not dropped:
        return state
    _release(w, topic_id, partition, dropped)
    after = PartitionState(
        dropped[-1].next_offset,
        state.next_offset,
        state.bytes - sum(row.length for row in dropped),
        state.digest,
        state.last_append_us,
        state.max_timestamp_us,
    )
    _write_state(w, topic_id, partition, after)
    return after


def drop(w: Writer, topic_id: int, partition: int, limit: int) -> bool:
    """Delete the partition, ``limit`` batches a call; True when it is gone."""
    state = read_state(w, topic_id, partition)
    if state is None:
        return True
    if trim(w, topic_id, partition, state.next_offset, limit).start_offset < state.next_offset:
        return False
    w.delete(Table.PARTITIONS, _PARTITION.pack(topic_id, partition))
    return True


def scan_states(r: Reader, topic_id: int | None = None) -> Iterator[tuple[int, int, PartitionState]]:
    """(topic id, partition, state) of a topic's partitions, or of all."""
    start, stop = (b"", None) if topic_id is None else (_U32.pack(topic_id), _U32.pack(topic_id + 1))
    for key, value in r.scan(Table.PARTITIONS, start, stop):
        topic, partition = _PARTITION.unpack(key)
        yield topic, partition, PartitionState(*_STATE.unpack(value))


def _write_state(w: Writer, topic_id: int, partition: int, s: PartitionState) -> None:
    w.put(
        Table.PARTITIONS,
        _PARTITION.pack(topic_id, partition),
        _STATE.pack(s.start_offset, s.next_offset, s.bytes, s.digest, s.last_append_us, s.max_timestamp_us),
    )


def _decode(topic_id: int, partition: int, base: int, value: bytes) -> IndexRow:
    if len(value) == _ROW.size:
        count, log_index, position, length, append_time, min_ts, max_ts, running, check = _ROW.unpack(value)
    else:
        count, log_index, position, length, append_time, min_ts, max_ts, running = _ROW_1.unpack(value)
        check = 0
    return IndexRow(
        base,
        count,
        log_index,
        position,
        length,
        append_time,
        min_ts,
        max_ts,
        running,
        check,
        topic_id,
        partition,
    )


def _range(topic_id: int, partition: int, from_offset: int) -> tuple[bytes, bytes]:
    return (
        _KEY.pack(topic_id, partition, from_offset),
        _KEY.pack(topic_id, partition, (1 << 64) - 1),
    )


def _release(w: Writer, topic_id: int, partition: int, rows: list[IndexRow]) -> None:
    """Delete index rows, and the journal rows nobody wants any more."""
    wanted_less: dict[int, int] = {}
    for row in rows:
        w.delete(Table.INDEX, _KEY.pack(topic_id, partition, row.base_offset))
        wanted_less[row.log_index] = wanted_less.get(row.log_index, 0) + 1
    for log_index, n in wanted_less.items():
        key = journal.row_key(log_index)
        value = w.get(Table.REFS, key)
        left = (0 if value is None else _U32.unpack(value)[0]) - n
        if left < 0:
            raise StorageError(f"log entry {log_index} has fewer references than batches")
        if left:
            w.put(Table.REFS, key, _U32.pack(left))
        else:
            w.delete(Table.REFS, key)
            journal.drop_unreferenced(w, log_index)


def _damaged(row: IndexRow, what: str) -> DamagedRowError:
    return DamagedRowError(
        Table.JOURNAL,
        journal.row_key(row.log_index),
        f"topic {row.topic_id} partition {row.partition} offset {row.base_offset}: {what}",
        metadata={
            "log_index": str(row.log_index),
            "topic_id": str(row.topic_id),
            "partition": str(row.partition),
            "offset": str(row.base_offset),
        },
    )


def _hole(topic_id: int, partition: int, offset: int) -> StorageError:
    return StorageError(
        f"topic {topic_id} partition {partition} offset {offset}: not in the index",
        metadata={"topic_id": str(topic_id), "partition": str(partition), "offset": str(offset)},
    )
