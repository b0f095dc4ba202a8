"""Topic rows by id and partition states, cached: every append needs them."""

from __future__ import annotations

from holdfast.errors import StorageError, UnknownPartitionError, UnknownTopicError
from holdfast.storage import partitions, topics
from holdfast.storage.partitions import PartitionState
from holdfast.storage.port import Reader
from holdfast.storage.topics import TopicRow


class Catalog:
    """A cache over the topics and partitions of the open transaction.

    Holds no more than the tables do, which are bounded. Whoever writes a
    topic's row calls ``forget``; whoever drops the transaction calls ``clear``.

    Attributes:
        states: of partitions by (topic id, partition), as appends left them;
            whatever else writes a partition's row empties it.
    """

    def __init__(self) -> None:
        self._rows: dict[int, TopicRow] = {}
        self.states: dict[tuple[int, int], PartitionState] = {}

    def topic(self, r: Reader, topic_id: int) -> TopicRow:
        """The topic of this id.

        Raises:
            UnknownTopicError: it never was, or was deleted.
        """
        row = self._rows.get(topic_id)
        if row is None:
            row = topics.read(r, topic_id)
            if row is None:
                raise UnknownTopicError(
                    f"no topic of id {topic_id}: it was deleted", metadata={"topic_id": str(topic_id)}
                )
            self._rows[topic_id] = row
        return row

    def forget(self, topic_id: int) -> None:
        self._rows.pop(topic_id, None)

    def clear(self) -> None:
        self._rows.clear()
        self.states.clear()


def check_partition(topic: TopicRow, partition: int) -> None:
    """
    Raises:
        UnknownPartitionError: the topic has fewer partitions.
    """
    if partition >= topic.partitions:
        raise UnknownPartitionError(
            f"topic {topic.name!r} has partitions 0 to {topic.partitions - 1}, not {partition}",
            metadata={"topic": topic.name, "partitions": str(topic.partitions)},
        )


def partition_state(r: Reader, topic: TopicRow, partition: int) -> PartitionState:
    """The state of a partition the topic has.

    Raises:
        StorageError: its row is missing: the store is damaged.
    """
    state = partitions.read_state(r, topic.id, partition)
    if state is None:
        raise StorageError(f"partition {partition} of topic {topic.name!r} has no state")
    return state
