"""What callers get: acknowledgements, records, batches, topics, the cluster's state."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, cast

from holdfast.client import tracing
from holdfast.client.times import from_us
from holdfast.errors import FailedPreconditionError
from holdfast.records import DecodedBatch, Headers

if TYPE_CHECKING:
    from opentelemetry.context import Context

_T = TypeVar("_T")

# -- publishing ------------------------------------------------------------------


class Ack(NamedTuple):
    """A record is fsynced on a majority, at this place.

    Attributes:
        duplicate: it had been stored before under its idempotency key, perhaps by an earlier try
            of the same call; the place is that of the first time.
    """

    topic: str
    partition: int
    offset: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class BatchAck:
    """``count`` records stand at ``base_offset`` and the offsets that follow."""

    topic: str
    partition: int
    base_offset: int
    count: int


@dataclass(frozen=True, slots=True)
class PublishSummary:
    """What ``publish_many`` wrote: ``count`` records, in these batches."""

    topic: str
    count: int
    acks: tuple[BatchAck, ...]


# -- reading -----------------------------------------------------------------------


class Acknowledger(Protocol):
    """Where a consumed record came from."""

    def ack(self, record: Record) -> Awaitable[None]: ...


class Settler(Acknowledger, Protocol):
    """A member of a defined group: it can say more of a record than that it was handled."""

    def nack(self, record: Record, delay: float | None, error: str) -> Awaitable[None]: ...

    def park(self, record: Record, delay: float | None, error: str) -> Awaitable[None]: ...

    def reject(self, record: Record, error: str) -> Awaitable[None]: ...

    def release(self, record: Record) -> Awaitable[None]: ...

    def extend(self, record: Record, seconds: float) -> Awaitable[None]: ...


class Record(NamedTuple):
    """One record as read.

    Attributes:
        key: None when the record has none.
        timestamp_us: event time, microseconds since the Unix epoch.
        append_time_us: when the leader appended it; never goes back within a partition.
        headers: (name, value) pairs; names may repeat.
        subscription: where to acknowledge it; None for a replayed record.
        attempt: 1 at the first delivery to a defined group, one more for each failure since.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    timestamp_us: int
    append_time_us: int
    headers: Headers = ()
    subscription: Acknowledger | None = None
    attempt: int = 1

    @property
    def timestamp(self) -> datetime:
        """Event time, in UTC."""
        return from_us(self.timestamp_us)

    @property
    def append_time(self) -> datetime:
        """When the leader appended the record, in UTC."""
        return from_us(self.append_time_us)

    def header(self, name: str) -> bytes | None:
        """The first header of this name."""
        return next((value for found, value in self.headers if found == name), None)

    def trace_context(self) -> Context | None:
        """The OpenTelemetry context of the span that published the record, if any.

        Hand it to ``tracer.start_as_current_span(..., context=...)``, or link to it.
        """
        return tracing.extract(self.headers)

    def ack(self) -> Awaitable[None]:
        """Acknowledge a consumed record; see ``Subscription.ack``.

        Raises:
            FailedPreconditionError: the record was replayed, not consumed.
        """
        if self.subscription is None:
            raise FailedPreconditionError("a replayed record has nothing to acknowledge; use subscribe()")
        return self.subscription.ack(self)

    def nack(self, delay: float | None = None, error: str = "") -> Awaitable[None]:
        """The handler failed: hand the record out again, or give it up after its last attempt.

        Args:
            delay: seconds until then; None: as the group's retry policy says.
            error: kept with the record, its first 200 bytes.

        Raises:
            FailedPreconditionError: the record is not of a defined group (``Client.join``).
            InvalidArgumentError: a delay of more than seven days; nothing was said.
        """
        return self._settler().nack(self, delay, error)

    def park(self, delay: float | None = None, error: str = "") -> Awaitable[None]:
        """Set the record aside without charging an attempt.

        Args:
            delay: seconds; None: until somebody restores it.

        Raises:
            FailedPreconditionError: see ``nack``.
        """
        return self._settler().park(self, delay, error)

    def reject(self, error: str = "") -> Awaitable[None]:
        """Never hand the record out again: it goes to the dead-letter topic.

        Raises:
            FailedPreconditionError: see ``nack``.
        """
        return self._settler().reject(self, error)

    def release(self) -> Awaitable[None]:
        """Give the record back untouched: no attempt is charged.

        Raises:
            FailedPreconditionError: see ``nack``.
        """
        return self._settler().release(self)

    def extend(self, seconds: float) -> Awaitable[None]:
        """Keep the record this long from now, whatever becomes of the connection's heartbeats.

        Raises:
            FailedPreconditionError, InvalidArgumentError: see ``nack``.
        """
        return self._settler().extend(self, seconds)

    def _settler(self) -> Settler:
        if self.subscription is None or not hasattr(self.subscription, "nack"):
            raise FailedPreconditionError("only a member of a defined group can say that; use Client.join()")
        return cast("Settler", self.subscription)

    def __repr__(self) -> str:
        return (
            f"Record({self.topic}[{self.partition}]@{self.offset}, key={self.key!r}, value={self.value!r}, "
            f"timestamp={self.timestamp:%Y-%m-%dT%H:%M:%S.%fZ}, headers={self.headers!r})"
        )


#: Builds a Record from a tuple of its fields without entering Python code.
_make_record = partial(tuple.__new__, Record)


class Batch:
    """Some records of one partition, column by column; do not change the lists.

    Attributes:
        topic: the topic's name.
        partition: the partition's number.
        append_time_us: when the leader appended the batch.
        offsets: one per record, ascending.
    """

    __slots__ = ("_columns", "_pick", "append_time_us", "offsets", "partition", "topic")

    def __init__(
        self,
        topic: str,
        partition: int,
        base_offset: int,
        append_time_us: int,
        columns: DecodedBatch,
        pick: range | list[int],
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.append_time_us = append_time_us
        self._columns = columns
        self._pick = pick
        self.offsets: Sequence[int]
        if isinstance(pick, range):
            self.offsets = range(base_offset + pick.start, base_offset + pick.stop)
        else:
            self.offsets = [base_offset + index for index in pick]

    def __len__(self) -> int:
        return len(self._pick)

    @property
    def first_offset(self) -> int:
        """Offset of the first of these records."""
        return self.offsets[0]

    @property
    def last_offset(self) -> int:
        """Offset of the last of these records, itself included."""
        return self.offsets[-1]

    @property
    def values(self) -> list[bytes]:
        return self._picked(self._columns.values)

    @property
    def keys(self) -> list[bytes | None]:
        """One per record; None where there is no key."""
        if not self._columns.has_keys:
            return [None] * len(self._pick)
        return [key or None for key in self._picked(self._columns.keys)]

    @property
    def timestamps_us(self) -> list[int]:
        """Event times, microseconds since the Unix epoch."""
        return self._picked(self._columns.timestamps_us)

    @property
    def headers(self) -> list[Headers]:
        """One sequence of (name, value) pairs per record; empty for most."""
        if not self._columns.has_headers:
            return [()] * len(self._pick)
        return self._picked(self._columns.headers)

    def records(self, subscription: Acknowledger | None = None) -> Iterator[Record]:
        """The records one by one, made as they are asked for."""
        keys = self.keys if self._columns.has_keys else repeat(None)
        headers = self.headers if self._columns.has_headers else repeat(())
        return map(
            _make_record,
            zip(
                repeat(self.topic),
                repeat(self.partition),
                self.offsets,
                keys,
                self.values,
                self.timestamps_us,
                repeat(self.append_time_us),
                headers,
                repeat(subscription),
                repeat(1),
                strict=False,  # some columns are one value for all
            ),
        )

    def __iter__(self) -> Iterator[Record]:
        return self.records()

    def __repr__(self) -> str:
        where = f"{self.topic}[{self.partition}]@{self.first_offset}..{self.last_offset}"
        return f"Batch({where}, {len(self)} records)"

    def _picked(self, column: list[_T]) -> list[_T]:
        pick = self._pick
        if isinstance(pick, range):
            return column if len(pick) == len(column) else column[pick.start : pick.stop]
        return [column[index] for index in pick]


# -- topics and the cluster --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """Offsets run from ``start_offset`` up to, not including, ``end_offset``."""

    partition: int
    start_offset: int
    end_offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic. Limits of 0 mean the broker's default or no limit.

    Attributes:
        max_record_bytes: largest key, value and headers of a record together.
        retention_ms: records older than this, by append time, are trimmed.
        retention_bytes: a larger partition is trimmed from its start.
        partition_info: empty right after creation and update.
        idempotency_ttl_ms: for so long a repeat of an idempotency key is known; 0: the topic takes none.
    """

    name: str
    partitions: int
    max_record_bytes: int
    retention_ms: int
    retention_bytes: int
    created_at: datetime
    partition_info: tuple[PartitionInfo, ...] = ()
    idempotency_ttl_ms: int = 0


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """A broker of the cluster; ``match_index`` and ``lag_entries`` are known to the leader only."""

    node_id: str
    client_address: str
    peer_address: str
    connected: bool
    match_index: int
    lag_entries: int


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """What one broker knows of itself and its cluster."""

    cluster_id: str
    node_id: str
    version: str
    role: str
    leader_id: str | None
    leader_address: str | None
    term: int
    commit_index: int
    applied_index: int
    first_log_index: int
    last_log_index: int
    members: tuple[MemberInfo, ...]
    uptime_seconds: float
    data_bytes: int
    quota_bytes: int
    accepting_writes: bool


@dataclass(frozen=True, slots=True)
class PartitionDigest:
    """Equal on replicas that agree on all records of the partition."""

    topic: str
    partition: int
    start_offset: int
    end_offset: int
    digest: bytes
