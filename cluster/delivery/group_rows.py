"""What a leader reads of a group when it opens it: its rows, its topics, where it begins in a partition."""

from __future__ import annotations

import msgspec

from holdfast.cluster import group_definition
from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.positions import first_record_at, resolve
from holdfast.cluster.delivery.reading import PartitionRef
from holdfast.cluster.group_definition import Definition
from holdfast.errors import LimitExceededError, UnknownTopicError
from holdfast.storage import acks, flows, groups, members, partitions, retries, topics
from holdfast.storage.members import MemberRow
from holdfast.storage.port import Reader
from holdfast.storage.retries import RetryRow
from holdfast.storage.topics import TopicRow
from holdfast.v1 import bus_pb2, log_pb2

#: Topics one group may read, and their partitions together.
MAX_TOPICS = 1_024
MAX_PARTITIONS = 16_384


class FlowRows(msgspec.Struct):
    """A group in one partition."""

    floor: int
    fence: int = 0
    owner: str = ""
    chunks: list[tuple[int, int]] = msgspec.field(default_factory=list)
    retries: list[tuple[int, RetryRow]] = msgspec.field(default_factory=list)


class GroupRows(msgspec.Struct):
    """A group.

    Attributes:
        definition: None: it has none, it only ever committed offsets.
        flows: of the partitions in which it has a position.
    """

    generation: int
    definition: Definition | None
    implicit: bool
    topics_seen: frozenset[int]
    members: list[tuple[str, MemberRow]]
    flows: dict[PartitionKey, FlowRows]


def read_group(reader: Reader, name: str) -> GroupRows | None:
    """All rows of a group, by prefix scans; None when there is no such group.

    Raises:
        StorageError: one does not parse.
    """
    row = groups.read(reader, name)
    if row is None:
        return None
    about = log_pb2.GroupRow.FromString(row.definition)
    places = {(each.topic_id, each.partition): FlowRows(each.offset) for each in groups.offsets(reader, name)}
    seated = list(members.scan(reader, name))
    living = {member for member, _ in seated}
    for topic_id, partition, flow in flows.scan(reader, name):
        place = places.get((topic_id, partition))
        if place is not None:
            # Who has left owns nothing, whatever the row still says.
            place.fence, place.owner = flow.fence, flow.owner if flow.owner in living else ""
    for topic_id, partition, chunk, value in acks.scan_group(reader, name):
        place = places.get((topic_id, partition))
        if place is not None:
            place.chunks.append((chunk, value))
    for topic_id, partition, offset, retry in retries.scan_group(reader, name):
        place = places.get((topic_id, partition))
        # What lies below the floor is left of a bounded step, and means nothing.
        if place is not None and offset >= place.floor:
            place.retries.append((offset, retry))
    return GroupRows(
        row.generation,
        group_definition.check(about.definition) if about.HasField("definition") else None,
        about.implicit,
        frozenset(about.topics_seen),
        seated,
        places,
    )


def read_topics(reader: Reader, definition: Definition) -> dict[int, TopicRow]:
    """The topics a group reads now, by id.

    Raises:
        UnknownTopicError: one that is named is not there.
        LimitExceededError: they are too many, or their partitions.
    """
    found: dict[int, TopicRow] = {}
    for name in definition.topics:
        row = topics.find(reader, name)
        if row is None:
            raise UnknownTopicError(f"no topic {name!r}", metadata={"topic": name})
        found[row.id] = row
    if definition.patterns:
        for row in topics.scan(reader):
            if definition.reads(row.name) and row.name != definition.dead_letter_topic:
                found[row.id] = row
    count = sum(row.partitions for row in found.values())
    for what, number, most in (("topics", len(found), MAX_TOPICS), ("partitions", count, MAX_PARTITIONS)):
        if number > most:
            raise LimitExceededError(
                f"the group would read {number} {what}; the limit is {most}: narrow its patterns",
                metadata={"limit": str(most)},
            )
    return dict(sorted(found.items()))


def start_of(reader: Reader, definition: Definition, topic: TopicRow, partition: int, *, late: bool) -> int:
    """Where a group begins in a partition it has no position in.

    Args:
        late: the group met the topic after its beginning: it reads it from the first record.
    """
    state = partitions.read_state(reader, topic.id, partition)
    if state is None:
        return 0
    if late or not (definition.start_latest or definition.start_us is not None):
        return state.start_offset
    if definition.start_us is None:
        return state.next_offset
    ref = PartitionRef(topic.name, topic.id, partition)
    position = bus_pb2.Position(time_us=definition.start_us)
    offset = resolve(reader, ref, state, position, "record")
    return first_record_at(reader, ref, offset, definition.start_us)
