"""One hand-made history for every way in which a promise can be broken."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from holdfast.chaos.checker import PROMISES, HistoryError, check, tally
from holdfast.chaos.checker.consensus import Consensus
from holdfast.chaos.checker.history import Event, History, Leader, Read
from holdfast.chaos.checker.promises import DELIVERY

from .checker_kit import (
    FAIL,
    UNKNOWN,
    acked,
    assigned,
    committed,
    created,
    deleted,
    delivered,
    keyed,
    log,
    offset_read,
    ok,
    other,
    read,
    replica,
    rest,
    timed,
)

Told = Callable[[Consensus], None]

# name -> (the promise that breaks, the history)
HISTORIES: dict[str, tuple[str, list[Event]]] = {
    "two leaders seen in a term": ("election-safety", [Leader("n1", 3, 1.0), Leader("n2", 3, 2.0)]),
    "the last acked record is gone": ("lost-record", [*log("ab"), ok("c", 2)]),
    "an acked record is replaced": ("lost-record", [ok("a", 0), ok("b", 0, number=1), *rest("b")]),
    "lost without a known place": (
        "lost-record",
        [*log("ab"), msgspec.structs.replace(ok("c", 2), partition=None, offset=None)],
    ),
    "a whole partition is gone": ("lost-record", [*log("ab"), ok("c", 0, partition=1)]),
    "an ack names another's offset": ("wrong-offset", [ok("a", 1), ok("b", 1), *rest("ab")]),
    "an ack names another partition": (
        "wrong-offset",
        [ok("a", 0, partition=1), ok("b", 1), *rest("ab"), *rest("", partition=1)],
    ),
    "two acks of one trimmed offset": ("wrong-offset", [ok("a", 0), ok("b", 0, number=1), *rest("", 2)]),
    "acked below the start, held above": ("wrong-offset", [ok("a", 0), *rest("a", 2)]),
    "a retry wrote twice": ("duplicate-record", [*log("ab")[:2], *rest("aba")]),
    "a retry wrote to two partitions": (
        "duplicate-record",
        [*log("a"), *rest("a", partition=1)],
    ),
    "a key twice within its window": (
        "repeated-key",
        [keyed("a", "k", 0), keyed("b", "k", 1), *timed("ab", [5, 14.9])],
    ),
    "a key twice, in two partitions": (
        "repeated-key",
        [
            keyed("a", "k", 0),
            keyed("b", "k", 0, partition=1, outcome=UNKNOWN),
            *timed("a", [5]),
            *timed("b", [6], partition=1),
        ],
    ),
    "a key twice, and nothing says when": (
        "repeated-key",
        [keyed("a", "k", 0, at=1), keyed("b", "k", 1, at=900, ended=901), *rest("ab")],
    ),
    "a repeat is answered with another key's place": (
        "repeated-key",
        [keyed("a", "k", 0), keyed("b", "l", 1), keyed("c", "k", 1, duplicate=True), *rest("ab")],
    ),
    "a repeat is called new": ("repeated-key", [keyed("a", "k", 0), keyed("b", "k", 0), *rest("a")]),
    "a repeat is answered with a place that is over": (
        "repeated-key",
        [
            keyed("a", "k", 0, at=1, ended=2),
            keyed("b", "k", 1, at=20, ended=21),
            keyed("c", "k", 0, at=22, ended=23, duplicate=True),
            *timed("ab", [1.5, 20.5]),
        ],
    ),
    "a repeat is answered with a place where nothing is": (
        "lost-record",
        [keyed("a", "k", 0), keyed("b", "k", 1, duplicate=True), *rest("a")],
    ),
    "a failed publish with a key is there": (
        "failed-record",
        [keyed("a", "k", None, outcome=FAIL), *rest("a")],
    ),
    "more offsets than keyed records": ("unpublished-record", [keyed("a", "k", 3), *rest("", 4)]),
    "a failed publish is there": ("failed-record", [other("a", FAIL), *rest("a")]),
    "a record from nowhere": ("unpublished-record", [*log("ab")[:2], *rest("abz")]),
    "a replica misses one in the middle": (
        "offset-gap",
        [
            *log("abc")[:3],
            *(
                msgspec.structs.replace(replica(node, "abc"), records=[(0, "a"), (2, "c")])
                for node in ("n1", "n2", "n3")
            ),
        ],
    ),
    "a replica ends before it says": (
        "offset-gap",
        [*log("ab")[:2], *(msgspec.structs.replace(replica(n, "ab"), end_offset=3) for n in ("n1", "n2"))],
    ),
    "a producer's records change places": (
        "producer-order",
        [ok("a", 1, number=1), ok("b", 0, number=2), *rest("ba")],
    ),
    "a producer's records changed places, and are trimmed": (
        "producer-order",
        [ok("a", 1, number=1), ok("b", 0, number=2), *rest("", 2)],
    ),
    "a producer's records changed places, and one is trimmed": (
        "producer-order",
        [ok("a", 1, number=1), ok("b", 0, number=2), *rest("a", 1)],
    ),
    "later in time, earlier in the log": (
        "real-time-order",
        [
            ok("a", 1, at=1, ended=2, producer="p"),
            ok("b", 0, at=3, ended=4, producer="q"),
            *rest("ba"),
        ],
    ),
    "of unknown outcome, begun later, lies earlier": (
        "real-time-order",
        [ok("a", 1, at=1, ended=2), other("b", UNKNOWN, at=3), *rest("ba")],
    ),
    "one key in two partitions": (
        "key-partition",
        [ok("a", 0, key="k"), ok("b", 0, partition=1, key="k"), *rest("a"), *rest("b", partition=1)],
    ),
    "one key in two partitions, trimmed by now": (
        "key-partition",
        [ok("a", 0, key="k"), ok("b", 0, partition=1, key="k"), *rest("", 1), *rest("", 1, partition=1)],
    ),
    "trimmed though nothing asked for it": ("unasked-trim", [created(keeps_all=True), *log("ab", start=1)]),
    "acked records are trimmed though nothing asked for it": (
        "lost-record",
        [created(keeps_all=True), *log("ab", start=1)],
    ),
    "one replica holds another value": (
        "replica-contents",
        [*log("ab")[:2], replica("n1", "ab"), replica("n2", "ab"), replica("n3", "aa")],
    ),
    "one node has no replica": (
        "replica-contents",
        [*log("a"), *(replica(node, "", partition=1) for node in ("n1", "n2"))],
    ),
    "one replica is shorter": (
        "replica-offsets",
        [*log("ab")[:2], replica("n1", "ab"), replica("n2", "a")],
    ),
    "one replica is trimmed": (
        "replica-offsets",
        [*log("ab")[:2], replica("n1", "ab"), replica("n2", "b", start=1)],
    ),
    "digests differ": ("replica-digest", [*log("a"), replica("n4", "a", digest="e")]),
    "stored bytes differ": ("replica-digest", [*log("a"), replica("n4", "a", content="e")]),
    "nothing to compare with": ("no-final-state", [ok("a", 0)]),
    "a partition that was created is nowhere": ("no-final-state", [created(partitions=2), *log("a")]),
    "more is trimmed than was ever published": ("unpublished-record", [*log("ab")[:2], *rest("", 9)]),
    "a replay shows a record from nowhere, trimmed by now": (
        "unpublished-record",
        [ok("b", 1, at=0), other("a", UNKNOWN), *rest("b", 1), read("zb")],
    ),
    "a replay shows a failed publish, trimmed by now": (
        "failed-record",
        [ok("b", 1, at=0), other("a", FAIL), other("c", UNKNOWN, 1), *rest("b", 1), read("ab")],
    ),
    "a member is given a record from nowhere, trimmed by now": (
        "unpublished-record",
        [ok("b", 1, at=0), other("a", UNKNOWN), *rest("b", 1), assigned(0, 1), *delivered("zb", 0, 2)],
    ),
    "a member is given a failed publish, trimmed by now": (
        "failed-record",
        [
            *(ok("b", 1, at=0), other("a", FAIL), other("c", UNKNOWN, 1), *rest("b", 1)),
            *(assigned(0, 1), *delivered("ab", 0, 2)),
        ],
    ),
    "a replay leaves one out": (
        "read-gap",
        [*log("abc"), Read("r", "t", 0, 0, 10.0, [(0, "a"), (2, "c")], 11.0, to_end=True)],
    ),
    "a replay begins too late": ("read-gap", [*log("abc"), read("bc", 1, from_offset=0)]),
    "a replay goes back": (
        "read-gap",
        [*log("ab"), Read("r", "t", 0, 0, 10.0, [(0, "a"), (1, "b"), (1, "b")], 11.0)],
    ),
    "a replay is told of a trim that never was": (
        "read-gap",
        [*log("abc"), read("bc", 1, start=1, from_offset=0)],
    ),
    "a replay shows another value": ("read-mismatch", [*log("ab"), read("aa")]),
    "a replay shows what was never committed": ("read-mismatch", [*log("ab"), read("abz")]),
    "two replays differ on what is trimmed by now": (
        "read-mismatch",
        [*log("abc", start=2), read("abc"), read("bac")],
    ),
    "a replay of trimmed records contradicts an ack": (
        "read-mismatch",
        [*log("abc", start=1), read("zbc")],
    ),
    "a linearizable read misses an acked record": ("stale-read", [*log("ab"), read("a")]),
    "a linearizable read goes back behind another": (
        "stale-read",
        [ok("a", 0), other("b", UNKNOWN), *rest("ab"), read("ab", at=10), read("a", at=12)],
    ),
    "a linearizable read goes back behind a plain one": (
        "stale-read",
        [
            *(ok("a", 0), other("b", UNKNOWN), *rest("ab")),
            msgspec.structs.replace(read("ab", at=10), linearizable=False),
            read("a", at=12),
        ],
    ),
    "a read is stale, and the topic is deleted later": (
        "stale-read",
        [ok("a", 0, at=1, ended=2), read("", at=3), deleted(10, 11)],
    ),
    "replays differ, and the topic is deleted later": (
        "read-mismatch",
        [
            ok("a", 0, at=1, ended=2),
            ok("b", 1, at=1, ended=2),
            read("ab", at=3),
            read("ba", at=4),
            deleted(10),
        ],
    ),
    "an offset read is stale, and the topic is deleted later": (
        "stale-offset",
        [offset_read(1, 5), offset_read(0, 6), deleted(10, 11)],
    ),
    "an offset is read below what was confirmed": (
        "stale-offset",
        [
            *log("ab"),
            assigned(0, 1),
            *delivered("a", 0, 2),
            acked(0, 0, 3),
            committed(1, 4),
            offset_read(0, 5),
        ],
    ),
    "an offset was never there": (
        "stale-offset",
        [
            *log("ab"),
            assigned(0, 1),
            *delivered("a", 0, 2),
            acked(0, 0, 3),
            committed(1, 4),
            offset_read(None, 5),
        ],
    ),
    "offset reads go back": ("stale-offset", [*log("ab"), offset_read(1, 5), offset_read(0, 6)]),
    "a member is given another record": (
        "delivery-mismatch",
        [*log("ab"), assigned(0, 1), *delivered("b", 0, 2)],
    ),
    "a member is given what is not committed": (
        "delivery-mismatch",
        [*log("a"), assigned(0, 1), *delivered("az", 0, 2)],
    ),
    "a record comes twice in a session": (
        "delivery-step-back",
        [*log("ab"), assigned(0, 1), *delivered("ab", 0, 2), *delivered("b", 1, 3)],
    ),
    "a record is left out": (
        "delivery-skip",
        [*log("abc"), assigned(0, 1), *delivered("a", 0, 2), *delivered("c", 2, 3)],
    ),
    "acked only after it was left out": (
        "delivery-skip",
        [*log("abc"), assigned(0, 1), *delivered("a", 0, 2), *delivered("c", 2, 3), acked(1, 1, 4)],
    ),
    "records without an assignment": ("delivery-unassigned", [*log("a"), *delivered("a", 0, 2)]),
    "two members have one partition": (
        "assigned-twice",
        [*log("ab"), assigned(0, 1, "s1", 7), assigned(0, 2, "s2", 7), assigned(0, 3, "s3", 8)],
    ),
    "a session starts above what was acked": (
        "start-skip",
        [*log("abc"), assigned(0, 1), *delivered("ab", 0, 2), acked(0, 0, 3), assigned(2, 4, "s2", 2)],
    ),
    "the very first record is left out": (
        "start-skip",
        [*log("abc"), assigned(1, 1), *delivered("b", 1, 2)],
    ),
    "a session starts below what was confirmed": (
        "start-step-back",
        [
            *log("abc"),
            assigned(0, 1),
            *delivered("ab", 0, 2),
            acked(0, 1, 3),
            committed(2, 4),
            assigned(1, 5, "s2", 2),
        ],
    ),
    "a session is told less than before": (
        "offset-regress",
        [
            *log("abc"),
            assigned(0, 1),
            *delivered("ab", 0, 2),
            acked(0, 1, 3),
            committed(2, 4),
            committed(1, 5),
        ],
    ),
    "a later session is told less": (
        "offset-regress",
        [
            *log("abc"),
            assigned(0, 1),
            *delivered("ab", 0, 2),
            acked(0, 1, 3),
            committed(2, 4),
            assigned(2, 5, "s2", 2),
            committed(1, 6, "s2"),
        ],
    ),
    "committed before delivery": ("offset-ahead", [*log("ab"), assigned(0, 1), committed(2, 2)]),
    "committed at delivery": (
        "offset-ahead",
        [*log("ab"), assigned(0, 1), *delivered("ab", 0, 2), committed(2, 3)],
    ),
    "an offset is read that nobody acknowledged": (
        "offset-ahead",
        [*log("ab"), assigned(0, 1), *delivered("ab", 0, 2), acked(0, 0, 3), offset_read(2, 5)],
    ),
    "committed over a gap": (
        "offset-ahead",
        [
            *log("abc"),
            assigned(0, 1),
            *delivered("abc", 0, 2),
            acked(0, 0, 3),
            acked(2, 2, 4),
            committed(3, 5),
        ],
    ),
}


def _elected_twice(judge: Consensus) -> None:
    judge.elected("n1", 2, 1.0, lambda index: None)
    judge.elected("n1", 2, 2.0, lambda index: None)
    judge.elected("n2", 2, 3.0, lambda index: None)


def _leader_lacks_an_entry(judge: Consensus) -> None:
    judge.elected("n1", 1, 1.0, lambda index: None)
    judge.committed("n1", 3, 1, 2.0, ["n1", "n2"], 3)
    judge.elected("n3", 2, 3.0, {1: 1, 2: 1}.get)


def _leader_has_another_entry(judge: Consensus) -> None:
    judge.elected("n1", 1, 1.0, lambda index: None)
    judge.committed("n1", 2, 1, 2.0, ["n1", "n2"], 3)
    judge.committed("n1", 3, 1, 2.0, ["n1", "n2"], 3)
    judge.elected("n3", 4, 3.0, {1: 1, 2: 3, 3: 1}.get)


def _two_terms_at_an_index(judge: Consensus) -> None:
    judge.elected("n1", 1, 1.0, lambda index: None)
    judge.committed("n1", 1, 1, 2.0, ["n1", "n2"], 3)
    judge.applied("n3", 1, 2, b"x", 3.0)


def _another_result(judge: Consensus) -> None:
    judge.applied("n1", 1, 1, b"x", 1.0)
    judge.applied("n2", 1, 1, b"y", 1.0)


def _an_index_left_out(judge: Consensus) -> None:
    judge.applied("n1", 1, 1, b"x", 1.0)
    judge.applied("n1", 3, 1, b"z", 1.0)


def _applied_again(judge: Consensus) -> None:
    judge.restarted("n1", 4)
    judge.applied("n1", 4, 1, b"x", 1.0)


def _after_a_snapshot(judge: Consensus) -> None:
    judge.jumped("n1", 7)
    judge.applied("n1", 9, 1, b"x", 1.0)


def _durable_on_one(judge: Consensus) -> None:
    judge.committed("n1", 1, 1, 1.0, ["n1"], 3)


def _durable_on_half(judge: Consensus) -> None:
    judge.committed("n1", 1, 1, 1.0, ["n1", "n2", "n2"], 4)


def _commit_goes_back(judge: Consensus) -> None:
    judge.elected("n1", 1, 1.0, lambda index: None)
    judge.committed("n1", 2, 1, 1.0, ["n1", "n2"], 3)
    judge.committed("n1", 1, 1, 1.0, ["n1", "n2"], 3)


CONSENSUS: dict[str, tuple[str, Told]] = {
    "two leaders": ("election-safety", _elected_twice),
    "a leader lacks a committed entry": ("leader-completeness", _leader_lacks_an_entry),
    "a leader has another entry": ("leader-completeness", _leader_has_another_entry),
    "one index, two terms": ("log-matching", _two_terms_at_an_index),
    "one entry, two results": ("state-machine-safety", _another_result),
    "an index is left out": ("apply-order", _an_index_left_out),
    "an index is applied twice": ("apply-order", _applied_again),
    "an index is left out after a snapshot": ("apply-order", _after_a_snapshot),
    "durable on a minority": ("durable-majority", _durable_on_one),
    "durable on half": ("durable-majority", _durable_on_half),
    "the commit index goes back": ("commit-regress", _commit_goes_back),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_an_anomaly_is_found(name: str) -> None:
    promise, events = HISTORIES[name]
    found = check(History(events))
    assert promise in {violation.promise for violation in found}, found
    assert all(violation.detail for violation in found)


@pytest.mark.parametrize("name", CONSENSUS)
def test_consensus_broken_is_found(name: str) -> None:
    promise, tell = CONSENSUS[name]
    judge = Consensus()
    tell(judge)
    assert [violation.promise for violation in judge.violations] == [promise]


def test_every_promise_has_a_history_that_breaks_it() -> None:
    broken = {promise for promise, _ in HISTORIES.values()} | {promise for promise, _ in CONSENSUS.values()}
    assert broken == set(PROMISES) - set(DELIVERY)  # those are broken in test_delivery_*.py


def test_what_is_lost_and_doubled_is_counted() -> None:
    events = [*log("ab")[:2], ok("c", 9), other("x", UNKNOWN), other("y", FAIL, 1), *rest("abaa")]
    counted = tally(History(events))
    assert (counted.acked, counted.lost, counted.duplicated, counted.unknown, counted.failed) == (
        3,
        1,
        2,
        1,
        1,
    )


def test_floods_are_cut_short() -> None:
    events: list[Event] = [ok(f"v{i}", i) for i in range(1000)]
    found = check(History([*events, *rest([])]))
    assert len(found) == 51
    assert "950 more" in found[-1].detail
    assert tally(History([*events, *rest([])])).lost == 1000


def test_a_value_published_twice_is_no_history() -> None:
    with pytest.raises(HistoryError, match="'a'"):
        check(History([ok("a", 0), ok("a", 1)]))
