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
        max_members_per_group: members of one group.
        max_members: of all groups together.
        max_flows: rows of partitions read by groups, of all groups.
        max_retries: records of all groups that wait for another attempt.
        max_marks_per_topic: idempotency keys one topic remembers, and transactions.
        max_marks: of all topics together.
        max_settled_ahead: how far behind the first record of a partition that a group has not
            settled it may have settled others, in records.
        max_settle_runs: runs of offsets in one SettleOp, and in what one TransactOp consumes;
            also chunks of bits they concern, and partitions.
        max_settle_retries: retries in one SettleOp.
        max_dead_bytes: dead letters in one SettleOp.
        max_transaction_bytes: records in one TransactOp.
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
    max_members_per_group: int = 1_000
    max_members: int = 20_000
    max_flows: int = 1_000_000
    max_retries: int = 1_000_000
    max_marks_per_topic: int = 1_000_000
    max_marks: int = 4_000_000
    max_settled_ahead: int = 1 << 20
    max_settle_runs: int = 4_096
    max_settle_retries: int = 1_024
    max_dead_bytes: int = 1 << 20
    max_transaction_bytes: int = 16 << 20
    max_producers: int = 1_000_000
    max_batches_per_append: int = 1024
    step_rows: int = 256
    scan_rows: int = 1000
