"""What to forget: proposals of the leader for retention and deletion.

Pure functions of the state and a stamped time. The leader calls them from time
to time and proposes what they return; the operations do a bounded step each,
so it calls ``plan_trims`` again, once they are applied, until it returns
nothing.
"""

from __future__ import annotations

from itertools import islice

from holdfast.cluster.state.limits import StateLimits
from holdfast.storage import marks, partitions, producers, topics
from holdfast.storage.partitions import PartitionState
from holdfast.storage.port import Reader
from holdfast.storage.topics import TopicRow
from holdfast.v1 import log_pb2

#: Operations of one plan; with ``step_rows`` each they bound an entry's work.
MAX_OPS = 16


def plan_trims(
    r: Reader,
    now_us: int,
    *,
    after: tuple[int, int] = (0, 0),
    max_ops: int = MAX_OPS,
    limits: StateLimits | None = None,
) -> list[log_pb2.Op]:
    """TrimOps for partitions over their retention, or whose topic is gone.

    Looks at every partition: some 20 ms for 10,000, so not on an event loop.

    Args:
        now_us: microseconds since the Unix epoch, of the leader's clock.
        after: (topic id, partition) to begin after, going round; pass the last
            one of the plan before, so that each gets its turn.
        max_ops: at most so many.
    """
    step = (limits or StateLimits()).step_rows
    rows = {row.id: row for row in topics.scan(r)}
    known = list(partitions.scan_states(r))
    begin = next((i for i, (topic, part, _) in enumerate(known) if (topic, part) > after), 0)
    ops: list[log_pb2.Op] = []
    for topic_id, partition, state in known[begin:] + known[:begin]:
        if len(ops) >= max_ops:
            break
        topic = rows.get(topic_id)
        if topic is None:
            before = max(state.next_offset, 1)
        else:
            before = max(
                _before_by_time(r, topic, partition, state, now_us),
                _before_by_size(r, topic, partition, state, step),
            )
        if topic is None or before > state.start_offset:
            trim = log_pb2.TrimOp(topic_id=topic_id, partition=partition, before_offset=before)
            ops.append(log_pb2.Op(trim=trim))
    return ops


def plan_expiry(
    r: Reader, now_us: int, *, idle_us: int, limits: StateLimits | None = None
) -> log_pb2.Op | None:
    """An ExpireProducersOp for producers idle for ``idle_us``; None when there are no producers.

    Each looks at the next ``scan_rows`` producers. Propose one now and then.
    """
    if producers.count(r) == 0:
        return None
    limit = (limits or StateLimits()).step_rows
    op = log_pb2.ExpireProducersOp(idle_since_us=max(now_us - idle_us, 0), limit=limit)
    return log_pb2.Op(expire_producers=op)


def plan_mark_expiry(
    r: Reader, now_us: int, *, max_ops: int = MAX_OPS, limits: StateLimits | None = None
) -> list[log_pb2.Op]:
    """ExpireMarksOps for the marks whose time is over, as many as it takes; at most ``max_ops``.

    By the leader's clock; the operations themselves go by stamped time, which is no earlier.
    """
    step = (limits or StateLimits()).step_rows
    expired = sum(1 for _ in islice(marks.expired(r, now_us), step * max_ops))
    op = log_pb2.Op(expire_marks=log_pb2.ExpireMarksOp(limit=step))
    return [op] * -(-expired // step)


def _before_by_time(r: Reader, topic: TopicRow, partition: int, state: PartitionState, now_us: int) -> int:
    """Up to where batches were appended longer ago than the topic keeps them."""
    if not topic.retention_ms or state.start_offset == state.next_offset:
        return 0
    keep_since = now_us - topic.retention_ms * 1000
    if state.last_append_us < keep_since:
        return state.next_offset
    first = partitions.index_at(r, topic.id, partition, state.start_offset)
    if first is None or first.append_time_us >= keep_since:
        return 0
    return partitions.offset_at_time(r, topic.id, partition, keep_since, "append")


def _before_by_size(r: Reader, topic: TopicRow, partition: int, state: PartitionState, step: int) -> int:
    """Up to where batches must go for the partition to be within its size, as far as one step gets."""
    excess = state.bytes - topic.retention_bytes
    if not topic.retention_bytes or excess <= 0:
        return 0
    before = 0
    for row in islice(partitions.index_scan(r, topic.id, partition, state.start_offset), step):
        if excess <= 0:
            break
        excess -= row.length
        before = row.next_offset
    return before
