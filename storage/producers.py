"""What idempotence remembers of each producer, per partition.

The table grows with producers, so rows expire: by stamped time, in bounded
steps, at the same point of the log on every replica.
"""

from __future__ import annotations

import struct

import msgspec

from holdfast.errors import StorageError
from holdfast.storage.port import Reader, Table, Writer

_KEY = struct.Struct(">IIQ")  # topic, partition, producer
_PARTITION = struct.Struct(">II")
_HEAD = struct.Struct(">IqqB")
_RECENT = struct.Struct(">QIQq")

#: Batches remembered per producer and partition: the most a producer may have in flight.
MAX_RECENT = 8

_ALL_BUT_ONE = (MAX_RECENT - 1) * _RECENT.size

# Where the last expiry stopped. Shorter than any producer's key, and part of
# the state: replicas must go on from the same place.
_EXPIRY_CURSOR = b"\x00"
_FIRST = bytes(_KEY.size)

#: (base sequence, record count, base offset, append time in microseconds)
RecentBatch = tuple[int, int, int, int]


class ProducerRow(msgspec.Struct, frozen=True, gc=False):
    """One producer in one partition."""

    epoch: int
    last_sequence: int  # of the last record; -1 before the first
    last_time_us: int  # stamped time of its last append
    packed: bytes = b""  # ``recent`` as stored: every append needs them, few look into them

    @property
    def recent(self) -> tuple[RecentBatch, ...]:
        """The latest batches, oldest first, at most MAX_RECENT."""
        return tuple(_RECENT.iter_unpack(self.packed))


def pack_next(packed: bytes, base: int, count: int, base_offset: int, append_time_us: int) -> bytes:
    """``packed`` and one batch more; the oldest goes when it would be more than MAX_RECENT."""
    return packed[-_ALL_BUT_ONE:] + _RECENT.pack(base, count, base_offset, append_time_us)


def read(r: Reader, topic_id: int, partition: int, producer_id: int) -> ProducerRow | None:
    """None when the producer is not known."""
    value = r.get(Table.PRODUCERS, _KEY.pack(topic_id, partition, producer_id))
    if value is None:
        return None
    epoch, last_sequence, last_time, n = _HEAD.unpack_from(value)
    packed = value[_HEAD.size :]
    if len(packed) != n * _RECENT.size:
        raise StorageError(
            f"state of producer {producer_id} in topic {topic_id} partition {partition} is damaged"
        )
    return ProducerRow(epoch, last_sequence, last_time, packed)


def write(w: Writer, topic_id: int, partition: int, producer_id: int, row: ProducerRow) -> None:
    """Remember the producer."""
    packed = row.packed
    head = _HEAD.pack(row.epoch, row.last_sequence, row.last_time_us, len(packed) // _RECENT.size)
    w.put(Table.PRODUCERS, _KEY.pack(topic_id, partition, producer_id), head + packed)


def count(r: Reader) -> int:
    """How many rows there are."""
    return r.count(Table.PRODUCERS) - (r.get(Table.PRODUCERS, _EXPIRY_CURSOR) is not None)


def expire(w: Writer, idle_since_us: int, limit: int, scan_limit: int = 1000) -> int:
    """Forget producers whose last append is before ``idle_since_us``.

    Deletes at most ``limit`` rows and looks at at most ``scan_limit``, going
    on where the last call stopped and starting over at the end.

    Returns:
        How many rows were deleted.
    """
    start = w.get(Table.PRODUCERS, _EXPIRY_CURSOR) or _FIRST
    doomed: list[bytes] = []
    last = b""
    seen = 0
    if limit > 0:
        for key, value in w.scan(Table.PRODUCERS, start):
            if seen == scan_limit:
                break
            seen += 1
            last = key
            if _HEAD.unpack_from(value)[2] < idle_since_us:
                doomed.append(key)
                if len(doomed) == limit:
                    break
    for key in doomed:
        w.delete(Table.PRODUCERS, key)
    at_end = seen < scan_limit and len(doomed) < limit
    following = _FIRST if at_end or not last else last + b"\x00"
    if following != start:
        w.put(Table.PRODUCERS, _EXPIRY_CURSOR, following)
    return len(doomed)


def drop_partition(w: Writer, topic_id: int, partition: int, limit: int) -> bool:
    """Forget the producers of a partition, ``limit`` rows a call; True when done."""
    doomed: list[bytes] = []
    start = _PARTITION.pack(topic_id, partition)
    stop = _PARTITION.pack(topic_id, partition + 1)
    done = True
    for key in w.scan_keys(Table.PRODUCERS, start, stop):
        if len(doomed) == limit:
            done = False
            break
        doomed.append(key)
    for key in doomed:
        w.delete(Table.PRODUCERS, key)
    return done
