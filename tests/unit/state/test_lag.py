"""How far a group is behind: a function of rows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.cluster.commands import encode_op
from holdfast.cluster.delivery.lag import FlowLag, LagReader
from holdfast.errors import UnknownGroupError
from holdfast.records import encode_batch
from holdfast.storage import bits
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Table
from holdfast.v1 import bus_pb2, log_pb2

from .group_kit import definition, drop, index, put, reshape, seek
from .replica_kit import T0, Replica, append, commit, create, delete, trim
from .settle_kit import PARK, above, flow, grow, item, settle

CHUNK = bits.CHUNK_BITS


def lags(replica: Replica, group: str = "g", after: tuple[int, int] | None = None) -> list[FlowLag]:
    return list(LagReader(replica.w).group(group, after))


def lag(replica: Replica, group: str = "g") -> FlowLag:
    (only,) = lags(replica, group)
    return only


def behind(replica: Replica, group: str = "g") -> list[tuple[str, int, int]]:
    return [(each.topic, each.key[1], each.records) for each in lags(replica, group)]


def replica_of(*batches: int, group: bus_pb2.GroupDefinition | None = None) -> Replica:
    """Topic ``t``, one partition with these batches, each a millisecond after the last; group ``g``."""
    replica = Replica()
    replica.topic("t")
    replica.do(put("g", group))
    for count in batches:
        replica.do(grow(1, 0, count))
    return replica


def test_nothing_is_settled() -> None:
    replica = replica_of(3, 2)
    found = lag(replica)
    assert (found.records, found.floor, found.end, found.retrying, found.parked) == (5, 0, 5, 0, 0)
    assert found.oldest_append_us == T0 + 3_000, "topic, group, then the first batch"
    assert found.last_append_us == T0 + 4_000


def test_an_empty_partition() -> None:
    found = lag(replica_of())
    assert (found.records, found.oldest_append_us, found.last_append_us, found.end) == (0, 0, 0, 0)


def test_the_floor_and_what_is_above_it() -> None:
    replica = replica_of(3, 2, 5)
    replica.do(settle("g", flow(floor=2, offsets=[4, 7, 9])))
    found = lag(replica)
    assert (found.records, found.floor, found.end) == (5, 2, 10)
    assert found.oldest_append_us == T0 + 3_000
    replica.do(settle("g", flow(offsets=[2, 3])))
    found = lag(replica)
    assert (found.records, found.floor, found.oldest_append_us) == (3, 5, T0 + 5_000)
    replica.do(settle("g", flow(floor=10)))
    found = lag(replica)
    assert (found.records, found.oldest_append_us, found.floor) == (0, 0, 10)


def test_retention_passes_the_floor() -> None:
    """What is settled below the new start counts neither as open nor twice."""
    replica = replica_of(4, 4, 4)
    replica.do(settle("g", flow(floor=1, offsets=[2, 6, 9])))
    replica.do(trim(1, 0, 4))
    found = lag(replica)
    assert (found.records, found.floor, found.end) == (6, 1, 12), "4, 5, 7, 8, 10 and 11"
    assert found.oldest_append_us == T0 + 4_000
    replica.do(settle("g", flow(offsets=[4, 5])))
    assert lag(replica).oldest_append_us == T0 + 4_000, "7 lies in the same batch"
    replica.do(settle("g", flow(offsets=[7])))
    assert (lag(replica).records, lag(replica).oldest_append_us) == (3, T0 + 5_000)
    replica.do(trim(1, 0, 12))
    assert (lag(replica).records, lag(replica).oldest_append_us) == (0, 0)


def test_bits_over_several_chunks() -> None:
    end = 3 * CHUNK + 100
    replica = replica_of(end)
    open_ = {0, CHUNK - 1, 2 * CHUNK, end - 1}
    replica.do(settle("g", flow(offsets=set(range(end)) - open_)))
    assert lag(replica).records == 4
    replica.do(settle("g", flow(floor=1)))
    assert (lag(replica).records, lag(replica).floor) == (3, CHUNK - 1)


def test_the_first_open_record_is_chunks_behind_the_start() -> None:
    replica = replica_of(10, 2 * CHUNK, 10)
    end = 2 * CHUNK + 20
    replica.do(settle("g", flow(offsets=range(5, end - 5))))
    replica.do(trim(1, 0, 10))
    found = lag(replica)
    assert (found.records, found.floor) == (5, 0)
    assert found.oldest_append_us == T0 + 5_000, "in the last batch"


def test_records_that_wait_and_are_parked() -> None:
    replica = replica_of(4, 6)
    replica.do(
        settle("g", flow(retries=[item(0), item(1), item(5), item(6, PARK), item(7, PARK, delay_ms=9)]))
    )
    found = lag(replica)
    assert (found.records, found.retrying, found.parked) == (10, 5, 2)
    replica.do(trim(1, 0, 4))
    found = lag(replica)
    assert (found.records, found.retrying, found.parked) == (6, 3, 2), "of what is left"
    replica.do(settle("g", flow(offsets=[5, 6])))
    found = lag(replica)
    assert (found.records, found.retrying, found.parked) == (4, 1, 1)


def test_what_it_has_not_begun_with() -> None:
    replica = Replica()
    replica.topic("t", 2)
    replica.topic("tea")
    replica.topic("other")
    for name in (1, 2, 3):
        replica.do(append(name, [(0, 3)]))
    replica.do(put("early", definition("t", patterns=["te*", "none"])))
    replica.do(put("late", definition("t", start=bus_pb2.Position(latest=True))))
    assert behind(replica, "early") == [("t", 0, 3), ("t", 1, 0), ("tea", 0, 3)]
    assert behind(replica, "late") == [("t", 0, 0), ("t", 1, 0)]
    assert lags(replica, "late")[0].floor == 3

    # Once it has begun, what it meets later is read from its first record.
    replica.do(reshape("late", index(replica), start=[(1, 0, 2)], seen=[1]))
    assert behind(replica, "late") == [("t", 0, 1), ("t", 1, 0)]
    replica.do(put("late", definition("t", "other", start=bus_pb2.Position(latest=True))))
    assert behind(replica, "late") == [("t", 0, 1), ("t", 1, 0), ("other", 0, 3)]


def test_it_will_begin_at_a_time() -> None:
    replica = Replica()
    replica.topic("t")
    for times in ([10, 20, 30], [40, 50]):
        op = log_pb2.AppendOp(topic_id=1)
        blob = encode_batch([b"x"] * len(times), timestamps_us=times)
        op.batches.add(
            partition=0,
            count=len(times),
            length=len(blob),
            min_timestamp_us=times[0],
            max_timestamp_us=times[-1],
        )
        replica.do(encode_op(log_pb2.Op(append=op), [blob]))
    for at, records in ((0, 5), (20, 4), (21, 3), (45, 1), (51, 0)):
        replica.do(put("g", definition(start=bus_pb2.Position(time_us=at))))
        assert lag(replica).records == records, at


def test_a_group_that_only_committed_offsets() -> None:
    replica = Replica()
    replica.topic("t", 2)
    replica.do(append(1, [(0, 5), (1, 5)]))
    replica.do(commit("g", (1, 1, 3)))
    assert behind(replica) == [("t", 1, 2)]


def test_an_implicit_group_is_behind_where_it_has_been() -> None:
    replica = Replica()
    replica.topic("t", 2)
    replica.do(append(1, [(0, 5), (1, 5)]))
    replica.do(put("g", implicit=True))
    assert behind(replica) == []
    replica.do(commit("g", (1, 1, 3)))
    assert behind(replica) == [("t", 1, 2)]


def test_what_it_does_not_read_any_more_is_no_lag() -> None:
    replica = replica_of(5)
    replica.topic("u")
    replica.do(commit("g", (1, 0, 2)))
    assert behind(replica) == [("t", 0, 3)]
    replica.do(put("g", definition("u")))
    assert behind(replica) == [("u", 0, 0)]
    replica.do(put("g"))
    assert behind(replica) == [("t", 0, 3)], "it comes back where it was"


def test_topics_and_groups_that_are_gone() -> None:
    replica = replica_of(5)
    replica.do(commit("g", (1, 0, 2)))
    replica.do(commit("old", (1, 0, 2)))
    replica.do(delete("t"))
    assert behind(replica) == behind(replica, "old") == []
    replica.do(create("t"))
    replica.do(append(2, [(0, 4)]))
    assert behind(replica) == [("t", 0, 4)], "the new topic, from its start"
    replica.do(drop("g"))
    with pytest.raises(UnknownGroupError):
        behind(replica)


def test_a_seek() -> None:
    replica = replica_of(10)
    replica.do(settle("g", flow(floor=8, retries=[item(8)])))
    assert (lag(replica).records, lag(replica).retrying) == (2, 1)
    replica.do(seek("g", (1, 0, 3)))
    assert (lag(replica).records, lag(replica).retrying) == (7, 0)


def test_going_on_behind_a_partition() -> None:
    replica = Replica()
    replica.topic("t", 3)
    replica.topic("u")
    replica.do(put("g", definition("t", "u")))
    every = lags(replica)
    assert [each.key for each in every] == [(1, 0), (1, 1), (1, 2), (2, 0)]
    assert lags(replica, after=(1, 1)) == every[2:]
    assert lags(replica, after=(2, 0)) == []


def test_damage_is_said() -> None:
    replica = replica_of(5)
    for key, _ in list(replica.w.scan(Table.INDEX)):
        replica.w.delete(Table.INDEX, key)
    with pytest.raises(DamagedRowError):
        lags(replica)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_against_sets_and_another_replica(data: st.DataObject) -> None:
    """Two replicas that applied the same entries say the same; both are right."""
    one, two = replica_of(), Replica()
    batches: list[tuple[int, int, int]] = []  # first offset, end, append time
    settled: set[int] = set()
    floor = start = end = 0
    for _ in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(["grow", "acks", "floor", "trim"]))
        if kind == "grow":
            count = data.draw(st.sampled_from([1, 3, 7, CHUNK]))
            one.do(grow(1, 0, count))
            batches.append((end, end + count, one.time_us))
            end += count
        elif kind == "acks" and end > start:
            first = data.draw(st.integers(start, end - 1))
            offsets = range(first, min(end, first + data.draw(st.sampled_from([1, 2, 50, 5_000]))))
            one.do(settle("g", flow(offsets=offsets)))
            settled.update(offsets)
        elif kind == "floor":
            floor = data.draw(st.integers(0, end))
            one.do(settle("g", flow(floor=floor)))
            settled.update(range(floor))
        elif kind == "trim":
            before = data.draw(st.integers(0, end))
            one.do(trim(1, 0, before))
            start = max([start, *(b[1] for b in batches if b[1] <= before)])
    for entry in one.entries:
        two.entry(entry)
    found = lag(one)
    assert found == lag(two)
    open_ = [offset for offset in range(start, end) if offset not in settled]
    assert (found.records, found.end) == (len(open_), end)
    oldest = next((time for first, stop, time in batches if open_ and first <= open_[0] < stop), 0)
    assert found.oldest_append_us == oldest
    above(one.w, "g")
