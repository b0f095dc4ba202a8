"""What is read at the moment of a scrape instead of being counted on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from opentelemetry.metrics import CallbackOptions, Meter, Observation


@dataclass(frozen=True, slots=True)
class FollowerLag:
    """How far a follower's durable log end is behind the leader's, in entries."""

    peer: str
    entries: int


@dataclass(frozen=True, slots=True)
class GroupLag:
    """How far a group is behind in a partition, and what of it waits or is parked."""

    group: str
    topic: str
    partition: int
    records: int
    seconds: float = 0.0
    retrying: int = 0
    parked: int = 0


@dataclass(frozen=True, slots=True)
class GroupMembers:
    """How many members a group has, and how many records they have."""

    group: str
    members: int
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class GroupsMoment:
    """A moment of the groups; ``truncated``: partitions of theirs that are not shown."""

    lags: tuple[GroupLag, ...] = ()
    members: tuple[GroupMembers, ...] = ()
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class BrokerGauges:
    """A moment of one broker."""

    is_leader: bool
    term: int
    commit_index: int
    applied_index: int
    log_end_index: int
    pending_proposals: int
    inflight_bytes: int
    data_bytes: int
    quota_bytes: int
    disk_free_bytes: int
    accepting_writes: bool
    followers: tuple[FollowerLag, ...] = ()
    groups: GroupsMoment = GroupsMoment()
    marks: int = 0


#: name -> (description, unit, value)
_SIMPLE: dict[str, tuple[str, str, Callable[[BrokerGauges], int]]] = {
    "holdfast.leader": ("1 on the leader", "1", lambda g: int(g.is_leader)),
    "holdfast.raft.term": ("Raft term", "1", lambda g: g.term),
    "holdfast.raft.commit_index": ("Commit index", "{entry}", lambda g: g.commit_index),
    "holdfast.raft.applied_index": ("Applied index", "{entry}", lambda g: g.applied_index),
    "holdfast.raft.log_end_index": ("Last log index", "{entry}", lambda g: g.log_end_index),
    "holdfast.proposals.pending": ("Operations waiting in the engine", "{op}", lambda g: g.pending_proposals),
    "holdfast.publish.inflight": ("Bytes of unanswered publishes", "By", lambda g: g.inflight_bytes),
    "holdfast.storage.used": ("Bytes in use in the environment", "By", lambda g: g.data_bytes),
    "holdfast.storage.quota": ("Bound on the bytes in use", "By", lambda g: g.quota_bytes),
    "holdfast.storage.disk_free": ("Free bytes in the file system", "By", lambda g: g.disk_free_bytes),
    "holdfast.storage.writable": ("0 while publishes are refused", "1", lambda g: int(g.accepting_writes)),
    "holdfast.idempotency.marks": ("Idempotency keys remembered; 0 on followers", "{key}", lambda g: g.marks),
    "holdfast.group.lag.truncated": (
        "Partitions of groups that no series shows",
        "{partition}",
        lambda g: g.groups.truncated,
    ),
}

#: The same, of each group and partition. Only the leader shows them, so that sums over nodes count each once.
_OF_GROUPS: dict[str, tuple[str, str, Callable[[GroupLag], float]]] = {
    "holdfast.group.lag": ("Records a group has not settled", "{record}", lambda lag: lag.records),
    "holdfast.group.lag.seconds": ("Age of the oldest of them", "s", lambda lag: lag.seconds),
    "holdfast.group.retrying": ("Records that wait or are parked", "{record}", lambda lag: lag.retrying),
    "holdfast.group.parked": ("Records that are parked", "{record}", lambda lag: lag.parked),
}


def register(meter: Meter, read: Callable[[], BrokerGauges]) -> None:
    """Register all gauges; ``read`` is called on the exporter's thread at each collection."""
    for name, (description, unit, value) in _SIMPLE.items():
        meter.create_observable_gauge(name, [_simple(read, value)], unit=unit, description=description)

    def followers(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(lag.entries, {"peer": lag.peer}) for lag in read().followers]

    def members(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(each.members, {"group": each.group}) for each in read().groups.members]

    meter.create_observable_gauge(
        "holdfast.follower.lag", [followers], unit="{entry}", description="Entries a follower is behind"
    )
    meter.create_observable_gauge(
        "holdfast.group.members", [members], unit="{member}", description="Members of a group"
    )

    def in_flight(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(each.in_flight, {"group": each.group}) for each in read().groups.members]

    meter.create_observable_gauge(
        "holdfast.group.in_flight", [in_flight], unit="{record}", description="Records its members work on"
    )
    for name, (description, unit, of) in _OF_GROUPS.items():
        meter.create_observable_gauge(name, [_lags(read, of)], unit=unit, description=description)


def _lags(
    read: Callable[[], BrokerGauges], value: Callable[[GroupLag], float]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(value(lag), {"group": lag.group, "topic": lag.topic, "partition": lag.partition})
            for lag in read().groups.lags
        ]

    return observe


def _simple(
    read: Callable[[], BrokerGauges], value: Callable[[BrokerGauges], int]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(value(read()))]
