"""From a ``Position`` of a request to an offset of a partition."""

from __future__ import annotations

from holdfast.cluster.delivery.reading import PartitionRef, TimeBasis
from holdfast.errors import HoldfastError, InvalidArgumentError, OffsetOutOfRangeError
from holdfast.records import decode_batch
from holdfast.storage import partitions
from holdfast.storage.partitions import PartitionState
from holdfast.storage.port import Reader
from holdfast.v1 import bus_pb2


def resolve(
    reader: Reader,
    ref: PartitionRef,
    state: PartitionState,
    position: bus_pb2.Position,
    basis: TimeBasis,
    *,
    beyond_end: bool = False,
) -> int:
    """The offset a position means in this partition, now.

    Args:
        position: one with a kind; partitions its ``offsets`` do not name are at
            the earliest.
        basis: what a time is compared with.
        beyond_end: an offset past the end of the log is allowed (it will come).

    Raises:
        OffsetOutOfRangeError: the offset is not within start..end, both included.
        InvalidArgumentError: the position has no kind.
    """
    kind = position.WhichOneof("position")
    if kind == "earliest":
        return state.start_offset
    if kind == "latest":
        return state.next_offset
    if kind == "time_us":
        found = partitions.offset_at_time(reader, ref.topic_id, ref.partition, position.time_us, basis)
        return min(max(found, state.start_offset), state.next_offset)
    if kind == "offset":
        offset = position.offset
    elif kind == "offsets":
        offset = position.offsets.offsets.get(ref.partition, state.start_offset)
    else:
        raise InvalidArgumentError("the position is empty", metadata={"field": "position"})
    if offset < state.start_offset or (offset > state.next_offset and not beyond_end):
        raise out_of_range(ref, offset, state.start_offset, state.next_offset)
    return offset


def first_record_at(reader: Reader, ref: PartitionRef, offset: int, time_us: int) -> int:
    """The first record from ``offset`` on with an event time >= ``time_us``, within its batch.

    ``offset`` is what a time was resolved to: the start of the first batch that
    can hold such a record. Unchanged when the batch cannot be read; whoever
    reads it next reports that.
    """
    row = partitions.index_at(reader, ref.topic_id, ref.partition, offset)
    if row is None or row.min_timestamp_us >= time_us:
        return offset
    try:
        times = decode_batch(partitions.read_batch(reader, row)).timestamps_us
    except HoldfastError:
        return offset
    for at, stamp in enumerate(times):
        if stamp >= time_us:
            return max(offset, row.base_offset + at)
    return offset


def out_of_range(ref: PartitionRef, offset: int, start: int, end: int) -> OffsetOutOfRangeError:
    return OffsetOutOfRangeError(
        f"offset {offset} of topic {ref.topic!r} partition {ref.partition} is out of range;"
        f" valid are {start} to {end}",
        metadata={
            "topic": ref.topic,
            "partition": str(ref.partition),
            "start_offset": str(start),
            "end_offset": str(end),
        },
    )
