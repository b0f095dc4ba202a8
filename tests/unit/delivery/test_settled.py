"""Settled offsets, runs and leases against sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.cluster.delivery.leases import Ages, Holder, RecordLeases, RunLeases, in_delivery_order
from holdfast.cluster.delivery.runs import ranges_from, ranges_of, runs_of
from holdfast.cluster.delivery.settled import Settled
from holdfast.errors import InvalidArgumentError
from holdfast.storage import bits

#: Around the ends of chunks, where the mistakes are.
OFFSETS = st.one_of(st.integers(0, 40), st.integers(4_080, 4_110), st.integers(8_180, 8_200))
LENGTHS = st.one_of(st.integers(1, 9), st.integers(4_090, 4_100))


class SettledAgainstSets(RuleBasedStateMachine):
    """Everything that may happen to a window, and to a set of offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Settled()
        self.model: set[int] = set()

    @property
    def floor(self) -> int:
        floor = 0
        while floor in self.model:
            floor += 1
        return floor

    @rule(first=OFFSETS, length=LENGTHS)
    def add_range(self, first: int, length: int) -> None:
        wanted = set(range(first, first + length))
        assert self.window.add_range(first, first + length) == len(wanted - self.model)
        self.model |= wanted
        self.window.advance()

    @rule(offsets=st.sets(OFFSETS, max_size=5))
    def add_offsets(self, offsets: set[int]) -> None:
        self.window.add_offsets(offset for offset in offsets if offset >= self.window.floor)
        self.model |= offsets
        self.window.advance()

    @rule(floor=OFFSETS)
    def raise_floor(self, floor: int) -> None:
        before = self.floor
        self.model |= set(range(floor))
        assert self.window.raise_floor(floor) == (floor > before)

    @rule(floor=OFFSETS, above=st.sets(OFFSETS, max_size=6))
    def load(self, floor: int, above: set[int]) -> None:
        self.model = set(range(floor)) | above
        self.window.load(floor, bits.chunks_of((o, o + 1) for o in above).items())

    @rule(floor=OFFSETS, above=st.sets(OFFSETS, max_size=6))
    def merge(self, floor: int, above: set[int]) -> None:
        self.model |= set(range(floor)) | above
        self.window.merge(floor, bits.chunks_of((o, o + 1) for o in above).items())

    @rule(first=OFFSETS, length=LENGTHS)
    def looks_the_same(self, first: int, length: int) -> None:
        window, model, floor = self.window, self.model, self.floor
        following = first
        while following in model:
            following += 1
        assert window.next_open(first) == following
        later = [o for o in model if o >= first]
        assert window.next_settled(first) == (min(later) if later else None)
        found = list(window.open_ranges(first, first + length))
        assert found == ranges_from(o for o in range(first, first + length) if o not in model)
        assert window.above == sum(o > floor for o in model)

    @invariant()
    def agrees(self) -> None:
        assert self.window.floor == self.floor
        assert self.window.top == max(self.model, default=-1) + 1
        for offset in (0, 1, 39, 40, 41, 4_095, 4_096, 4_097, 8_191, 8_192):
            assert (offset in self.window) == (offset in self.model)


TestSettled = SettledAgainstSets.TestCase


def test_a_window_without_gaps_holds_no_bits() -> None:
    window = Settled()
    for first in range(0, 100_000, 100):
        assert window.add_range(first, first + 100) == 100
    assert (window.floor, window._chunks) == (100_000, {})
    window.add_range(100_001, 100_003)
    window.add_range(100_000, 100_001)
    assert window.advance()
    assert (window.floor, window._chunks) == (100_003, {})


@given(st.sets(st.integers(0, 60)), st.integers(0, 5))
def test_runs_mean_the_same_offsets_there_and_back(offsets: set[int], split: int) -> None:
    ranges = ranges_from(sorted(offsets))
    base, runs = runs_of(ranges)
    assert ranges_of(base, runs) == ranges
    window = Settled()
    assert window.add(base, runs) == len(offsets)
    assert base == min(offsets, default=0)
    assert all(runs[i] for i in range(2, len(runs), 2)), "neighbours are one run"
    touching = [(first, end) for first, end in ranges for first, end in _pieces(first, end, split)]
    assert runs_of(touching) == (base, runs)


def _pieces(first: int, end: int, at: int) -> list[tuple[int, int]]:
    middle = min(first + at, end)
    return [(a, b) for a, b in ((first, middle), (middle, end)) if a < b]


@pytest.mark.parametrize(
    ("base", "runs"), [(0, [1]), (-1, [0, 1]), (0, [0, 1 << 63]), (1 << 62, [1 << 62, 1])]
)
def test_malformed_runs_are_refused(base: int, runs: list[int]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        ranges_of(base, runs)
    assert caught.value.metadata["field"] == "runs"


class LeasesAgainstDicts(RuleBasedStateMachine):
    """Both kinds of leases, and a plain dict of who has which record under which lease."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = RunLeases()
        self.records = RecordLeases()
        self.holders = [Holder(f"h{n}") for n in range(2)]
        self.twins = [Holder(f"h{n}") for n in range(2)]  # what the second kind counts
        self.model: dict[int, tuple[int, int]] = {}
        self.lease = 0

    @rule(who=st.integers(0, 1), first=st.integers(0, 20), length=st.integers(1, 6))
    def add(self, who: int, first: int, length: int) -> None:
        if any(offset in self.model for offset in range(first, first + length)):
            return
        self.lease += 1
        self.runs.add(self.holders[who], first, first + length, self.lease)
        for offset in range(first, first + length):
            self.records.add(self.twins[who], offset, self.lease, 5)
            self.model[offset] = (who, self.lease)

    @rule(
        who=st.integers(0, 1),
        first=st.integers(0, 24),
        length=st.integers(1, 30),
        one=st.booleans(),
        data=st.data(),
    )
    def take(self, who: int, first: int, length: int, one: bool, data: st.DataObject) -> None:
        lease = data.draw(st.integers(1, self.lease)) if one and self.lease else 0
        end = first + length
        wanted = {
            offset: has[1]
            for offset, has in self.model.items()
            if first <= offset < end and has[0] == who and lease in (0, has[1])
        }
        by_run = self.runs.take(self.holders[who], lease, first, end)
        assert {o: it.lease for it in by_run for o in range(it.first, it.end)} == wanted
        assert by_run == sorted(by_run, key=lambda it: it.first)
        by_record = self.records.take(self.twins[who], lease, first, end)
        assert [(it.first, it.lease, it.lane) for it in by_record] == [
            (offset, wanted[offset], 5) for offset in sorted(wanted)
        ]
        for offset in wanted:
            del self.model[offset]

    @rule(who=st.integers(0, 1))
    def drop(self, who: int) -> None:
        dropped = {o for it in self.runs.drop(self.holders[who]) for o in range(it.first, it.end)}
        assert dropped == {o for o, has in self.model.items() if has[0] == who}
        assert [it.first for it in self.records.drop(self.twins[who])] == sorted(dropped)
        self.model = {o: has for o, has in self.model.items() if has[0] != who}

    @invariant()
    def agrees(self) -> None:
        for leases, holders in ((self.runs, self.holders), (self.records, self.twins)):
            for offset in range(30):
                it = leases.at(offset)  # type: ignore[attr-defined]
                had = None if it is None else (holders.index(it.holder), it.lease)
                assert had == self.model.get(offset)
            for who, holder in enumerate(holders):
                assert holder.in_flight == sum(has[0] == who for has in self.model.values())
        for offset in range(30):
            later = [o for o in self.model if o >= offset]
            assert self.runs.next_from(offset) == min(later, default=None)


TestLeases = LeasesAgainstDicts.TestCase


def test_delivery_order_is_that_of_the_leases() -> None:
    holder = Holder("m")
    one, two = RunLeases(), RunLeases()
    one.add(holder, 10, 12, 3)
    one.add(holder, 0, 2, 1)
    two.add(holder, 5, 7, 2)
    held = [(0, one.of(holder)), (1, two.of(holder))]
    assert in_delivery_order(held, 5) == [(0, 0), (0, 1), (1, 5), (1, 6), (0, 10)]


def test_ages_say_what_has_lasted_too_long_with_few_marks() -> None:
    ages, longest = Ages(), 64.0
    for lease in range(1, 10_001):
        ages.note(lease, lease * 0.01, longest)
    assert len(ages._marks) <= 102
    assert ages.over(50.0, longest) == 0
    assert ages.next_over(longest) is not None
    last = 0
    for tick in range(640, 1_700):
        now = tick / 10
        last = max(last, ages.over(now, longest))
        # Never early, and late by a 64th of the time at most, which is a second here.
        assert last * 0.01 + longest <= now + 1e-6
        assert last >= min(10_000, int((now - longest - 1.0) * 100) - 1)
    assert last == 10_000
    assert ages.next_over(longest) is None
