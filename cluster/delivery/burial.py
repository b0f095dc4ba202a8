"""A record that has had its last attempt, as an append to the group's dead-letter topic."""

from __future__ import annotations

from holdfast.cluster.delivery import dead_letters
from holdfast.cluster.delivery.batch_cache import BatchCache
from holdfast.cluster.delivery.dead_letters import Death
from holdfast.cluster.delivery.flow import Flow
from holdfast.cluster.delivery.pending import Charge
from holdfast.cluster.delivery.settling import DeadLetter
from holdfast.cluster.group_definition import Definition
from holdfast.errors import UnknownTopicError
from holdfast.storage import flow_keys, groups, partitions, retries, topics
from holdfast.storage.port import Reader


class Burial:
    """Makes dead letters of what the log holds and of what rows say; see ``surroundings.DeadLetters``.

    Args:
        cache: decoded batches of this node.
    """

    def __init__(self, cache: BatchCache) -> None:
        self._cache = cache

    def make(
        self,
        reader: Reader,
        group: str,
        definition: Definition,
        flow: Flow,
        charge: Charge,
        attempts: int,
        stamp_us: int,
    ) -> DeadLetter | None:
        """The dead letter of a record; None: the record was trimmed.

        Raises:
            UnknownTopicError: the dead-letter topic is gone.
            DamagedRowError: the record cannot be read on this node now.
        """
        topic = topics.find(reader, definition.dead_letter_topic)
        if topic is None:
            raise UnknownTopicError(f"no topic {definition.dead_letter_topic!r}")
        topic_id, partition = flow.key
        state = partitions.read_state(reader, topic_id, partition)
        if state is None or charge.offset < state.start_offset:
            return None
        columns = self._cache.at(reader, topic_id, partition, charge.offset)
        record = dead_letters.column(columns.batch, charge.offset - columns.base)
        row = retries.read(reader, flow_keys.flow_key(group, topic_id, partition), charge.offset)
        errors = () if row is None else row.errors
        about = groups.read(reader, group)
        death = Death(
            group=group,
            topic=flow.topic,
            partition=partition,
            offset=charge.offset,
            append_time_us=columns.row.append_time_us,
            attempts=attempts,
            first_failed_us=stamp_us if row is None else row.first_failed_us,
            generation=0 if about is None else about.generation,
            errors=(*errors, (stamp_us, charge.error)) if charge.error else errors,
        )
        letter = dead_letters.make(record, death, max_record_bytes=topic.max_record_bytes)
        place = dead_letters.partition_of(letter, partition, topic.partitions)
        append, batches = dead_letters.append_op(topic.id, [(place, letter)])
        return DeadLetter(append, batches[0])
