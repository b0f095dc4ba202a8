"""Short ways to write histories by hand: topic ``t``, group ``g``, nodes ``n1`` to ``n3``."""

from __future__ import annotations

import msgspec

from holdfast.chaos.checker.history import (
    Acked,
    Assigned,
    Committed,
    Delivered,
    Event,
    Keyed,
    OffsetRead,
    Outcome,
    Publish,
    Read,
    Replica,
    TopicChange,
)

OK, FAIL, UNKNOWN = Outcome.OK, Outcome.FAIL, Outcome.UNKNOWN
NODES = ("n1", "n2", "n3")


def ok(
    value: str,
    offset: int,
    *,
    partition: int = 0,
    at: float = 1.0,
    ended: float = 9.0,
    number: int | None = None,
    producer: str = "p",
    key: str | None = None,
    idempotent: bool = True,
) -> Publish:
    """An acknowledged publish; ``number`` within the producer is the offset unless given."""
    return Publish(
        "c",
        producer,
        offset if number is None else number,
        "t",
        value,
        at,
        key=key,
        ended=ended,
        outcome=OK,
        partition=partition,
        offset=offset,
        idempotent=idempotent,
    )


def keyed(
    value: str,
    key: str,
    offset: int | None,
    *,
    partition: int = 0,
    at: float = 1.0,
    ended: float = 9.0,
    duplicate: bool = False,
    outcome: Outcome = OK,
    window: float = 10.0,
) -> Keyed:
    """A publish under an idempotency key, acknowledged unless said otherwise."""
    place = None if offset is None else partition
    return Keyed("c", "t", key, value, window, at, ended, outcome, place, offset, duplicate)


def timed(values: str, seconds: list[float], partition: int = 0) -> list[Event]:
    """The partition as all nodes hold it in the end; a batch per record, and when it was appended."""
    times = [(offset, int(at * 1_000_000)) for offset, at in enumerate(seconds)]
    return [
        msgspec.structs.replace(replica(node, values, partition=partition), appended=times) for node in NODES
    ]


def other(value: str, outcome: Outcome, number: int = 0, *, producer: str = "q", at: float = 1.0) -> Publish:
    """A publish that was not acknowledged."""
    return Publish("c", producer, number, "t", value, at, ended=9.0, outcome=outcome)


def replica(
    node: str,
    values: str | list[str],
    start: int = 0,
    partition: int = 0,
    digest: str = "d",
    content: str = "c",
) -> Replica:
    records = list(enumerate(values, start))
    return Replica(node, "t", partition, start, start + len(records), digest, records, content)


def rest(values: str | list[str], start: int = 0, partition: int = 0) -> list[Event]:
    """The partition as all nodes hold it in the end."""
    return [replica(node, values, start, partition) for node in NODES]


def read(
    values: str | list[str],
    first: int = 0,
    *,
    at: float = 10.0,
    ended: float | None = None,
    to_end: bool = True,
    start: int = 0,
    from_offset: int | None = None,
) -> Read:
    """A replay that showed ``values`` from offset ``first`` on."""
    return Read(
        "r",
        "t",
        0,
        first if from_offset is None else from_offset,
        at,
        list(enumerate(values, first)),
        ended=at + 0.5 if ended is None else ended,
        outcome=OK,
        to_end=to_end,
        start_offset=start,
    )


def assigned(
    start: int, at: float, session: str = "s1", generation: int = 1, initial: str = "earliest"
) -> Assigned:
    return Assigned("m", "g", session, generation, "t", 0, start, at, initial)


def delivered(values: str, first: int, at: float, session: str = "s1") -> list[Event]:
    return [
        Delivered("m", "g", session, "t", 0, offset, value, at) for offset, value in enumerate(values, first)
    ]


def acked(first: int, last: int, at: float, session: str = "s1") -> Acked:
    return Acked("m", "g", session, "t", 0, first, last, at)


def committed(offset: int, at: float, session: str = "s1") -> Committed:
    return Committed("g", "t", 0, offset, at, session)


def offset_read(offset: int | None, at: float) -> OffsetRead:
    return OffsetRead("g", "t", 0, at, at + 0.5, OK, offset)


def deleted(at: float, ended: float | None = None, outcome: Outcome = OK) -> TopicChange:
    return TopicChange("c", "delete", "t", 0, at, ended, outcome)


def created(*, keeps_all: bool = False, partitions: int = 1) -> TopicChange:
    return TopicChange("c", "create", "t", partitions, 0.0, 0.1, OK, keeps_all=keeps_all)


def log(values: str, start: int = 0) -> list[Event]:
    """Published, acknowledged, in the log: ``values`` from offset 0 on, held from ``start`` on."""
    published: list[Event] = [ok(value, offset) for offset, value in enumerate(values)]
    return published + rest(values[start:], start)
