"""Digests of partitions: equal on replicas that agree (GetDigest)."""

from __future__ import annotations

from holdfast.cluster.state.catalog import partition_state
from holdfast.errors import UnknownTopicError
from holdfast.storage import topics
from holdfast.storage.port import Reader
from holdfast.v1 import cluster_pb2


def read_digests(r: Reader, topic: str = "") -> list[cluster_pb2.PartitionDigest]:
    """The digest of each partition of a topic, or of all topics by name when empty.

    A digest chains every batch ever appended: what retention has dropped since
    does not change it.

    Raises:
        UnknownTopicError: no topic of this name.
        StorageError: a partition's row is missing.
    """
    if topic:
        row = topics.find(r, topic)
        if row is None:
            raise UnknownTopicError(f"no topic {topic!r}", metadata={"topic": topic})
        rows = [row]
    else:
        rows = list(topics.scan_by_name(r))
    digests = []
    for row in rows:
        for partition in range(row.partitions):
            state = partition_state(r, row, partition)
            digests.append(
                cluster_pb2.PartitionDigest(
                    topic=row.name,
                    partition=partition,
                    start_offset=state.start_offset,
                    end_offset=state.next_offset,
                    digest=state.digest,
                )
            )
    return digests
