"""What clients did and were told: the history that simulator and drills record and the checker judges.

Times are seconds of one clock of the observer (virtual or real), values are
strings unique within a history, so that a record is recognised wherever it
turns up. Every operation ends *ok*, *fail* (certainly without effect) or
*unknown* (it may have happened, now or later).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from holdfast.chaos.checker.delivery_events import DeliveryEvent
from holdfast.chaos.checker.outcome import HistoryError, Outcome

__all__ = [
    "Acked",
    "Assigned",
    "Committed",
    "Delivered",
    "Event",
    "Fault",
    "History",
    "HistoryError",
    "Leader",
    "OffsetRead",
    "Outcome",
    "Publish",
    "Read",
    "Replica",
    "TopicChange",
    "Violation",
]


class Publish(msgspec.Struct, tag=True, gc=False):
    """One record handed to a client for publishing.

    Attributes:
        producer: one idempotent producer session (one id and epoch). A value is published
            by one call; the retries of the client library are inside it.
        sequence: order of the call within the producer; records of one producer and
            partition must lie in the log in this order.
        key: records of one key lie in one partition.
        partition, offset: where it is, when ok.
    """

    client: str
    producer: str
    sequence: int
    topic: str
    value: str
    started: float
    key: str | None = None
    ended: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    partition: int | None = None
    offset: int | None = None
    error: str = ""
    idempotent: bool = True


class Keyed(msgspec.Struct, tag=True, gc=False):
    """One record handed to a client for publishing under an idempotency key.

    Attributes:
        value: unique, though several records may bear one key: the first of them is stored.
        window: seconds for which the topic knows a key.
        partition, offset: where the record of the key is, when ok.
        duplicate: it was answered that this, or another record of the key, had been stored before.
    """

    client: str
    topic: str
    idempotency_key: str
    value: str
    window: float
    started: float
    ended: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    partition: int | None = None
    offset: int | None = None
    duplicate: bool = False
    error: str = ""


class Read(msgspec.Struct, tag=True, gc=False):
    """A replay of a range of one partition.

    Attributes:
        replica: the node that served it, where known.
        from_offset: where it was asked to begin.
        to_end: it was asked for everything up to the log end as of its start: a
            linearizable read must hold whatever was acknowledged before ``started``.
        start_offset: the first offset the log still held, as the read was told; records below
            it are rightly absent.
        records: (offset, value), as received.
    """

    client: str
    topic: str
    partition: int
    from_offset: int
    started: float
    records: list[tuple[int, str]]
    ended: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    replica: str | None = None
    to_end: bool = False
    linearizable: bool = True
    start_offset: int = 0
    error: str = ""


class Assigned(msgspec.Struct, tag=True, gc=False):
    """A group member was given a partition, to start at an offset.

    ``session``: one subscription stream; a reconnect makes a new one.
    ``initial``: where the group begins without an offset, where known; "earliest" lets the
    checker ask for the very first record too.
    """

    client: str
    group: str
    session: str
    generation: int
    topic: str
    partition: int
    start_offset: int
    at: float
    initial: str = ""


class Delivered(msgspec.Struct, tag=True, gc=False):
    """A record came to a group member."""

    client: str
    group: str
    session: str
    topic: str
    partition: int
    offset: int
    value: str
    at: float


class Acked(msgspec.Struct, tag=True, gc=False):
    """A member asked to acknowledge records ``first`` to ``last`` (inclusive); no answer yet."""

    client: str
    group: str
    session: str
    topic: str
    partition: int
    first: int
    last: int
    at: float


class Committed(msgspec.Struct, tag=True, gc=False):
    """The broker told a member that the group's offset (next to read) is durable."""

    group: str
    topic: str
    partition: int
    offset: int
    at: float
    session: str = ""


class OffsetRead(msgspec.Struct, tag=True, gc=False):
    """A group's committed offset was asked for; None: the group has none there.

    ``linearizable`` reads never show less than what was confirmed before they began.
    """

    group: str
    topic: str
    partition: int
    started: float
    ended: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    offset: int | None = None
    linearizable: bool = True
    error: str = ""


class TopicChange(msgspec.Struct, tag=True, gc=False):
    """A topic was created, updated or deleted.

    ``keeps_all``: no retention was asked for, so that nothing may ever be trimmed.
    """

    client: str
    kind: str  # create, update, delete
    topic: str
    partitions: int
    started: float
    ended: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    error: str = ""
    keeps_all: bool = False


class Replica(msgspec.Struct, tag=True, gc=False):
    """One partition as one node holds it, all of it, taken when the cluster has come to rest.

    Attributes:
        records: (offset, value) of all records from ``start_offset`` on.
        digest: the node's own digest of the partition, hex.
        content: a hash over the stored bytes of the partition's batches, hex.
        appended: (first offset, append time in microseconds) of each batch, of topics that take
            idempotency keys; without them all counts as appended at once.
    """

    node: str
    topic: str
    partition: int
    start_offset: int
    end_offset: int
    digest: str
    records: list[tuple[int, str]]
    content: str = ""
    appended: list[tuple[int, int]] = []


class Leader(msgspec.Struct, tag=True, gc=False):
    """A node was seen leading in a term."""

    node: str
    term: int
    at: float


class Fault(msgspec.Struct, tag=True, gc=False):
    """Something was broken on purpose; for timelines and reports, not for judging."""

    name: str
    target: str
    at: float
    ended: float | None = None
    detail: str = ""


Event = (
    Publish
    | Keyed
    | Read
    | Assigned
    | Delivered
    | Acked
    | Committed
    | OffsetRead
    | TopicChange
    | Replica
    | Leader
    | Fault
    | DeliveryEvent
)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


class History:
    """Events in the order they were noted; operations are noted at their start and completed in place."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.events: list[Event] = list(events)

    def add(self, event: Event) -> None:
        self.events.append(event)

    def save(self, path: Path) -> None:
        """One JSON object a line."""
        with path.open("wb") as out:
            for event in self.events:
                out.write(_encoder.encode(event) + b"\n")

    @classmethod
    def load(cls, path: Path) -> History:
        """The events of a file that `save` wrote.

        Raises:
            HistoryError: a line is no event.
            OSError: the file cannot be read.
        """
        history = cls()
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    history.add(_decoder.decode(line))
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise HistoryError(f"line {number}: {error}") from error
        return history


class Violation(msgspec.Struct, frozen=True):
    """A promise that was broken.

    Attributes:
        promise: a short name of the property, such as ``lost-record``; docs/guarantees.md lists them.
        detail: what contradicts what, in words.
        at: when it shows, seconds; -1: at the end.
    """

    promise: str
    detail: str
    at: float = -1.0

    def __str__(self) -> str:
        return f"{self.promise}: {self.detail}"
