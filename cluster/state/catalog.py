"""Topic rows by id and partition states, cached: every append needs them."""

from __future__ import annotations

from holdfast.errors import StorageError, UnknownPartitionError, UnknownTopicError
from holdfast.storage import partitions, producers, topics
from holdfast.storage.partitions import PartitionState
from holdfast.storage.port import Reader
from holdfast.storage.producers import ProducerRow
from holdfast.storage.topics import TopicRow

#: Producers kept in mind, of each partition they write to; beyond it all are read anew.
_MAX_PRODUCERS = 8192


class Catalog:
    """A cache over the topics and partitions of the open transaction.

    Holds no more than the tables do, which are bounded. Whoever writes a
    topic's row calls ``forget``; whoever drops the transaction calls ``clear``.

    Attributes:
        states: of partitions by (topic id, partition), as appends left them;
            whatever else writes a partition's row empties it.
        producers: rows by (topic id, partition, producer id), as appends left them;
            whatever else writes or deletes one empties it.
    """

    def __init__(self) -> None:
        self._rows: dict[int, TopicRow] = {}
        self.states: dict[tuple[int, int], PartitionState] = {}
        self.producers: dict[tuple[int, int, int], ProducerRow] = {}

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

    def producer(self, r: Reader, topic_id: int, partition: int, producer_id: int) -> ProducerRow | None:
        """None when the producer is not known in the partition."""
        known = self.producers.get((topic_id, partition, producer_id))
        return known or producers.read(r, topic_id, partition, producer_id)

    def remember_producer(self, topic_id: int, partition: int, producer_id: int, row: ProducerRow) -> None:
        """An append has written the row."""
        if len(self.producers) >= _MAX_PRODUCERS:
            self.producers.clear()
        self.producers[topic_id, partition, producer_id] = row

    def forget(self, topic_id: int) -> None:
        self._rows.pop(topic_id, None)

    def clear(self) -> None:
        self._rows.clear()
        self.states.clear()
        self.producers.clear()


def check_partition(topic: TopicRow, partition: int) -> None:
    """
    Raises:
        UnknownPartitionError: the topic has fewer partitions.
    """
    if partition >= topic.partitions:
        raise no_such_partition(topic, partition)


def no_such_partition(topic: TopicRow, partition: int) -> UnknownPartitionError:
    return UnknownPartitionError(
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
