"""AppendOp: batches into partitions of one topic, all or none.

In two steps, for operations that append beside other things: everything is
checked before anything is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import xxhash

from holdfast.cluster.state.catalog import no_such_partition, partition_state
from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.marks import check_marks, store_marks
from holdfast.cluster.state.sequences import Duplicate, advance, check_sequence
from holdfast.errors import InvalidArgumentError, LimitExceededError, MalformedBatchError
from holdfast.storage import partitions, producers
from holdfast.storage.journal import ROW_HEADER
from holdfast.storage.partitions import PartitionState
from holdfast.storage.producers import ProducerRow
from holdfast.v1 import bus_pb2, log_pb2

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

_MAX_PRODUCER_ID = (1 << 63) - 1
_hash_batch = xxhash.xxh3_128_intdigest


#: A batch that may be stored, for nothing about it can be refused any more: where it starts within
#: the entry, its partition's state, its producer, and where it is stored already. A plain
#: tuple: an entry may hold a thousand.
_Batch = tuple[log_pb2.AppendBatch, int, PartitionState, ProducerRow | None, Duplicate | None]
#: An append that nothing can be refused of any more; True: records of it have idempotency keys.
Checked = tuple[list[_Batch], bool]


def apply_append(
    context: EntryContext, op: log_pb2.AppendOp, blob_start: int, blob_length: int
) -> log_pb2.OpResult:
    """Store the batches, which lie one after the other in the entry's blob.

    Raises:
        HoldfastError: refused, nothing was written.
        StorageError: the store failed.
    """
    checked = check_append(context, op, blob_start, blob_length)
    result = log_pb2.OpResult()
    store_append(context, op, checked, result.append.acks)
    return result


def store_append(
    context: EntryContext,
    op: log_pb2.AppendOp,
    checked: Checked,
    acks: RepeatedCompositeFieldContainer[bus_pb2.PartitionAck],
) -> None:
    """Store what ``check_append`` let pass, and say in ``acks`` where each batch lies.

    Other appends of the same operation may be stored in between, those to the
    same partitions included, as long as they have no producer.

    Raises:
        StorageError: the store failed.
    """
    w, index, time_us, entry, catalog = (
        context.w,
        context.index,
        context.time_us,
        context.entry,
        context.catalog,
    )
    states, touch = catalog.states, context.touched.add
    topic_id, producer_id, epoch = op.topic_id, op.producer_id, op.producer_epoch
    add_ack = acks.add
    allowed, keyed = checked
    for batch, start, known, producer, duplicate in allowed:
        partition, count, length = batch.partition, batch.count, batch.length
        if duplicate is not None:
            add_ack(
                partition=partition,
                base_offset=duplicate.base_offset,
                count=count,
                append_time_us=duplicate.append_time_us,
                duplicate=True,
            )
            continue
        place = (topic_id, partition)
        state = states.get(place, known)  # ahead of it when another append of the operation came in between
        base_offset = state.next_offset
        after = partitions.append_batch(
            w,
            topic_id,
            partition,
            state,
            log_index=index,
            position=ROW_HEADER + start,
            length=length,
            count=count,
            append_time_us=time_us,
            min_ts=batch.min_timestamp_us,
            max_ts=batch.max_timestamp_us,
            batch_hash=_hash_batch(entry[start : start + length]),
        )
        states[place] = after
        touch(place)
        context.stored += 1
        stored_us = after.last_append_us  # the stamped time, or later: it never goes back
        if producer_id:
            row = advance(producer, epoch, batch.base_sequence, count, base_offset, stored_us)
            producers.write(w, topic_id, partition, producer_id, row)
            catalog.remember_producer(topic_id, partition, producer_id, row)
        add_ack(partition=partition, base_offset=base_offset, count=count, append_time_us=stored_us)
    if keyed:
        store_marks(context, catalog.topic(w, topic_id), op, acks[-len(op.batches) :])


def check_append(context: EntryContext, op: log_pb2.AppendOp, blob_start: int, blob_length: int) -> Checked:
    """What ``store_append`` takes; nothing is written.

    Args:
        blob_start: where the append's batches lie within the entry, one after the other.
        blob_length: what they take; exactly so much.

    Raises:
        HoldfastError: refused.
    """
    w, limits, catalog = context.w, context.limits, context.catalog
    topic_id, producer_id, epoch, batches = op.topic_id, op.producer_id, op.producer_epoch, op.batches
    topic = catalog.topic(w, topic_id)
    states, partition_count = catalog.states, topic.partitions
    if producer_id > _MAX_PRODUCER_ID:
        raise InvalidArgumentError("a producer id has at most 63 bits", metadata={"field": "producer_id"})
    if not 0 < len(batches) <= limits.max_batches_per_append:
        raise InvalidArgumentError(
            f"{len(batches)} batches; 1 to {limits.max_batches_per_append} allowed",
            metadata={"field": "batches"},
        )
    start = blob_start
    seen: set[int] = set()
    newcomers = 0
    keyed = False
    checked: list[_Batch] = []
    for batch in batches:
        partition, count, length = batch.partition, batch.count, batch.length
        if partition >= partition_count:
            raise no_such_partition(topic, partition)
        if partition in seen:
            raise InvalidArgumentError(
                f"two batches for partition {partition}: one is allowed", metadata={"field": "batches"}
            )
        seen.add(partition)
        if not count or not length or batch.min_timestamp_us > batch.max_timestamp_us:
            raise MalformedBatchError("a batch without records, bytes or a span of time")
        state = states.get((topic_id, partition)) or partition_state(w, topic, partition)
        producer = duplicate = None
        if producer_id:
            producer = catalog.producer(w, topic_id, partition, producer_id)
            duplicate = check_sequence(producer, epoch, batch.base_sequence, count)
            newcomers += producer is None
        if batch.marks:
            keyed = True
        checked.append((batch, start, state, producer, duplicate))
        start += length
    if start != blob_start + blob_length:
        raise MalformedBatchError(f"batches of {start - blob_start} bytes in a blob of {blob_length}")
    if newcomers and producers.count(w) + newcomers > limits.max_producers:
        raise LimitExceededError(
            f"{limits.max_producers} idempotent producers are known, that is the limit; idle ones expire",
            metadata={"limit": str(limits.max_producers)},
        )
    if keyed:
        check_marks(context, topic, op)
    return checked, keyed
