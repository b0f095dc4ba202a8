"""Typed events of the state machine, for telemetry; every replica emits them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopicCreated:
    topic_id: int
    name: str
    partitions: int


@dataclass(frozen=True, slots=True)
class TopicUpdated:
    topic_id: int
    name: str


@dataclass(frozen=True, slots=True)
class TopicDeleted:
    topic_id: int
    name: str


@dataclass(frozen=True, slots=True)
class GroupCreated:
    group: str


@dataclass(frozen=True, slots=True)
class GroupDeleted:
    group: str


@dataclass(frozen=True, slots=True)
class PartitionTrimmed:
    """Whole batches below ``start_offset`` are gone."""

    topic_id: int
    partition: int
    start_offset: int


@dataclass(frozen=True, slots=True)
class ProducersExpired:
    count: int


@dataclass(frozen=True, slots=True)
class OperationRefused:
    """An operation ended in an error; ``kind`` is its name in log.proto."""

    kind: str
    reason: str
