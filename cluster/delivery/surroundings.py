"""What the groups of a leader are handed, and what they ask of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.batch_cache import BatchCache
from holdfast.cluster.delivery.flow import Flow
from holdfast.cluster.delivery.pending import Charge
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.cluster.delivery.settling import DeadLetter
from holdfast.cluster.group_definition import Definition
from holdfast.cluster.ports import EventSink
from holdfast.cluster.state.limits import StateLimits
from holdfast.storage.port import Reader

if TYPE_CHECKING:
    from holdfast.cluster.delivery.group_state import GroupState


class Kind(Enum):
    """Operations a group proposes."""

    DEFINE = auto()
    RESHAPE = auto()
    SETTLE = auto()
    #: By Transact, on behalf of members; never proposed by the group itself.
    TRANSACT = auto()
    #: An empty SettleOp: once it is answered, all that was proposed before is decided.
    FENCE = auto()


@dataclass(frozen=True, eq=False, slots=True)
class Token:
    """Handed in with a proposal, and given back with its end."""

    group: GroupState
    kind: Kind


class DeadLetters(Protocol):
    """Makes dead letters."""

    def make(
        self,
        reader: Reader,
        group: str,
        definition: Definition,
        flow: Flow,
        charge: Charge,
        attempts: int,
        stamp_us: int,
    ) -> DeadLetter | None:
        """The record a charge is made for, as it enters the dead-letter topic.

        Args:
            attempts: with this last one.
            stamp_us: when it died, about.

        Returns:
            None: the record is not there any more.

        Raises:
            UnknownTopicError: the dead-letter topic is not there.
            DamagedRowError: the record cannot be read on this node now.
        """
        ...


@dataclass(slots=True)
class Surroundings:
    """
    Attributes:
        read: a snapshot of what is visible.
        propose: takes a framed operation and a token, which comes back with its end.
        stamp_us: the time the next entry would be stamped with, at least.
        cache: decoded batches of this node.
        visible: the log index readers see.
        readers: which groups read a partition; changed by whole values, for other threads look into it.
    """

    settings: DeliverySettings
    limits: StateLimits
    read: Callable[[], AbstractContextManager[Reader]]
    propose: Callable[[bytes, Token], None]
    stamp_us: Callable[[], int]
    cache: BatchCache
    letters: DeadLetters | None = None
    emit: EventSink | None = None
    visible: int = 0
    readers: dict[PartitionKey, tuple[GroupState, ...]] = field(default_factory=dict)

    def tell(self, event: object) -> None:
        """Emit an event."""
        if self.emit is not None:
            self.emit(event)
