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
    """Records between a group's committed offset and the log end."""

    group: str
    topic: str
    partition: int
    records: int


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
    groups: tuple[GroupLag, ...] = ()
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
}


def register(meter: Meter, read: Callable[[], BrokerGauges]) -> None:
    """Register all gauges; ``read`` is called on the exporter's thread at each collection."""
    for name, (description, unit, value) in _SIMPLE.items():
        meter.create_observable_gauge(name, [_simple(read, value)], unit=unit, description=description)

    def followers(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(lag.entries, {"peer": lag.peer}) for lag in read().followers]

    def groups(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(lag.records, {"group": lag.group, "topic": lag.topic, "partition": lag.partition})
            for lag in read().groups
        ]

    meter.create_observable_gauge(
        "holdfast.follower.lag", [followers], unit="{entry}", description="Entries a follower is behind"
    )
    meter.create_observable_gauge(
        "holdfast.group.lag", [groups], unit="{record}", description="Records a group has not committed"
    )


def _simple(
    read: Callable[[], BrokerGauges], value: Callable[[BrokerGauges], int]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(value(read()))]
