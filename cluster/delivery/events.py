"""What delivery reports to telemetry: facts, emitted where they happen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GroupRebalanced:
    """A group's partitions were shared out anew."""

    group: str
    generation: int
    members: int
    partitions: int
    moved: int  # partitions taken from a member that is still there
    timed_out: int = 0  # of them: it had not ended what it worked on in time


@dataclass(frozen=True, slots=True)
class DeliveryPaused:
    """A partition reached its bound of unacknowledged records."""

    group: str
    topic: str
    partition: int
    committed: int
    delivered: int


@dataclass(frozen=True, slots=True)
class DeliveryResumed:
    """The acknowledged prefix moved: a paused partition goes on."""

    group: str
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class OffsetsTrimmed:
    """Retention removed records a group had not acknowledged; it goes on at the start."""

    group: str
    topic: str
    partition: int
    committed: int
    start_offset: int


@dataclass(frozen=True, slots=True)
class OffsetsCommitted:
    """Acks became durable on a majority."""

    group: str
    partitions: int
    seconds: float  # from the first ack collected to the commit


@dataclass(frozen=True, slots=True)
class RecordsHeard:
    """What members of a defined group said of records: they are done with, or given back untouched."""

    group: str
    acked: int
    released: int = 0


@dataclass(frozen=True, slots=True)
class RecordsCharged:
    """The log has it that records of a defined group failed, or are parked.

    ``cause`` is one of nack, expired, lost, rejected, parked.
    """

    group: str
    cause: str
    records: int


@dataclass(frozen=True, slots=True)
class RecordsDied:
    """Records of a group became dead letters."""

    group: str
    records: int


@dataclass(frozen=True, slots=True)
class AcksRefused:
    """An ack was refused; ``reason`` is the error's."""

    group: str
    reason: str


@dataclass(frozen=True, slots=True)
class RecordsDelivered:
    """A message left for a consumer (``group`` set) or a replay (``group`` empty)."""

    group: str
    topic: str
    records: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """A consumer's session is over; ``reason`` is empty after an orderly end."""

    group: str
    consumer: str
    reason: str


@dataclass(frozen=True, slots=True)
class BatchDamaged:
    """A stored batch failed its CRC on the read path and was not served."""

    topic: str
    partition: int
    base_offset: int
