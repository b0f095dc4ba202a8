"""Stored batches as plain records, for clients that ask for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from holdfast.cluster.delivery.reading import Slice, TimeWindow
from holdfast.records import DecodedBatch, decode_batch
from holdfast.v1 import records_pb2

#: What a record takes on the wire besides key, value, topic and headers, about.
_RECORD_OVERHEAD = 44


class BatchDecoder:
    """Decodes batches; keeps the last one, since a large batch fills several messages."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[tuple[int, int, int], DecodedBatch] | None = None

    def decode(self, item: Slice) -> DecodedBatch:
        row = item.row
        key = (row.topic_id, row.partition, row.base_offset)
        if self._last is None or self._last[0] != key:
            self._last = (key, decode_batch(item.data))
        return self._last[1]

    def forget(self) -> None:
        self._last = None


class Added(NamedTuple):
    """What ``add_records`` did."""

    records: int
    bytes: int  # about what they take in the message
    next_offset: int  # the first one not looked at


def add_records(
    add: Callable[..., records_pb2.Record],
    topic: str,
    item: Slice,
    batch: DecodedBatch,
    window: TimeWindow | None,
    room: int,
) -> Added:
    """Add the records of a slice that lie in the window to a message, in order.

    Stops when ``room`` bytes are used up; the first record always fits. ``add``
    is that of a repeated field: it fills the message in place, in less than
    half the time of building records and copying them.
    """
    row = item.row
    base, partition, append_time = row.base_offset, row.partition, row.append_time_us
    low, high = item.first - base, item.last - base + 1
    headers = batch.headers if batch.has_headers else None
    wanted = _record_filter(window)
    used = count = 0
    fixed = len(topic) + _RECORD_OVERHEAD
    columns = zip(
        range(item.first, item.last + 1),
        batch.keys[low:high],
        batch.values[low:high],
        batch.timestamps_us[low:high],
        strict=True,
    )
    for offset, key, value, time_us in columns:
        if wanted is not None and not wanted(time_us):
            continue
        if used >= room:
            return Added(count, used, offset)
        record = add(
            key=key,
            value=value,
            timestamp_us=time_us,
            topic=topic,
            partition=partition,
            offset=offset,
            append_time_us=append_time,
        )
        if headers is not None and headers[offset - base]:
            for name, content in headers[offset - base]:
                record.headers.add(name=name, value=content)
                used += len(name) + len(content) + 6
        used += len(key) + len(value) + fixed
        count += 1
    return Added(count, used, item.last + 1)


def _record_filter(window: TimeWindow | None) -> Callable[[int], bool] | None:
    if window is None or window.basis == "append":
        return None  # by append time a batch is in or out as a whole
    low = window.from_us
    high = window.to_us
    return lambda time_us: (low is None or time_us >= low) and (high is None or time_us < high)
