"""What looks odd and is allowed: the checker must stay silent."""

from __future__ import annotations

import math
import time

import msgspec
import pytest

from holdfast.chaos.checker import check
from holdfast.chaos.checker.consensus import Consensus
from holdfast.chaos.checker.history import Event, Fault, History, Leader, OffsetRead, Publish

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
    rest,
    timed,
)

HISTORIES: dict[str, list[Event]] = {
    "nothing": [],
    "leaders of many terms": [Leader("n1", 1, 1), Leader("n2", 2, 2), Leader("n1", 3, 3), Leader("n1", 3, 4)],
    "a fault": [*log("ab"), Fault("power-loss", "all", 1.0)],
    "all three outcomes": [
        *log("ab")[:2],
        other("c", UNKNOWN, 0),
        other("d", UNKNOWN, 1),
        other("e", FAIL, 2),
        *rest("abd"),
    ],
    "repeats of a key, answered with its place": [
        keyed("a", "k", 0),
        keyed("b", "k", 0, at=2, duplicate=True),
        keyed("c", "l", 1),
        keyed("d", "l", None, outcome=UNKNOWN),
        *timed("ac", [1.5, 2.5]),
    ],
    "a key again when its window is over, to the microsecond": [
        keyed("a", "k", 0, ended=2),
        keyed("b", "k", 1, at=11, ended=12),
        keyed("c", "k", 1, at=13, ended=14, duplicate=True),
        *timed("ab", [1.5, 11.5]),
    ],
    "a repeat that was asked before the next record of its key was known": [
        keyed("a", "k", 0, ended=2),
        keyed("b", "k", 1, at=11, ended=15),
        keyed("c", "k", 0, at=10, ended=16, duplicate=True),
        *timed("ab", [1.5, 11.5]),
    ],
    "an earlier try of the same call had stored it": [keyed("a", "k", 0, duplicate=True), *rest("a")],
    "one key in two topics": [
        keyed("a", "k", 0),
        msgspec.structs.replace(keyed("b", "k", 0), topic="u"),
        *rest("a"),
        *[msgspec.structs.replace(event, topic="u") for event in rest("b")],
    ],
    "a repeat of what retention has removed": [
        keyed("a", "k", 0),
        keyed("b", "k", 0, duplicate=True),
        keyed("c", "l", 1),
        *rest("c", 1),
    ],
    "an unknown publish turns up late": [
        ok("a", 0, at=1, ended=2),
        other("b", UNKNOWN, at=0),
        *rest("ab"),
    ],
    "a record that was acked without a place": [
        msgspec.structs.replace(ok("a", 0), partition=None, offset=None),
        *rest("a"),
    ],
    "a plain producer's retry": [ok("a", 0, idempotent=False), *rest("aa")],
    "a plain producer's second copy is the one acked": [
        ok("a", 1, idempotent=False),
        ok("b", 2, producer="q"),
        *rest("aab"),
    ],
    "a plain producer's copy is delayed beyond its ack": [
        ok("a", 0, at=1, ended=2, idempotent=False),
        ok("b", 1, at=3, ended=4, producer="q"),
        *rest("aba"),
    ],
    "trimmed": [created(), *log("abcd", start=2)],
    "all trimmed": log("abc", start=3),
    "a plain producer's copies were trimmed": [ok("a", 2, idempotent=False), *rest("", 3)],
    "an offset is read at the moment of its ack": [
        *log("ab"),
        assigned(0, 1),
        *delivered("ab", 0, 2),
        acked(0, 1, 5.5),
        offset_read(2, 5),
    ],
    "offsets and replays of a topic that is made again": [
        ok("a", 0, at=1, ended=2, producer="o"),
        offset_read(1, 3),
        read("a", at=4),
        deleted(10, 11),
        ok("x", 0, at=12, ended=13),
        offset_read(None, 14),
        read("x", at=15),
        *rest("x"),
    ],
    "an unknown record was trimmed": [
        ok("b", 1, at=0),
        other("a", UNKNOWN),
        *rest("b", 1),
    ],
    "a replay before the trim": [
        *log("abc", start=2),
        read("abc", at=9.5),
        read("c", 2, start=2, from_offset=0),
    ],
    "a replay that broke off": [
        *log("abc"),
        msgspec.structs.replace(read("a", ended=math.nan), outcome=UNKNOWN),
    ],
    "a bounded replay": [*log("abc"), read("b", 1, to_end=False)],
    "a stale replay that promised nothing": [
        *log("abc"),
        msgspec.structs.replace(read("a"), linearizable=False),
    ],
    "a replay at the same time as a publish": [
        ok("a", 0),
        ok("b", 1, at=10, ended=10.2),
        *rest("ab"),
        read("a", at=10.1),
        read("ab", at=10.15),
        read("a", at=10.12, ended=11),
    ],
    "a replay that starts beyond the end": [*log("ab"), read("", 7)],
    "a replay of a trimmed log": [*log("ab", start=2), read("", 2, start=2, from_offset=0)],
    "keys move when partitions are added": [
        created(partitions=1),
        msgspec.structs.replace(created(partitions=2), kind="update"),
        ok("a", 0, key="k"),
        ok("b", 0, partition=1, key="k"),
        *rest("a"),
        *rest("b", partition=1),
    ],
    "a topic is deleted": [ok("a", 0, at=1), deleted(10, 11), read("a", at=5)],
    "a topic is deleted and made again": [
        ok("a", 0, at=1, producer="o"),
        assigned(0, 1.5),
        *delivered("a", 0, 2),
        acked(0, 0, 3),
        committed(1, 4),
        deleted(10, 11),
        ok("x", 0, at=12, ended=13),
        assigned(0, 14, "s2", 2),
        *delivered("x", 0, 15, "s2"),
        *rest("x"),
    ],
    "a topic is perhaps deleted": [
        ok("a", 0, at=1, producer="o"),
        deleted(10, None, UNKNOWN),
        ok("x", 0, at=12, ended=13),
        *rest(""),
    ],
    "a group reads, acks, goes on": [
        *log("abcd"),
        assigned(0, 1),
        committed(0, 1.5),
        *delivered("ab", 0, 2),
        acked(0, 1, 3),
        committed(2, 4),
        offset_read(2, 4.5),
        *delivered("cd", 2, 5),
        acked(3, 3, 6),
        acked(2, 2, 7),
        committed(4, 8),
    ],
    "redelivery after a reconnect": [
        *log("abc"),
        assigned(0, 1),
        *delivered("abc", 0, 2),
        acked(0, 0, 3),
        committed(1, 4),
        assigned(1, 5, "s2", 2),
        *delivered("bc", 1, 6, "s2"),
    ],
    "the new owner is spared what was acked above a gap": [
        *log("abc"),
        assigned(0, 1),
        *delivered("abc", 0, 2),
        acked(1, 1, 3),
        assigned(0, 5, "s2", 2),
        *delivered("a", 0, 6, "s2"),
        *delivered("c", 2, 6, "s2"),
        acked(0, 0, 7, "s2"),
        committed(2, 8, "s2"),
    ],
    "an assignment is told again at every change of the group": [
        *log("abcd"),
        assigned(0, 1),
        *delivered("ab", 0, 2),
        acked(0, 0, 2.5),
        committed(1, 2.6),
        assigned(0, 3, generation=2),
        assigned(0, 4, generation=3),
        *delivered("cd", 2, 5),
    ],
    "a partition goes and comes back within a session": [
        *log("abcd"),
        assigned(0, 1),
        *delivered("ab", 0, 2),
        acked(0, 0, 2.5),
        assigned(1, 3, "s2", 2),
        *delivered("b", 1, 4, "s2"),
        assigned(1, 5, "s1", 3),
        *delivered("bcd", 1, 6),
    ],
    "retention overtakes a group": [
        *log("abcd", start=2),
        assigned(0, 1),
        *delivered("a", 0, 2),
        *delivered("c", 2, 3),
        assigned(2, 4, "s2", 2),
        *delivered("cd", 2, 5, "s2"),
        acked(2, 3, 6, "s2"),
        committed(4, 7, "s2"),
    ],
    "a group that begins at the end": [
        *log("abcd"),
        assigned(2, 1, initial="latest"),
        assigned(3, 2, "s2", 2, initial="latest"),
        *delivered("d", 3, 3, "s2"),
    ],
    "a leader deposed tells late what it knew": [
        *log("abcd"),
        assigned(0, 1, "s1", 1),
        *delivered("abc", 0, 2),
        acked(0, 2, 3),
        committed(3, 4),
        assigned(3, 5, "s2", 9),
        *delivered("d", 3, 5, "s2"),
        acked(3, 3, 6, "s2"),
        committed(4, 7, "s2"),
        assigned(3, 8, "s3", 2),
        *delivered("d", 3, 9, "s3"),
    ],
    "word of a commit is late": [
        *log("abc"),
        assigned(0, 1),
        *delivered("abc", 0, 2),
        acked(0, 1, 3),
        assigned(2, 4, "s2", 2),
        *delivered("c", 2, 5, "s2"),
        acked(2, 2, 6, "s2"),
        committed(3, 7, "s2"),
        committed(2, 8, "s1"),
    ],
    "offset reads at the same time": [
        *log("ab"),
        OffsetRead("g", "t", 0, 1.0, 3.0, outcome=ok("x", 0).outcome, offset=1),
        OffsetRead("g", "t", 0, 2.0, 4.0, outcome=ok("x", 0).outcome, offset=None),
        OffsetRead("g", "t", 0, 5.0, 6.0, outcome=UNKNOWN),
        msgspec.structs.replace(offset_read(0, 7.0), linearizable=False),
    ],
}


@pytest.mark.parametrize("name", HISTORIES)
def test_what_is_allowed_passes(name: str) -> None:
    assert check(History(HISTORIES[name])) == []


def test_consensus_as_it_should_be() -> None:
    judge = Consensus()
    judge.elected("n1", 1, 1.0, lambda index: None)
    for index in range(1, 6):
        judge.committed("n1", index, 1, 1.0, ["n1", "n2"], 3)
        for node in ("n1", "n2"):
            judge.applied(node, index, 1, b"%d" % index, 1.0)
    judge.restarted("n1", 3)  # a power cut: what was applied and not committed to disk is applied again
    judge.applied("n1", 4, 1, b"4", 2.0)
    judge.jumped("n3", 4)
    judge.applied("n3", 5, 1, b"5", 2.0)
    judge.elected("n2", 2, 3.0, {4: 1, 5: 1, 6: 1}.get)  # below 4 its log was trimmed
    judge.committed("n2", 6, 1, 4.0, {"n1", "n2", "n3"}, 3)
    assert judge.violations == []
    assert judge.committed_index == 6


def test_an_old_leader_need_not_hold_what_later_terms_committed() -> None:
    judge = Consensus()
    judge.elected("n1", 5, 1.0, lambda index: None)
    judge.committed("n1", 9, 5, 1.0, ["n1", "n2"], 3)
    judge.elected("n3", 4, 2.0, lambda index: None)
    assert judge.violations == []


def long_history(publishes: int, readers: int) -> History:
    values = [f"value-{number}" for number in range(publishes)]
    events: list[Event] = [
        Publish("c", "p", i, "t", v, i * 1.0, f"k{i}", i + 0.5, ok(v, i).outcome, 0, i)
        for i, v in enumerate(values)
    ]
    for reader in range(readers):
        events.append(read(values, at=publishes + reader))
    events += rest(values)
    return History(events)


def test_it_is_fast_enough_for_many_seeds() -> None:
    """Far from the true figures (about 1 ms and 1 s), so that a busy machine does not fail it."""
    small = long_history(400, 3)
    began = time.process_time()
    for _ in range(10):
        assert check(small) == []
    assert time.process_time() - began < 0.5
    large = long_history(100_000, 3)
    began = time.process_time()
    assert check(large) == []
    assert time.process_time() - began < 15
