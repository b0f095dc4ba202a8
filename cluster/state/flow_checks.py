"""What operations of groups check about the partitions they name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from holdfast.cluster.state.catalog import check_partition, partition_state
from holdfast.cluster.state.context import EntryContext
from holdfast.errors import InvalidArgumentError, LimitExceededError, OffsetOutOfRangeError
from holdfast.storage import flows
from holdfast.storage.partitions import PartitionState
from holdfast.storage.topics import TopicRow
from holdfast.v1 import log_pb2


class Place(Protocol):
    """A partition named in an operation."""

    @property
    def topic_id(self) -> int: ...

    @property
    def partition(self) -> int: ...


def check_places(context: EntryContext, places: Collection[Place], field: str) -> list[TopicRow]:
    """That these partitions are there and each is named once; their topics.

    Raises:
        UnknownTopicError, UnknownPartitionError: one is not there.
        InvalidArgumentError: one is named twice; ``metadata["field"]`` is ``field``.
    """
    seen: set[tuple[int, int]] = set()
    found: list[TopicRow] = []
    for place in places:
        topic = context.catalog.topic(context.w, place.topic_id)
        check_partition(topic, place.partition)
        seen.add((place.topic_id, place.partition))
        found.append(topic)
    if len(seen) != len(found):
        raise InvalidArgumentError("a partition is named twice", metadata={"field": field})
    return found


def check_position(context: EntryContext, topic: TopicRow, start: log_pb2.FlowStart) -> int:
    """The offset, raised to the first one kept: what lies before it was trimmed meanwhile.

    Raises:
        OffsetOutOfRangeError: it is negative or lies past the end.
    """
    state = partition_state(context.w, topic, start.partition)
    if not 0 <= start.offset <= state.next_offset:
        raise OffsetOutOfRangeError(
            f"offset {start.offset} is not within {topic.name!r} partition {start.partition}, "
            f"which goes from {state.start_offset} to {state.next_offset}",
            metadata={
                "topic": topic.name,
                "partition": str(start.partition),
                "start_offset": str(state.start_offset),
                "end_offset": str(state.next_offset),
            },
        )
    return max(start.offset, state.start_offset)


def check_within(topic: TopicRow, partition: int, state: PartitionState, offset: int) -> None:
    """
    Raises:
        OffsetOutOfRangeError: the offset is past the end of the partition.
    """
    if offset > state.next_offset:
        raise OffsetOutOfRangeError(
            f"offset {offset} is past the end of {topic.name!r} partition {partition}, "
            f"which is {state.next_offset}",
            metadata={
                "topic": topic.name,
                "partition": str(partition),
                "start_offset": str(state.start_offset),
                "end_offset": str(state.next_offset),
            },
        )


def check_flow_room(context: EntryContext, group: str, places: Collection[Place]) -> None:
    """That the flows of these partitions fit beside those of all groups.

    Raises:
        LimitExceededError: there would be too many.
    """
    w, most = context.w, context.limits.max_flows
    new = sum(1 for each in places if flows.read(w, group, each.topic_id, each.partition) == flows.EMPTY)
    if new and flows.count(w) + new > most:
        raise too_many(f"groups have a state in {flows.count(w)} partitions", most)


def too_many(what: str, most: int) -> LimitExceededError:
    return LimitExceededError(f"{what}; the limit is {most}", metadata={"limit": str(most)})


def too_large(found: int, what: str, limit: int) -> InvalidArgumentError:
    """More of something than one operation may hold."""
    return InvalidArgumentError(
        f"{found} {what} in one operation; {limit} are allowed",
        metadata={"field": "flows", "limit": str(limit)},
    )
