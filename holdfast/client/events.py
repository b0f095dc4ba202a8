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


SubscriptionEvent: TypeAlias = Assigned | AckRefused | Committed | Disconnected
