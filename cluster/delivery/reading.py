"""Reading cursors: stored batches of a partition, in bounded steps.

Each step runs inside one short read transaction of the caller's. Batches come
out as stored, checked against their CRC: a damaged one is never passed on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from holdfast.storage import partitions
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Reader

TimeBasis = Literal["record", "append"]


@dataclass(frozen=True, slots=True)
class PartitionRef:
    """A partition, and the name its topic has."""

    topic: str
    topic_id: int
    partition: int


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """``from_us <= time < to_us``; None is open. Microseconds since the Unix epoch."""

    basis: TimeBasis
    from_us: int | None
    to_us: int | None

    def overlaps(self, row: partitions.IndexRow) -> bool:
        """False when no record of the batch can lie in the window."""
        if self.basis == "append":
            low = high = row.append_time_us
        else:
            low, high = row.min_timestamp_us, row.max_timestamp_us
        return (self.to_us is None or low < self.to_us) and (self.from_us is None or high >= self.from_us)

    def is_past(self, row: partitions.IndexRow) -> bool:
        """True when neither this batch nor any later one can lie in the window.

        Only append time rises with the offset; a late event may come at any time.
        """
        return self.basis == "append" and self.to_us is not None and row.append_time_us >= self.to_us


class Slice(msgspec.Struct, frozen=True, gc=False):
    """A stored batch and the part of it that was asked for."""

    row: partitions.IndexRow
    first: int
    last: int  # inclusive
    data: bytes

    @property
    def records(self) -> int:
        return self.last - self.first + 1


@dataclass(slots=True)
class Step:
    """What one step read."""

    slices: list[Slice]
    next_offset: int  # where to go on
    start_offset: int  # of the partition
    end_offset: int  # of the partition: the log end in this snapshot
    bytes: int = 0
    records: int = 0
    rows: int = 0  # index rows looked at
    #: The end of the time window was reached: nothing will follow.
    finished: bool = False


def read_step(
    reader: Reader,
    ref: PartitionRef,
    offset: int,
    *,
    stop: int | None,
    max_bytes: int,
    max_records: int,
    max_rows: int,
    window: TimeWindow | None = None,
) -> Step | None:
    """Read on from ``offset``; None when the partition does not exist (any more).

    A caller looks first whether ``start_offset`` has passed ``offset``: then
    records were removed before they were read, and there are no slices.

    Args:
        stop: exclusive end, which may lie beyond the log's.
        max_bytes: bound on batch bytes; one batch is read even when it is larger.
        max_records: bound on records; at least 1.
        max_rows: bound on index rows looked at.

    Raises:
        DamagedRowError: the batch at ``offset`` is damaged. Batches before a
            damaged one are still given; the next step raises.
    """
    state = partitions.read_state(reader, ref.topic_id, ref.partition)
    if state is None:
        return None
    end = state.next_offset
    step = Step([], offset, state.start_offset, end)
    limit = end if stop is None or stop > end else stop
    if offset >= limit or offset < state.start_offset:
        return step
    expected = offset
    for row in partitions.index_scan(reader, ref.topic_id, ref.partition, offset):
        if row.base_offset > expected:
            break  # a hole: told below
        expected = row.next_offset
        if row.base_offset >= limit or step.rows >= max_rows:
            return step
        step.rows += 1
        if window is not None and not window.overlaps(row):
            if window.is_past(row):
                step.finished = True
                return step
            step.next_offset = min(row.next_offset, limit)
            continue
        if step.slices and step.bytes + row.length > max_bytes:
            return step
        first = max(offset, row.base_offset)
        last = min(row.next_offset, limit, first + max_records - step.records) - 1
        try:
            data = partitions.read_batch(reader, row, verify=True)
        except DamagedRowError as error:
            if step.slices:
                return step
            raise _damaged(ref, row.base_offset, error) from error
        step.slices.append(Slice(row, first, last, data))
        step.next_offset = last + 1
        step.bytes += row.length
        step.records += last - first + 1
        if step.records >= max_records or step.bytes >= max_bytes:
            return step
    if expected < limit and not step.slices:
        raise partitions.missing_batch(reader, ref.topic_id, ref.partition, expected)
    return step


def _damaged(ref: PartitionRef, offset: int, error: DamagedRowError) -> DamagedRowError:
    return DamagedRowError(
        error.table,
        error.key,
        f"topic {ref.topic!r} partition {ref.partition}: the batch at offset {offset} is damaged on this"
        f" node and is not served ({error}); read from another replica",
        metadata={"topic": ref.topic, "partition": str(ref.partition), "offset": str(offset)},
    )
