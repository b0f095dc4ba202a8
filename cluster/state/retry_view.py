"""The records of a group that wait for another attempt or are parked, page by page."""

from __future__ import annotations

from typing import NamedTuple

from holdfast.storage import groups, partitions, retries, topics
from holdfast.storage.port import Reader
from holdfast.storage.retries import RetryRow, State

#: Rows one page looks at: with few parked ones among many that wait, a page may come out short.
MAX_ROWS = 10_000

#: Topic id, partition, offset.
Place = tuple[int, int, int]

_PARKED = (State.PARKED, State.PARKED_FOR_GOOD)
_LAST_PARTITION = (1 << 32) - 1
_LAST_OFFSET = (1 << 64) - 1


class Waiting(NamedTuple):
    """One record."""

    topic: str
    place: Place
    row: RetryRow

    @property
    def parked(self) -> bool:
        return self.row.state in _PARKED


class Page(NamedTuple):
    """Records in order of their places."""

    found: list[Waiting]
    #: Where to go on, in a topic that is there; None: that was all.
    after: Place | None


def waiting(
    reader: Reader,
    group: str,
    *,
    after: Place | None = None,
    limit: int,
    parked_only: bool = False,
    max_rows: int = MAX_ROWS,
) -> Page:
    """Up to ``limit`` records behind ``after``.

    What lies below a committed offset, was trimmed, or belongs to a topic that is
    gone is left out: its row goes with a later step.
    """
    found: list[Waiting] = []
    floors: dict[tuple[int, int], int] = {}
    names: dict[int, str] = {}
    looked = 0
    begin = last = after
    while True:
        for topic_id, partition, offset, row in retries.scan_group(reader, group, begin):
            if looked == max_rows or len(found) == limit:
                return Page(found, last)
            if topic_id not in names:
                topic = topics.read(reader, topic_id)
                if topic is None:
                    begin = (topic_id, _LAST_PARTITION, _LAST_OFFSET)
                    break
                names[topic_id] = topic.name
            looked += 1
            last = (topic_id, partition, offset)
            flow = (topic_id, partition)
            if flow not in floors:
                floors[flow] = _floor(reader, group, *flow)
            each = Waiting(names[topic_id], last, row)
            if offset >= floors[flow] and (each.parked or not parked_only):
                found.append(each)
        else:
            return Page(found, None)


def _floor(reader: Reader, group: str, topic_id: int, partition: int) -> int:
    """Below it everything is settled, or gone."""
    state = partitions.read_state(reader, topic_id, partition)
    start = 0 if state is None else state.start_offset
    return max(groups.committed(reader, group, topic_id, partition) or 0, start)
