"""What members of defined groups did and were told, and what the brokers hold of the groups at rest.

Part of the vocabulary of `history`; these events are judged in `delivery`. Of a
group that has no `GroupDefined` nothing is judged there.

Times are the observer's seconds, as in all events. Where a moment is not known
exactly, the attribute says to which side it has to err: a checker that is told
too much finds faults that are none.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from holdfast.chaos.checker.outcome import Outcome

Semantics = Literal["at_least_once", "at_most_once", "exactly_once"]
Ordering = Literal["partition", "key", "none"]
Verdict = Literal["ack", "nack", "park", "reject", "release"]

#: A partition of a topic, and a record in it.
Spot = tuple[str, int, int]


class Conditions(msgspec.Struct, tag=True, gc=False):
    """What the run allowed for; without this event the run was calm at no time.

    Attributes:
        calm_from: from then on nothing was broken; None: never.
        ended: when the run was over and the final state was taken.
        served: groups with living members, willing to take all there is, from ``calm_from`` on.
        patience_s: in calm, what is due is handed out within this.
        skew_s: any two wall clocks of brokers, at whatever times, agreed with the observer's to
            within this, taken together.
        late_s: a `Leader` event may come this much later than the leader.
    """

    ended: float
    calm_from: float | None = None
    served: list[str] = []
    patience_s: float = 5.0
    skew_s: float = 0.0
    late_s: float = 0.0


class GroupDefined(msgspec.Struct, tag=True, gc=False):
    """A group was defined, or defined anew; also when that is not known for sure.

    Semantics and ordering never change. Of further fields the checker grants
    whatever any of a group's definitions grants.

    Attributes:
        topics: those it reads, by name, where known.
        start: where it begins; "earliest" lets the checker ask for the very first record.
        rejoin_ms, handover_ms: the brokers' settings.
    """

    group: str
    semantics: Semantics
    ordering: Ordering
    at: float
    topics: list[str] = []
    start: str = "earliest"
    max_attempts: int = 0
    dead_letter: str = ""
    initial_ms: int = 1_000
    max_ms: int = 60_000
    multiplier_milli: int = 2_000
    jitter_permille: int = 100
    ack_timeout_ms: int = 30_000
    max_lease_ms: int = 0
    max_unacked: int = 50_000
    max_retrying: int = 4_096
    rejoin_ms: int = 1_500
    handover_ms: int = 30_000


class GroupDeleted(msgspec.Struct, tag=True, gc=False):
    """A group was deleted, or perhaps: what comes later is not judged."""

    client: str
    group: str
    started: float
    ended: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    error: str = ""


class Sought(msgspec.Struct, tag=True, gc=False):
    """A group's position in a partition was set by hand.

    ``offset``: where to, or None: to a time, or the end.
    """

    client: str
    group: str
    topic: str
    partition: int
    started: float
    offset: int | None = None
    ended: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    error: str = ""


class Restored(msgspec.Struct, tag=True, gc=False):
    """Somebody ended the wait of parked records; ``discard``: they count as settled.

    ``offset`` None: of all records of the partition.
    """

    client: str
    group: str
    topic: str
    partition: int
    started: float
    offset: int | None = None
    discard: bool = False
    ended: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    error: str = ""


class Joined(msgspec.Struct, tag=True, gc=False):
    """A stream of a member begins: its session.

    Attributes:
        started: when the client began it.
        at: when the broker's welcome was here.
        held: what the client still works on, from its session before, and said so.
        node: the leader that serves it, where known.
    """

    client: str
    group: str
    session: str
    member: str
    started: float
    at: float
    held: list[Spot] = []
    node: str = ""


class SessionOver(msgspec.Struct, tag=True, gc=False):
    """A session's stream ended: it broke, or its client died, froze or was cut off.

    Attributes:
        at: the first moment at which it may have been over for the brokers.
        known: the client has seen it end.
        orderly: the member left, with everything it held settled or released.
    """

    client: str
    group: str
    session: str
    at: float
    known: bool = True
    orderly: bool = False


class Silent(msgspec.Struct, tag=True, gc=False):
    """A client may not have been heard for a while, though its stream stood."""

    client: str
    group: str
    session: str
    at: float
    until: float


class Handed(msgspec.Struct, tag=True, gc=False):
    """A handler begins with a record.

    Attributes:
        attempt: 1 at the first.
        at: when the handler began.
        received: when the record came to the client, if it waited there.
        fence: that of the partition's assignment; 0 in groups without owners.
    """

    client: str
    group: str
    session: str
    topic: str
    partition: int
    offset: int
    value: str
    at: float
    key: str | None = None
    attempt: int = 1
    lease: int = 0
    received: float | None = None
    fence: int = 0

    @property
    def came(self) -> float:
        """When the broker's doing was done."""
        return self.at if self.received is None else self.received


class Told(msgspec.Struct, tag=True, gc=False):
    """What became of a record was told to the broker. Told again in another session: another event.

    Attributes:
        at: when it was sent, at the latest; the handler is done.
        delay_ms: of a nack or park, as asked; None: by the policy, of a park: for good.
        confirmed: when it was told to be durable.
        refused: the reason when it was refused; then it has had no effect.
        fence: that under which the record was handed; 0: of none.
        count: so many records from ``offset`` on.
    """

    client: str
    group: str
    session: str
    topic: str
    partition: int
    offset: int
    outcome: Verdict
    at: float
    lease: int = 0
    delay_ms: int | None = None
    confirmed: float | None = None
    refused: str = ""
    fence: int = 0
    count: int = 1


class Consumption(msgspec.Struct, array_like=True, gc=False):
    """A record that a transaction settled, or would have."""

    group: str
    topic: str
    partition: int
    offset: int
    fence: int = 0


class Produced(msgspec.Struct, array_like=True, gc=False):
    """A record that a transaction published, or would have; where, when that was told."""

    topic: str
    value: str
    key: str | None = None
    partition: int | None = None
    offset: int | None = None


class Transacted(msgspec.Struct, tag=True, gc=False):
    """A transaction; repeats under one id are one event, or several of the same id."""

    client: str
    transaction: str
    started: float
    consumed: list[Consumption]
    published: list[Produced]
    ended: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    error: str = ""


class DeadLetter(msgspec.Struct, tag=True, gc=False):
    """A record that lies in a dead-letter topic, as its headers say. One for each at rest."""

    topic: str
    partition: int
    offset: int
    value: str
    group: str
    origin_topic: str
    origin_partition: int
    origin_offset: int
    attempts: int
    redrives: int = 0


class Redriven(msgspec.Struct, tag=True, gc=False):
    """A record that was a dead letter and was published again, as its headers say. One for each at rest."""

    topic: str
    partition: int
    offset: int
    value: str
    group: str
    origin_topic: str
    origin_partition: int
    origin_offset: int
    redrives: int = 1


class Owner(msgspec.Struct, array_like=True, gc=False):
    """A partition of a group and the member that owns it; empty: nobody."""

    topic: str
    partition: int
    member: str
    fence: int


class Reshaped(msgspec.Struct, tag=True, gc=False):
    """Who was a member and who owned what, all of it, from a generation on.

    Only of groups with ``ordering=partition`` whose members all read the same topics.

    Attributes:
        previous: the generation it followed on; 0: not known.
        node: where it was seen.
        at: when it was certainly in force.
    """

    group: str
    generation: int
    members: list[str]
    owners: list[Owner]
    at: float
    previous: int = 0
    node: str = ""


class PauseTold(msgspec.Struct, tag=True, gc=False):
    """A member was told that delivery of a partition stands still, or goes on."""

    client: str
    group: str
    session: str
    topic: str
    partition: int
    paused: bool
    reason: str
    at: float
    offset: int = 0


class LagRead(msgspec.Struct, tag=True, gc=False):
    """How far a group is behind, as a node said of the log index it had applied."""

    group: str
    topic: str
    partition: int
    node: str
    applied_index: int
    records: int
    oldest_append_us: int
    at: float


class RetryAtRest(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A record that waits; ``state`` as in log.proto: 1 waiting, 2 parked, 3 parked for good, 4 suspect."""

    offset: int
    attempts: int
    due_us: int
    state: int


class FlowAtRest(msgspec.Struct, tag=True, gc=False):
    """What one node holds of a group in a partition, all of it, once the cluster has come to rest.

    Attributes:
        settled: what is settled above the floor, as ``(first, end)``.
        retries: by offset.
        stamp_us: the time against which due times are to be held.
        digest: over all rows of all groups, hex.
    """

    node: str
    group: str
    topic: str
    partition: int
    floor: int
    settled: list[tuple[int, int]]
    retries: list[RetryAtRest]
    stamp_us: int
    applied_index: int = 0
    digest: str = ""


class Effect(msgspec.Struct, tag=True, gc=False):
    """A row that a handler committed in a database of its own, for one record."""

    consumer: str
    record_key: str
    value: str
    at: float


DeliveryEvent = (
    Conditions
    | GroupDefined
    | GroupDeleted
    | Sought
    | Restored
    | Joined
    | SessionOver
    | Silent
    | Handed
    | Told
    | Transacted
    | DeadLetter
    | Redriven
    | Reshaped
    | PauseTold
    | LagRead
    | FlowAtRest
    | Effect
)
