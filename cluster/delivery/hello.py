"""The first message of a subscription, checked."""

from __future__ import annotations

import re

import msgspec

from holdfast.cluster.delivery.runs import ranges_of
from holdfast.cluster.group_definition import DAY_MS
from holdfast.cluster.state.names import check_name
from holdfast.errors import InvalidArgumentError, LimitExceededError, ProtocolVersionError
from holdfast.storage.members import MAX_MEMBER_BYTES, cut_name
from holdfast.v1 import bus_pb2

#: Versions of the subscription spoken here: that of clients without leases, and this one.
PROTOCOLS = (0, 2)

#: Handlers one member may say it runs at once: that many records may be to blame when it dies.
MAX_CONCURRENCY = 10_000

#: Records a member may say it still works on.
MAX_HOLDING = 200_000

_MEMBER_ID = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_MEMBER_BYTES}}}")


class Held(msgspec.Struct, frozen=True):
    """Records of a partition that a member still works on: ranges ``(first, end)``."""

    topic: str
    partition: int
    ranges: tuple[tuple[int, int], ...]


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What a member says of itself.

    Attributes:
        definition: what it wants the group to be, as far as it cares; None: it takes any.
        grace_ms: of a static member; None: it is none.
        concurrency: handlers it runs at once.
    """

    group: str
    member: str
    name: str = ""
    protocol: int = 2
    topics: tuple[str, ...] = ()
    definition: bus_pb2.GroupDefinition | None = None
    start: bus_pb2.Position | None = None
    grace_ms: int | None = None
    concurrency: int = 1
    credits: int = 0
    holding: tuple[Held, ...] = ()


def check_start(start: bus_pb2.SubscribeStart, *, max_credits: int) -> Hello:
    """The hello of a member of protocol 2.

    Raises:
        ProtocolVersionError: it speaks another one.
        InvalidArgumentError: ``metadata["field"]`` says which field is at fault.
        LimitExceededError: more credits than a member may hold.
    """
    if start.protocol != PROTOCOLS[-1]:
        raise ProtocolVersionError(
            f"the subscription speaks protocol {start.protocol}; this broker speaks "
            f"{' and '.join(map(str, PROTOCOLS))}: upgrade the older of the two",
            metadata={"supported": ",".join(map(str, PROTOCOLS))},
        )
    check_name(start.group, what="group", field="group")
    if _MEMBER_ID.fullmatch(start.member_id) is None:
        raise _invalid(
            "member_id",
            f"has 1 to {MAX_MEMBER_BYTES} letters, digits, '.', '_' or '-': {start.member_id[:80]!r}",
        )
    if start.concurrency > MAX_CONCURRENCY:
        raise _invalid("concurrency", f"is {start.concurrency}; up to {MAX_CONCURRENCY} is allowed")
    if start.HasField("static_grace_ms") and start.static_grace_ms > DAY_MS:
        raise _invalid("static_grace_ms", f"is {start.static_grace_ms}; up to a day, {DAY_MS}, is allowed")
    if start.credits > max_credits:
        raise LimitExceededError(f"{start.credits} credits; a member may hold {max_credits}")
    definition = start.definition if start.HasField("definition") else None
    topics = tuple(sorted(set(start.topics)))
    if definition is not None and topics and topics != tuple(sorted(set(definition.topics))):
        raise _invalid("topics", "differ from those of the definition: leave one of the two out")
    for topic in topics:
        check_name(topic, what="topic", field="topics")
    return Hello(
        group=start.group,
        member=start.member_id,
        name=cut_name(start.consumer_name),
        protocol=start.protocol,
        topics=topics,
        definition=definition,
        start=start.initial if start.HasField("initial") else None,
        grace_ms=start.static_grace_ms if start.HasField("static_grace_ms") else None,
        concurrency=max(start.concurrency, 1),
        credits=start.credits,
        holding=_holding(start),
    )


def _holding(start: bus_pb2.SubscribeStart) -> tuple[Held, ...]:
    found: list[Held] = []
    left = MAX_HOLDING
    for each in start.holding:
        ranges = ranges_of(each.base, each.runs)
        left -= sum(end - first for first, end in ranges)
        if left < 0:
            raise _invalid("holding", f"are more than {MAX_HOLDING} records")
        found.append(Held(each.topic, each.partition, tuple(ranges)))
    return tuple(found)


def _invalid(field: str, what: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{field} {what}", metadata={"field": field})
