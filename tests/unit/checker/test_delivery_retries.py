"""Failures: counted once each, and tried again in time."""

from __future__ import annotations

import msgspec
import pytest

from holdfast.chaos.checker.delivery_events import Conditions, GroupDeleted
from holdfast.chaos.checker.history import Event, Outcome

from .delivery_kit import (
    Broken,
    assert_broken,
    at_rest,
    calm,
    found,
    group,
    handed,
    joined,
    leader,
    letter,
    log,
    over,
    paused,
    rest,
    restored,
    row,
    silent,
    sought,
    told,
)

G = group("none")  # the second attempt 1 s after the first, the third 2 s after that
LIMITED = group("none", max_attempts=3, dead_letter="dead")
A, B = joined("a1"), joined("b1")
FAILED = [handed(0, 2), told(0, 3, "nack")]


def poison(deaths: int, *beside: int) -> list[Event]:
    """Record 0 kills one member after the other, each with further records in its handlers."""
    events: list[Event] = []
    for number in range(deaths):
        session, at = f"{'abcdef'[number]}1", 10.0 * number
        events += [joined(session, at + 1), handed(0, at + 2, session, number + 1)]
        events += [handed(offset, at + 2, session) for offset in beside]
        events.append(over(session, at + 3))
    return events


BROKEN: dict[str, Broken] = {
    "a restore that failed": (
        "retry-early",
        "nobody has restored it",
        [
            *(G, *log("a"), A, handed(0, 2), told(0, 3, "park"), handed(0, 6)),
            msgspec.structs.replace(restored(5, 0), outcome=Outcome.FAIL),
        ],
    ),
    "before the delay asked for": (
        "retry-early",
        "failed at 3.000 and came to session a1 at 7.900; it is due 5.000 s later",
        [G, *log("a"), A, handed(0, 2), told(0, 3, "nack", delay_ms=5_000), handed(0, 7.9, attempt=2)],
    ),
    "before the policy's pause": (
        "retry-early",
        "due 1.000 s later",
        [G, *log("a"), A, *FAILED, handed(0, 3.9, attempt=2)],
    ),
    "before the policy's second pause": (
        "retry-early",
        "due 2.000 s later",
        [G, *log("a"), A, *FAILED, handed(0, 4, attempt=2), told(0, 5, "nack"), handed(0, 6.5, attempt=3)],
    ),
    "before the shortest of a jittered pause": (
        "retry-early",
        "due 0.900 s later",
        [group("none", jitter_permille=100), *log("a"), A, *FAILED, handed(0, 3.85, attempt=2)],
    ),
    "under a new leader": (
        "retry-early",
        "offset 0",
        [
            *(G, *log("a"), leader("n1", 1, 0.5), A, handed(0, 2), told(0, 3, "nack", delay_ms=9_000)),
            *(leader("n2", 2, 4), joined("b1", 5), handed(0, 6, "b1", 2)),
        ],
    ),
    "parked until due": (
        "retry-early",
        "parked at 3.000",
        [G, *log("a"), A, handed(0, 2), told(0, 3, "park", delay_ms=5_000), handed(0, 6)],
    ),
    "parked for good": (
        "retry-early",
        "nobody has restored it",
        [G, *log("a"), A, handed(0, 2), told(0, 3, "park"), handed(0, 60)],
    ),
    "rejected, without a topic for it": (
        "retry-early",
        "rejected at 3.000",
        [G, *log("a"), A, handed(0, 2), told(0, 3, "reject"), handed(0, 60, attempt=2)],
    ),
    "more than the clocks allow": (
        "retry-early",
        "due 5.000 s later",
        [
            *(G, *log("a"), A, handed(0, 2), told(0, 3, "nack", delay_ms=5_000), handed(0, 6.9, attempt=2)),
            Conditions(100, skew_s=1.0),
        ],
    ),
    "due, and never handed out": (
        "retry-forgotten",
        "failed at 3.000, was due at 4.010 and not handed out by 25.000, in calm",
        [G, *log("a"), A, *FAILED, calm()],
    ),
    "due, and handed out too late": (
        "retry-forgotten",
        "by 25.000, in calm",
        [G, *log("a"), A, *FAILED, handed(0, 40, attempt=2), calm()],
    ),
    "its row is gone": (
        "retry-forgotten",
        "offset 0 is not settled, and its confirmed nack of 3.000 is not remembered",
        [G, *log("a"), A, *FAILED, *at_rest(0)],
    ),
    "a parked record's row is gone": (
        "retry-forgotten",
        "its confirmed park",
        [G, *log("a"), A, handed(0, 2), told(0, 3, "park"), *at_rest(0)],
    ),
    "its row is long due": (
        "retry-forgotten",
        "has been due for 50.0 s",
        [G, *log("a"), A, handed(0, 2), told(0, 3, "release"), *at_rest(0, [], [row(0, 1, 50)]), calm()],
    ),
    "a row that has forgotten a failure": (
        "attempts-regress",
        "failed 2 times for certain, and 1 attempts are remembered",
        [
            *(G, *log("a"), A, *FAILED, handed(0, 5, attempt=2), told(0, 6, "nack")),
            *at_rest(0, [], [row(0, 1)]),
        ],
    ),
    "the number falls": (
        "attempts-regress",
        "as attempt 1 after attempt 2 and 0 failures; 2 is right",
        [G, *log("a"), A, handed(0, 2, attempt=2), told(0, 3, "release"), handed(0, 4)],
    ),
    "the number stays": (
        "attempts-regress",
        "as attempt 1 after attempt 1 and 1 failures; 2 is right",
        [G, *log("a"), A, *FAILED, handed(0, 5)],
    ),
    "a new leader has forgotten it": (
        "attempts-regress",
        "2 to 3 is right",
        [
            G,
            *log("a"),
            leader("n1", 1, 0.5),
            A,
            *FAILED,
            leader("n2", 2, 4),
            over("a1", 4),
            joined("a2", 5),
            handed(0, 6, "a2"),
        ],
    ),
    "charged twice": (
        "attempts-regress",
        "as attempt 3 after attempt 1 and 1 failures; 2 is right",
        [G, *log("a"), A, *FAILED, handed(0, 6, attempt=3)],
    ),
    "a release is charged": (
        "attempts-regress",
        "as attempt 2 after attempt 1 and 0 failures; 1 is right",
        [G, *log("a"), A, handed(0, 2), told(0, 3, "release"), handed(0, 4, attempt=2)],
    ),
    "an orderly goodbye is charged": (
        "attempts-regress",
        "1 is right",
        [
            G,
            *log("a"),
            A,
            handed(0, 2),
            told(0, 3, "release"),
            over("a1", 3.1, orderly=True),
            B,
            handed(0, 4, "b1", 2),
        ],
    ),
    "tried once more than allowed": (
        "attempts-over",
        "as attempt 4 of 3",
        [LIMITED, *log("a"), A, handed(0, 2, attempt=3), told(0, 3, "nack"), handed(0, 20, attempt=4)],
    ),
    "a neighbour dies with the poison": (
        "attempts-over",
        "was charged 3 attempts; it failed 0 times, and 0 times its member was lost",
        [
            *(LIMITED, *log("ab"), *poison(3), *rest("ab", topic="dead"), letter(0, 0), letter(1, 1)),
            *at_rest(2),
        ],
    ),
}

ALLOWED: dict[str, list[Event]] = {
    "due, and nobody is there to take it": [G, *log("a"), A, *FAILED, Conditions(100.0, 20.0)],
    "due, and there was no calm": [G, *log("a"), A, *FAILED, Conditions(100.0, None, ["g"])],
    "the group is deleted before it is due": [
        *(G, *log("a"), A, *FAILED, GroupDeleted("op", "g", 3.5, 3.6, Outcome.OK), calm()),
    ],
    "in time": [G, *log("a"), A, *FAILED, handed(0, 4, attempt=2), told(0, 5), *at_rest(1), calm()],
    "the clocks of two leaders": [
        *(G, *log("a"), A, handed(0, 2), told(0, 3, "nack", delay_ms=5_000), handed(0, 7.2, attempt=2)),
        Conditions(100, skew_s=1.0),
    ],
    "a shorter policy was put": [
        *(G, group("none", initial_ms=100, jitter_permille=1_000), *log("a"), A, *FAILED),
        handed(0, 3.05, attempt=2),
    ],
    "a failure that was not confirmed": [
        *(G, *log("a"), leader("n1", 1, 0.5), A, handed(0, 2), told(0, 3, "nack", delay_ms=9_000, lost=True)),
        *(leader("n2", 2, 3.1), over("a1", 3.1), joined("b1", 5), handed(0, 6, "b1")),
    ],
    "a failure that was refused": [
        *(G, *log("a"), A),
        *(B, handed(0, 2), told(0, 3, "nack", refused="LEASE_EXPIRED"), handed(0, 3.1, "b1")),
    ],
    "a deposed leader hands it out": [
        *(G, *log("a"), leader("n1", 1, 0.5), B, leader("n2", 2, 2), joined("a2", 2.5), handed(0, 3, "a2")),
        *(told(0, 4, "nack", "a2", delay_ms=60_000), handed(0, 5, "b1"), told(0, 6, session="b1", lost=True)),
        *at_rest(0, [], [row(0)]),
    ],
    "restored": [G, *log("a"), A, handed(0, 2), told(0, 3, "park"), restored(5, 0), handed(0, 6)],
    "a park that is over": [G, *log("a"), A, handed(0, 2), told(0, 3, "park", delay_ms=2_000), handed(0, 5)],
    "it waits to the end": [
        *(G, *log("a"), A),
        *(handed(0, 2), told(0, 3, "nack", delay_ms=200_000), *at_rest(0, [], [row(0, 1, 203)])),
        calm(),
    ],
    "parked to the end": [
        *(G, *log("a"), A),
        *(handed(0, 2), told(0, 3, "park"), *at_rest(0, [], [row(0, 0, 0, state=3)]), calm()),
    ],
    "late, but there was no calm before": [
        *(G, *log("a"), A, *FAILED, handed(0, 24, attempt=2), told(0, 25), calm()),
    ],
    "dead of it": [
        *(group("none", max_attempts=1, dead_letter="dead"), *log("a"), A, *FAILED, *rest("a", topic="dead")),
        *(letter(0, 0, 1), *at_rest(1), calm()),
    ],
    "in a handler to the end": [
        *(G, *log("a"), A, *FAILED, handed(0, 4, attempt=2), *at_rest(0, [], [row(0, 1, 4)]), calm()),
    ],
    "after another of its partition": [
        *(group("partition"), *log("ab"), A),
        *(handed(0, 2), handed(1, 2), told(1, 2.5, "nack"), told(0, 3, "park")),
        *(*at_rest(0, [], [row(0, 0, 0, state=3), row(1, 1, 4)]), calm(), paused("a1", 3.5)),
    ],
    "charged for the loss of its member": [
        *(G, *log("a"), A, handed(0, 2), over("a1", 3), B, handed(0, 5, "b1", 2)),
    ],
    "not charged for the loss of its member": [
        *(
            G,
            *log("a"),
            A,
            handed(0, 2),
            over("a1", 3),
            B,
            handed(0, 5, "b1"),
        ),
    ],
    "charged beside one that was lost": [
        *(G, *log("ab"), A, handed(1, 1.5), told(1, 1.8, "release"), handed(0, 2), over("a1", 3), B),
        *(handed(1, 5, "b1", 2), handed(0, 5, "b1")),
    ],
    "charged for silence": [
        *(G, *log("a"), A, B, handed(0, 2), silent("a1", 2.5, 20), handed(0, 13, "b1", 2)),
        told(0, 21, refused="LEASE_EXPIRED"),
    ],
    "the number begins anew after a seek": [G, *log("a"), A, *FAILED, sought(4, 0), handed(0, 6), told(0, 7)],
    "poison dies alone": [
        *(LIMITED, *log("ab"), *poison(3, 1)),
        *(joined("f1", 40), handed(1, 41, "f1", 4 - 1), told(1, 42, session="f1")),
        *(*rest("a", topic="dead"), letter(0, 0), *at_rest(2)),
    ],
    "a neighbour that was never begun is charged once": [
        *(LIMITED, *log("ab"), *poison(3)),
        *(joined("f1", 40), handed(1, 41, "f1", 2), told(1, 42, session="f1")),
        *(*rest("a", topic="dead"), letter(0, 0), *at_rest(2)),
    ],
    "the last attempt": [
        *(LIMITED, *log("a"), A, handed(0, 2, attempt=3), told(0, 3)),
    ],
    "more attempts were put": [
        *(
            group("none", max_attempts=1, dead_letter="dead"),
            group("none", max_attempts=2, dead_letter="dead"),
        ),
        *(*log("a"), A, *FAILED, handed(0, 5, attempt=2), told(0, 6)),
    ],
    "released a hundred times": [
        *(G, *log("a"), A, *(e for n in range(100) for e in (handed(0, 2 + n), told(0, 2.5 + n, "release")))),
        handed(0, 200, attempt=2),
    ],
}


@pytest.mark.parametrize("name", BROKEN)
def test_it_is_found(name: str) -> None:
    assert_broken(BROKEN[name])


@pytest.mark.parametrize("name", ALLOWED)
def test_what_only_looks_like_it_is_allowed(name: str) -> None:
    assert found(ALLOWED[name]) == []
