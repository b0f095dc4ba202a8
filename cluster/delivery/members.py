"""A member of a group and a partition's flow to it: the state the group works on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.window import AckWindow
from holdfast.errors import HoldfastError


@dataclass(frozen=True, slots=True)
class AckRefusal:
    """An ack range that was refused, as the member sent it, and why."""

    topic: str
    partition: int
    first: int
    last: int
    error: HoldfastError


@dataclass(eq=False, slots=True)
class Flow:
    """One partition as a group consumes it; outlives its owners.

    ``durable`` is the committed offset the log holds; until there is one
    nothing is delivered: with an initial position of "latest", records
    delivered before that position is durable would be skipped, not redelivered,
    after a crash.
    """

    key: PartitionKey
    topic: str
    window: AckWindow
    durable: int | None
    owner: Member | None = None
    #: There may be records to hand out; False after a read reached the end of the log.
    ready: bool = True
    #: At its bound of unacknowledged records.
    paused: bool = False
    #: A commit of this flow is on its way.
    committing: bool = False
    #: What a seek has set, when the flow was opened; 0: none has.
    fence: int = 0

    @property
    def partition(self) -> int:
        return self.key[1]

    @property
    def dirty(self) -> bool:
        """The acked prefix is ahead of what is durable."""
        return self.durable != self.window.committed


@dataclass(eq=False, slots=True)
class Member:
    """One subscription.

    ``notify`` is called when there may be something to send: it must only set
    a flag or an event.
    """

    id: str
    name: str
    topics: Mapping[int, str]  # topic id -> name
    credits: int
    notify: Callable[[], None]
    owned: dict[PartitionKey, Flow] = field(default_factory=dict)
    #: Partitions it owned and lost to another member: acks for them are fenced.
    lost: set[PartitionKey] = field(default_factory=set)
    #: What is to be told, in this order.
    assignment_due: bool = False
    refusals: deque[AckRefusal] = field(default_factory=deque)
    committed: dict[PartitionKey, int] = field(default_factory=dict)
    #: Set when the session must end: the error its client is given.
    ended: HoldfastError | None = None

    def end(self, error: HoldfastError) -> None:
        """The session must end with this error; the first one stays."""
        if self.ended is None:
            self.ended = error
            self.notify()
