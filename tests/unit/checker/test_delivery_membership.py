"""Who owns what, what nodes say and hold, and what members are told."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.chaos.checker.delivery.membership import surplus
from holdfast.chaos.checker.history import Event
from holdfast.chaos.checker.view import Place

from .delivery_kit import (
    FAIL,
    Broken,
    assert_broken,
    at_rest,
    calm,
    found,
    group,
    handed,
    joined,
    lag_read,
    leader,
    log,
    over,
    paused,
    restored,
    row,
    shape,
    silent,
    told,
    transacted,
)

G, PART = group("none"), group("partition")
A, B = joined("a1"), joined("b1")
TWO = shape(5, {0: "a", 1: "a", 2: "b", 3: "b"})
THREE_UNACKED = group("none", max_unacked=3)
FULL = [handed(0, 2), handed(1, 2), handed(2, 2), told(1, 3), told(2, 3)]

BROKEN: dict[str, Broken] = {
    "parked, and another than its owner was told": (
        "pause-silent",
        "session a1 was not told",
        [PART, *log("ab"), A, B, handed(0, 2), told(0, 3, "park"), paused("b1", 4), calm()],
    ),
    "full, and told much later": (
        "pause-silent",
        "max_unacked",
        [THREE_UNACKED, *log("abcd"), A, *FULL, paused("a1", 50), calm()],
    ),
    "full, and silent much later": (
        "pause-silent",
        "max_unacked",
        [THREE_UNACKED, *log("abcd"), A, *FULL, silent("a1", 40, 60), calm()],
    ),
    "a move with the same members": (
        "needless-move",
        "generation 6 takes 2 partitions from members that stay, first t/0 from a",
        [PART, TWO, shape(6, {0: "b", 1: "a", 2: "a", 3: "b"}, 5)],
    ),
    "a swap at a join": (
        "needless-move",
        "takes 2 partitions",
        [PART, TWO, shape(6, {0: "c", 1: "b", 2: "b", 3: "b"}, 5, members="abc")],
    ),
    "all anew when one leaves": (
        "needless-move",
        "from a",
        [PART, TWO, shape(6, {0: "", 1: "a", 2: "a", 3: "a"}, 5)],
    ),
    "orphans for one who has enough, and his own for others": (
        "needless-move",
        "1 partitions",
        [
            *(PART, shape(5, {0: "a", 1: "a", 2: "b", 3: "c"}, members="abc")),
            shape(6, {0: "b", 1: "a", 2: "b", 3: "a"}, 5, members="ab"),
        ],
    ),
    "told under a fence that was replaced": (
        "stale-generation",
        "that offset 0 is done (ack) under fence 3; it was replaced by 8 before, and it was confirmed",
        [
            *(PART, *log("ab"), A, handed(0, 2, fence=3), over("a1", 3), B, handed(0, 6, "b1", fence=8)),
            *(told(0, 7, session="b1", fence=8), told(0, 9, fence=3)),
        ],
    ),
    "the new owner was known from the group": (
        "stale-generation",
        "replaced by 8",
        [PART, *log("a"), A, handed(0, 2, fence=3), shape(8, {0: "b"}, at=4), told(0, 9, fence=3)],
    ),
    "a transaction under a fence that was replaced": (
        "stale-generation",
        "transaction x was begun at 9.000 under fence 3, which 8 had replaced, and it was done",
        [
            *(group("partition", "exactly_once"), *log("ab"), A, handed(0, 2, fence=3), over("a1", 3), B),
            *(handed(0, 6, "b1", fence=8), told(0, 6.5, "release", "b1", fence=8)),
            transacted("x", [0], 9, fence=3),
        ],
    ),
    "two nodes at one index": (
        "lag-wrong",
        "as of index 40: n1 says 2 records, the oldest of 7, n2 says 3",
        [lag_read("n1", 40, 2), lag_read("n2", 40, 3)],
    ),
    "two nodes at one index say another oldest": (
        "lag-wrong",
        "the oldest of 7, n2 says 2 of 8",
        [lag_read("n1", 40, 2), lag_read("n2", 40, 2, 8)],
    ),
    "no oldest of some": (
        "lag-wrong",
        "n1 says 2 records and that the oldest is of 0",
        [lag_read("n1", 40, 2, 0)],
    ),
    "wrong at rest": (
        "lag-wrong",
        "at rest: n1 says 3 records; 1 are not settled",
        [
            G,
            *log("abcd", start=1),
            *(handed(n, 2) for n in range(3)),
            *(told(n, 3) for n in (0, 2, 3)),
            handed(3, 2),
            A,
            *at_rest(1, [(2, 4)], index=50),
            lag_read("n1", 50, 3),
        ],
    ),
    "another floor": (
        "group-replicas",
        "group g at t/0 on n1 and n2: floor 1 and 0",
        [G, *log("a"), A, handed(0, 2), told(0, 3), *at_rest(1, nodes=("n1",)), *at_rest(0, nodes=("n2",))],
    ),
    "other settled records": (
        "group-replicas",
        "settled [(1, 2)] and []",
        [
            G,
            *log("ab"),
            A,
            handed(1, 2),
            told(1, 3),
            *at_rest(0, [(1, 2)], nodes=("n1",)),
            *at_rest(0, nodes=("n2",)),
        ],
    ),
    "another due time": (
        "group-replicas",
        "retries",
        [
            *(G, *log("a"), *at_rest(0, [], [row(0, 1, 5)], nodes=("n1",))),
            *at_rest(0, [], [row(0, 1, 6)], nodes=("n2",)),
        ],
    ),
    "another digest": (
        "group-replicas",
        "digest 'x' and ''",
        [
            *(msgspec.structs.replace(rest, digest="x") for rest in at_rest(0, nodes=("n1",))),
            *at_rest(0, nodes=("n2",)),
        ],
    ),
    "one node has nothing": (
        "group-replicas",
        "nothing of it is on n2",
        [*at_rest(0, nodes=("n1",)), *(msgspec.structs.replace(r, partition=1) for r in at_rest(0))],
    ),
    "two nodes differ on the owners": (
        "group-replicas",
        "n1 and n2 differ on who owns what in generation 5",
        [PART, shape(5, {0: "a"}, node="n1"), shape(5, {0: "b"}, node="n2", members="ab")],
    ),
    "full, and nobody was told": (
        "pause-silent",
        "delivery stands still from 2.000 to 100.000 (max_unacked, offset 0), and session a1 was not told",
        [THREE_UNACKED, *log("abcd"), A, *FULL, calm()],
    ),
    "full, and told that it goes on": (
        "pause-silent",
        "max_unacked",
        [THREE_UNACKED, *log("abcd"), A, *FULL, paused("a1", 2.5), paused("a1", 3, on=False), calm()],
    ),
    "full for a while": (
        "pause-silent",
        "from 2.000 to 9.000",
        [THREE_UNACKED, *log("abcd"), A, *FULL, told(0, 9), handed(3, 9)],
    ),
    "parked, and its owner was not told": (
        "pause-silent",
        "(parked, offset 0), and session a1",
        [PART, *log("ab"), A, B, handed(0, 2), told(0, 3, "park"), calm()],
    ),
}

ALLOWED: dict[str, list[Event]] = {
    "nothing moves": [PART, TWO, shape(6, {0: "a", 1: "a", 2: "b", 3: "b"}, 5)],
    "a join takes one": [PART, TWO, shape(6, {0: "c", 1: "a", 2: "b", 3: "b"}, 5)],
    "a join takes none yet": [PART, TWO, shape(6, {0: "a", 1: "a", 2: "b", 3: "b"}, 5, members="abc")],
    "it takes one after another": [
        PART,
        shape(5, dict.fromkeys(range(4), "a")),
        shape(6, dict.fromkeys(range(4), "a"), 5, members="ab"),
        *(shape(7, {0: "a", 1: "a", 2: "a", 3: "b"}, 6), shape(8, {0: "a", 1: "a", 2: "b", 3: "b"}, 7)),
    ],
    "the partitions of one that left go anywhere they are needed": [
        PART,
        TWO,
        shape(6, {0: "a", 1: "a", 2: "a", 3: "a"}, 5),
    ],
    "new partitions": [PART, TWO, shape(6, {0: "a", 1: "a", 2: "b", 3: "b", 4: "a", 5: "b"}, 5)],
    "what lies between is not known": [PART, TWO, shape(9, {0: "b", 1: "b", 2: "a", 3: "a"}, 8)],
    "nobody is left": [PART, TWO, shape(6, {0: "", 1: "", 2: "", 3: ""}, 5)],
    "told under a fence that was replaced, and refused": [
        *(PART, *log("a"), A, handed(0, 2, fence=3), over("a1", 3), B, handed(0, 6, "b1", fence=8)),
        *(told(0, 7, session="b1", fence=8), told(0, 9, fence=3, refused="FENCED")),
    ],
    "told before anybody knew of a new fence": [
        *(PART, *log("ab"), A, handed(0, 2, fence=3), told(0, 5, fence=3, confirmed=7), B),
        handed(1, 6, "b1", fence=8),
    ],
    "a refused transaction of an old owner": [
        *(group("partition", "exactly_once"), *log("ab"), A, handed(0, 2, fence=3), over("a1", 3), B),
        *(handed(0, 6, "b1", fence=8), told(0, 6.5, "release", "b1", fence=8)),
        transacted("x", [0], 9, "", FAIL, fence=3),
    ],
    "lags of different indexes": [lag_read("n1", 40, 2), lag_read("n2", 41, 3), lag_read("n3", 40, 2)],
    "lag at rest": [
        *(G, *log("abcd", start=1), A, *(handed(n, 2) for n in range(4)), *(told(n, 3) for n in (0, 2, 3))),
        *(*at_rest(0, [(2, 4)], index=50), lag_read("n1", 50, 1)),
        *(lag_read("n2", 50, 1), lag_read("n3", 9, 0)),
    ],
    "at most once nothing that was handed out is unsettled": [
        *(group("none", "at_most_once", max_unacked=3), *log("abcd"), A, handed(0, 2), handed(1, 2)),
        *(handed(2, 2), *at_rest(4), calm()),
    ],
    "full, and told": [THREE_UNACKED, *log("abcd"), A, B, *FULL, paused("a1", 2.5), calm()],
    "full for a moment": [THREE_UNACKED, *log("abcd"), A, *FULL, told(0, 6.9), handed(3, 9), told(3, 10)],
    "not full": [THREE_UNACKED, *log("abcd"), A, handed(0, 2), handed(1, 2), calm()],
    "full, and nobody is there": [THREE_UNACKED, *log("abcd"), A, *FULL, over("a1", 4), calm()],
    "full, and nobody is sure to be heard": [
        *(THREE_UNACKED, *log("abcd"), A, *FULL, silent("a1", 4, 30), calm()),
    ],
    "full, under a leader that was deposed": [
        *(THREE_UNACKED, *log("abcd"), A, *FULL, leader("n2", 2, 4), calm()),
    ],
    "a parked key": [
        *(group("key"), *log("ab", "xy"), A, handed(0, 2), told(0, 3, "park"), handed(1, 4), told(1, 5)),
    ],
    "parked, and told": [PART, *log("ab"), A, B, handed(0, 2), told(0, 3, "park"), paused("a1", 4), calm()],
    "parked for a moment": [
        *(PART, *log("ab"), A, handed(0, 2), told(0, 3, "park", delay_ms=4_000), handed(0, 60)),
    ],
    "parked, and restored": [
        *(PART, *log("ab"), A, handed(0, 2), told(0, 3, "park"), restored(6, 0), handed(0, 60)),
    ],
}


@pytest.mark.parametrize("name", BROKEN)
def test_it_is_found(name: str) -> None:
    assert_broken(BROKEN[name])


@pytest.mark.parametrize("name", ALLOWED)
def test_what_only_looks_like_it_is_allowed(name: str) -> None:
    assert found(ALLOWED[name]) == []


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_least_number_of_moves(data: st.DataObject) -> None:
    """Against every way to balance a few partitions."""
    members = [f"m{n}" for n in range(data.draw(st.integers(1, 4)))]
    places: list[Place] = [("t", n) for n in range(data.draw(st.integers(0, 5)))]
    owners = {place: data.draw(st.sampled_from([*members, ""])) for place in places}
    held = {place: member for place, member in owners.items() if member}

    def ways(left: list[Place], sizes: dict[str, int], moved: int) -> int:
        if not left:
            return moved if max(sizes.values()) - min(sizes.values()) <= 1 else len(places) + 1
        first, *others = left
        return min(
            ways(others, {**sizes, m: sizes[m] + 1}, moved + (held.get(first, m) != m)) for m in members
        )

    assert surplus(set(members), set(places), held) == ways(places, dict.fromkeys(members, 0), 0)
