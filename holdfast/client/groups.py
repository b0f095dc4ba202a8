"""Groups as users write and see them, and as the wire has them.

Seconds are floats here and milliseconds there; what is not set stays unset, for
a definition says only what its program cares about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias, cast

from holdfast.client.retry import Retry
from holdfast.client.times import moment, to_us
from holdfast.errors import InvalidArgumentError
from holdfast.v1 import bus_pb2, groups_pb2

Semantics: TypeAlias = Literal["at_least_once", "at_most_once", "exactly_once"]
Ordering: TypeAlias = Literal["partition", "key", "none"]
Start: TypeAlias = Literal["earliest", "latest"] | datetime

_SEMANTICS = {
    "at_least_once": bus_pb2.SEMANTICS_AT_LEAST_ONCE,
    "at_most_once": bus_pb2.SEMANTICS_AT_MOST_ONCE,
    "exactly_once": bus_pb2.SEMANTICS_EXACTLY_ONCE,
}
_ORDERING = {
    "partition": bus_pb2.ORDERING_PARTITION,
    "key": bus_pb2.ORDERING_KEY,
    "none": bus_pb2.ORDERING_NONE,
}
_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDefinition:
    """What a group reads, and how. None: not said.

    What a definition does not say is the default when it makes or replaces a group,
    and agrees with anything when a member joins with it.

    ::

        GroupDefinition(
            topics=["orders"],
            ordering="key",
            retry=Retry(attempts=5, initial=1.0, maximum=60.0),
            dead_letter="orders.dead",
        )

    Attributes:
        topics: names; one may be written as a text.
        patterns: names with ``*`` and ``?``.
        semantics: "at_least_once" (default), "at_most_once" or "exactly_once";
            fixed for the group's life.
        ordering: "partition" (default), "key" or "none"; fixed for the group's life.
        retry: pauses between attempts, and their number.
        ack_timeout: seconds without a sign of life after which a member gives up what
            it was handed: 5 to a day; default 30.
        max_lease: seconds a record may stay with a member, whatever it says; 0, the
            default: no bound.
        dead_letter: topic that takes records after their last attempt.
        start: where the group begins in topics it finds at its beginning: "earliest"
            (default), "latest" or an aware datetime.
        max_unacked: records of a partition between the first unsettled one and the
            last one handed out: 1 to 200,000; default 50,000.
        max_retrying: records of a partition that wait for another attempt: 1 to
            16,384; default 4,096.
    """

    topics: Sequence[str] | str = ()
    patterns: Sequence[str] | str = ()
    semantics: Semantics | None = None
    ordering: Ordering | None = None
    retry: Retry = field(default_factory=Retry)
    ack_timeout: float | None = None
    max_lease: float | None = None
    dead_letter: str | None = None
    start: Start | None = None
    max_unacked: int | None = None
    max_retrying: int | None = None


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member of a group; ``grace`` in seconds: how long its place is kept once it is gone."""

    id: str
    name: str
    static: bool
    grace: float
    joined_at: datetime


@dataclass(frozen=True, slots=True)
class GroupPartition:
    """What a group holds of a partition.

    Attributes:
        floor: the committed offset: everything below is settled.
        settled_above: records settled above it.
        retrying: records that wait for another attempt or are parked.
        owner: id of the member that owns it; empty without one.
        fence: the generation since which it does.
    """

    topic: str
    partition: int
    floor: int
    settled_above: int
    retrying: int
    owner: str
    fence: int


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group.

    Attributes:
        definition: complete; None of a group that only ever committed offsets.
        generation: grows with every change of definition, members or owners.
        implicit: made by a subscription that defined nothing.
        members, partitions: filled by ``group`` and ``seek_group``.
    """

    name: str
    definition: GroupDefinition | None
    generation: int
    implicit: bool
    created_at: datetime
    members: tuple[GroupMember, ...] = ()
    partitions: tuple[GroupPartition, ...] = ()


@dataclass(frozen=True, slots=True)
class RetryingRecord:
    """A record that failed and waits for another attempt, or is parked.

    Attributes:
        attempts: made so far; ``losses`` of them ended with the death of the member.
        due_at: it is not handed out before; None: parked until somebody restores it.
        errors: the last five, with their times.
    """

    topic: str
    partition: int
    offset: int
    attempts: int
    losses: int
    parked: bool
    due_at: datetime | None
    first_failed_at: datetime
    errors: tuple[tuple[datetime, str], ...] = ()


#: A record by topic, partition and offset.
RecordPlace: TypeAlias = RetryingRecord | tuple[str, int, int]


def to_definition(definition: GroupDefinition) -> bus_pb2.GroupDefinition:
    """The wire form; what is None stays absent.

    Raises:
        InvalidArgumentError: a field is of the wrong kind, or no number the wire can carry.
    """
    if not isinstance(definition, GroupDefinition):
        raise _invalid("definition", f"must be a GroupDefinition, not {type(definition).__name__}")
    found = bus_pb2.GroupDefinition(
        topics=_names(definition.topics, "topics"), patterns=_names(definition.patterns, "patterns")
    )
    if definition.semantics is not None:
        found.semantics = _choice(_SEMANTICS, definition.semantics, "semantics")  # type: ignore[assignment]
    if definition.ordering is not None:
        found.ordering = _choice(_ORDERING, definition.ordering, "ordering")  # type: ignore[assignment]
    if not isinstance(definition.retry, Retry):
        raise _invalid("retry", f"must be a Retry, not {type(definition.retry).__name__}")
    if definition.retry != Retry():
        found.retry.CopyFrom(definition.retry.message())
    if definition.ack_timeout is not None:
        found.ack_timeout_ms = _scaled(definition.ack_timeout, 1_000, "ack_timeout", _U32)
    if definition.max_lease is not None:
        found.max_lease_ms = _scaled(definition.max_lease, 1_000, "max_lease", _U64)
    if definition.dead_letter is not None:
        found.dead_letter_topic = _text(definition.dead_letter, "dead_letter")
    if definition.start is not None:
        _set_start(found.start, definition.start)
    if definition.max_unacked is not None:
        found.max_unacked = _count(definition.max_unacked, "max_unacked")
    if definition.max_retrying is not None:
        found.max_retrying = _count(definition.max_retrying, "max_retrying")
    return found


def from_definition(message: bus_pb2.GroupDefinition) -> GroupDefinition:
    """What the wire says; what is absent is None."""

    def seconds(holder: Any, name: str, scale: int = 1_000) -> float | None:
        return getattr(holder, name) / scale if holder.HasField(name) else None

    def number(holder: Any, name: str) -> int | None:
        return getattr(holder, name) if holder.HasField(name) else None

    retry = message.retry
    return GroupDefinition(
        topics=tuple(message.topics),
        patterns=tuple(message.patterns),
        semantics=cast(Semantics | None, _named(_SEMANTICS, message.semantics)),
        ordering=cast(Ordering | None, _named(_ORDERING, message.ordering)),
        retry=Retry(
            attempts=number(retry, "max_attempts"),
            initial=seconds(retry, "initial_ms"),
            maximum=seconds(retry, "max_ms"),
            multiplier=seconds(retry, "multiplier_milli"),
            jitter=seconds(retry, "jitter_permille"),
        ),
        ack_timeout=seconds(message, "ack_timeout_ms"),
        max_lease=seconds(message, "max_lease_ms"),
        dead_letter=message.dead_letter_topic if message.HasField("dead_letter_topic") else None,
        start=_start(message.start),
        max_unacked=number(message, "max_unacked"),
        max_retrying=number(message, "max_retrying"),
    )


def from_group(group: groups_pb2.Group) -> GroupInfo:
    """A group as the wire has it."""
    return GroupInfo(
        name=group.name,
        definition=from_definition(group.definition) if group.HasField("definition") else None,
        generation=group.generation,
        implicit=group.implicit,
        created_at=moment(group.created_at_us),
        members=tuple(
            [
                GroupMember(each.id, each.name, each.fixed, each.grace_ms / 1000, moment(each.joined_at_us))
                for each in group.members
            ]
        ),
        partitions=tuple(
            [
                GroupPartition(
                    each.topic,
                    each.partition,
                    each.floor,
                    each.settled_above,
                    each.retrying,
                    each.owner,
                    each.fence,
                )
                for each in group.partitions
            ]
        ),
    )


def from_retry(retry: groups_pb2.Retry) -> RetryingRecord:
    """A record that waits, as the wire has it."""
    place = retry.place
    return RetryingRecord(
        topic=place.topic,
        partition=place.partition,
        offset=place.offset,
        attempts=retry.attempts,
        losses=retry.losses,
        parked=retry.parked,
        due_at=moment(retry.due_us) if retry.HasField("due_us") else None,
        first_failed_at=moment(retry.first_failed_us),
        errors=tuple([(moment(each.time_us), each.error) for each in retry.errors]),
    )


def to_place(place: RecordPlace) -> groups_pb2.RetryPlace:
    """The wire form of a record's place.

    Raises:
        InvalidArgumentError: it is none.
    """
    if isinstance(place, RetryingRecord):
        place = (place.topic, place.partition, place.offset)
    try:
        topic, partition, offset = place
        return groups_pb2.RetryPlace(topic=topic, partition=partition, offset=offset)
    except (TypeError, ValueError):
        raise _invalid("places", f"hold {place!r}, which is no (topic, partition, offset)") from None


def _set_start(message: bus_pb2.Position, start: Start) -> None:
    if isinstance(start, datetime):
        message.time_us = to_us(start, "start")
    elif start == "earliest":
        message.earliest = True
    elif start == "latest":
        message.latest = True
    else:
        raise _invalid("start", f'must be "earliest", "latest" or a datetime, not {start!r}')


def _start(message: bus_pb2.Position) -> Start | None:
    kind = message.WhichOneof("position")
    if kind == "time_us":
        return moment(message.time_us)
    return cast(Start | None, kind)


def _names(names: Sequence[str] | str, what: str) -> list[str]:
    if isinstance(names, str):
        return [names]
    try:
        return [_text(name, what) for name in names]
    except TypeError:
        raise _invalid(what, f"must be names, not {type(names).__name__}") from None


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise _invalid(what, f"must be text, not {type(value).__name__}")
    return value


def _choice(known: dict[str, Any], value: str, what: str) -> int:
    found = known.get(value) if isinstance(value, str) else None
    if found is None:
        raise _invalid(what, f"must be one of {', '.join(known)}, not {value!r}")
    return int(found)


def _named(known: dict[str, Any], value: int) -> str | None:
    return next((name for name, number in known.items() if number == value), None)


def _count(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _U32:
        raise _invalid(what, f"must be a whole number, 0 or more, not {value!r}")
    return value


def _scaled(value: object, scale: int, what: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _invalid(what, f"must be a number, not {value!r}")
    scaled = round(value * scale)
    if not 0 <= scaled <= most:
        raise _invalid(what, f"is {value!r}, which is out of range")
    return scaled


def _invalid(what: str, problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{what} {problem}", metadata={"field": what})
