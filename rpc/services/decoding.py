"""Stored batches as plain records, for clients that ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from holdfast.cluster.delivery.reading import Slice, TimeWindow
from holdfast.records import DecodedBatch, decode_batch
from holdfast.v1 import records_pb2


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


def records_of(
    topic: str, item: Slice, batch: DecodedBatch, window: TimeWindow | None
) -> Iterator[records_pb2.Record]:
    """The records of a slice that lie in the window, in order."""
    base = item.row.base_offset
    keys = batch.keys
    values = batch.values
    times = batch.timestamps_us
    headers = batch.headers if batch.has_headers else None
    wanted = _record_filter(window)
    record = records_pb2.Record
    partition, append_time = item.row.partition, item.row.append_time_us
    for at in range(item.first - base, item.last - base + 1):
        if wanted is not None and not wanted(times[at]):
            continue
        made = record(
            key=keys[at],
            value=values[at],
            timestamp_us=times[at],
            topic=topic,
            partition=partition,
            offset=base + at,
            append_time_us=append_time,
        )
        if headers is not None and headers[at]:
            for name, value in headers[at]:
                made.headers.add(name=name, value=value)
        yield made


def _record_filter(window: TimeWindow | None) -> Callable[[int], bool] | None:
    if window is None or window.basis == "append":
        return None  # by append time a batch is in or out as a whole
    low = window.from_us
    high = window.to_us
    return lambda time_us: (low is None or time_us >= low) and (high is None or time_us < high)
