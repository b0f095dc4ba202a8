"""What a group wants settled: nothing is forgotten, nothing is charged twice, bounds hold."""

from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from holdfast.cluster.commands import check_op
from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.pending import Charge, Portion, Receipt
from holdfast.cluster.delivery.runs import ranges_of
from holdfast.cluster.delivery.settling import (
    ENOUGH_CHARGES,
    FIRST_PAUSE,
    GONE,
    LONGEST_PAUSE,
    Bury,
    DeadLetter,
    RowOf,
    Settlement,
    Settling,
)
from holdfast.cluster.state.limits import StateLimits
from holdfast.errors import FencedError, UnknownTopicError
from holdfast.storage.bits import chunks_of
from holdfast.v1 import log_pb2

K: PartitionKey = (1, 0)
L: PartitionKey = (1, 1)
NACK = log_pb2.RETRY_CAUSE_NACK
DELAY = 0.005


def settling(**limits: int) -> Settling:
    return Settling("g", StateLimits(**limits), DELAY)


def lives(charge: Charge) -> DeadLetter | None:
    return None


def dies(charge: Charge, size: int = 10) -> DeadLetter:
    return DeadLetter(log_pb2.AppendOp(topic_id=9, batches=[log_pb2.AppendBatch(length=size)]), b"x" * size)


def unchanged(key: PartitionKey, offset: int) -> object:
    return "row"


def collect(
    s: Settling,
    now: float = 1.0,
    *,
    skip: tuple[PartitionKey, ...] = (),
    bury: Bury = lives,
    row: RowOf = unchanged,
) -> Settlement | None:
    return s.collect(now, lambda key: 7, skip, bury, row)


def op_of(it: Settlement | None) -> log_pb2.SettleOp:
    assert it is not None
    op_length = int.from_bytes(it.op[:4])
    return check_op(it.op).settle if op_length else log_pb2.SettleOp()


def offsets(flow: log_pb2.FlowSettle) -> set[int]:
    return {n for first, end in ranges_of(flow.base, flow.runs) for n in range(first, end)}


def charge(offset: int, key: PartitionKey = K, receipt: Receipt | None = None) -> Charge:
    return Charge(key, offset, NACK, lane=5, error="no", receipt=receipt)


def test_one_operation_takes_all_that_waits() -> None:
    s = settling()
    s.settle(K, [(3, 5), (9, 10)], 0.0)
    s.settle(L, [(0, 1)], 0.001)
    s.settle(K, [(5, 6)], 0.002)
    s.charge(charge(7), 0.003)
    assert s.due_at == DELAY
    it = collect(s)
    op = op_of(it)
    assert op.group == "g"
    assert [(f.topic_id, f.partition, f.fence) for f in op.flows] == [(1, 0, 7), (1, 1, 7)]
    assert offsets(op.flows[0]) == {3, 4, 5, 9}
    assert list(op.flows[0].runs) == [0, 3, 3, 1]
    (item,) = op.flows[0].retries
    assert (item.offset, item.cause, item.lane, item.error, item.dead) == (7, NACK, 5, "no", False)
    assert not item.HasField("delay_ms")
    assert s.due_at is None
    assert it is not None
    assert it.began == 0.0
    s.settled()
    assert s.idle


def test_one_is_in_flight_and_the_rest_gathers() -> None:
    s = settling()
    s.settle(K, [(0, 1)], 0.0)
    assert collect(s) is not None
    s.settle(K, [(1, 2)], 0.1)
    assert collect(s) is None
    assert s.due_at is None
    s.settled()
    assert s.due_at == 0.1 + DELAY
    assert offsets(op_of(collect(s)).flows[0]) == {1}


def test_enough_does_not_wait_for_company() -> None:
    s = settling()
    for offset in range(ENOUGH_CHARGES):
        assert s.due_at in (None, 2.0 + DELAY)
        s.charge(charge(offset), 2.0)
    assert s.due_at == 2.0


def test_a_floor_says_what_lies_below_it() -> None:
    s = settling()
    s.settle(K, [(0, 5_000), (5_002, 5_003)], 0.0)
    s.floor(K, 5_000, 0.0)
    s.floor(K, 4_000, 0.0)
    (flow,) = op_of(collect(s)).flows
    assert flow.floor == 5_000
    assert offsets(flow) == {5_002}


def test_the_floor_may_be_all_there_is() -> None:
    s = settling()
    s.floor(K, 0, 0.0)
    (flow,) = op_of(collect(s)).flows
    assert flow.HasField("floor")
    assert flow.floor == 0
    assert not flow.runs


@given(
    st.lists(st.sets(st.integers(0, 9_000), max_size=40), min_size=1, max_size=8),
    st.integers(1, 12),
    st.data(),
)
def test_everything_goes_once_whatever_the_bounds(
    rounds: list[set[int]], most: int, data: st.DataObject
) -> None:
    """Against a set: every offset is sent until it was settled, receipts end when their offsets are in."""
    s = settling(max_settle_runs=most)
    durable: set[int] = set()
    wanted: set[int] = set()
    ended: list[int] = []
    receipts: list[tuple[set[int], Receipt]] = []
    now = 0.0

    def note(number: int, receipt: Receipt) -> None:
        ended.append(number)

    def turn() -> None:
        nonlocal now
        now += 2.0
        it = collect(s, now)
        if it is None:
            return
        sent = {n for f in op_of(it).flows for n in offsets(f)}
        assert sum(len(f.runs) // 2 for f in op_of(it).flows) <= most
        assert sent <= wanted
        fate = data.draw(st.sampled_from(["settled", "failed", "unknown, done", "unknown, not done"]))
        if fate in ("settled", "unknown, done"):
            durable.update(sent)
        if fate == "settled":
            s.settled()
        elif fate == "failed":
            s.failed(now)
        else:
            s.reconcile(unchanged)
        for number in ended:
            assert receipts[number][0] <= durable

    for number, each in enumerate(rounds):
        receipt = Receipt(partial(note, number))
        s.settle(K, [(n, n + 1) for n in sorted(each)], now, receipt)
        receipts.append((each, receipt))
        receipt.end()
        wanted |= each
        if data.draw(st.booleans()):
            turn()
    while not s.idle:
        it = collect(s, now := now + 2.0)
        if it is not None:
            durable.update(n for f in op_of(it).flows for n in offsets(f))
            s.settled()
    assert durable == wanted
    assert sorted(ended) == list(range(len(rounds)))


def test_a_failed_operation_comes_again_after_longer_and_longer_pauses() -> None:
    s = settling()
    s.settle(K, [(0, 1)], 0.0)
    s.charge(charge(4), 0.0)
    now, pause = 1.0, FIRST_PAUSE
    for _ in range(10):
        first = collect(s, now)
        assert first is not None
        s.failed(now)
        assert s.due_at == now + pause
        now, pause = now + pause, min(2 * pause, LONGEST_PAUSE)
    again = op_of(collect(s, now))
    assert offsets(again.flows[0]) == {0}
    assert [item.offset for item in again.flows[0].retries] == [4]
    s.settled()
    s.settle(K, [(1, 2)], now)
    collect(s, now)
    s.failed(now)
    assert s.due_at == now + FIRST_PAUSE


def test_an_unknown_outcome_charges_once() -> None:
    """Of two charges one was made: only the other, whose row is as it was, is made again."""
    s = settling()
    rows: dict[int, str] = {4: "", 5: ""}
    ended: list[str] = []
    receipts = [Receipt(lambda _: ended.append("4")), Receipt(lambda _: ended.append("5"))]
    s.charge(charge(4, receipt=receipts[0]), 0.0)
    s.charge(charge(5, receipt=receipts[1]), 0.0)
    for receipt in receipts:
        receipt.end()
    row = lambda key, offset: rows[offset]  # noqa: E731
    collect(s, row=row)
    rows[4] = "charged"
    s.reconcile(row)
    assert ended == ["4"]
    op = op_of(collect(s, 3.0, row=row))
    assert [item.offset for item in op.flows[0].retries] == [5]
    s.settled()
    assert ended == ["4", "5"]
    assert s.idle


def test_partitions_that_move_wait() -> None:
    s = settling()
    s.settle(K, [(0, 1)], 0.0)
    s.charge(charge(3), 0.0)
    s.settle(L, [(0, 1)], 0.0)
    it = collect(s, 1.0, skip=(K,))
    assert [flow.partition for flow in op_of(it).flows] == [1]
    assert s.concerns(L)
    assert not s.concerns(K)
    s.settled()
    assert collect(s, 1.0, skip=(K,)) is None
    assert s.due_at == 1.0 + FIRST_PAUSE
    (flow,) = op_of(collect(s, 2.0)).flows
    assert offsets(flow) == {0}
    assert flow.retries[0].offset == 3


def test_what_is_not_wanted_any_more() -> None:
    s = settling()
    ended: list[int] = []
    receipt = Receipt(lambda _: ended.append(1))
    s.settle(K, [(0, 1)], 0.0, receipt)
    s.charge(charge(3, receipt=receipt), 0.0)
    s.settle(L, [(0, 1)], 0.0, receipt)
    receipt.end()
    s.forget(lambda key: key == L, FencedError("moved"))
    assert not ended
    assert [flow.partition for flow in op_of(collect(s)).flows] == [1]
    s.settled()
    assert ended == [1]
    assert s.idle
    assert [lost[:3] for lost in receipt.lost] == [(K, 0, 0), (K, 3, 3)]


def test_one_charge_of_a_record_at_a_time() -> None:
    s = settling()
    s.charge(charge(3), 0.0)
    s.charge(charge(3), 0.0)
    assert len(op_of(collect(s)).flows[0].retries) == 1
    s.settled()
    assert len(op_of(collect(s)).flows[0].retries) == 1


def test_charges_are_bounded() -> None:
    s = settling(max_settle_retries=3)
    for offset in range(5):
        s.charge(charge(offset), 0.0)
    assert [item.offset for item in op_of(collect(s)).flows[0].retries] == [0, 1, 2]
    s.settled()
    assert [item.offset for item in op_of(collect(s)).flows[0].retries] == [3, 4]


def test_dead_letters_go_in_the_order_of_their_items() -> None:
    s = settling()
    s.settle(L, [(0, 1)], 0.0)
    for key, offset in ((K, 1), (L, 2), (K, 3)):
        s.charge(charge(offset, key), 0.0)

    def bury(each: Charge) -> DeadLetter | None:
        return None if each.offset == 1 else dies(each, each.offset)

    it = collect(s, bury=bury)
    op = op_of(it)
    assert [(f.partition, i.offset, i.dead) for f in op.flows for i in f.retries] == [
        (1, 2, True),
        (0, 1, False),
        (0, 3, True),
    ]
    assert [each.batches[0].length for each in op.dead] == [2, 3]
    assert it is not None
    assert it.buries
    assert it.op.endswith(b"x" * 5)


def test_dead_letters_are_bounded_by_their_bytes() -> None:
    s = settling(max_dead_bytes=100)
    for offset in range(5):
        s.charge(charge(offset), 0.0)
    sizes = {0: 60, 1: 60, 2: 40, 3: 500, 4: 1}
    sent = []
    while not s.idle:
        op = op_of(collect(s, bury=lambda each: dies(each, sizes[each.offset])))
        sent.append([item.offset for item in op.flows[0].retries])
        s.settled()
    assert sent == [[0, 2], [1, 4], [3]]


def test_without_room_all_but_dead_letters_goes() -> None:
    s = settling()
    s.settle(K, [(0, 1)], 0.0)
    s.charge(charge(3), 0.0)
    assert op_of(collect(s, 1.0, bury=dies)).dead
    s.failed(1.0, no_room=True)
    op = op_of(collect(s, 1.0, bury=dies))  # at once
    assert offsets(op.flows[0]) == {0}
    assert not op.dead
    assert not op.flows[0].retries
    assert s.no_room
    s.settled()
    assert s.due_at == 1.0 + FIRST_PAUSE
    assert op_of(collect(s, 1.0 + FIRST_PAUSE, bury=dies)).dead
    s.settled()
    assert s.idle
    assert not s.no_room


def test_a_dead_letter_topic_that_is_gone_parks_the_record() -> None:
    def bury(each: Charge) -> DeadLetter | None:
        raise UnknownTopicError("gone")

    s = settling()
    each = charge(3)
    each.delay_ms = 5
    s.charge(each, 0.0)
    (item,) = op_of(collect(s, bury=bury)).flows[0].retries
    assert (item.cause, item.error, item.dead) == (log_pb2.RETRY_CAUSE_PARK, GONE, False)
    assert not item.HasField("delay_ms")


def test_taking_charges_back() -> None:
    s = settling()
    s.charge(charge(3), 0.0)
    s.settle(K, [(0, 1)], 0.0)
    assert [each.offset for each in s.take_charges()] == [3]
    assert not op_of(collect(s)).flows[0].retries


@given(
    st.sets(st.integers(0, 9_000), max_size=200),
    st.one_of(st.none(), st.integers(0, 9_000)),
    st.integers(1, 20),
)
def test_portions(offsets_in: set[int], floor: int | None, limit: int) -> None:
    """Taken bit by bit a portion is what it was; the floor goes first, and covers what lies below."""
    portion = Portion(floor, chunks_of((n, n + 1) for n in offsets_in))
    seen: set[int] = set()
    floors = []
    while True:
        taken, runs = portion.take(limit)
        assert runs <= limit
        flow = log_pb2.FlowSettle()
        taken.write(flow)
        floors.append(taken.floor)
        assert len(flow.runs) // 2 <= runs
        seen |= offsets(flow)
        if not portion.chunks:
            break
    assert seen == {n for n in offsets_in if floor is None or n >= floor}
    assert floors[0] == floor
    assert set(floors[1:]) <= {None}
