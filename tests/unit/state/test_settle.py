"""SettleOp: every rule, every refusal, every bound."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from holdfast.cluster.group_definition import Definition, backoff_ms
from holdfast.cluster.state.events import OperationRefused
from holdfast.cluster.state.limits import StateLimits
from holdfast.errors import StorageError, StorageFullError
from holdfast.storage import acks, bits, flows, groups, partitions, retries
from holdfast.storage.flows import FlowRow
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Table
from holdfast.storage.retries import NEVER_US, RetryRow, State
from holdfast.v1 import log_pb2

from .replica_kit import Replica, append, commit, delete, trim
from .settle_kit import (
    EXPIRED,
    LET_GO,
    LETTER,
    LOST,
    NACK,
    NONE,
    PARK,
    PARKED,
    PARKED_FOR_GOOD,
    REJECT,
    SUSPECT,
    WAITING,
    above,
    define,
    floor_of,
    floors,
    flow,
    grow,
    identity,
    item,
    key_of,
    letter,
    row_of,
    settle,
    states,
    waiting,
)

T, DEAD = 1, 2


def make(records: int = 100, limits: StateLimits | None = None, **retry: int) -> Replica:
    """Topic 1 with two partitions of so many records, the dead-letter topic 2, group g."""
    replica = Replica(limits)
    assert replica.topic("t", 2) == T
    assert replica.topic("dead", 2) == DEAD
    if records:
        replica.do(grow(T, 0, records))
        replica.do(grow(T, 1, records))
    define(replica, "g", dead="dead", **({"max_attempts": 3} | retry))
    return replica


@pytest.fixture
def replica() -> Replica:
    return make()


def end_of(replica: Replica, topic_id: int, partition: int = 0) -> int:
    state = partitions.read_state(replica.w, topic_id, partition)
    assert state is not None
    return state.next_offset


# -- acks and floors -------------------------------------------------------------


def test_acks_in_any_order_move_the_floor_when_the_gap_closes(replica: Replica) -> None:
    result = replica.do(settle("g", flow(offsets=[2, 3, 5])))
    assert floors(result) == [0]
    assert above(replica.w, "g") == {2, 3, 5}
    assert floors(replica.do(settle("g", flow(offsets=[0, 1])))) == [4]
    assert above(replica.w, "g") == {5}
    assert floors(replica.do(settle("g", flow(offsets=[4])))) == [6]
    assert floor_of(replica.w, "g") == 6
    assert above(replica.w, "g") == set()
    assert replica.w.count(Table.ACKS) == 0


def test_a_floor_goes_on_through_what_is_settled(replica: Replica) -> None:
    replica.do(settle("g", flow(offsets=[5, 6, 9])))
    assert floors(replica.do(settle("g", flow(floor=5)))) == [7]
    assert above(replica.w, "g") == {9}
    assert floors(replica.do(settle("g", flow(floor=20)))) == [20]
    assert above(replica.w, "g") == set()


def test_neither_floor_nor_acks_go_back(replica: Replica) -> None:
    replica.do(settle("g", flow(floor=10)))
    before = replica.dump()
    assert floors(replica.do(settle("g", flow(floor=4)))) == [10]
    assert floors(replica.do(settle("g", flow(offsets=[3, 4, 9])))) == [10]
    assert replica.dump() == before


def test_an_ack_is_the_same_however_often(replica: Replica) -> None:
    op = settle("g", flow(offsets=[2, 4], floor=1))
    replica.do(op)
    before = replica.dump()
    replica.do(op)
    assert replica.dump() == before
    assert row_of(replica.w, "g").settled_above == 2


def test_what_a_plain_group_writes_is_its_offset(replica: Replica) -> None:
    before = replica.dump()
    assert floors(replica.do(settle("g", flow(floor=7)))) == [7]
    after = replica.dump()
    assert {table for table in after if after[table] != before[table]} == {Table.OFFSETS, Table.GROUPS}
    replica.do(settle("g", flow(runs=[0, 9])))
    last = replica.dump()
    assert {table for table in last if last[table] != after[table]} == {Table.OFFSETS}
    assert floor_of(replica.w, "g") == 9


def test_many_flows_of_one_group_in_one_operation(replica: Replica) -> None:
    result = replica.do(settle("g", flow(T, 1, offsets=[1]), flow(T, 0, floor=3)))
    assert [(each.partition, each.floor) for each in result.settle.flows] == [(1, 0), (0, 3)]
    assert above(replica.w, "g", T, 1) == {1}
    assert above(replica.w, "g", T, 0) == set()


def test_groups_settle_for_themselves(replica: Replica) -> None:
    define(replica, "gg")
    replica.do(settle("g", flow(offsets=[1, 2])))
    replica.do(settle("gg", flow(offsets=[3])))
    assert above(replica.w, "g") == {1, 2}
    assert above(replica.w, "gg") == {3}


def test_an_operation_without_flows_is_answered(replica: Replica) -> None:
    before = replica.dump()
    result = replica.do(settle("g"))
    assert result.HasField("settle")
    assert replica.dump() == before


def test_a_flow_that_says_nothing_writes_nothing(replica: Replica) -> None:
    before = replica.dump()
    assert floors(replica.do(settle("g", flow()))) == [0]
    assert replica.dump() == before


def test_the_time_of_the_last_settling_is_kept_where_there_is_a_row(replica: Replica) -> None:
    replica.do(settle("g", flow(offsets=[2])))
    assert row_of(replica.w, "g").settled_at_us == replica.time_us
    first = replica.time_us
    replica.do(settle("g", flow(retries=[item(4)])))
    assert row_of(replica.w, "g").settled_at_us == first
    replica.do(settle("g", flow(floor=1)))
    assert row_of(replica.w, "g").settled_at_us == replica.time_us


def test_a_long_run_costs_chunks_and_not_records(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counted(module: ModuleType, name: str) -> None:
        stock = getattr(module, name)

        def call(*args: Any) -> Any:
            calls[name] += 1
            return stock(*args)

        monkeypatch.setattr(module, name, call)

    replica = make(300_000)
    replica.do(settle("g", flow(runs=[1, 100_000])))
    assert above(replica.w, "g") == set(range(1, 100_001))
    assert replica.w.count(Table.ACKS) == 25
    for module, name in ((acks, "read"), (acks, "write"), (retries, "delete"), (retries, "read")):
        counted(module, name)
    replica.do(settle("g", flow(runs=[100_500, 100_000])))
    # Those of the run, and that of the floor.
    assert calls == {"read": 26, "write": 25}
    assert above(replica.w, "g") == {*range(1, 100_001), *range(100_500, 200_500)}
    # The gap at the beginning closes: the floor goes on over all chunks of the first run.
    assert floors(replica.do(settle("g", flow(offsets=[0])))) == [100_001]
    assert above(replica.w, "g") == set(range(100_500, 200_500))
    assert floors(replica.do(settle("g", flow(floor=150_000)))) == [200_500]
    assert replica.w.count(Table.ACKS) == 0


def test_a_run_at_the_floor_needs_no_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = make(3_000_000)
    monkeypatch.setattr(acks, "read", None)
    assert floors(replica.do(settle("g", flow(runs=[0, 2_500_000])))) == [2_500_000]
    assert (replica.w.count(Table.ACKS), replica.w.count(Table.FLOWS)) == (0, 0)


def test_chunks_below_the_floor_go_in_steps() -> None:
    replica = make(50_000, StateLimits(step_rows=2))
    chunk = bits.CHUNK_BITS
    replica.do(settle("g", flow(offsets=[n * chunk + 7 for n in range(8)])))
    assert replica.w.count(Table.ACKS) == 8
    replica.do(settle("g", flow(floor=5 * chunk)))
    assert above(replica.w, "g") == {n * chunk + 7 for n in (5, 6, 7)}
    assert replica.w.count(Table.ACKS) == 6
    replica.do(settle("g", flow(floor=6 * chunk)))
    assert above(replica.w, "g") == {n * chunk + 7 for n in (6, 7)}
    assert replica.w.count(Table.ACKS) == 4
    replica.do(settle("g", flow(floor=8 * chunk)))
    replica.do(settle("g", flow(floor=9 * chunk)))
    assert replica.w.count(Table.ACKS) == 0
    assert row_of(replica.w, "g") == flows.EMPTY


def test_what_retention_has_dropped_is_settled_by_a_floor(replica: Replica) -> None:
    for _ in range(3):
        replica.do(append(T, [(0, 10)]))
    replica.do(settle("g", flow(offsets=[101, 115, 116], retries=[item(90), item(107), item(120)])))
    replica.do(trim(T, 0, 110))
    assert floors(replica.do(settle("g", flow(floor=110)))) == [110]
    assert above(replica.w, "g") == {115, 116}
    assert list(waiting(replica.w, "g")) == [120]
    assert row_of(replica.w, "g").retrying == 1


# -- retries ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "delay_ms", "state", "wait_ms", "attempts", "losses"),
    [
        (NACK, None, WAITING, "backoff", 1, 0),
        (NACK, 0, WAITING, 0, 1, 0),
        (NACK, 250, WAITING, 250, 1, 0),
        (EXPIRED, None, WAITING, "backoff", 1, 0),
        (EXPIRED, 7, WAITING, 7, 1, 0),
        (LOST, None, SUSPECT, 0, 1, 1),
        (LOST, 99, SUSPECT, 0, 1, 1),
        (PARK, None, PARKED_FOR_GOOD, None, 0, 0),
        (PARK, 5_000, PARKED, 5_000, 0, 0),
        (REJECT, None, WAITING, 0, 1, 0),  # waits to be proposed as a dead letter
    ],
)
def test_the_first_failure_of_a_record(
    replica: Replica,
    cause: int,
    delay_ms: int | None,
    state: int,
    wait_ms: int | str | None,
    attempts: int,
    losses: int,
) -> None:
    definition = define(replica, "g", dead="dead", max_attempts=3)
    result = replica.do(settle("g", flow(retries=[item(5, cause, delay_ms=delay_ms, error="why", lane=77)])))
    if wait_ms == "backoff":
        wait_ms = backoff_ms(definition, identity("g", T, 0, 5), 1)
        assert 900 <= wait_ms <= 1_100
    due = NEVER_US if wait_ms is None else replica.time_us + int(wait_ms) * 1000
    errors = ((replica.time_us, "why"),)
    row = RetryRow(attempts, losses, State(state), due, replica.time_us, 77, errors)
    assert waiting(replica.w, "g") == {5: row}
    assert states(result) == [(5, attempts, state)]
    assert result.settle.flows[0].retries[0].due_us == due
    assert floors(result) == [0]


def test_a_park_let_go_is_due_at_once(replica: Replica) -> None:
    replica.do(settle("g", flow(retries=[item(5, lane=3, error="a")])))
    replica.do(settle("g", flow(retries=[item(5, PARK, error="b")])))
    parked = waiting(replica.w, "g")[5]
    assert (parked.attempts, parked.state, parked.due_us) == (1, State.PARKED_FOR_GOOD, NEVER_US)
    result = replica.do(settle("g", flow(retries=[item(5, LET_GO)])))
    assert states(result) == [(5, 1, WAITING)]
    row = waiting(replica.w, "g")[5]
    assert (row.due_us, row.lane) == (replica.time_us, 3)
    assert [text for _, text in row.errors] == ["a", "b"]


def test_there_is_nothing_to_let_go_of_a_record_that_does_not_wait(replica: Replica) -> None:
    before = replica.dump()
    assert states(replica.do(settle("g", flow(retries=[item(5, LET_GO)])))) == [(5, 0, NONE)]
    assert replica.dump() == before


def test_attempts_add_up_and_the_wait_grows(replica: Replica) -> None:
    definition = define(replica, "g", max_attempts=0)
    first = replica.time_us + 1000
    for attempts in range(1, 9):
        result = replica.do(settle("g", flow(retries=[item(5, error=f"e{attempts}")])))
        wait = backoff_ms(definition, identity("g", T, 0, 5), attempts)
        (state,) = result.settle.flows[0].retries
        assert (state.attempts, state.due_us) == (attempts, replica.time_us + wait * 1000)
    row = waiting(replica.w, "g")[5]
    assert row.first_failed_us == first
    assert [text for _, text in row.errors] == ["e4", "e5", "e6", "e7", "e8"]
    assert wait > 50_000


def test_losses_are_counted_apart(replica: Replica) -> None:
    define(replica, "g")
    for cause in (NACK, LOST, LOST, EXPIRED):
        replica.do(settle("g", flow(retries=[item(5, cause)])))
    row = waiting(replica.w, "g")[5]
    assert (row.attempts, row.losses, row.state) == (4, 2, State.WAITING)


def test_a_delay_beyond_all_time_is_the_last_moment(replica: Replica) -> None:
    retries_ = [item(5, delay_ms=(1 << 64) - 1), item(6, PARK, delay_ms=(1 << 64) - 1)]
    replica.do(settle("g", flow(retries=retries_)))
    rows = waiting(replica.w, "g")
    assert [rows[offset].due_us for offset in (5, 6)] == [NEVER_US - 1] * 2
    assert rows[6].state is State.PARKED


def test_several_items_of_a_record_count_one_after_the_other(replica: Replica) -> None:
    result = replica.do(settle("g", flow(retries=[item(5), item(5), item(5, PARK)])))
    assert states(result) == [(5, 2, PARKED_FOR_GOOD)] * 3
    assert row_of(replica.w, "g").retrying == 1


def test_a_settled_record_is_not_charged(replica: Replica) -> None:
    replica.do(settle("g", flow(offsets=[7], floor=3)))
    before = replica.dump()
    result = replica.do(settle("g", flow(retries=[item(1), item(7, REJECT), item(2, PARK)])))
    assert states(result) == [(1, 0, NONE), (7, 0, NONE), (2, 0, NONE)]
    assert replica.dump() == before
    # What the operation itself settles comes first.
    result = replica.do(settle("g", flow(offsets=[9], retries=[item(9), item(10)])))
    assert states(result) == [(9, 0, NONE), (10, 1, WAITING)]


def test_an_ack_ends_the_wait(replica: Replica) -> None:
    replica.do(settle("g", flow(retries=[item(n) for n in range(4, 20)])))
    replica.do(settle("g", flow(offsets=[5, 7])))  # fewer runs than rows
    assert list(waiting(replica.w, "g")) == [4, 6, *range(8, 20)]
    replica.do(settle("g", flow(runs=[8, 10])))  # one run over many
    assert list(waiting(replica.w, "g")) == [4, 6, 18, 19]
    replica.do(settle("g", flow(offsets=range(2, 30, 2))))  # more runs than rows
    assert list(waiting(replica.w, "g")) == [19]
    assert row_of(replica.w, "g").retrying == 1
    assert replica.w.count(Table.RETRIES) == 1


def test_rows_that_wait_are_looked_for_once_or_run_by_run_whichever_is_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replica = make()
    stock, scans, seen = retries.offsets, [], []

    def offsets(*args: Any) -> Iterator[int]:
        scans.append(args)
        for offset in stock(*args):
            seen.append(offset)
            yield offset

    monkeypatch.setattr(retries, "offsets", offsets)
    replica.do(settle("g", flow(retries=[item(n) for n in range(10, 40)])))
    replica.do(settle("g", flow(offsets=[12, 35])))
    assert (len(scans), seen) == (2, [12, 35])
    replica.do(settle("g", flow(runs=[10, 28])))
    scans.clear()
    replica.do(settle("g", flow(offsets=range(41, 80, 2))))
    assert len(scans) == 1


def test_a_floor_ends_the_wait_in_steps() -> None:
    replica = make(limits=StateLimits(step_rows=3))
    replica.do(settle("g", flow(retries=[item(n) for n in range(10)])))
    replica.do(settle("g", flow(floor=8)))
    assert list(waiting(replica.w, "g")) == [8, 9]
    assert row_of(replica.w, "g").retrying == 7
    replica.do(settle("g", flow()))
    assert replica.w.count(Table.RETRIES) == 4
    # What is left below the floor means nothing.
    assert states(replica.do(settle("g", flow(retries=[item(7)])))) == [(7, 0, NONE)]
    replica.do(settle("g", flow()))
    assert replica.w.count(Table.RETRIES) == 2
    assert row_of(replica.w, "g").retrying == 2


def test_a_group_that_was_never_defined_has_the_defaults(replica: Replica) -> None:
    replica.do(commit("plain", (T, 0, 2)))
    result = replica.do(settle("plain", flow(retries=[item(5), item(6, REJECT)])))
    (nacked, rejected) = result.settle.flows[0].retries
    assert nacked.due_us == replica.time_us + 1000 * backoff_ms(Definition(), identity("plain", T, 0, 5), 1)
    assert (rejected.state, rejected.due_us) == (PARKED_FOR_GOOD, NEVER_US)


def test_committed_offsets_go_by_the_same_floor(replica: Replica) -> None:
    replica.do(settle("g", flow(offsets=[5, 6], retries=[item(2), item(9)])))
    replica.do(commit("g", (T, 0, 5)))
    assert floor_of(replica.w, "g") == 7
    assert above(replica.w, "g") == set()
    assert list(waiting(replica.w, "g")) == [9]
    assert replica.w.count(Table.RETRIES) == 1


# -- the last attempt ------------------------------------------------------------


def fail(replica: Replica, offset: int, times: int) -> None:
    for _ in range(times):
        replica.do(settle("g", flow(retries=[item(offset, delay_ms=1)])))


@pytest.mark.parametrize("cause", [NACK, EXPIRED, LOST])
def test_the_last_attempt_ends_in_the_dead_letter_topic(replica: Replica, cause: int) -> None:
    fail(replica, 0, 2)
    result = replica.do(settle("g", flow(retries=[item(0, cause, dead=True)]), dead=[letter(DEAD, 1)]))
    assert states(result) == [(0, 0, NONE)]
    assert floors(result) == [1]
    assert replica.w.count(Table.RETRIES) == 0
    assert [end_of(replica, DEAD, p) for p in (0, 1)] == [0, 1]
    row = partitions.index_at(replica.w, DEAD, 1, 0)
    assert row is not None
    assert partitions.read_batch(replica.w, row, verify=True) == LETTER


@pytest.mark.parametrize("cause", [NACK, EXPIRED, LOST, LET_GO])
def test_exhausted_and_not_said_to_be_dead_is_due_at_once(replica: Replica, cause: int) -> None:
    fail(replica, 4, 3 if cause == LET_GO else 2)
    result = replica.do(settle("g", flow(retries=[item(4, cause)])))
    assert states(result) == [(4, 3, WAITING)]
    assert waiting(replica.w, "g")[4].due_us == replica.time_us
    # The leader sees it, and proposes it again as what it is.
    result = replica.do(settle("g", flow(retries=[item(4, LET_GO, dead=True)]), dead=[letter(DEAD)]))
    assert states(result) == [(4, 0, NONE)]
    assert (above(replica.w, "g"), waiting(replica.w, "g"), end_of(replica, DEAD)) == ({4}, {}, 1)


def test_a_rejected_record_dies_whatever_its_attempts(replica: Replica) -> None:
    define(replica, "g", dead="dead", max_attempts=0)
    replica.do(settle("g", flow(retries=[item(4, REJECT, dead=True)]), dead=[letter(DEAD)]))
    assert (above(replica.w, "g"), end_of(replica, DEAD)) == ({4}, 1)


def test_a_rejected_record_without_a_dead_letter_topic_is_parked(replica: Replica) -> None:
    define(replica, "g")
    result = replica.do(settle("g", flow(retries=[item(4, REJECT, error="no")])))
    assert states(result) == [(4, 1, PARKED_FOR_GOOD)]
    assert waiting(replica.w, "g")[4].due_us == NEVER_US


def test_a_park_holds_whatever_the_attempts(replica: Replica) -> None:
    fail(replica, 4, 3)
    assert states(
        replica.do(settle("g", flow(retries=[item(4, PARK, error="dead-letter topic is gone")])))
    ) == [(4, 3, PARKED_FOR_GOOD)]


def test_dead_letters_of_one_operation_may_meet_in_a_partition(replica: Replica) -> None:
    replica.do(append(DEAD, [(0, 1), (1, 1)]))
    items = [item(n, REJECT, dead=True) for n in range(4)]
    letters = [letter(DEAD, 0), letter(DEAD, 1), letter(DEAD, 0, count=2)]
    op = settle("g", flow(retries=items[:1]), flow(T, 1, retries=items[1:]), dead=letters)
    applied = replica.run(op, append(DEAD, [(0, 5)]))
    assert floors(applied.results[0]) == [1, 0]
    assert applied.touched == {(DEAD, 0), (DEAD, 1)}
    assert applied.results[1].append.acks[0].base_offset == 4
    assert [end_of(replica, DEAD, p) for p in (0, 1)] == [9, 2]
    assert above(replica.w, "g", T, 1) == {1, 2, 3}
    bases = [row.base_offset for row in partitions.index_scan(replica.w, DEAD, 0, 0)]
    assert bases == [0, 1, 2, 4]
    wanted = sum(int.from_bytes(value) for _, value in replica.w.scan(Table.REFS))
    assert wanted == replica.w.count(Table.INDEX)


def test_records_of_the_partition_settled_may_be_appended_in_the_same_entry(replica: Replica) -> None:
    applied = replica.run(append(T, [(0, 5)]), settle("g", flow(floor=105)), append(T, [(0, 1)]))
    assert floors(applied.results[1]) == [105]
    assert applied.results[2].append.acks[0].base_offset == 105


def test_a_dead_letter_is_in_both_or_in_neither(replica: Replica) -> None:
    replica.store.commit()
    op = settle("g", flow(retries=[item(4, REJECT, dead=True)]), dead=[letter(DEAD)])
    replica.do(op)
    replica.store.abort()
    replica.machine.reset()
    assert (above(replica.w, "g"), end_of(replica, DEAD)) == (set(), 0)
    replica.do(op)
    assert (above(replica.w, "g"), end_of(replica, DEAD)) == ({4}, 1)
    # Said again, as after an answer that was lost: refused, and there is no second one.
    assert replica.refused(op)[0] == "STALE_GROUP"


def test_what_the_leader_was_wrong_about_refuses_the_whole(replica: Replica) -> None:
    letters = [letter(DEAD)]
    replica.do(settle("g", flow(offsets=[3], floor=1)))
    for wrong in (
        item(3, REJECT, dead=True),  # settled above the floor
        item(0, REJECT, dead=True),  # below it
        item(4, NACK, dead=True),  # has attempts left
        item(4, LET_GO, dead=True),
        item(4, PARK, dead=True),  # never dies
    ):
        op = settle("g", flow(T, 1, offsets=[8]), flow(retries=[item(9), wrong]), dead=letters)
        assert replica.refused(op)[0] == "STALE_GROUP"
    both = flow(offsets=[4], retries=[item(4, REJECT, dead=True)])
    assert replica.refused(settle("g", both, dead=letters))[0] == "STALE_GROUP"
    twice = flow(retries=[item(4, REJECT, dead=True)] * 2)
    assert replica.refused(settle("g", twice, dead=[letter(DEAD, count=2)]))[0] == "STALE_GROUP"


def test_the_group_s_definition_decides_when_it_is_applied(replica: Replica) -> None:
    fail(replica, 4, 2)
    op = settle("g", flow(retries=[item(4, dead=True)]), dead=[letter(DEAD)])
    define(replica, "g", dead="dead", max_attempts=9)
    assert replica.refused(op)[0] == "STALE_GROUP"
    define(replica, "g")  # takes no dead letters any more
    assert replica.refused(op)[0] == "STALE_GROUP"
    replica.topic("other")
    define(replica, "g", dead="other", max_attempts=3)
    assert replica.refused(op)[0] == "STALE_GROUP"
    define(replica, "g", dead="dead", max_attempts=3)
    replica.do(op)


def test_a_dead_letter_topic_that_is_gone(replica: Replica) -> None:
    op = settle("g", flow(retries=[item(4, REJECT, dead=True)]), dead=[letter(DEAD)])
    replica.do(delete("dead"))
    assert replica.refused(op) == ("UNKNOWN_TOPIC", {"topic": "dead", "field": "dead_letter_topic"})
    # What is not dead goes on; the record waits or is parked.
    replica.do(settle("g", flow(retries=[item(4, REJECT), item(5, PARK)])))
    again = replica.topic("dead")
    assert replica.refused(op)[0] == "STALE_GROUP"  # the letter is for the old one
    replica.do(settle("g", flow(retries=[item(4, REJECT, dead=True)]), dead=[letter(again)]))
    assert (above(replica.w, "g"), end_of(replica, again)) == ({4}, 1)


def test_malformed_dead_letters(replica: Replica) -> None:
    parts = flow(retries=[item(4, REJECT, dead=True)])
    good = letter(DEAD)
    for blob in (b"", LETTER[:-1], LETTER + b"x"):
        assert replica.refused(settle("g", parts, dead=[good], blob=blob))[0] == "MALFORMED_BATCH"
    assert replica.refused(settle("g", parts, blob=LETTER))[0] == "MALFORMED_BATCH"
    assert replica.refused(settle("g", flow(floor=1), blob=b"x"))[0] == "MALFORMED_BATCH"
    empty = letter(DEAD)
    empty.batches[0].length = 0
    assert replica.refused(settle("g", parts, dead=[empty], blob=b""))[0] == "MALFORMED_BATCH"
    for count in (0, 2):
        reason = replica.refused(settle("g", parts, dead=[letter(DEAD, count=count)]))[0]
        assert reason in ("INVALID_ARGUMENT", "MALFORMED_BATCH")
    assert replica.refused(settle("g", parts, dead=[letter(DEAD, 2)]))[0] == "UNKNOWN_PARTITION"
    assert replica.refused(settle("g", parts)) == ("INVALID_ARGUMENT", {"field": "dead"})
    assert replica.refused(settle("g", dead=[good])) == ("INVALID_ARGUMENT", {"field": "dead"})
    produced, marked = letter(DEAD), letter(DEAD)
    produced.producer_id = 7
    marked.batches[0].marks = b"m" * 16
    for odd in (produced, marked):
        assert replica.refused(settle("g", parts, dead=[odd])) == ("INVALID_ARGUMENT", {"field": "dead"})
    far = letter(DEAD)
    far.batches[0].length = (1 << 32) - 1
    assert replica.refused(settle("g", parts, dead=[far], blob=LETTER))[0] == "MALFORMED_BATCH"
    replica.do(settle("g", parts, dead=[good]))


# -- what is gone ----------------------------------------------------------------


def test_a_topic_that_is_gone_makes_nobody_else_suffer(replica: Replica) -> None:
    other = replica.topic("other")
    replica.do(grow(other, 0, 10))
    replica.do(delete("t"))
    result = replica.do(
        settle("g", flow(T, 0, offsets=[3], retries=[item(5)], fence=8), flow(other, 7), flow(other, floor=2))
    )
    assert floors(result) == [-1, -1, 2]
    assert states(result) == []
    assert replica.w.count(Table.RETRIES) == 0
    dead = settle("g", flow(T, 0, retries=[item(5, REJECT, dead=True)]), dead=[letter(DEAD)])
    assert replica.refused(dead)[0] == "STALE_GROUP"


def test_a_group_that_is_not_there(replica: Replica) -> None:
    assert replica.refused(settle("nobody")) == ("UNKNOWN_GROUP", {"group": "nobody"})
    assert replica.refused(settle("", flow(floor=1)))[0] == "UNKNOWN_GROUP"
    reason, metadata = replica.refused(settle("x" * 5000))
    assert (reason, len(metadata["group"])) == ("UNKNOWN_GROUP", 67)


# -- refusals --------------------------------------------------------------------


def test_fences(replica: Replica) -> None:
    flows.write(replica.w, "g", T, 0, FlowRow(fence=17, owner="m"))
    assert replica.refused(settle("g", flow(T, 1, floor=1), flow(floor=5, fence=16))) == (
        "FENCED",
        {"topic": "t", "partition": "0", "generation": "17"},
    )
    assert replica.refused(settle("g", flow(T, 1, floor=1, fence=17)))[0] == "FENCED"
    replica.do(settle("g", flow(floor=5, fence=17)))
    replica.do(settle("g", flow(floor=6)))
    row = row_of(replica.w, "g")
    assert (row.fence, row.owner, floor_of(replica.w, "g")) == (17, "m", 6)


@pytest.mark.parametrize(
    ("part", "reason", "field"),
    [
        (flow(floor=-1), "INVALID_ARGUMENT", "floor"),
        (flow(base=-1, runs=[0, 1]), "INVALID_ARGUMENT", "runs"),
        (flow(runs=[0, 1, 2]), "INVALID_ARGUMENT", "runs"),
        (flow(retries=[item(-1)]), "INVALID_ARGUMENT", "retries"),
        (flow(retries=[item(1, 0)]), "INVALID_ARGUMENT", "retries"),
        (flow(retries=[item(1, 9)]), "INVALID_ARGUMENT", "retries"),
        (flow(floor=101), "OFFSET_OUT_OF_RANGE", None),
        (flow(runs=[0, 101]), "OFFSET_OUT_OF_RANGE", None),
        (flow(runs=[100, 1]), "OFFSET_OUT_OF_RANGE", None),
        (flow(runs=[(1 << 64) - 1, (1 << 64) - 1]), "OFFSET_OUT_OF_RANGE", None),
        (flow(base=(1 << 63) - 1, runs=[0, 0]), "OFFSET_OUT_OF_RANGE", None),
        (flow(retries=[item(100)]), "OFFSET_OUT_OF_RANGE", None),
    ],
)
def test_what_is_refused(replica: Replica, part: log_pb2.FlowSettle, reason: str, field: str | None) -> None:
    found, metadata = replica.refused(settle("g", flow(T, 1, offsets=[3], retries=[item(4)]), part))
    assert found == reason
    if field is None:
        assert metadata == {"topic": "t", "partition": "0", "start_offset": "0", "end_offset": "100"}
    else:
        assert metadata["field"] == field


def test_a_partition_twice_is_refused(replica: Replica) -> None:
    assert replica.refused(settle("g", flow(floor=1), flow(floor=2))) == (
        "INVALID_ARGUMENT",
        {"field": "flows"},
    )


def test_a_refusal_is_an_event() -> None:
    seen: list[object] = []
    replica = Replica(events=seen.append)
    replica.refused(settle("nobody"))
    assert seen == [OperationRefused("settle", "UNKNOWN_GROUP")]


# -- bounds ----------------------------------------------------------------------


def bounded(**limits: int) -> Replica:
    return make(20_000, dataclasses.replace(StateLimits(), **limits))


def test_runs_retries_and_partitions_of_one_operation_are_bounded() -> None:
    replica = bounded(max_settle_runs=3, max_settle_retries=2)
    too_many = ("INVALID_ARGUMENT", {"field": "flows", "limit": "3"})
    assert replica.refused(settle("g", flow(offsets=[1, 3, 5, 7]))) == too_many
    assert replica.refused(settle("g", flow(offsets=[1, 3]), flow(T, 1, offsets=[1, 3]))) == too_many
    # A partition without runs counts as one.
    parts = [flow(T, p, floor=1) for p in range(2)] + [flow(9, p) for p in range(2)]
    assert replica.refused(settle("g", *parts)) == too_many
    replica.do(settle("g", flow(offsets=[1, 3]), flow(T, 1, offsets=[1])))
    three = flow(retries=[item(2), item(4)]), flow(T, 1, retries=[item(2)])
    assert replica.refused(settle("g", *three)) == ("INVALID_ARGUMENT", {"field": "flows", "limit": "2"})


def test_chunks_of_one_operation_are_bounded() -> None:
    replica = bounded(max_settle_runs=3)
    chunk = bits.CHUNK_BITS
    wide = flow(runs=[1, 3 * chunk])
    assert replica.refused(settle("g", wide))[0] == "INVALID_ARGUMENT"
    two = [flow(T, p, runs=[1, 2 * chunk - 1]) for p in (0, 1)]
    assert replica.refused(settle("g", *two))[0] == "INVALID_ARGUMENT"
    replica.do(settle("g", two[0]))


def test_a_run_that_is_too_long_is_refused_before_it_costs_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A floor that is to come, or records that are gone, let it begin far below."""
    end = (1 << 32) - 1
    replica = make(0)
    replica.do(grow(T, 0, end))
    monkeypatch.setattr(bits, "chunks_of", None)
    long = settle("g", flow(runs=[1, end - 1], floor=end))
    assert replica.refused(long) == ("INVALID_ARGUMENT", {"field": "flows", "limit": "4096"})
    replica.do(grow(T, 0, 1))
    replica.do(trim(T, 0, end))
    assert replica.refused(settle("g", flow(runs=[1, end])))[0] == "INVALID_ARGUMENT"


def test_nothing_is_settled_too_far_ahead() -> None:
    replica = bounded(max_settled_ahead=100)
    told = {"limit": "100", "topic": "t", "partition": "0", "floor": "0"}
    assert replica.refused(settle("g", flow(offsets=[100]))) == ("LIMIT_EXCEEDED", told)
    dead = settle("g", flow(retries=[item(100, REJECT, dead=True)]), dead=[letter(DEAD)])
    assert replica.refused(dead) == ("LIMIT_EXCEEDED", told)
    replica.do(settle("g", flow(offsets=[99])))
    replica.do(settle("g", flow(runs=[5_000, 0])))  # nothing
    replica.do(settle("g", flow(T, 1, offsets=[*range(50), 149])))
    replica.do(settle("g", flow(floor=50, offsets=[149])))
    assert above(replica.w, "g") == {99, 149}
    # A record that retention has dropped holds nothing back.
    replica = bounded(max_settled_ahead=100)
    replica.do(grow(T, 0, 500))
    replica.do(trim(T, 0, 20_000))
    replica.do(settle("g", flow(offsets=[20_099])))
    assert replica.refused(settle("g", flow(offsets=[20_100])))[0] == "LIMIT_EXCEEDED"


def test_dead_letters_of_one_operation_are_bounded_but_for_a_single_one() -> None:
    replica = bounded(max_dead_bytes=len(LETTER))
    two = flow(retries=[item(n, REJECT, dead=True) for n in (1, 2)])
    assert replica.refused(settle("g", two, dead=[letter(DEAD)] * 2)) == (
        "INVALID_ARGUMENT",
        {"field": "flows", "limit": str(len(LETTER))},
    )
    large = letter(DEAD)
    large.batches[0].length = 1000
    one = flow(retries=[item(1, REJECT, dead=True)])
    replica.do(settle("g", one, dead=[large], blob=b"x" * 1000))


def test_without_room_for_its_row_a_record_is_left_as_it_is() -> None:
    replica = bounded(max_retries=2)
    replica.do(settle("g", flow(retries=[item(1)])))
    result = replica.do(settle("g", flow(offsets=[9], retries=[item(2), item(3), item(1), item(4, PARK)])))
    assert states(result) == [(2, 1, WAITING), (3, 0, NONE), (1, 2, WAITING), (4, 0, NONE)]
    assert above(replica.w, "g") == {9}
    assert list(waiting(replica.w, "g")) == [1, 2]
    # Of all groups together.
    define(replica, "h")
    assert states(replica.do(settle("h", flow(retries=[item(2)])))) == [(2, 0, NONE)]
    # What dies needs none.
    replica.do(settle("g", flow(retries=[item(3, REJECT, dead=True)]), dead=[letter(DEAD)]))
    assert above(replica.w, "g") == {3, 9}
    replica.do(settle("g", flow(offsets=[1])))
    assert states(replica.do(settle("h", flow(retries=[item(2)])))) == [(2, 1, WAITING)]


def test_partitions_read_by_groups_are_bounded() -> None:
    replica = bounded(max_flows=1)
    replica.do(settle("g", flow(offsets=[3])))
    full = ("LIMIT_EXCEEDED", {"limit": "1"})
    assert replica.refused(settle("g", flow(floor=1), flow(T, 1, offsets=[3]))) == full
    assert replica.refused(settle("g", flow(T, 1, floor=3))) == full
    assert replica.refused(settle("g", flow(T, 1, retries=[item(3)]))) == full
    replica.do(settle("g", flow(offsets=[5])))
    replica.do(settle("g", flow(floor=9)))
    assert replica.w.count(Table.FLOWS) == 0
    assert replica.refused(settle("g", flow(T, 1, floor=3))) == full  # its offset stays
    replica.do(settle("g", flow(T, 1)))


# -- the store -------------------------------------------------------------------


def test_a_full_store_ends_the_turn_and_leaves_nothing() -> None:
    replica = make(limits=StateLimits())
    replica.store.commit()
    before = replica.dump()
    store = replica.store
    assert isinstance(store, MemoryStore)
    store._map_size = store._size + 700
    with pytest.raises(StorageFullError):
        replica.run(settle("g", flow(offsets=[3], retries=[item(4)]), flow(T, 1, offsets=[3])))
    store.abort()
    replica.machine.reset()
    assert replica.dump() == before


def test_damaged_rows_are_raised(replica: Replica) -> None:
    row = groups.read(replica.w, "g")
    assert row is not None
    groups.write(replica.w, "g", groups.GroupRow(row.held, 1, b"\xff\xff"))
    with pytest.raises(StorageError, match="definition"):
        replica.run(settle("g", flow(floor=1)))
    replica = make()
    replica.do(settle("g", flow(offsets=[3])))
    replica.w.put(Table.ACKS, next(replica.w.scan_keys(Table.ACKS)), b"short")
    with pytest.raises(StorageError, match="length"):
        replica.run(settle("g", flow(offsets=[4])))


def test_what_the_kit_reads_is_what_is_stored(replica: Replica) -> None:
    replica.do(settle("g", flow(offsets=[3], retries=[item(4)])))
    assert list(acks.scan(replica.w, key_of("g"))) == [(0, 1 << 3)]
    assert [offset for offset, _ in retries.scan(replica.w, key_of("g"))] == [4]
    assert list(acks.scan(replica.w, key_of("g"), 1)) == []
    assert list(acks.scan(replica.w, key_of("g"), 0, 1)) == [(0, 1 << 3)]
    assert list(retries.offsets(replica.w, key_of("g"), 0, 4)) == []
    assert list(retries.offsets(replica.w, key_of("g"), 4, 5)) == [4]
