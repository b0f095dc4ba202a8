"""What handlers are given, and what is left at rest."""

from __future__ import annotations

import pytest

from holdfast.chaos.checker.delivery_events import GroupDeleted
from holdfast.chaos.checker.history import Acked, Event

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
    transacted,
)

G = group("none")
A, B = joined("a1"), joined("b1")
DONE = [handed(0, 2), told(0, 3)]

BROKEN: dict[str, Broken] = {
    "left beside a parked one": (
        "handed-lost",
        "offset 1 is not settled, waits for nothing, and was never handed out",
        [
            *(G, *log("ab"), A, handed(0, 2), told(0, 3, "park")),
            *(*at_rest(0, [], [row(0, 0, state=3)]), calm()),
        ],
    ),
    "a deletion of the group that failed changes nothing": (
        "handed-after-settled",
        "offset 0",
        [G, *log("a"), A, B, *DONE, GroupDeleted("op", "g", 3.5, 3.6, FAIL), handed(0, 4, "b1")],
    ),
    "another record at that offset": (
        "handed-mismatch",
        "'b' at offset 0; the log has 'a' there",
        [G, *log("ab"), A, handed(0, 2, value="b")],
    ),
    "what was never committed": (
        "handed-mismatch",
        "the log has nothing there",
        [G, *log("a"), A, handed(1, 2, value="z")],
    ),
    "under another key": (
        "handed-mismatch",
        "with key 'y'; it was published with 'x'",
        [G, *log("a", "x"), A, handed(0, 2, key="y")],
    ),
    "two values at a trimmed offset": (
        "handed-mismatch",
        "'a' was seen there before",
        [G, *log("abc", start=2), A, B, handed(0, 2), handed(0, 3, "b1", value="b"), told(0, 2.5, "release")],
    ),
    "a record from nowhere, trimmed by now": (
        "unpublished-record",
        "was never published to t",
        [G, other("b", UNKNOWN), *log("a", start=1)[1:], A, handed(0, 2, value="z")],
    ),
    "an acked record again": (
        "handed-after-settled",
        "handed to session b1 0.990 s after it was confirmed",
        [G, *log("ab"), A, B, *DONE, handed(0, 4, "b1")],
    ),
    "an acked record after a change of leader": (
        "handed-after-settled",
        "offset 0",
        [
            G,
            *log("ab"),
            leader("n1", 1, 0.5),
            A,
            *DONE,
            leader("n2", 2, 4),
            joined("b1", 5),
            handed(0, 6, "b1"),
        ],
    ),
    "a record that a transaction used": (
        "handed-after-settled",
        "offset 0",
        [
            group("none", "exactly_once"),
            *log("ab"),
            A,
            B,
            handed(0, 2),
            transacted("x", [0], 3),
            handed(0, 4, "b1"),
        ],
    ),
    "twice at most once": (
        "once-at-most",
        "to session a1 at 2.000 and to session b1 at 5.000",
        [
            group("none", "at_most_once"),
            *log("a"),
            A,
            handed(0, 2),
            over("a1", 3),
            joined("b1", 4),
            handed(0, 5, "b1"),
        ],
    ),
    "passed over": (
        "handed-lost",
        "offset 1 is settled, and nobody was ever handed it",
        [G, *log("abc"), A, *DONE, handed(2, 2), told(2, 3), *at_rest(3)],
    ),
    "settled above the floor by nobody": (
        "handed-lost",
        "offset 2 is settled, and nobody was ever handed it",
        [G, *log("abc"), A, *DONE, *at_rest(1, [(2, 3)])],
    ),
    "settled, and only begun": (
        "handed-lost",
        "offset 0 is settled, and nobody has acknowledged it",
        [G, *log("a"), A, handed(0, 2), *at_rest(1)],
    ),
    "settled, and its ack was refused": (
        "handed-lost",
        "nobody has acknowledged it",
        [G, *log("a"), A, handed(0, 2), told(0, 3, refused="LEASE_EXPIRED"), *at_rest(1)],
    ),
    "settled by a transaction that did nothing": (
        "handed-lost",
        "nobody has acknowledged it",
        [
            *(group("none", "exactly_once"), *log("a"), *rest("", topic="out"), A, handed(0, 2)),
            *(transacted("x", [0], 3, "A", UNKNOWN, first=None), *at_rest(1)),
        ],
    ),
    "settled by a transaction that failed": (
        "handed-lost",
        "nobody has acknowledged it",
        [
            group("none", "exactly_once"),
            *log("a"),
            A,
            handed(0, 2),
            transacted("x", [0], 3, "", FAIL),
            *at_rest(1),
        ],
    ),
    "left, though members take all": (
        "handed-lost",
        "offset 1 is not settled, waits for nothing, and was never handed out",
        [G, *log("ab"), A, *DONE, *at_rest(1), calm()],
    ),
    "given back and left": (
        "handed-lost",
        "was handed out and given back",
        [G, *log("ab"), A, *DONE, handed(1, 4), told(1, 5, "release"), *at_rest(1), calm()],
    ),
    "a partition never begun": (
        "handed-lost",
        "has never begun with partition 0",
        [G, *log("ab"), A, calm()],
    ),
    "after a seek, passed over": (
        "handed-lost",
        "offset 1 is settled, and nobody was ever handed it",
        [G, *log("ab"), A, *DONE, sought(5, 1), *at_rest(2)],
    ),
}

ALLOWED: dict[str, list[Event]] = {
    "settled above one that waits": [
        *(G, *log("ab"), A, handed(0, 2), told(0, 3, "nack", delay_ms=200_000), handed(1, 2), told(1, 3)),
        *(*at_rest(0, [(1, 2)], [row(0)]), calm()),
    ],
    "dead, and the dead letters are not shown": [
        *(group("none", max_attempts=1, dead_letter="dead"), *log("a"), A, handed(0, 2), told(0, 3, "nack")),
        *at_rest(1),
    ],
    "an empty partition never begun": [G, *log(""), A, calm()],
    "a group that begins at the end has not begun": [group("none", start="latest"), *log("ab"), A, calm()],
    "a seek of unknown outcome, and what came of it": [
        *(G, *log("ab"), A, *DONE, sought(4, 0, UNKNOWN), *at_rest(1), calm()),
    ],
    "acknowledged by a member without leases": [
        *(G, *log("ab"), A, *DONE, Acked("m", "g", "s", "t", 0, 1, 1, 3.0), *at_rest(2), calm()),
    ],
    "handed, acked, at rest": [G, *log("ab"), A, *DONE, handed(1, 4), told(1, 5), *at_rest(2), calm()],
    "another group's events": [*log("ab"), A, handed(0, 2), handed(0, 3), handed(1, 3, value="q")],
    "again before its ack was confirmed": [
        *(G, *log("a"), A, handed(0, 2), told(0, 3, lost=True), over("a1", 3.1), joined("b1", 4)),
        *(handed(0, 5, "b1"), told(0, 6, session="b1"), *at_rest(1), calm()),
    ],
    "it lay with a frozen client from before": [
        *(G, *log("a"), A, B, silent("b1", 2, 20), handed(0, 21, "b1", received=2.5)),
        *(handed(0, 13, "a1"), told(0, 14), *at_rest(1)),
    ],
    "it came late to a client that was not heard": [
        *(G, *log("a"), A, B),
        *(silent("b1", 2, 20), handed(0, 20.1, "b1"), handed(0, 13), told(0, 14), *at_rest(1)),
    ],
    "a deposed leader does not know": [
        *(G, *log("a"), leader("n1", 1, 0.5), A, leader("n2", 2, 3), joined("b1", 4), handed(0, 5, "b1")),
        *(told(0, 6, session="b1"), handed(0, 7, "a1"), told(0, 8, lost=True), over("a1", 9), *at_rest(1)),
    ],
    "a stream that was over": [
        *(G, *log("a"), A, B, handed(0, 2), told(0, 3), over("b1", 2.5), handed(0, 4, "b1"), *at_rest(1)),
    ],
    "after a seek back": [
        *(G, *log("a"), A, *DONE, sought(4, 0), handed(0, 6), told(0, 7), *at_rest(1), calm()),
    ],
    "during a seek of unknown outcome": [
        *(G, *log("a"), A, *DONE, sought(4, 0, UNKNOWN), handed(0, 6), *at_rest(0)),
    ],
    "passed over by a seek": [
        *(G, *log("abc"), A, *DONE, sought(4, 2), handed(2, 6), told(2, 7), *at_rest(3), calm()),
    ],
    "a seek to the end": [G, *log("abc"), A, *DONE, sought(4, None), *at_rest(3), calm()],
    "a seek that failed changes nothing": [G, *log("a"), A, *DONE, sought(4, 0, FAIL), *at_rest(1), calm()],
    "trimmed before it was handed": [
        *(G, *log("abc", start=2), A, handed(2, 2), told(2, 3), *at_rest(3), calm()),
    ],
    "a group that begins at the end": [
        group("none", start="latest"),
        *log("abc"),
        A,
        handed(2, 2),
        told(2, 3),
        *at_rest(3),
        calm(),
    ],
    "at most once loses": [
        *(group("none", "at_most_once"), *log("abc"), A, handed(0, 2), over("a1", 2.1), joined("b1", 4)),
        *(handed(2, 5, "b1"), *at_rest(3), calm()),
    ],
    "it waits, is parked, is in a handler": [
        *(G, *log("abc"), A, handed(0, 2), told(0, 3, "nack", delay_ms=200_000), handed(1, 2), handed(2, 4)),
        *(told(1, 3, "park"), *at_rest(0, [], [row(0), row(1, 0, state=3)]), calm()),
    ],
    "discarded": [
        *(G, *log("a"), A, handed(0, 2), told(0, 3, "park"), restored(5, 0, discard=True), *at_rest(1)),
        calm(),
    ],
    "all that is parked is discarded": [
        G,
        *log("a"),
        A,
        handed(0, 2),
        told(0, 3, "park"),
        restored(5, discard=True),
        *at_rest(1),
        calm(),
    ],
    "dead, and the dead letters are trimmed": [
        *(group("none", max_attempts=1, dead_letter="dead"), *log("a"), A, handed(0, 2), told(0, 3, "nack")),
        *(*rest("", 1, "dead"), *at_rest(1), calm()),
    ],
    "dead of the loss of its member": [
        *(group("none", max_attempts=1, dead_letter="dead"), *log("a"), A, handed(0, 2), over("a1", 3)),
        *(*rest("a", topic="dead"), letter(0, 0, 1), *at_rest(1), calm()),
    ],
    "a partition too full to be read on": [
        group("none", max_unacked=1),
        *log("abc"),
        A,
        handed(0, 2),
        told(0, 3, "park"),
        *at_rest(0, [], [row(0, 0, state=3)]),
        calm(),
        paused("a1", 4),
    ],
    "behind a parked record of the same key": [
        group("key"),
        *log("ab", "xx"),
        A,
        handed(0, 2),
        told(0, 3, "park"),
        *at_rest(0, [], [row(0, 0, state=3)]),
        calm(),
    ],
    "without calm nothing has to be done": [G, *log("ab"), A, *DONE, *at_rest(1)],
    "the topic is deleted, and made again": [
        *(G, ok("a", 0, at=0.1, ended=0.2, producer="old"), handed(0, 0.5), told(0, 0.6), deleted(0.7, 0.8)),
        *(*log("x"), A, handed(0, 2, value="x"), *at_rest(2)),
    ],
    "the group is deleted, and made again": [
        *(G, *log("a"), A, *DONE, GroupDeleted("op", "g", 4, 5, FAIL), GroupDeleted("op", "g", 5, 6)),
        *(joined("a2", 7), handed(0, 8, "a2"), told(0, 9, session="a2"), *at_rest(1)),
    ],
}


@pytest.mark.parametrize("name", BROKEN)
def test_it_is_found(name: str) -> None:
    assert_broken(BROKEN[name])


@pytest.mark.parametrize("name", ALLOWED)
def test_what_only_looks_like_it_is_allowed(name: str) -> None:
    assert found(ALLOWED[name]) == []
