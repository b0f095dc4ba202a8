"""A replica without consensus: entries go into the journal and are applied at once."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.cluster.commands import encode_entry, encode_op
from holdfast.cluster.ports import EventSink
from holdfast.cluster.state.digest import read_digests
from holdfast.cluster.state.limits import StateLimits
from holdfast.cluster.state.machine import Applied, StateMachine
from holdfast.records import encode_batch
from holdfast.storage import journal
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Store, Table, Writer
from holdfast.v1 import bus_pb2, log_pb2, topics_pb2

T0 = 1_700_000_000_000_000


class Replica:
    """One replica; ``time_us`` is the stamped time of the next entry."""

    def __init__(
        self,
        limits: StateLimits | None = None,
        events: EventSink | None = None,
        store: Store | None = None,
    ) -> None:
        self.store: Store = store or MemoryStore()
        self.machine = StateMachine(limits, events)
        self.time_us = T0
        self.entries: list[bytes] = []

    @property
    def w(self) -> Writer:
        return self.store.writer()

    def entry(self, entry: bytes) -> Applied:
        """Append the entry to the journal and apply it."""
        index = journal.read_meta(self.w).last_index + 1
        journal.append(self.w, index, 1, journal.EntryKind.COMMAND, entry)
        applied = self.machine.apply(self.w, index, entry)
        journal.set_commit(self.w, index)
        journal.set_applied(self.w, index)
        self.entries.append(entry)
        return applied

    def run(self, *ops: bytes) -> Applied:
        """Apply one entry of framed operations, a millisecond after the last."""
        self.time_us += 1000
        return self.entry(encode_entry(self.time_us, ops))

    def do(self, op: bytes) -> log_pb2.OpResult:
        """Apply one operation that succeeds."""
        (result,) = self.run(op).results
        assert not result.HasField("error"), result.error
        return result

    def refused(self, op: bytes) -> tuple[str, dict[str, str]]:
        """Apply one operation that is refused: reason and metadata. Nothing may change."""
        before = self.dump()
        applied = self.run(op)
        (result,) = applied.results
        assert result.HasField("error"), result
        assert not applied.touched
        assert self.dump() == before
        return result.error.reason, dict(result.error.metadata)

    def topic(self, name: str = "t", partitions: int = 1, **limits: int) -> int:
        return self.do(create(name, partitions, if_not_exists=False, **limits)).topic.id

    def dump(self) -> dict[Table, list[tuple[bytes, bytes]]]:
        """The whole state; not the journal and its indexes."""
        tables = set(Table) - {Table.JOURNAL, Table.META}
        return {table: list(self.w.scan(table)) for table in tables}

    def digests(self) -> list[tuple[str, int, int, int, bytes]]:
        return [
            (each.topic, each.partition, each.start_offset, each.end_offset, each.digest)
            for each in read_digests(self.w)
        ]


def create(name: str, partitions: int = 1, /, *, if_not_exists: bool = False, **limits: int) -> bytes:
    op = log_pb2.CreateTopicOp(
        name=name,
        partitions=partitions,
        limits=topics_pb2.TopicLimits(**limits),
        if_not_exists=if_not_exists,
    )
    return encode_op(log_pb2.Op(create_topic=op))


def update(name: str, **limits: int) -> bytes:
    op = log_pb2.UpdateTopicOp(name=name, limits=topics_pb2.TopicLimits(**limits))
    return encode_op(log_pb2.Op(update_topic=op))


def delete(name: str) -> bytes:
    return encode_op(log_pb2.Op(delete_topic=log_pb2.DeleteTopicOp(name=name)))


def append(
    topic_id: int,
    batches: Sequence[tuple[int, int]] | Sequence[tuple[int, int, int]] = ((0, 1),),
    *,
    producer: int = 0,
    epoch: int = 0,
    fill: bytes = b"v",
    times: tuple[int, int] | None = None,
) -> bytes:
    """An AppendOp; each batch is (partition, count) or (partition, count, base sequence)."""
    op = log_pb2.AppendOp(topic_id=topic_id, producer_id=producer, producer_epoch=epoch)
    blobs = []
    for each in batches:
        partition, count = each[:2]
        blob = encode_batch([fill] * count)
        low, high = times or (0, 0)
        op.batches.add(
            partition=partition,
            count=count,
            base_sequence=each[2] if len(each) > 2 else 0,
            length=len(blob),
            min_timestamp_us=low,
            max_timestamp_us=high,
        )
        blobs.append(blob)
    return encode_op(log_pb2.Op(append=op), blobs)


def digest(key: str) -> bytes:
    """What stands for an idempotency key in the log; "-": none."""
    return bytes(16) if key == "-" else key.encode().ljust(16, b".")


def keyed(topic_id: int, *batches: tuple[int, str], producer: int = 0, fill: bytes = b"v") -> bytes:
    """An AppendOp of records with idempotency keys, a letter each: ``keyed(1, (0, "ab-"))``."""
    op = log_pb2.AppendOp(topic_id=topic_id, producer_id=producer)
    blobs = []
    for partition, keys in batches:
        blob = encode_batch([fill] * len(keys))
        marks = b"".join(map(digest, keys))
        op.batches.add(partition=partition, count=len(keys), length=len(blob), marks=marks)
        blobs.append(blob)
    return encode_op(log_pb2.Op(append=op), blobs)


def marked(result: log_pb2.OpResult) -> list[tuple[int, int, int, int]]:
    """(batch, index, partition, offset) of each record that was stored before."""
    return [(m.batch, m.index, m.partition, m.offset) for m in result.marked]


def expire_marks(limit: int = 100) -> bytes:
    return encode_op(log_pb2.Op(expire_marks=log_pb2.ExpireMarksOp(limit=limit)))


def commit(group: str, *offsets: tuple[int, int, int], fence: int = 0) -> bytes:
    op = log_pb2.CommitOffsetsOp(group=group)
    for topic_id, partition, offset in offsets:
        op.offsets.add(topic_id=topic_id, partition=partition, offset=offset, fence=fence)
    return encode_op(log_pb2.Op(commit_offsets=op))


def trim(topic_id: int, partition: int, before: int) -> bytes:
    op = log_pb2.TrimOp(topic_id=topic_id, partition=partition, before_offset=before)
    return encode_op(log_pb2.Op(trim=op))


def expire(idle_since_us: int, limit: int = 100) -> bytes:
    op = log_pb2.ExpireProducersOp(idle_since_us=idle_since_us, limit=limit)
    return encode_op(log_pb2.Op(expire_producers=op))


def acks(result: log_pb2.OpResult) -> list[tuple[int, int, int, bool]]:
    """(partition, base offset, count, duplicate) of each ack."""
    return [(a.partition, a.base_offset, a.count, a.duplicate) for a in result.append.acks]


def ack(result: log_pb2.OpResult) -> bus_pb2.PartitionAck:
    (only,) = result.append.acks
    return only
