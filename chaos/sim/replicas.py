"""What every node holds when all is over, read from its store."""

from __future__ import annotations

from collections.abc import Iterator

import xxhash

from holdfast.chaos.checker.history import Replica
from holdfast.chaos.sim.cluster import SimCluster
from holdfast.records import decode_batch
from holdfast.storage import partitions, topics


def read_replicas(cluster: SimCluster) -> Iterator[Replica]:
    """Every partition of every node, record by record.

    Raises:
        StorageError: a row is damaged.
    """
    for node in cluster.nodes.values():
        with node.store.read() as reader:
            for topic in topics.scan(reader):
                for number in range(topic.partitions):
                    state = partitions.read_state(reader, topic.id, number)
                    if state is None:
                        continue
                    records: list[tuple[int, str]] = []
                    appended: list[tuple[int, int]] = []
                    content = xxhash.xxh3_128()
                    for row in partitions.index_scan(reader, topic.id, number, state.start_offset):
                        data = partitions.read_batch(reader, row, verify=True)
                        content.update(data)
                        values = decode_batch(data).values
                        records += [(row.base_offset + at, value.decode()) for at, value in enumerate(values)]
                        if topic.idempotency_ttl_ms:
                            appended.append((row.base_offset, row.append_time_us))
                    yield Replica(
                        node.node_id,
                        topic.name,
                        number,
                        state.start_offset,
                        state.next_offset,
                        state.digest.hex(),
                        records,
                        content.hexdigest(),
                        appended,
                    )
