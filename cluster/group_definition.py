"""What a group is: topics, semantics, ordering, retries; and how long a retry waits.

Integers only: apply and the leader work the same things out from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
import xxhash

from holdfast.cluster.state.names import MAX_NAME, check_name
from holdfast.errors import GroupConflictError, InvalidArgumentError
from holdfast.v1 import bus_pb2

_E = TypeVar("_E", bound=IntEnum)

DAY_MS = 86_400_000
MAX_TOPICS = 64
MAX_PATTERNS = 8
_PATTERN = re.compile(rf"[A-Za-z0-9._*?-]{{1,{MAX_NAME}}}")


class Semantics(IntEnum):
    """When a record is settled; the numbers of bus.proto."""

    AT_LEAST_ONCE = bus_pb2.SEMANTICS_AT_LEAST_ONCE
    AT_MOST_ONCE = bus_pb2.SEMANTICS_AT_MOST_ONCE
    EXACTLY_ONCE = bus_pb2.SEMANTICS_EXACTLY_ONCE


class Ordering(IntEnum):
    """What is handled in order, one at a time; the numbers of bus.proto."""

    PARTITION = bus_pb2.ORDERING_PARTITION
    KEY = bus_pb2.ORDERING_KEY
    NONE = bus_pb2.ORDERING_NONE


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """A group's definition, complete and checked. Times in milliseconds but for ``start_us``."""

    topics: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    semantics: Semantics = Semantics.AT_LEAST_ONCE
    ordering: Ordering = Ordering.PARTITION
    max_attempts: int = 0  # 0: no end
    initial_ms: int = 1_000
    max_ms: int = 60_000
    multiplier_milli: int = 2_000
    jitter_permille: int = 100
    ack_timeout_ms: int = 30_000
    dead_letter_topic: str = ""
    start_latest: bool = False
    start_us: int | None = None  # a time; None: earliest, or latest
    max_unacked: int = 50_000
    max_retrying: int = 4_096
    max_lease_ms: int = 0  # 0: no bound

    def reads(self, topic: str) -> bool:
        """Whether the group reads the topic of this name."""
        return topic in self.topics or any(_compiled(p).fullmatch(topic) for p in self.patterns)


class _Bounded(msgspec.Struct, frozen=True):
    """A number of the definition: its attribute, which names its field, and its bounds."""

    attribute: str
    low: int
    high: int
    in_retry: bool = False

    @property
    def field(self) -> str:
        return f"retry.{self.attribute}" if self.in_retry else self.attribute


_NUMBERS = (
    _Bounded("max_attempts", 0, 1_000, in_retry=True),
    _Bounded("initial_ms", 0, 7 * DAY_MS, in_retry=True),
    _Bounded("max_ms", 0, 7 * DAY_MS, in_retry=True),
    _Bounded("multiplier_milli", 1_000, 10_000, in_retry=True),
    _Bounded("jitter_permille", 0, 1_000, in_retry=True),
    # A third of it is the heartbeat: of less, most would be noise of the network.
    _Bounded("ack_timeout_ms", 5_000, DAY_MS),
    _Bounded("max_unacked", 1, 200_000),
    _Bounded("max_retrying", 1, 16_384),
    _Bounded("max_lease_ms", 0, 7 * DAY_MS),
)


def check(message: bus_pb2.GroupDefinition) -> Definition:
    """A definition from what somebody wrote; what is absent is the default.

    That the topics exist is not looked at.

    Raises:
        InvalidArgumentError: ``metadata["field"]`` names the field at fault.
    """
    definition = _parse(message)
    _check_together(definition)
    return definition


def to_message(definition: Definition) -> bus_pb2.GroupDefinition:
    """The definition with every field set: what is stored, and what members are told."""
    message = bus_pb2.GroupDefinition(
        topics=definition.topics,
        patterns=definition.patterns,
        semantics=int(definition.semantics),  # type: ignore[arg-type]
        ordering=int(definition.ordering),  # type: ignore[arg-type]
        dead_letter_topic=definition.dead_letter_topic,
    )
    for number in _NUMBERS:
        holder = message.retry if number.in_retry else message
        setattr(holder, number.attribute, getattr(definition, number.attribute))
    if definition.start_us is not None:
        message.start.time_us = definition.start_us
    elif definition.start_latest:
        message.start.latest = True
    else:
        message.start.earliest = True
    return message


def conflict(asked: bus_pb2.GroupDefinition, has: Definition) -> GroupConflictError | None:
    """What a member that asks for this has to be told of a group defined otherwise; None: they agree.

    Fields that are not set agree with anything: two versions of a program may
    differ in what they do not care about.

    Raises:
        InvalidArgumentError: a field is malformed.
    """
    wanted = _parse(asked)
    for field, differs in _COMPARED:
        if _is_set(asked, field) and differs(wanted, has):
            return conflict_of(field, wanted, has)
    return None


def fixed_conflict(wanted: Definition, has: Definition) -> GroupConflictError | None:
    """As ``conflict``, for a redefinition: semantics and ordering stay as they are for ever."""
    for field in ("semantics", "ordering"):
        if getattr(wanted, field) != getattr(has, field):
            return conflict_of(field, wanted, has)
    return None


def difference(wanted: Definition, has: Definition) -> GroupConflictError | None:
    """The error that names the first field in which two definitions differ; None: they are equal."""
    for field, differs in _COMPARED:
        if differs(wanted, has):
            return conflict_of(field, wanted, has)
    return None


def conflict_of(field: str, wanted: Definition, has: Definition) -> GroupConflictError:
    """The error that names a field in which two definitions differ."""
    group_has, asked = _shown(has, field), _shown(wanted, field)
    return GroupConflictError(
        f"the group has {field} {group_has}, not {asked}; "
        "ask for what it has, redefine it, or use another group",
        metadata={"field": field, "group_has": group_has, "asked": asked},
    )


def backoff_ms(definition: Definition, identity: bytes, attempts: int) -> int:
    """How long a record waits after its ``attempts``-th failure.

    Args:
        identity: of the record in its group: the jitter is drawn from it, so that every node
            and every reader of the log finds the same.
    """
    wait = definition.initial_ms
    for _ in range(attempts - 1):
        if wait >= definition.max_ms:
            break
        following = wait * definition.multiplier_milli // 1_000
        if following == wait:
            break
        wait = following
    wait = min(wait, definition.max_ms)
    drawn = xxhash.xxh3_64_intdigest(identity + attempts.to_bytes(4)) % 2_001 - 1_000
    return min(wait + wait * definition.jitter_permille * drawn // 1_000_000, definition.max_ms)


def _parse(message: bus_pb2.GroupDefinition) -> Definition:
    """Every field looked at by itself."""
    found: dict[str, Any] = {
        "topics": _topics(message),
        "patterns": _patterns(message),
        "semantics": _member(Semantics, message.semantics, "semantics") or Semantics.AT_LEAST_ONCE,
        "ordering": _member(Ordering, message.ordering, "ordering") or Ordering.PARTITION,
    }
    for number in _NUMBERS:
        holder = message.retry if number.in_retry else message
        if holder.HasField(number.attribute):
            value = getattr(holder, number.attribute)
            if not number.low <= value <= number.high:
                raise _invalid(number.field, f"is {value}: {number.low} to {number.high} are allowed")
            found[number.attribute] = value
    if message.HasField("dead_letter_topic") and message.dead_letter_topic:
        name = check_name(message.dead_letter_topic, what="topic", field="dead_letter_topic")
        found["dead_letter_topic"] = name
    found |= _start(message)
    return Definition(**found)


@lru_cache(maxsize=1_024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern))


def _topics(message: bus_pb2.GroupDefinition) -> tuple[str, ...]:
    if len(message.topics) > MAX_TOPICS:
        raise _invalid("topics", f"are {len(message.topics)}: up to {MAX_TOPICS} are allowed")
    return _distinct(check_name(name, what="topic", field="topics") for name in message.topics)


def _patterns(message: bus_pb2.GroupDefinition) -> tuple[str, ...]:
    if len(message.patterns) > MAX_PATTERNS:
        raise _invalid("patterns", f"are {len(message.patterns)}: up to {MAX_PATTERNS} are allowed")
    for pattern in message.patterns:
        if _PATTERN.fullmatch(pattern) is None:
            raise _invalid(
                "patterns", f"hold {pattern[:64]!r}: characters of topic names, * and ? are allowed"
            )
    return _distinct(message.patterns)


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted, each once: two ways to write one set are one definition."""
    return tuple(sorted(set(names)))


def _member(kind: type[_E], value: int, field: str) -> _E | None:
    if not value:
        return None
    try:
        return kind(value)
    except ValueError:
        raise _invalid(field, f"is {value}, which this broker does not know") from None


def _start(message: bus_pb2.GroupDefinition) -> dict[str, Any]:
    kind = message.start.WhichOneof("position")
    if kind is None or kind == "earliest":
        return {}
    if kind == "latest":
        return {"start_latest": True}
    if kind == "time_us":
        if message.start.time_us < 0:
            raise _invalid("start", "lies before 1970")
        return {"start_us": message.start.time_us}
    raise _invalid("start", "is an offset: earliest, latest or a time is allowed; seek the group instead")


def _check_together(d: Definition) -> None:
    if not d.topics and not d.patterns:
        raise _invalid("topics", "are none, and patterns neither: a group reads something")
    if d.initial_ms > d.max_ms:
        raise _invalid("retry.initial_ms", f"is {d.initial_ms}, more than retry.max_ms, {d.max_ms}")
    if d.dead_letter_topic and d.reads(d.dead_letter_topic):
        raise _invalid("dead_letter_topic", f"{d.dead_letter_topic!r} is a topic the group reads")
    if d.semantics == Semantics.AT_MOST_ONCE:
        # Settled before it is handed out: there is nothing to try again, nor for a key to wait for.
        if d.ordering == Ordering.KEY:
            raise _invalid("ordering", "by key needs another semantics than at_most_once")
        if d.max_attempts:
            raise _invalid("retry.max_attempts", "needs another semantics than at_most_once")
        if d.dead_letter_topic:
            raise _invalid("dead_letter_topic", "needs another semantics than at_most_once")
    if d.max_attempts and not d.dead_letter_topic:
        raise _invalid("dead_letter_topic", "is missing: that is where records go after retry.max_attempts")


def _differs(attribute: str) -> Callable[[Definition, Definition], bool]:
    return lambda a, b: bool(getattr(a, attribute) != getattr(b, attribute))


def _starts_differ(a: Definition, b: Definition) -> bool:
    return (a.start_latest, a.start_us) != (b.start_latest, b.start_us)


_COMPARED: tuple[tuple[str, Callable[[Definition, Definition], bool]], ...] = (
    ("semantics", _differs("semantics")),
    ("ordering", _differs("ordering")),
    ("topics", _differs("topics")),
    ("patterns", _differs("patterns")),
    *((number.field, _differs(number.attribute)) for number in _NUMBERS),
    ("dead_letter_topic", _differs("dead_letter_topic")),
    ("start", _starts_differ),
)


def _is_set(message: bus_pb2.GroupDefinition, field: str) -> bool:
    holder: Any = message
    *path, last = field.split(".")
    for name in path:
        holder = getattr(holder, name)
    if last in ("topics", "patterns", "semantics", "ordering"):
        return bool(getattr(holder, last))
    return bool(holder.HasField(last))


def _shown(definition: Definition, field: str) -> str:
    if field == "start":
        if definition.start_us is not None:
            return str(definition.start_us)
        return "latest" if definition.start_latest else "earliest"
    value = getattr(definition, field.rpartition(".")[2])
    if isinstance(value, IntEnum):
        return value.name.lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _invalid(field: str, what: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{field} {what}", metadata={"field": field})
