"""Lanes: one at a time, in order."""

from __future__ import annotations

import pytest

from holdfast.chaos.checker.history import Event

from .delivery_kit import (
    FAIL,
    Broken,
    assert_broken,
    at_rest,
    found,
    group,
    handed,
    joined,
    leader,
    letter,
    log,
    over,
    rest,
    restored,
    silent,
    sought,
    told,
    transacted,
)

KEY, PART, NONE = group("key"), group("partition"), group("none")
A, B = joined("a1"), joined("b1")

BROKEN: dict[str, Broken] = {
    "what failed is passed before that is confirmed": (
        "partition-order",
        "offset 0 was given back or failed, and comes first",
        [PART, *log("ab"), A, handed(0, 2), told(0, 3, "nack", lost=True), handed(1, 6)],
    ),
    "another's refused transaction does not end a handler": (
        "key-overlap",
        "again",
        [
            *(group("key", "exactly_once"), *log("a", "x"), A, B, handed(0, 2), handed(0, 4, "b1")),
            transacted("x", [0], 3, "", FAIL, client="b"),
        ],
    ),
    "two records of a key in two handlers": (
        "key-overlap key-order",
        "offset 2 of key 'x' came to session b1 at 3.000 beside offset 0",
        [KEY, *log("abc", "xyx"), A, B, handed(0, 2), told(0, 4), handed(2, 3, "b1", key="x"), handed(1, 2)],
    ),
    "one record in two handlers": (
        "key-overlap",
        "again, which session a1 has had since 2.000, until 9.000",
        [NONE, *log("a"), A, B, handed(0, 2), told(0, 9), handed(0, 5, "b1")],
    ),
    "one record in two handlers, and nothing was said yet": (
        "key-overlap",
        "still",
        [NONE, *log("a"), A, B, handed(0, 2), handed(0, 5, "b1")],
    ),
    "one record twice to one member": (
        "key-overlap",
        "again",
        [NONE, *log("a"), A, handed(0, 2), handed(0, 5), told(0, 6)],
    ),
    "a lease ends though its member lives, and its ack is refused": (
        "key-overlap",
        "again",
        [NONE, *log("a"), A, B, handed(0, 2), handed(0, 13, "b1"), told(0, 14, refused="LEASE_EXPIRED")],
    ),
    "what a member came back with is given to another": (
        "key-overlap",
        "again",
        [NONE, *log("a"), A, handed(0, 2), over("a1", 3), joined("a2", 3.5, held=[0]), B, handed(0, 5, "b1")],
    ),
    "the same after a change of leader": (
        "key-overlap",
        "again",
        [
            *(NONE, *log("a"), leader("n1", 1, 0.5), A, handed(0, 2), leader("n2", 2, 3), over("a1", 2.9)),
            *(joined("a2", 4, held=[0]), joined("b2", 4), handed(0, 5, "b2"), told(0, 6, session="a2")),
        ],
    ),
    "a trimmed record's lane is freed": (
        "key-overlap",
        "of key 'x'",
        [
            *(KEY, *log("abc", "xyx", start=1), A, B, handed(0, 2, key="x"), told(0, 9)),
            handed(2, 5, "b1", key="x"),
        ],
    ),
    "beside a record that a transaction still works on": (
        "key-overlap key-order",
        "beside offset 0",
        [
            *(group("key", "exactly_once"), *log("ab", "xx"), A),
            *(B, handed(0, 2), handed(1, 3, "b1", key="x")),
            transacted("x", [0], 4),
        ],
    ),
    "the next of a key while one waits": (
        "key-order",
        "offset 0 comes first, and was last told to be failed",
        [KEY, *log("ab", "xx"), A, handed(0, 2), told(0, 3, "nack"), handed(1, 3.5)],
    ),
    "the next of a key while one is parked": (
        "key-order",
        "was last told to be parked",
        [KEY, *log("ab", "xx"), A, handed(0, 2), told(0, 3, "park"), handed(1, 5)],
    ),
    "the next of a key before one given back": (
        "key-order",
        "was last told to be given back",
        [KEY, *log("ab", "xx"), A, handed(0, 2), told(0, 3, "release"), handed(1, 5)],
    ),
    "a key begins with its second record": (
        "key-order",
        "offset 0 comes first, and was not handed out yet",
        [KEY, *log("ab", "xx"), A, handed(1, 2)],
    ),
    "of a lost member the second of a key comes first": (
        "key-order",
        "is in another's hands",
        [KEY, *log("ab", "xx"), A, handed(0, 2), over("a1", 3), B, handed(1, 6, "b1")],
    ),
    "rejected, where that only parks": (
        "key-order",
        "rejected",
        [KEY, *log("ab", "xx"), A, handed(0, 2), told(0, 3, "reject"), handed(1, 5)],
    ),
    "a refused ack opens the key": (
        "key-order",
        "is in another's hands",
        [KEY, *log("ab", "xx"), A, B, handed(0, 2), told(0, 3, refused="FENCED"), handed(1, 5, "b1")],
    ),
    "a key goes back under one leader": (
        "key-order",
        "after offset 1 under one leader",
        [
            *(KEY, *log("ab", "xx"), A, B, handed(0, 2), told(0, 3, lost=True), handed(1, 4), told(1, 5)),
            *(handed(0, 6, "b1"), told(0, 7, session="b1")),
        ],
    ),
    "after a change of leader the second comes before the first": (
        "key-order",
        "after offset 1 under one leader",
        [
            *(KEY, *log("ab", "xx"), leader("n1", 1, 0.5)),
            *(A, handed(0, 2), told(0, 3, lost=True), over("a1", 4)),
            *(leader("n2", 2, 4), joined("b1", 5), handed(1, 6, "b1"), told(1, 6.5, session="b1")),
            *(handed(0, 7, "b1"), told(0, 8, session="b1")),
        ],
    ),
    "a partition leaves one out": (
        "partition-order",
        "offset 1 was left out",
        [PART, *log("abc"), A, handed(0, 2), told(0, 3), handed(2, 4)],
    ),
    "what failed is passed": (
        "partition-order",
        "offset 0 was given back or failed, and comes first",
        [PART, *log("ab"), A, handed(0, 2), told(0, 3, "nack"), handed(1, 6)],
    ),
    "what was lost with a member is passed": (
        "partition-order",
        "offset 0 was given back or failed, and comes first",
        [PART, *log("ab"), A, handed(0, 2), over("a1", 3), B, handed(1, 6, "b1")],
    ),
    "what was taken over is passed when that is lost too": (
        "partition-order",
        "offset 0 was given back",
        [
            *(PART, *log("ab"), A, handed(0, 2), over("a1", 3), joined("a2", 3.5, held=[0]), over("a2", 5)),
            *(joined("b1", 4), handed(1, 8, "b1")),
        ],
    ),
    "two members have one partition": (
        "partition-order",
        "beside offset 0, which session a1 has had",
        [PART, *log("ab"), A, B, handed(0, 2), handed(1, 3, "b1"), told(0, 4)],
    ),
    "acknowledged, and handed out again to the same": (
        "partition-order",
        "which had acknowledged it",
        [PART, *log("a"), A, handed(0, 2), told(0, 3, lost=True), handed(0, 4)],
    ),
    "behind a failure an ack is confirmed": (
        "partition-order",
        "session a1 had offset 1 from before offset 0 failed at 3.000",
        [PART, *log("ab"), A, handed(0, 2), handed(1, 2), told(0, 3, "nack"), told(1, 3.5)],
    ),
}

ALLOWED: dict[str, list[Event]] = {
    "what lies before a failure is acknowledged after it": [
        *(PART, *log("ab"), A, handed(0, 2), handed(1, 2), told(1, 3, "nack"), told(0, 4)),
    ],
    "a failure, and in the same message an ack of what lies behind it": [
        *(PART, *log("ab"), A, handed(0, 2), handed(1, 2), told(0, 3, "nack"), told(1, 3)),
    ],
    "after a last failure that nobody shows a partition goes on": [
        *(group("partition", max_attempts=1, dead_letter="dead"), *log("ab"), A, handed(0, 2)),
        *(told(0, 3, "nack"), handed(1, 4)),
    ],
    "after a death that nobody shows a partition goes on": [
        *(group("partition", max_attempts=1, dead_letter="dead"), *log("ab"), A, handed(0, 2), over("a1", 3)),
        *(B, handed(1, 6, "b1")),
    ],
    "a partition goes on behind what its last owner had acknowledged": [
        *(PART, *log("ab"), A, handed(0, 2), told(0, 3), over("a1", 4), B, handed(1, 6, "b1")),
    ],
    "a new leader takes up what an old one has handed out without leading": [
        *(PART, *log("abc"), leader("n1", 1, 0.5), A, handed(0, 2), told(0, 3), leader("n2", 2, 3.5)),
        *(handed(1, 4), over("a1", 4.5), joined("a2", 5, held=[1]), handed(2, 6, "a2")),
        told(1, 7, session="a2"),
    ],
    "a stream that was over brings what comes later in its partition": [
        *(PART, *log("abc"), A, B, handed(0, 2), told(0, 3), over("b1", 3), handed(2, 4, "b1"), handed(1, 5)),
    ],
    "after a death that nobody shows the key goes on": [
        *(group("key", max_attempts=1, dead_letter="dead"), *log("ab", "xx"), A, handed(0, 2), over("a1", 3)),
        *(B, handed(1, 6, "b1")),
    ],
    "a stream that was over brings the second of a key": [
        *(KEY, *log("ab", "xx"), A, B, handed(0, 2), over("b1", 3), handed(1, 4, "b1"), told(0, 5)),
    ],
    "a trimmed record of a key": [KEY, *log("ab", "xx", start=1), A, handed(1, 2), told(1, 3), handed(0, 4)],
    "keys side by side": [
        *(KEY, *log("abcd", "xyxy"), A, B),
        *(handed(0, 2), handed(1, 2, "b1"), told(0, 3), told(1, 4, session="b1")),
        *(handed(2, 3.1, "b1"), handed(3, 4.1), told(2, 5, session="b1"), told(3, 6), *at_rest(4)),
    ],
    "records without a key side by side": [KEY, *log("ab"), A, B, handed(1, 2), handed(0, 3, "b1")],
    "at the moment of the ack": [KEY, *log("ab", "xx"), A, B, handed(0, 2), told(0, 3), handed(1, 3, "b1")],
    "a key opens before its ack is durable": [
        *(KEY, *log("ab", "xx"), leader("n1", 1, 0.5), A, handed(0, 2), told(0, 3, lost=True), handed(1, 4)),
        *(told(1, 5, lost=True), leader("n2", 2, 6), over("a1", 6), joined("b1", 7), handed(0, 8, "b1")),
        *(told(0, 9, session="b1"), handed(1, 9, "b1"), told(1, 10, session="b1"), *at_rest(2)),
    ],
    "after a failure it is the same record": [
        *(KEY, *log("ab", "xx"), A, handed(0, 2), told(0, 3, "nack"), handed(0, 5, attempt=2), told(0, 6)),
        handed(1, 7),
    ],
    "after the last attempt the key goes on": [
        *(group("key", max_attempts=1, dead_letter="dead"), *log("ab", "xx")),
        *(A, handed(0, 2), told(0, 3, "nack")),
        *(handed(1, 4), *rest("a", topic="dead"), letter(0, 0, 1)),
    ],
    "after a rejection the key goes on": [
        *(group("key", dead_letter="dead"), *log("ab", "xx"), A),
        *(handed(0, 2), told(0, 3, "reject"), handed(1, 4)),
        *(*rest("a", topic="dead"), letter(0, 0, 1)),
    ],
    "after a discard the key goes on": [
        *(KEY, *log("ab", "xx"), A),
        *(handed(0, 2), told(0, 3, "park"), restored(5, 0, discard=True), handed(1, 6)),
    ],
    "what was trimmed need not be handed out": [KEY, *log("abc", "xxx", start=2), A, handed(2, 2)],
    "the same record when its member is lost": [
        *(KEY, *log("ab", "xx"), A, handed(0, 2)),
        *(over("a1", 3), B, handed(0, 5, "b1"), told(0, 6, session="b1")),
        *(handed(1, 7, "b1"), told(0, 9, lost=True)),
    ],
    "a frozen client wakes and goes on": [
        *(KEY, *log("a", "x"), A, B, handed(0, 2), silent("a1", 2.5, 20), handed(0, 13, "b1")),
        *(told(0, 14, session="b1"), told(0, 21, refused="LEASE_EXPIRED")),
    ],
    "a client that comes back too late": [
        *(KEY, *log("a", "x"), A, handed(0, 2), over("a1", 3), B, handed(0, 4.6, "b1")),
        joined("a2", 4.8, held=[0]),
        *(told(0, 5, "ack", "a2", refused="NOT_DELIVERED"), told(0, 6, session="b1")),
    ],
    "a client that comes back without it": [
        *(KEY, *log("a", "x"), A, handed(0, 2), over("a1", 3), B, joined("a2", 3.2), handed(0, 3.3, "b1")),
    ],
    "a newer process under the same member id": [
        *(KEY, *log("a", "x"), joined("a1", member="m"), handed(0, 2), joined("b1", 5, member="m")),
        *(handed(0, 5.1, "b1"), told(0, 6, session="b1")),
    ],
    "a leader that does not know that it was deposed": [
        *(KEY, *log("ab", "xx"), leader("n1", 1, 0.5), A),
        *(leader("n2", 2, 3), handed(0, 4), B, joined("b2", 5)),
        *(handed(0, 6, "b2"), told(0, 7, session="b2"), told(0, 8, lost=True), handed(1, 8.1, "b2")),
    ],
    "a refused transaction ends its handler": [
        *(group("key", "exactly_once"), *log("ab", "xx"), A),
        *(B, handed(0, 2), transacted("x", [0], 3, "", FAIL)),
        *(handed(0, 4, "b1"), transacted("y", [0], 5, client="b"), handed(1, 6)),
    ],
    "a lease of bounded length": [
        *(group("key", max_lease_ms=3_000), *log("a", "x"), A, B, handed(0, 2), handed(0, 5.1, "b1", 2)),
        *(told(0, 6, session="b1"), told(0, 7, refused="LEASE_EXPIRED")),
    ],
    "a seek ends what was in hand": [
        *(KEY, *log("ab", "xx"), A, handed(0, 2)),
        *(sought(3, 1), handed(1, 5), told(1, 6), told(0, 7, lost=True)),
    ],
    "a partition is worked off": [
        *(PART, *log("abc"), A, handed(0, 2), handed(1, 2), handed(2, 2), told(1, 3), told(0, 4), told(2, 5)),
        *at_rest(3),
    ],
    "what failed comes again, and what was behind it": [
        *(PART, *log("abc"), A, handed(0, 2), handed(1, 2), handed(2, 2), told(0, 3, "nack")),
        *(told(1, 3.5, refused="LEASE_EXPIRED"), handed(0, 5, attempt=2), handed(1, 5), handed(2, 5)),
        *(told(0, 6), told(1, 6), told(2, 6), *at_rest(3)),
    ],
    "what was acked before the failure stays so": [
        *(PART, *log("ab"), A, handed(0, 2)),
        *(handed(1, 2), told(1, 2.5), told(0, 3, "nack"), handed(0, 5, attempt=2)),
    ],
    "a partition goes to another member": [
        *(PART, *log("abc"), A, handed(0, 2), handed(1, 2), told(0, 3), told(1, 4, "release"), B),
        *(handed(1, 5, "b1"), told(1, 6, session="b1"), handed(2, 6, "b1")),
    ],
    "what never began is given back": [
        *(PART, *log("abc"), A, handed(0, 2), told(1, 3, "release"), told(2, 3, "release"), told(0, 4), B),
        *(handed(1, 5, "b1"), handed(2, 5, "b1")),
    ],
    "a hand-over that waited long enough": [
        *(PART, *log("ab"), A, B, handed(0, 2), handed(0, 12.5, "b1"), told(0, 14, refused="FENCED")),
    ],
    "acks that were lost with the connection": [
        *(PART, *log("abc"), A, handed(0, 2), handed(1, 2), told(0, 3, lost=True), told(1, 3, lost=True)),
        *(over("a1", 3), joined("a2", 5), handed(1, 6, "a2"), told(1, 7, session="a2"), handed(2, 7, "a2")),
    ],
    "a partition goes on behind a dead letter": [
        *(group("partition", max_attempts=1, dead_letter="dead"), *log("ab"), A, handed(0, 2), over("a1", 3)),
        *(B, handed(1, 6, "b1"), *rest("a", topic="dead"), letter(0, 0, 1)),
    ],
    "a member that was frozen tells what became of it": [
        *(PART, *log("abc"), A, handed(0, 2), over("a1", 3), B, handed(0, 6, "b1"), told(0, 7, session="b1")),
        *(told(0, 8, "nack", lost=True), handed(1, 8, "b1"), told(1, 9, session="b1"), handed(2, 10, "b1")),
    ],
}


@pytest.mark.parametrize("name", BROKEN)
def test_it_is_found(name: str) -> None:
    assert_broken(BROKEN[name])


@pytest.mark.parametrize("name", ALLOWED)
def test_what_only_looks_like_it_is_allowed(name: str) -> None:
    assert found(ALLOWED[name]) == []
