"""How far a group is behind: a function of rows, so every node says it exactly, as of what it has applied.

What a group has not settled counts, from its floor or the first record that
retention has kept, whichever is later; so do partitions it reads and has not
begun with, from where it will begin.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from holdfast.cluster.delivery.group_rows import start_of
from holdfast.cluster.group_definition import Definition
from holdfast.cluster.state.group_view import definition_of, stored, unknown_group
from holdfast.storage import acks, bits, flow_keys, flows, groups, partitions, retries, topics
from holdfast.storage.partitions import PartitionState
from holdfast.storage.port import Reader
from holdfast.storage.retries import State
from holdfast.storage.topics import TopicRow

#: Topic id and partition.
Key = tuple[int, int]

_PARKED = (State.PARKED, State.PARKED_FOR_GOOD)


class FlowLag(NamedTuple):
    """One group in one partition; times in microseconds since the Unix epoch."""

    topic: str
    key: Key
    records: int  # not settled
    oldest_append_us: int  # of them; 0: there are none
    last_append_us: int  # of the partition; 0: nothing was ever appended
    floor: int  # everything below is settled; where the group will begin when it has not
    end: int
    retrying: int  # records that wait for another attempt or are parked
    parked: int  # of them
    looked: int  # rows that it took to say so


class LagReader:
    """Lags of groups as of one snapshot; what it learns of topics it keeps for the next group."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._topics: dict[int, TopicRow | None] = {}
        self._all: list[TopicRow] | None = None
        self._matching: dict[tuple[str, ...], list[TopicRow]] = {}

    def group(self, name: str, after: Key | None = None) -> Iterator[FlowLag]:
        """A group's partitions behind ``after``, by topic id and partition.

        A group that was defined is behind in what its definition reads; one that
        only ever committed offsets, where it did so.

        Raises:
            UnknownGroupError: there is none of this name.
            DamagedRowError: a row that is needed is damaged.
        """
        row = groups.read(self._reader, name)
        if row is None:
            raise unknown_group(name)
        definition = None if stored(row).implicit else definition_of(row)
        floors: dict[Key, int | None] = {
            (each.topic_id, each.partition): each.offset for each in groups.offsets(self._reader, name)
        }
        if definition is not None:
            reads = {
                (topic.id, partition)
                for topic in self._reads(definition)
                for partition in range(topic.partitions)
            }
            floors = {key: floors.get(key) for key in reads}
        late = bool(stored(row).topics_seen)
        for key in sorted(floors):
            topic = self._topic(key[0])
            state = partitions.read_state(self._reader, *key) if topic is not None else None
            if topic is None or state is None or (after is not None and key <= after):
                continue
            floor = floors[key]
            if floor is None:
                # It has none only of what a definition reads.
                assert definition is not None
                floor = start_of(self._reader, definition, topic, key[1], late=late)
            yield self._flow(name, topic, key, state, floor)

    def _reads(self, definition: Definition) -> list[TopicRow]:
        """The topics that are there of those a definition reads."""
        if not definition.patterns:
            named = (topics.find(self._reader, name) for name in definition.topics)
            return [topic for topic in named if topic is not None]
        if self._all is None:
            self._all = list(topics.scan(self._reader))
        what = (*definition.topics, "", *definition.patterns)
        found = self._matching.get(what)
        if found is None:
            found = self._matching[what] = [topic for topic in self._all if definition.reads(topic.name)]
        return found

    def _topic(self, topic_id: int) -> TopicRow | None:
        if topic_id not in self._topics:
            self._topics[topic_id] = topics.read(self._reader, topic_id)
        return self._topics[topic_id]

    def _flow(self, group: str, topic: TopicRow, key: Key, state: PartitionState, floor: int) -> FlowLag:
        reader = self._reader
        flow = flow_keys.flow_key(group, *key)
        row = flows.read(reader, group, *key)
        end = state.next_offset
        first = min(max(floor, state.start_offset), end)
        looked = 1
        above = row.settled_above
        if above and first > floor:
            # Retention has passed some of them.
            passed, chunks = _count(reader, flow, floor, first)
            above, looked = above - passed, looked + chunks
        records = end - first - above
        oldest = 0
        if records:
            open_at = _first_open(reader, flow, first) if above else first
            found = partitions.index_at(reader, *key, open_at)
            if found is None:
                raise partitions.missing_batch(reader, *key, open_at)
            oldest = found.append_time_us
        retrying = parked = 0
        if row.retrying:
            # Rows below the floor mean nothing: they go a few at a time.
            for _, retry in retries.scan(reader, flow, first):
                retrying += 1
                parked += retry.state in _PARKED
        return FlowLag(
            topic.name,
            key,
            records,
            oldest,
            max(state.last_append_us, 0),
            floor,
            end,
            retrying,
            parked,
            looked + retrying,
        )


def _count(reader: Reader, flow: bytes, first: int, end: int) -> tuple[int, int]:
    """How many records of a range are settled, and how many rows say so."""
    total = rows = 0
    for chunk, value in acks.scan(reader, flow, first // bits.CHUNK_BITS, -(-end // bits.CHUNK_BITS)):
        base = chunk * bits.CHUNK_BITS
        low, high = max(first - base, 0), min(end - base, bits.CHUNK_BITS)
        total += (value & bits.span(low, high)).bit_count()
        rows += 1
    return total, rows


def _first_open(reader: Reader, flow: bytes, first: int) -> int:
    """The first record from ``first`` on that is not settled."""
    chunk, bit = divmod(first, bits.CHUNK_BITS)
    while True:
        ones = bits.trailing_ones(acks.read(reader, flow, chunk) >> bit)
        if bit + ones < bits.CHUNK_BITS:
            return chunk * bits.CHUNK_BITS + bit + ones
        chunk, bit = chunk + 1, 0
