"""Decoded batches of one node: what is picked record by record is decoded once, not once per record."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict

from holdfast.cluster.delivery.lanes import lane_of
from holdfast.records import DecodedBatch, Headers, decode_batch
from holdfast.storage import partitions
from holdfast.storage.port import Reader

#: What a record takes beside its bytes: three objects, their places in lists, a hash.
_RECORD_OVERHEAD = 200
#: What a record's own frame takes in a message, about.
_FRAME = 16


class Columns:
    """A stored batch, decoded. Its records are ``base`` up to, not including, ``end``."""

    __slots__ = ("_headers", "_keys", "_lanes", "base", "batch", "end", "row", "size", "values")

    def __init__(self, row: partitions.IndexRow, batch: DecodedBatch) -> None:
        self.row = row
        self.base = row.base_offset
        self.end = row.next_offset
        self.batch = batch
        self.values = batch.values
        self._keys = batch.keys if batch.has_keys else None
        self._headers = batch.headers if batch.has_headers else None
        self._lanes: list[int] | None = None
        #: Memory it takes, in bytes, about: values stand in the message that was decoded, and by themselves.
        self.size = 2 * sum(map(len, self.values)) + _RECORD_OVERHEAD * batch.count
        if self._keys is not None:
            self.size += 2 * sum(map(len, self._keys))
        if self._headers is not None:
            self.size += 2 * row.length

    @property
    def keys(self) -> list[bytes] | None:
        """One per record, ``b""`` for none; None: no record has one."""
        return self._keys

    @property
    def headers(self) -> list[Headers] | None:
        """One sequence per record; None: no record has any."""
        return self._headers

    @property
    def lanes(self) -> list[int]:
        """The lane of each record, see ``lanes.lane_of``; worked out once."""
        if self._lanes is None:
            keys = self._keys
            self._lanes = [0] * len(self.values) if keys is None else list(map(lane_of, keys))
        return self._lanes

    def size_of(self, index: int) -> int:
        """What a record takes in a message, in bytes, about."""
        size = len(self.values[index]) + _FRAME
        if self._keys is not None:
            size += len(self._keys[index])
        if self._headers is not None and self._headers[index]:
            size += sum(len(name) + len(value) + 6 for name, value in self._headers[index])
        return size


class BatchCache:
    """The batches used last, within a bound.

    Stored batches never change and topic ids never come again: an entry is
    never wrong. One that is larger than the bound is kept alone.

    Args:
        max_bytes: of all entries together, about.
    """

    def __init__(self, max_bytes: int = 32 << 20) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[int, int, int], Columns] = OrderedDict()
        self._bases: dict[tuple[int, int], list[int]] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def at(self, reader: Reader, topic_id: int, partition: int, offset: int) -> Columns:
        """The batch that holds a record of the partition.

        Raises:
            DamagedRowError: it is missing or damaged.
        """
        bases = self._bases.get((topic_id, partition))
        if bases:
            place = bisect_right(bases, offset) - 1
            if place >= 0:
                key = (topic_id, partition, bases[place])
                found = self._entries[key]
                if offset < found.end:
                    self._entries.move_to_end(key)
                    return found
        row = partitions.index_at(reader, topic_id, partition, offset)
        if row is None:
            raise partitions.missing_batch(reader, topic_id, partition, offset)
        columns = Columns(row, decode_batch(partitions.read_batch(reader, row, verify=True)))
        self._add((topic_id, partition, row.base_offset), columns)
        return columns

    def _add(self, key: tuple[int, int, int], columns: Columns) -> None:
        self._entries[key] = columns
        insort(self._bases.setdefault(key[:2], []), key[2])
        self.bytes += columns.size
        while self.bytes > self._max_bytes and len(self._entries) > 1:
            (topic_id, partition, base), dropped = self._entries.popitem(last=False)
            self.bytes -= dropped.size
            bases = self._bases[topic_id, partition]
            bases.remove(base)
            if not bases:
                del self._bases[topic_id, partition]
