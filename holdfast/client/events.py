"""What a subscription tells beside records; handed to ``on_event``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from holdfast.errors import HoldfastError


@dataclass(frozen=True, slots=True)
class Assigned:
    """The partitions this consumer now has: (topic, partition) and where delivery starts."""

    generation: int
    partitions: dict[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class AckRefused:
    """The broker refused an acknowledgement; the subscription goes on."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    error: HoldfastError


@dataclass(frozen=True, slots=True)
class Committed:
    """Offsets of the group that are now durable on a majority, by (topic, partition)."""

    offsets: dict[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection failed; it is made again, and what was not acknowledged is delivered again."""

    error: HoldfastError


@dataclass(frozen=True, slots=True)
class Welcomed:
    """A member of a defined group has been let in."""

    member_id: str
    note: str


@dataclass(frozen=True, slots=True)
class Revoking:
    """These partitions go to other members: what runs is to be finished ``within`` so many seconds."""

    partitions: tuple[tuple[str, int], ...]
    within: float


@dataclass(frozen=True, slots=True)
class Paused:
    """Delivery of a partition stands still for ``reason``, held up by ``offset``; or goes on."""

    topic: str
    partition: int
    paused: bool
    reason: str
    offset: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A record was taken away while the application had it: what is said of it now does not count."""

    topic: str
    partition: int
    offset: int


SubscriptionEvent: TypeAlias = (
    Assigned | AckRefused | Committed | Disconnected | Welcomed | Revoking | Paused | Lost
)
