"""SweepOp: what groups keep of topics that are gone goes, in bounded steps; the rest stays."""

from __future__ import annotations

import pytest

from holdfast.cluster.commands import encode_op
from holdfast.cluster.state.limits import StateLimits
from holdfast.cluster.state.sweep import plan_sweep
from holdfast.storage import bits, cursors, groups
from holdfast.storage.groups import CommittedOffset
from holdfast.storage.port import Table

from .replica_kit import Replica, delete
from .settle_kit import above, define, flow, grow, item, key_of, settle, sweep, waiting

#: What is kept of groups and partitions.
HELD = (Table.OFFSETS, Table.FLOWS, Table.ACKS, Table.RETRIES)


def make(limits: StateLimits | None = None, names: str = "gh", topics: int = 3) -> Replica:
    """Each group has acks, retries and offsets in two partitions of each topic."""
    replica = Replica(limits)
    for number in range(1, topics + 1):
        replica.topic(f"t{number}", 2)
        for partition in (0, 1):
            replica.do(grow(number, partition, 3 * bits.CHUNK_BITS))
    for name in names:
        define(replica, name)
        for number in range(1, topics + 1):
            parts = [
                flow(number, p, offsets=[3, bits.CHUNK_BITS, 9_000], retries=[item(1), item(5)])
                for p in (0, 1)
            ]
            replica.do(settle(name, *parts))
    return replica


def held(replica: Replica, topic_id: int) -> int:
    """Rows of all groups in a topic."""
    return sum(
        1
        for table in HELD
        for name in groups.list_groups(replica.w)
        for _ in replica.w.scan_keys(table, key_of(name, topic_id, 0), key_of(name, topic_id + 1, 0))
    )


def sweep_all(replica: Replica) -> int:
    """Sweep once around; how many operations it took."""
    for n in range(1, 10_000):
        if not replica.do(sweep()).more:
            return n
    raise AssertionError("it never ends")


def test_rows_of_a_topic_that_is_gone_go() -> None:
    replica = make()
    assert [held(replica, n) for n in (1, 2, 3)] == [28, 28, 28]
    replica.do(delete("t2"))
    assert held(replica, 2) > 0
    assert sweep_all(replica) == 1
    assert [held(replica, n) for n in (1, 2, 3)] == [28, 0, 28]
    for name in "gh":
        assert list(groups.offsets(replica.w, name)) == [
            CommittedOffset(t, p, 0) for t in (1, 3) for p in (0, 1)
        ]
        row = groups.read(replica.w, name)
        assert row is not None
        assert row.held == 4
        assert above(replica.w, name, 3, 1) == {3, bits.CHUNK_BITS, 9_000}
        assert list(waiting(replica.w, name, 3, 1)) == [1, 5]
    before = replica.dump()
    assert sweep_all(replica) == 1
    assert replica.dump() == before


def test_it_goes_in_steps_whose_place_is_state() -> None:
    replica = make(StateLimits(step_rows=3, scan_rows=2))
    replica.do(delete("t1"))
    replica.do(delete("t3"))
    for _ in range(100):
        before = sum(replica.w.count(table) for table in HELD)
        result = replica.do(sweep())
        gone = before - sum(replica.w.count(table) for table in HELD)
        assert gone <= 3
        assert bool(cursors.sweep_at(replica.w)) is result.more
        if not result.more:
            break
        # A restart in between forgets nothing.
        replica.store.commit()
        replica.machine.reset()
    assert [held(replica, n) for n in (1, 2, 3)] == [0, 28, 0]


def test_what_one_operation_looks_at_is_bounded() -> None:
    """There are 24 pairs of a group and a topic in four tables, two of which it looks at."""
    assert sweep_all(make(StateLimits(scan_rows=2))) == 12
    assert sweep_all(make(StateLimits(scan_rows=23))) == 2


def test_an_operation_may_ask_for_less() -> None:
    replica = make(names="g", topics=1)
    replica.do(delete("t1"))
    left = held(replica, 1)
    assert replica.do(sweep(1)).more
    assert held(replica, 1) == left - 1


def test_rows_of_a_group_that_is_gone_go() -> None:
    replica = make()
    replica.w.delete(Table.GROUPS, b"g")
    sweep_all(replica)
    assert not groups.exists(replica.w, "g")
    keys = [key for table in HELD for key in replica.w.scan_keys(table)]
    assert len(keys) == 3 * 14
    assert all(key.startswith(b"\0\1h") for key in keys)


def test_a_sweep_of_nothing() -> None:
    replica = Replica()
    before = replica.dump()
    assert not replica.do(sweep()).more
    assert replica.dump() == before


def test_it_is_planned_only_when_there_is_something() -> None:
    replica = make()
    assert plan_sweep(replica.w) == (None, b"")
    replica.do(delete("t3"))
    op, after = plan_sweep(replica.w)
    assert op is not None
    assert after
    while replica.do(encode_op(op)).more:
        pass
    assert held(replica, 3) == 0
    assert plan_sweep(replica.w, after) == (None, b"")
    assert plan_sweep(Replica().w) == (None, b"")


def test_a_plan_looks_at_a_bounded_number_of_rows_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.cluster.state.sweep._LOOKED_AT", 4)
    replica = make(names="abcd")
    assert plan_sweep(replica.w)[0] is None
    replica.do(delete("t3"))
    after, looks = b"", 0
    while True:
        op, after = plan_sweep(replica.w, after)
        looks += 1
        if op is not None:
            break
        assert looks < 20
    assert looks > 1
    after, rounds = b"", 0
    sweep_all(replica)
    while True:
        op, after = plan_sweep(replica.w, after)
        assert op is None
        rounds += 1
        if not after:
            break
    assert rounds == 4 * 4 * 2 // 4


def test_the_digest_of_groups_is_that_of_their_rows() -> None:
    one, two = make(), make()
    assert groups.digest(one.w) == groups.digest(two.w)
    assert len(groups.digest(one.w)) == 16
    seen = {groups.digest(one.w)}
    one.do(settle("g", flow(offsets=[7])))
    seen.add(groups.digest(one.w))
    one.do(settle("g", flow(retries=[item(5)])))
    seen.add(groups.digest(one.w))
    cursors.add_marks(one.w, 1, 1)
    seen.add(groups.digest(one.w))
    # Bytes that move from the key to the value make another row.
    one.w.put(Table.MEMBERS, b"ab", b"c")
    seen.add(groups.digest(one.w))
    one.w.delete(Table.MEMBERS, b"ab")
    one.w.put(Table.MEMBERS, b"a", b"bc")
    seen.add(groups.digest(one.w))
    assert len(seen) == 6
    one.do(grow(1, 0, 3))
    assert groups.digest(one.w) in seen  # records are not groups
