"""Dead letters and transactions: in one place, whole, and once."""

from __future__ import annotations

import msgspec
import pytest

from holdfast.chaos.checker import check
from holdfast.chaos.checker.delivery_events import Effect, Transacted
from holdfast.chaos.checker.history import Event, History, HistoryError

from .checker_kit import deleted, ok, other
from .delivery_kit import (
    FAIL,
    UNKNOWN,
    Broken,
    assert_broken,
    at_rest,
    calm,
    found,
    group,
    handed,
    joined,
    letter,
    log,
    over,
    redriven,
    rest,
    restored,
    row,
    sought,
    told,
    transacted,
)

G = group("none", max_attempts=1, dead_letter="dead")
ONCE = group("none", "exactly_once")
A, B = joined("a1"), joined("b1")
FAILED = [handed(0, 2), told(0, 3, "nack")]


def died(*letters: str | Event) -> list[Event]:
    """The dead-letter topic at rest holds these values; then what their headers say."""
    values = "".join(value for value in letters if isinstance(value, str))
    return [*rest(values, topic="dead"), *(event for event in letters if not isinstance(event, str))]


BROKEN: dict[str, Broken] = {
    "in both": (
        "dead-and-alive",
        "offset 0 is the dead letter at dead/0 offset 0, and on n1 it is still to be handled",
        [G, *log("a"), A, *FAILED, *died("a", letter(0, 0, 1)), *at_rest(0, [], [row(0)])],
    ),
    "in neither": (
        "dead-and-alive",
        "failed 1 times and is settled; nobody has acknowledged it, and it is no dead letter",
        [G, *log("a"), A, *FAILED, *died(), *at_rest(1)],
    ),
    "dead twice": (
        "dead-and-alive",
        "is a dead letter twice, at dead/0 offset 0 and dead/0 offset 1",
        [G, *log("a"), A, *FAILED, *died("a", "a", letter(0, 0, 1), letter(0, 1, 1)), *at_rest(1)],
    ),
    "dead, and acknowledged": (
        "dead-and-alive",
        "was confirmed as settled at 3.010, and is the dead letter",
        [G, *log("a"), A, handed(0, 2), told(0, 3), *died("a", letter(0, 0, 1)), *at_rest(1)],
    ),
    "handed out after its last attempt": (
        "dead-and-alive",
        "as attempt 2; its dead letter at dead/0 offset 0 says that it died of attempt 1",
        [
            *(group("none", max_attempts=2, dead_letter="dead"), *log("a")),
            *(A, *FAILED, handed(0, 5, attempt=2)),
            *(told(0, 6, lost=True), *died("a", letter(0, 0, 1)), *at_rest(1)),
        ],
    ),
    "handed out after it was rejected": (
        "dead-and-alive",
        "it was rejected for good at 3.000",
        [
            *(
                group("none", dead_letter="dead"),
                *log("a"),
                A,
                handed(0, 2),
                told(0, 3, "reject"),
            ),
            *(handed(0, 5, attempt=2),),
        ],
    ),
    "of another record": (
        "dead-and-alive",
        "says it comes from t/0 offset 1; the log has 'b' there",
        [G, *log("ab"), A, *died("a", letter(1, 0, 1, value="a"))],
    ),
    "of a group that never was": (
        "dead-and-alive",
        "says it is of group h, which was never defined",
        [G, *log("a"), A, *FAILED, *died("a", letter(0, 0, 1, group="h"))],
    ),
    "of a group that gives up elsewhere": (
        "dead-and-alive",
        "which gives nothing up to dead",
        [
            *(
                group("none", max_attempts=1, dead_letter="grave"),
                *log("a"),
                A,
                *FAILED,
            ),
            *(*died("a", letter(0, 0, 1)),),
        ],
    ),
    "where nothing is": (
        "dead-and-alive",
        "is not there; the log has None",
        [G, *log("a"), A, *FAILED, *died(letter(0, 0, 1))],
    ),
    "never tried": (
        "dead-and-alive",
        "says that nobody has tried it",
        [G, *log("a"), A, *died("a", letter(0, 0, 0))],
    ),
    "redriven twice": (
        "dead-and-alive",
        "offset 0 was redriven twice, to t/0 offset 1 and t/0 offset 2",
        [
            *(
                G,
                ok("a", 0),
                *rest("aaa"),
                A,
                *FAILED,
                *died("a", letter(0, 0, 1)),
                redriven(0, 1),
            ),
            *(redriven(0, 2),),
        ],
    ),
    "no dead letter in a dead-letter topic": (
        "unpublished-record",
        "'a' at dead/0 offset 0",
        [G, *log("a"), *died("a")],
    ),
    "a refused transaction is there": (
        "fenced-effect",
        "its transaction x was told to have failed",
        [
            *(ONCE, *log("a"), A, handed(0, 2), transacted("x", [0], 3, "A", FAIL), *rest("A", topic="out")),
            transacted("y", [], 4, "Z", UNKNOWN, first=None),
        ],
    ),
    "a transaction that was told to be done is not there": (
        "fenced-effect",
        "transaction x of a was told to be done; 'B' is not in out",
        [ONCE, *log("a"), A, handed(0, 2), transacted("x", [0], 3, "AB"), *rest("A", topic="out")],
    ),
    "a transaction's record is elsewhere": (
        "fenced-effect",
        "was told that 'A' is at out/0 offset 0; it is at out/0 offset 1",
        [
            *(ONCE, *log("a"), A, handed(0, 2), transacted("x", [0], 3, "A")),
            *(transacted("y", [], 1, "Z", first=None), *rest("ZA", topic="out")),
        ],
    ),
    "a transaction of unknown outcome is there in part": (
        "fenced-effect",
        "is there in part: 'A' is in the log, 'B' is not in out",
        [
            *(ONCE, *log("a"), A, handed(0, 2), transacted("x", [0], 3, "AB", UNKNOWN, first=None)),
            *rest("A", topic="out"),
        ],
    ),
    "a done transaction has used up nothing": (
        "fenced-effect",
        "transaction x is done and consumed offset 0, which n1 still counts as open",
        [
            *(
                ONCE,
                *log("a"),
                A,
                handed(0, 2),
                transacted("x", [0], 3, "A"),
                *rest("A", topic="out"),
            ),
            *at_rest(0),
        ],
    ),
    "a transaction is done twice": (
        "duplicate-record",
        "'A' at out/0 offset 1",
        [
            *(ONCE, *log("a"), A, handed(0, 2), transacted("x", [0], 3, "A"), *rest("AA", topic="out")),
            transacted("y", [], 4, "Z", UNKNOWN, first=None),
        ],
    ),
    "used up by two transactions": (
        "consumed-twice",
        "offset 0 was used up by transaction x and by transaction y",
        [
            *(ONCE, *log("a"), A, B, handed(0, 2), transacted("x", [0], 3, "A"), over("b1", 1.5)),
            handed(0, 2.9, "b1"),
            *(transacted("y", [0], 4, "B", client="b", first=1), *rest("AB", topic="out")),
        ],
    ),
    "used up by one of unknown outcome, that is there": (
        "consumed-twice",
        "by transaction x and by transaction y",
        [
            *(ONCE, *log("a"), A, B, handed(0, 2), transacted("x", [0], 3, "A", UNKNOWN, first=None)),
            *(over("a1", 3.1), handed(0, 5, "b1"), transacted("y", [0], 6, "B", client="b", first=1)),
            *rest("AB", topic="out"),
        ],
    ),
    "used up, and acknowledged": (
        "consumed-twice",
        "by transaction x and by the ack of session a1",
        [group("none"), *log("a"), A, handed(0, 2), transacted("x", [0], 3), told(0, 3.01)],
    ),
    "used up, and dead": (
        "consumed-twice dead-and-alive",
        "by the dead letter at dead/0 offset 0",
        [G, *log("a"), A, handed(0, 2), transacted("x", [0], 3), *died("a", letter(0, 0, 1))],
    ),
    "two effects of a record": (
        "effect-twice",
        "ledger has two effects of t/0/0: '10' at 3.000 and '10' at 5.000",
        [Effect("ledger", "t/0/0", "10", 3), Effect("ledger", "t/0/0", "10", 5)],
    ),
}

ALLOWED: dict[str, list[Event]] = {
    "dead, and gone from the group": [
        *(G, *log("ab"), A, *FAILED),
        *(handed(1, 4), told(1, 5), *died("a", letter(0, 0, 1)), *at_rest(2), calm()),
    ],
    "dead of a rejection": [
        *(group("none", dead_letter="dead"), *log("a"), A, handed(0, 2), told(0, 3, "reject")),
        *(*died("a", letter(0, 0, 1)), *at_rest(1), calm()),
    ],
    "an ack that came too late": [
        *(G, *log("a"), A, B, handed(0, 2), over("a1", 3), told(0, 4, lost=True)),
        *(*died("a", letter(0, 0, 1)), *at_rest(1)),
    ],
    "a dead-letter topic that is published to besides": [
        *(G, *log("a"), A, *FAILED, *rest("ya", topic="dead"), letter(0, 1, 1), *at_rest(1)),
        msgspec.structs.replace(other("y", UNKNOWN), topic="dead"),
    ],
    "redriven, and done": [
        *(G, ok("a", 0), *rest("aa"), A, *FAILED, *died("a", letter(0, 0, 1)), redriven(0, 1)),
        *(handed(1, 20, value="a"), told(1, 21), *at_rest(2), calm()),
    ],
    "redriven, and dead again": [
        *(G, ok("a", 0), *rest("aa"), A),
        *(*FAILED, redriven(0, 1), handed(1, 20, value="a"), told(1, 21, "nack")),
        *(*died("a", "a", letter(0, 0, 1), letter(0, 1, 1, redrives=1)), *at_rest(2), calm()),
    ],
    "a dead letter of a topic that is gone": [
        *(G, ok("a", 0, at=0.1, ended=0.2), handed(0, 0.4), told(0, 0.5, "nack"), deleted(0.6, 0.7)),
        *died("a", letter(0, 0, 1)),
    ],
    "dead a second time after a seek": [
        *(G, *log("a"), A, *FAILED, sought(5, 0), handed(0, 7), told(0, 8, "nack")),
        *(*died("a", "a", letter(0, 0, 1), letter(0, 1, 1)), *at_rest(1), calm()),
    ],
    "parked when its dead-letter topic is gone, and restored": [
        *(group("none", max_attempts=5, dead_letter="dead"), *log("a"), A),
        *(handed(0, 2), told(0, 3, "reject"), restored(5, 0), handed(0, 6, attempt=2)),
        *(told(0, 7), *at_rest(1)),
    ],
    "a transaction": [
        *(ONCE, *log("ab"), A, handed(0, 2), handed(1, 2), transacted("x", [0, 1], 3, "AB")),
        *(*rest("AB", topic="out"), *at_rest(2), calm()),
    ],
    "a transaction that was repeated": [
        *(ONCE, *log("a"), A, handed(0, 2), transacted("x", [0], 3, "A", UNKNOWN, first=None)),
        *(transacted("x", [0], 4, "A"), *rest("A", topic="out"), *at_rest(1), calm()),
    ],
    "a repeat that was refused": [
        *(ONCE, *log("a"), A, handed(0, 2), transacted("x", [0], 3, "A", UNKNOWN, first=None)),
        *(transacted("x", [0], 4, "A", FAIL), *rest("A", topic="out"), *at_rest(1)),
    ],
    "of unknown outcome, and done": [
        *(ONCE, *log("a"), A, handed(0, 2), transacted("x", [0], 3, "AB", UNKNOWN, first=None)),
        *(*rest("AB", topic="out"), *at_rest(1)),
    ],
    "of unknown outcome, and nothing": [
        *(ONCE, *log("a"), A),
        *(B, handed(0, 2), transacted("x", [0], 3, "A", UNKNOWN, first=None), over("a1", 3.5)),
        *(handed(0, 5, "b1"), transacted("y", [0], 6, "B", client="b"), *rest("B", topic="out"), *at_rest(1)),
    ],
    "a transaction's records are trimmed": [
        *(ONCE, *log("a"), A, handed(0, 2), transacted("x", [0], 3, "AB"), *rest("B", 1, "out"), *at_rest(1)),
    ],
    "refused for the first one's sake": [
        *(ONCE, *log("a"), A, B, handed(0, 2), over("a1", 3), handed(0, 5, "b1")),
        *(transacted("y", [0], 6, "B", client="b"), transacted("x", [0], 7, "A", FAIL)),
        *(*rest("B", topic="out"), *at_rest(1)),
    ],
    "an ack beside a transaction was refused": [
        *(ONCE, *log("a"), A, handed(0, 2), told(0, 2.5, refused="TRANSACTION_REQUIRED")),
        *(transacted("x", [0], 3), *at_rest(1)),
    ],
    "used up again after a seek": [
        *(ONCE, *log("a"), A, handed(0, 2), transacted("x", [0], 3), sought(4, 0)),
        *(handed(0, 6), transacted("y", [0], 7), *at_rest(1)),
    ],
    "a transaction without records to consume": [
        *(transacted("x", [], 3, "AB"), *rest("AB", topic="out")),
    ],
    "effects of two records, and of two consumers": [
        Effect("ledger", "t/0/0", "1", 3),
        *(Effect("ledger", "t/0/1", "1", 3), Effect("audit", "t/0/0", "1", 3)),
    ],
}


@pytest.mark.parametrize("name", BROKEN)
def test_it_is_found(name: str) -> None:
    assert_broken(BROKEN[name])


@pytest.mark.parametrize("name", ALLOWED)
def test_what_only_looks_like_it_is_allowed(name: str) -> None:
    assert found(ALLOWED[name]) == []


def test_what_a_transaction_published_twice_is_no_history() -> None:
    with pytest.raises(HistoryError, match="'A'"):
        check(History([transacted("x", [], 3, "A"), transacted("y", [], 4, "A")]))


def test_one_transaction_does_not_publish_now_this_now_that() -> None:
    calls: list[Transacted] = [transacted("x", [], 3, "A", UNKNOWN), transacted("x", [], 4, "B")]
    with pytest.raises(HistoryError, match="'x' publishes now this, now that"):
        check(History(calls))
