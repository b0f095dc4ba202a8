"""TrimOp and ExpireProducersOp, and the deletion of what a deleted topic held.

All in bounded steps: an entry that deleted millions of rows would stop the
engine for seconds. The leader proposes the next step as long as one is needed
(retention.py).
"""

from __future__ import annotations

from itertools import islice

from holdfast.cluster.state.catalog import check_partition, partition_state
from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.events import PartitionTrimmed, ProducersExpired
from holdfast.errors import UnknownTopicError
from holdfast.storage import groups, partitions, producers
from holdfast.storage.port import Writer
from holdfast.storage.topics import TopicRow
from holdfast.v1 import log_pb2


def trim(context: EntryContext, op: log_pb2.TrimOp) -> log_pb2.OpResult:
    """Drop whole batches below an offset, at most ``step_rows`` of them.

    For a partition whose topic is gone it is the next step of its deletion.

    Raises:
        HoldfastError: refused, nothing was written.
    """
    w, step = context.w, context.limits.step_rows
    try:
        topic = context.catalog.topic(w, op.topic_id)
    except UnknownTopicError:
        if partitions.read_state(w, op.topic_id, op.partition) is None:
            raise
        _purge_partition(w, op.topic_id, op.partition, step)
        return log_pb2.OpResult()
    check_partition(topic, op.partition)
    state = partition_state(w, topic, op.partition)
    before = min(op.before_offset, state.next_offset)
    if before > state.start_offset:
        after = partitions.trim(w, topic.id, op.partition, before, step)
        if after.start_offset != state.start_offset:
            context.emit(PartitionTrimmed(topic.id, op.partition, after.start_offset))
    return log_pb2.OpResult()


def expire_producers(context: EntryContext, op: log_pb2.ExpireProducersOp) -> log_pb2.OpResult:
    """Forget producers idle since before the stamped time, a bounded number."""
    limits = context.limits
    limit = min(op.limit, limits.step_rows)
    if limit:
        expired = producers.expire(context.w, op.idle_since_us, limit, limits.scan_rows)
        if expired:
            context.emit(ProducersExpired(expired))
    return log_pb2.OpResult()


def purge_topic(w: Writer, topic: TopicRow, step: int) -> None:
    """The first step of a deletion: of a small topic it leaves nothing.

    Stops at about ``step`` batches or 16 partitions that were ever written.
    """
    budget = step
    for partition in range(topic.partitions):
        state = partitions.read_state(w, topic.id, partition)
        if state is not None and state.next_offset:
            batches = partitions.index_scan(w, topic.id, partition, state.start_offset)
            budget -= max(step // 16, sum(1 for _ in islice(batches, step)))
        else:
            budget -= 1
        if not _purge_partition(w, topic.id, partition, step) or budget <= 0:
            return


def _purge_partition(w: Writer, topic_id: int, partition: int, step: int) -> bool:
    """Delete up to ``step`` rows of each kind; True when nothing is left.

    The partition's own row goes last: as long as it is there, the leader sees
    that work is left. Groups' offsets in the topic go with its partition 0.
    """
    if not producers.drop_partition(w, topic_id, partition, step):
        return False
    if partition == 0 and not groups.delete_topic(w, topic_id, step):
        return False
    return partitions.drop(w, topic_id, partition, step)
