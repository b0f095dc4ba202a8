"""RestoreOp: what was parked is due again, or settled."""

from __future__ import annotations

import pytest

from holdfast.cluster.state.limits import StateLimits
from holdfast.storage import flows
from holdfast.storage.flows import FlowRow
from holdfast.storage.port import Table
from holdfast.storage.retries import State

from .replica_kit import Replica, delete
from .settle_kit import (
    LOST,
    NONE,
    PARK,
    WAITING,
    above,
    define,
    floors,
    flow,
    grow,
    item,
    restore,
    row_of,
    settle,
    states,
    waiting,
)


def make(limits: StateLimits | None = None) -> Replica:
    """Group g has parked 0, 2 (until due) and 4 to 6 of topic 1; 1 waits, 3 is a suspect."""
    replica = Replica(limits)
    replica.topic("t", 2)
    replica.do(grow(1, 0, 100))
    replica.do(grow(1, 1, 100))
    define(replica, "g", max_attempts=0)
    replica.do(settle("g", flow(retries=[item(0, error="why", lane=9)])))
    parked = [item(0, PARK), item(2, PARK, delay_ms=60_000), *[item(n, PARK) for n in (4, 5, 6)]]
    replica.do(settle("g", flow(retries=[*parked, item(1), item(3, LOST)])))
    return replica


@pytest.fixture
def replica() -> Replica:
    return make()


def test_what_is_parked_is_due_again(replica: Replica) -> None:
    before = waiting(replica.w, "g")
    result = replica.do(restore("g", flow(offsets=range(6))))
    assert states(result) == [(0, 1, WAITING), (2, 0, WAITING), (4, 0, WAITING), (5, 0, WAITING)]
    assert {each.due_us for each in result.settle.flows[0].retries} == {replica.time_us}
    assert not result.more
    after = waiting(replica.w, "g")
    for offset in (1, 3, 6):
        assert after[offset] == before[offset]
    for offset in (0, 2, 4, 5):
        assert (after[offset].state, after[offset].due_us) == (State.WAITING, replica.time_us)
        assert after[offset].errors == before[offset].errors
        assert after[offset].first_failed_us == before[offset].first_failed_us
    assert (after[0].attempts, after[0].lane) == (1, 9)
    again = replica.dump()
    assert states(replica.do(restore("g", flow(offsets=range(6))))) == []
    assert replica.dump() == again


def test_what_is_discarded_is_settled(replica: Replica) -> None:
    result = replica.do(restore("g", flow(offsets=range(6)), discard=True))
    assert states(result) == [(0, 0, NONE), (2, 0, NONE), (4, 0, NONE), (5, 0, NONE)]
    assert floors(result) == [1]
    assert above(replica.w, "g") == {2, 4, 5}
    assert list(waiting(replica.w, "g")) == [1, 3, 6]
    assert row_of(replica.w, "g").retrying == 3


def test_records_that_do_not_wait_are_left_alone(replica: Replica) -> None:
    before = replica.dump()
    result = replica.do(restore("g", flow(runs=[50, 20]), flow(1, 1, runs=[0, 9]), discard=True))
    assert (states(result), states(result, 1), floors(result)) == ([], [], [0, 0])
    assert replica.dump() == before


def test_what_lies_below_the_floor_means_nothing() -> None:
    replica = make(StateLimits(step_rows=1))
    replica.do(settle("g", flow(floor=6)))
    assert replica.w.count(Table.RETRIES) == 6
    result = replica.do(restore("g", flow(offsets=range(20))))
    assert states(result) == [(6, 0, WAITING)]


def test_it_goes_in_steps() -> None:
    replica = make(StateLimits(max_settle_retries=7))
    replica.machine.limits = StateLimits(max_settle_retries=2)
    taken = []
    for more in (True, True, False):
        result = replica.do(restore("g", flow(offsets=range(10))))
        assert result.more is more
        taken.append([offset for offset, _, _ in states(result)])
    assert taken == [[0, 2], [4, 5], [6]]


def test_what_it_looks_at_is_bounded() -> None:
    replica = make(StateLimits(max_settle_runs=1))
    replica.machine.limits = StateLimits(max_settle_runs=2)
    result = replica.do(restore("g", flow(runs=[0, 100])))
    assert (states(result), result.more) == ([(0, 1, WAITING)], True)
    replica.do(settle("g", flow(retries=[item(2)])))
    assert replica.refused(restore("g", flow(runs=[0, 100]))) == ("LIMIT_EXCEEDED", {"limit": "2"})
    replica.do(restore("g", flow(runs=[4, 100 - 4])))


def test_whoever_coordinates_the_group_hears_of_it(replica: Replica) -> None:
    assert replica.run(restore("g", flow(runs=[1, 1]))).groups_changed == set()  # nothing there is parked
    assert replica.run(restore("g", flow(runs=[2, 1]))).groups_changed == {"g"}


def test_what_is_refused(replica: Replica) -> None:
    assert replica.refused(restore("nobody", flow(runs=[0, 1])))[0] == "UNKNOWN_GROUP"
    for odd in (flow(floor=3), flow(retries=[item(4)])):
        assert replica.refused(restore("g", odd)) == ("INVALID_ARGUMENT", {"field": "flows"})
    assert replica.refused(restore("g", flow(runs=[0, 101])))[0] == "OFFSET_OUT_OF_RANGE"
    assert replica.refused(restore("g", flow(runs=[1])))[1] == {"field": "runs"}
    assert replica.refused(restore("g", flow(runs=[0, 1]), flow(runs=[2, 1])))[1] == {"field": "flows"}
    flows.write(replica.w, "g", 1, 1, FlowRow(fence=4))
    assert replica.refused(restore("g", flow(runs=[0, 1]), flow(1, 1, fence=3)))[0] == "FENCED"


def test_a_topic_that_is_gone_is_skipped(replica: Replica) -> None:
    replica.do(delete("t"))
    result = replica.do(restore("g", flow(runs=[0, 10])))
    assert (floors(result), states(result)) == ([-1], [])
