"""Bounds of the replicated state."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StateLimits:
    """Bounds the state machine enforces while applying.

    They decide results, so they are part of what replicas must agree on: every
    node of a cluster runs with the same ones. That is why they are constants of
    a release and not settings; tests make them small.

    Attributes:
        max_topics: topics at a time.
        max_partitions_per_topic: of one topic.
        max_partitions: of all topics together.
        default_partitions: of a topic created with 0.
        max_record_bytes: the highest ``max_record_bytes`` a topic may set.
        max_groups: consumer groups.
        max_producers: rows of idempotent producers, one per producer and
            partition it wrote to; expiry makes room.
        max_batches_per_append: batches in one AppendOp.
        step_rows: rows one operation may delete per table (trimming, deletion,
            expiry), so that one entry never takes long.
        scan_rows: rows one operation may look at to find those to delete.
    """

    max_topics: int = 1000
    max_partitions_per_topic: int = 1024
    max_partitions: int = 16384
    default_partitions: int = 1
    max_record_bytes: int = 16 << 20
    max_groups: int = 10_000
    max_producers: int = 1_000_000
    max_batches_per_append: int = 1024
    step_rows: int = 256
    scan_rows: int = 1000
