"""Short ways to write histories of a defined group by hand: topic ``t``, group ``g``.

A session is named by its client and a number: ``a1`` and ``a2`` are two streams
of client ``a``. A record's value is its letter; ``log("abc", keys="xyx")`` gives
them keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.chaos.checker import check
from holdfast.chaos.checker.delivery_events import (
    Conditions,
    Consumption,
    DeadLetter,
    FlowAtRest,
    GroupDefined,
    Handed,
    Joined,
    LagRead,
    Owner,
    PauseTold,
    Produced,
    Redriven,
    Reshaped,
    Restored,
    RetryAtRest,
    SessionOver,
    Silent,
    Sought,
    Spot,
    Told,
    Transacted,
    Verdict,
)
from holdfast.chaos.checker.history import Event, History, Leader, Outcome, Replica, Violation

from .checker_kit import NODES, ok

OK, FAIL, UNKNOWN = Outcome.OK, Outcome.FAIL, Outcome.UNKNOWN
LETTERS = "abcdefghijklmnopqrstuvwxyz"
#: What breaks, words of the message, and the history.
Broken = tuple[str, str, list[Event]]


def found(events: Iterable[Event]) -> list[Violation]:
    return check(History(events))


def assert_broken(broken: Broken) -> None:
    """Exactly that promise is found, in words that name what is wrong.

    Several promises that break together are named with spaces between; the words are the first one's.
    """
    promises, words, events = broken
    violations = found(events)
    assert {violation.promise for violation in violations} == set(promises.split()), violations
    told = [violation.detail for violation in violations if violation.promise == promises.split()[0]]
    assert words in told[0], told[0]


def log(values: str | list[str], keys: str | list[str] = "", start: int = 0) -> list[Event]:
    """Published to ``t`` and acknowledged, in the log of every node from ``start`` on; ``-``: no key."""
    keyed = [None if key == "-" else key for key in keys] or [None] * len(values)
    published: list[Event] = [
        ok(value, offset, key=key, ended=1.5)
        for offset, (value, key) in enumerate(zip(values, keyed, strict=True))
    ]
    return published + rest(values[start:], start)


def rest(values: str | list[str], start: int = 0, topic: str = "t") -> list[Event]:
    records = list(enumerate(values, start))
    return [Replica(node, topic, 0, start, start + len(records), "d", records, "c") for node in NODES]


def group(ordering: Any = "key", semantics: Any = "at_least_once", **more: Any) -> GroupDefined:
    """Lease of 10 s, backoff of 1 s without jitter unless said otherwise."""
    more = {"ack_timeout_ms": 10_000, "jitter_permille": 0, "topics": ["t"], **more}
    return GroupDefined("g", semantics, ordering, 0.0, **more)


def joined(session: str, at: float = 1.0, *, held: list[int] | None = None, **more: Any) -> Joined:
    spots: list[Spot] = [("t", 0, offset) for offset in held or []]
    member = more.pop("member", session[0])
    return Joined(session[0], "g", session, member, more.pop("started", at - 0.01), at, spots, **more)


def over(session: str, at: float, *, orderly: bool = False) -> SessionOver:
    return SessionOver(session[0], "g", session, at, orderly=orderly)


def silent(session: str, at: float, until: float) -> Silent:
    return Silent(session[0], "g", session, at, until)


def handed(offset: int, at: float, session: str = "a1", attempt: int = 1, **more: Any) -> Handed:
    value = more.pop("value", LETTERS[offset])
    topic = more.pop("topic", "t")
    return Handed(session[0], "g", session, topic, 0, offset, value, at, attempt=attempt, **more)


def told(
    offset: int,
    at: float,
    outcome: Verdict = "ack",
    session: str = "a1",
    *,
    lost: bool = False,
    confirmed: float | None = None,
    **more: Any,
) -> Told:
    """Confirmed after 10 ms, unless ``lost`` or refused."""
    if confirmed is None and not lost and not more.get("refused"):
        confirmed = at + 0.01
    return Told(session[0], "g", session, "t", 0, offset, outcome, at, confirmed=confirmed, **more)


def transacted(
    name: str,
    offsets: list[int],
    at: float,
    values: str = "",
    outcome: Outcome = OK,
    *,
    client: str = "a",
    first: int | None = 0,
    fence: int = 0,
) -> Transacted:
    """Consumes of ``t`` and publishes to ``out``, from offset ``first`` on."""
    produced = [
        Produced("out", value, None, 0, None if first is None else first + number)
        for number, value in enumerate(values)
    ]
    consumed = [Consumption("g", "t", 0, offset, fence) for offset in offsets]
    return Transacted(client, name, at, consumed, produced, at + 0.02, outcome)


def sought(at: float, offset: int | None, outcome: Outcome = OK) -> Sought:
    return Sought("op", "g", "t", 0, at, offset, at + 0.02, outcome)


def restored(at: float, offset: int | None = None, *, discard: bool = False) -> Restored:
    return Restored("op", "g", "t", 0, at, offset, discard, at + 0.02, OK)


def letter(origin: int, at: int, attempts: int = 3, *, value: str | None = None, **more: Any) -> DeadLetter:
    """Of record ``origin`` of ``t``, at offset ``at`` of ``dead``."""
    value = LETTERS[origin] if value is None else value
    return DeadLetter("dead", 0, at, value, more.pop("group", "g"), "t", 0, origin, attempts, **more)


def redriven(origin: int, at: int, redrives: int = 1) -> Redriven:
    return Redriven("t", 0, at, LETTERS[origin], "g", "t", 0, origin, redrives)


def at_rest(
    floor: int,
    settled: list[tuple[int, int]] | None = None,
    retries: list[RetryAtRest] | None = None,
    *,
    nodes: tuple[str, ...] = NODES,
    stamp: float = 100.0,
    index: int = 50,
) -> list[Event]:
    return [
        FlowAtRest(node, "g", "t", 0, floor, settled or [], retries or [], int(stamp * 1e6), index)
        for node in nodes
    ]


def row(offset: int, attempts: int = 1, due: float = 1e6, state: int = 1) -> RetryAtRest:
    return RetryAtRest(offset, attempts, int(due * 1e6), state)


def calm(since: float = 20.0, ended: float = 100.0, **more: Any) -> Conditions:
    """Calm from then on, with members of ``g`` that take all there is."""
    return Conditions(ended, since, ["g"], **more)


def leader(node: str, term: int, at: float) -> Leader:
    return Leader(node, term, at)


def shape(
    generation: int, owners: dict[int, str], previous: int = 0, *, members: str = "", **more: Any
) -> Reshaped:
    """Partition -> member; of members that own nothing say so."""
    names = sorted({*owners.values(), *members} - {""})
    held = [
        Owner("t", partition, member, more.get("fence", generation)) for partition, member in owners.items()
    ]
    return Reshaped("g", generation, names, held, more.get("at", 5.0), previous, more.get("node", ""))


def lag_read(node: str, index: int, records: int, oldest: int = 7) -> LagRead:
    return LagRead("g", "t", 0, node, index, records, oldest if records else 0, 60.0)


def paused(session: str, at: float, *, on: bool = True) -> PauseTold:
    return PauseTold(session[0], "g", session, "t", 0, on, "max_unacked", at)
