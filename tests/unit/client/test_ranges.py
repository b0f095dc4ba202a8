"""RangeSet against a plain set, PartitionAcks by example."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from holdfast.client.acks import PartitionAcks
from holdfast.client.ranges import RangeSet

SMALL = st.integers(0, 40)


@given(st.lists(st.tuples(st.sampled_from(["add", "range", "below"]), SMALL, SMALL)), SMALL, SMALL)
def test_range_set_is_a_set(steps: list[tuple[str, int, int]], first: int, last: int) -> None:
    ranges, model = RangeSet(), set[int]()
    for kind, a, b in steps:
        if kind == "add":
            assert ranges.add(a) == (a not in model)
            model.add(a)
        elif kind == "range":
            low, high = min(a, b), max(a, b)
            ranges.add_range(low, high)
            model.update(range(low, high + 1))
        else:
            ranges.drop_below(a)
            model = {offset for offset in model if offset >= a}
    assert [n for low, high in ranges for n in range(low, high + 1)] == sorted(model)
    assert bool(ranges) == bool(model)
    pairs = list(ranges)
    assert all(one[1] + 1 < two[0] for one, two in pairwise(pairs))
    found = [n for low, high in ranges.overlap(first, last) for n in range(low, high + 1)]
    assert found == sorted(n for n in model if first <= n <= last)
    assert all((n in ranges) == (n in model) for n in range(42))


def test_offsets_that_retention_removed_hold_nothing_up() -> None:
    acks = PartitionAcks(0)
    acks.deliver(5, 9)
    acks.deliver(20, 24)
    for offset in (5, 6, 7, 8, 9):
        assert acks.ack(offset)
    assert acks.goal() == 10
    for offset in (20, 21):
        acks.ack(offset)
    assert acks.goal() == 22
    assert acks.open_records() == 3
    acks.commit(22)
    assert not acks.acked


def test_acknowledged_before_a_break_is_left_out_and_told_again() -> None:
    acks = PartitionAcks(0)
    acks.deliver(0, 9)
    for offset in (2, 3, 7):
        acks.ack(offset)
    acks.restart(0)
    assert not acks.pending
    assert not acks.ack(4)  # of the connection before: told when it is delivered again
    assert acks.deliver(0, 4) == [(2, 4)]
    assert list(acks.pending) == [(2, 4)]
    assert acks.ack(0)
    assert not acks.ack(0)
