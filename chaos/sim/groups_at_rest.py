"""What every node holds of a defined group when all is over, read from its store."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.chaos.checker.delivery_events import DeadLetter, FlowAtRest, RetryAtRest
from holdfast.chaos.sim.cluster import SimCluster
from holdfast.chaos.sim.workers import DEAD
from holdfast.cluster.delivery import dead_letters
from holdfast.records import decode_batch
from holdfast.storage import acks, bits, flow_keys, groups, partitions, retries, topics
from holdfast.storage.port import Reader


def read_group(cluster: SimCluster, group: str) -> Iterator[FlowAtRest | DeadLetter]:
    """The group on every node; and the dead letters, of one node, for logs are compared elsewhere.

    Raises:
        StorageError: a row is damaged.
    """
    for number, node in enumerate(cluster.nodes.values()):
        applied = node.engine.status().visible_index if node.engine is not None else 0
        with node.store.read() as reader:
            digest = groups.digest(reader).hex()
            names = {topic.id: topic.name for topic in topics.scan(reader)}
            for at in list(groups.offsets(reader, group)):
                if at.topic_id not in names:
                    continue
                flow = flow_keys.flow_key(group, at.topic_id, at.partition)
                yield FlowAtRest(
                    node=node.node_id,
                    group=group,
                    topic=names[at.topic_id],
                    partition=at.partition,
                    floor=at.offset,
                    settled=settled_ranges(reader, flow),
                    retries=[
                        RetryAtRest(offset, row.attempts, row.due_us, int(row.state))
                        for offset, row in retries.scan(reader, flow)
                    ],
                    stamp_us=node.clock.wall_us(),
                    applied_index=applied,
                    digest=digest,
                )
            if number == 0:
                yield from _letters(reader)


def settled_ranges(reader: Reader, flow: bytes) -> list[tuple[int, int]]:
    """What is settled above the floor, as ``(first, end)``."""
    return [span for chunk, stored in acks.scan(reader, flow) for span in bits.ranges_of(chunk, stored)]


def _letters(reader: Reader) -> Iterator[DeadLetter]:
    topic = topics.find(reader, DEAD)
    for number in range(0 if topic is None else topic.partitions):
        assert topic is not None
        for row in partitions.index_scan(reader, topic.id, number, 0):
            batch = decode_batch(partitions.read_batch(reader, row, verify=True))
            for at in range(batch.count):
                letter = dead_letters.read(dead_letters.column(batch, at))
                death = letter.death
                yield DeadLetter(
                    topic=DEAD,
                    partition=number,
                    offset=row.base_offset + at,
                    value=letter.record.value.decode(),
                    group=death.group,
                    origin_topic=death.topic,
                    origin_partition=death.partition,
                    origin_offset=death.offset,
                    attempts=death.attempts,
                    redrives=letter.redrives,
                )
