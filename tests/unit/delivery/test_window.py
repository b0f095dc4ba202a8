"""The ack window against a naive model made of sets."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.cluster.delivery.ranges import OffsetRanges
from holdfast.cluster.delivery.window import AckWindow
from holdfast.errors import InvalidArgumentError, NotDeliveredError


class WindowAgainstSets(RuleBasedStateMachine):
    """Every operation on the window and on sets of offsets; they must agree."""

    def __init__(self) -> None:
        super().__init__()
        self.start = 5
        self.window = AckWindow(self.start)
        self.base = self.start
        self.next = self.start
        self.acked: set[int] = set()

    @property
    def committed(self) -> int:
        offset = self.start
        while offset in self.acked:
            offset += 1
        return offset

    @rule(records=st.integers(1, 12))
    def deliver(self, records: int) -> None:
        first, stop = self.window.span()
        expected = self.next
        while expected in self.acked:
            expected += 1
        assert first == expected
        later = [offset for offset in self.acked if offset > first]
        assert stop == (min(later) if later else None)
        end = first + records if stop is None else min(first + records, stop)
        assert not self.acked & set(range(first, end))
        self.window.deliver(end)
        self.next = end

    @rule(first=st.integers(0, 80), length=st.integers(1, 10))
    def ack(self, first: int, length: int) -> None:
        last = first + length - 1
        before = self.committed
        if first >= self.base and last < self.next:
            self.acked |= set(range(first, last + 1))
            self.next = max(self.next, self.committed)
            assert self.window.ack(first, last) == (self.committed != before)
        else:
            with pytest.raises(NotDeliveredError):
                self.window.ack(first, last)

    @rule()
    def rewind(self) -> None:
        self.window.rewind()
        self.base = self.next = self.committed

    @rule(ahead=st.integers(-3, 6))
    def trim(self, ahead: int) -> None:
        offset = max(self.committed + ahead, 0)
        before = self.committed
        self.acked |= set(range(self.start, offset))
        self.next = max(self.next, self.committed)
        assert self.window.skip_to(offset) == (self.committed != before)

    @invariant()
    def agrees(self) -> None:
        assert self.window.committed == self.committed
        assert self.window.next_offset == self.next
        assert self.window.outstanding == self.next - self.committed >= 0
        above = {offset for offset in self.acked if offset > self.committed}
        runs = sum(1 for offset in above if offset - 1 not in above)
        assert self.window.gaps == runs


TestWindowAgainstSets = WindowAgainstSets.TestCase


def test_an_empty_range_is_an_error() -> None:
    window = AckWindow(0)
    window.deliver(4)
    with pytest.raises(InvalidArgumentError, match=r"3\.\.2"):
        window.ack(3, 2)


def test_delivering_backwards_is_a_bug() -> None:
    window = AckWindow(3)
    with pytest.raises(ValueError, match="not past"):
        window.deliver(3)


def test_refusals_name_what_was_delivered() -> None:
    window = AckWindow(3)
    with pytest.raises(NotDeliveredError, match="delivered: none"):
        window.ack(3, 3)
    window.deliver(6)
    with pytest.raises(NotDeliveredError, match=r"delivered: 3\.\.5"):
        window.ack(5, 6)


def test_memory_grows_with_gaps_not_with_offsets() -> None:
    window = AckWindow(0)
    window.deliver(1_000_000)
    window.ack(1, 999_999)
    assert window.gaps == 1
    window.ack(0, 0)
    assert (window.committed, window.gaps) == (1_000_000, 0)


def test_ranges_hold_what_was_added() -> None:
    ranges = OffsetRanges()
    for first, end in ((5, 7), (1, 2), (9, 12), (2, 5)):
        ranges.add(first, end)
    assert list(ranges) == [(1, 7), (9, 12)]
    assert [offset for offset in range(14) if offset in ranges] == [1, 2, 3, 4, 5, 6, 9, 10, 11]
    with pytest.raises(ValueError, match="empty"):
        ranges.add(3, 3)


def rewound_after_ack_of(offset: int) -> AckWindow:
    window = AckWindow(5)
    window.deliver(8)
    window.ack(offset, 7)
    window.rewind()
    return window


def test_what_an_earlier_owner_acked_is_not_handed_out_again_after_the_gap_closes() -> None:
    window = rewound_after_ack_of(6)
    assert window.span() == (5, 6)
    window.deliver(6)
    assert window.ack(5, 5)
    assert (window.committed, window.next_offset, window.span()) == (8, 8, (8, None))


def test_nor_after_retention_closes_it() -> None:
    window = rewound_after_ack_of(6)
    assert window.skip_to(6)
    assert (window.committed, window.outstanding, window.span()) == (8, 0, (8, None))
