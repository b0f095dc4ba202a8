"""What operations share that change flows: looking for what is settled, and forgetting a flow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cluster.state.catalog import Catalog
from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.flow_rules import FlowEdit, open_flow
from holdfast.cluster.state.limits import StateLimits
from holdfast.cluster.state.seek import clear_flow
from holdfast.errors import FencedError
from holdfast.storage import acks, bits, flows, groups
from holdfast.storage.flows import FlowRow
from holdfast.storage.port import Table

from .replica_kit import Replica
from .settle_kit import above, define, flow, grow, item, row_of, settle, waiting


def make(records: int = 60_000) -> Replica:
    replica = Replica()
    replica.topic("t", 2)
    replica.do(grow(1, 0, records))
    define(replica, "g")
    return replica


def context(replica: Replica, limits: StateLimits | None = None) -> EntryContext:
    return EntryContext(
        replica.w, 99, replica.time_us, memoryview(b""), Catalog(), limits or StateLimits(), None
    )


def opened(replica: Replica, limits: StateLimits | None = None) -> FlowEdit:
    edit = open_flow(context(replica, limits), "g", 1, 0)
    assert edit is not None
    return edit


ranges = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), max_size=5).map(
    lambda found: [(first * 50, first * 50 + length) for first, length in sorted(dict(found).items())]
)


@given(ranges, ranges, st.integers(0, 9_000))
def test_the_first_that_is_settled(
    settled: list[tuple[int, int]], asked: list[tuple[int, int]], floor: int
) -> None:
    replica = make(20_000)
    acked = {offset for first, end in settled for offset in range(first, end)}
    replica.do(settle("g", flow(offsets=acked, floor=floor)))
    wanted = [n for first, end in asked for n in range(first, end) if n < floor or n in acked]
    assert opened(replica).first_settled(asked) == (min(wanted) if wanted else None)


def test_what_an_operation_has_said_already_counts() -> None:
    edit = opened(make())
    assert edit.first_settled([(5, 9)]) is None
    edit.settle([(8, 10)])
    assert edit.first_settled([(5, 9)]) == 8
    edit.settle([(0, 6)])
    assert edit.first_settled([(6, 8)]) is None
    assert edit.first_settled([(3, 3), (5, 9)]) == 5


def test_looking_far_ahead_costs_no_more_than_there_can_be_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    end = (1 << 32) - 1
    replica = make(end)
    replica.do(settle("g", flow(offsets=[70_000])))
    # Neither chunk by chunk nor with bits for all that is asked for.
    monkeypatch.setattr(acks, "read", None)
    monkeypatch.setattr(bits, "chunks_of", None)
    assert opened(replica).first_settled([(1, end)]) == 70_000
    assert opened(replica).first_settled([(70_001, end)]) is None


def test_an_edit_that_is_not_written_changes_nothing() -> None:
    replica = make()
    before = replica.dump()
    edit = opened(replica)
    edit.settle([(3, 9)])
    edit.raise_floor(2)
    edit.close()
    assert replica.dump() == before
    edit.write()
    assert above(replica.w, "g") == set(range(3, 9))


def test_fences_and_what_is_gone() -> None:
    replica = make()
    flows.write(replica.w, "g", 1, 0, FlowRow(fence=5))
    assert open_flow(context(replica), "g", 1, 0, 5) is not None
    with pytest.raises(FencedError):
        open_flow(context(replica), "g", 1, 0, 4)
    assert open_flow(context(replica), "g", 1, 2, 4) is None
    assert open_flow(context(replica), "g", 9, 0, 4) is None


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_flow_is_forgotten_in_steps_and_its_row_stays_right(limit: int) -> None:
    replica = make()
    flows.write(replica.w, "g", 1, 0, FlowRow(fence=5, owner="m"))
    chunk = bits.CHUNK_BITS
    replica.do(settle("g", flow(floor=chunk + 3, offsets=[n * chunk + 9 for n in range(1, 7)])))
    replica.do(settle("g", flow(retries=[item(2 * chunk + n) for n in range(5)])))
    for _ in range(10):
        rows = replica.w.count(Table.ACKS), replica.w.count(Table.RETRIES)
        deleted = clear_flow(replica.w, "g", 1, 0, limit)
        assert deleted == min(max(rows), limit)
        assert rows[0] - replica.w.count(Table.ACKS) == min(rows[0], limit)
        assert rows[1] - replica.w.count(Table.RETRIES) == min(rows[1], limit)
        assert row_of(replica.w, "g").retrying == replica.w.count(Table.RETRIES)
        above(replica.w, "g")  # checks the count
        if deleted < limit:
            break
    row = row_of(replica.w, "g")
    assert (row.settled_above, row.retrying, row.fence, row.owner) == (0, 0, 5, "m")
    assert (above(replica.w, "g"), waiting(replica.w, "g")) == (set(), {})
    assert groups.committed(replica.w, "g", 1, 0) == chunk + 3
