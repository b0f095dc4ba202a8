"""What goes to whom, and as what: one case each."""

from __future__ import annotations

import pytest

from holdfast.cluster.delivery.batch_cache import BatchCache
from holdfast.cluster.delivery.deep_flow import DeepFlow
from holdfast.cluster.delivery.dispatch import take_up
from holdfast.cluster.delivery.effects import Pause, PauseChanged, PauseReason, Trimmed, Vanished
from holdfast.cluster.delivery.flow import MOST_RELEASES, suspects_of
from holdfast.cluster.delivery.key_flow import KeyFlow
from holdfast.cluster.delivery.lanes import lane_of
from holdfast.cluster.delivery.leases import Holder
from holdfast.cluster.delivery.outcomes import Nacked
from holdfast.cluster.delivery.parcels import LARGE_BATCH
from holdfast.cluster.group_definition import Ordering, Semantics
from holdfast.errors import AlreadySettledError, LeaseExpiredError, NotDeliveredError
from holdfast.records import check_batch, decode_batch
from holdfast.storage import partitions
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Table
from holdfast.storage.retries import NEVER_US, State
from holdfast.v1 import bus_pb2, log_pb2

from .dispatch_kit import TOPIC, Charge, Op, World, defined, unpack

RELEASE = bus_pb2.NACK_KIND_RELEASE


def keyed(**more: object) -> World:
    return World(defined(Ordering.KEY, **more))


def in_order(**more: object) -> World:
    return World(defined(Ordering.PARTITION, **more))


def pooled(**more: object) -> World:
    return World(defined(Ordering.NONE, **more))


def refusal(nacked: Nacked) -> type[Exception] | None:
    return None if nacked.refused is None else type(nacked.refused.error)


# -- lanes ------------------------------------------------------------------------


def test_a_key_has_one_record_out_whoever_asks() -> None:
    w = keyed()
    a, b = w.member("a"), w.member("b")
    w.append(b"k", b"l", b"k", b"", b"", b"l")
    assert w.offsets(a) == [0, 1, 3, 4]
    assert w.offsets(b) == []
    w.flow.settle(a, 0, [(1, 2)])
    assert w.offsets(b) == [5]
    w.flow.settle(a, 0, [(0, 1)])
    assert w.offsets(b) == [2]
    assert w.offsets(a) == []


def test_a_failed_key_waits_alone() -> None:
    w = keyed()
    a = w.member("a")
    w.append(b"k", b"l", b"k", b"l")
    assert w.offsets(a) == [0, 1]
    w.apply([w.flow.nack(a, 1, 0).charge], delay_ms=500)
    w.flow.settle(a, 1, [(1, 2)])
    assert w.offsets(a) == [3]
    w.stamp_us += 499_999
    assert w.offsets(a) == []
    assert w.flow.next_due_us() == w.stamp_us + 1
    w.stamp_us += 1
    parcel = w.parcel(a)
    assert parcel is not None
    (again,) = unpack(parcel)
    assert (again.offset, again.attempts, parcel.sparse[0].runs()) == (0, 1, (0, [0, 1]))
    assert w.offsets(a) == [], "what is behind it waits still"
    w.flow.settle(a, parcel.lease, [(0, 1)])
    assert not len(w.flow.retrying), "settled, it waits for nothing"
    assert w.offsets(a) == [2]


def test_a_lane_does_not_open_while_the_failure_is_on_its_way_to_the_log() -> None:
    w = keyed()
    a = w.member("a")
    w.append(b"k", b"k")
    assert w.offsets(a) == [0]
    charge = w.flow.nack(a, 1, 0).charge
    w.stamp_us += 10**9
    assert w.offsets(a) == []
    w.apply([charge], delay_ms=0)
    assert w.offsets(a) == [0]


def test_a_release_costs_nothing_and_comes_first() -> None:
    w = keyed()
    a, b = w.member("a"), w.member("b")
    w.append(b"k", b"k", b"")
    assert w.offsets(a) == [0, 2]
    assert w.flow.nack(a, 1, 0, RELEASE) == Nacked()
    assert w.flow.nack(a, 1, 2, RELEASE) == Nacked()
    parcel = w.parcel(b)
    assert parcel is not None
    assert [(it.offset, it.attempts) for it in unpack(parcel)] == [(0, 0), (2, 0)]


def test_what_goes_round_and_round_is_charged() -> None:
    w = keyed()
    a = w.member("a", credits=10_000)
    w.append(b"k")
    for time in range(1, MOST_RELEASES + 1):
        assert w.offsets(a) == [0]
        nacked = w.flow.nack(a, 0, 0, RELEASE)
        assert (nacked.charge is not None) == (time == MOST_RELEASES)


def test_parked_keys_wait_until_they_are_let_go() -> None:
    w = keyed()
    a = w.member("a")
    w.append(b"k", b"l", b"k", b"l")
    assert w.offsets(a) == [0, 1]
    park = bus_pb2.NACK_KIND_PARK
    w.apply([w.flow.nack(a, 1, 0, park).charge], log_pb2.RETRY_CAUSE_PARK, delay_ms=50)
    w.apply([w.flow.nack(a, 1, 1, park).charge], log_pb2.RETRY_CAUSE_PARK)
    assert w.flow.next_due_us() == w.stamp_us + 50_000
    w.stamp_us += 50_000
    assert w.offsets(a) == [], "a park is over when the log says so"
    over = w.flow.let_go(w.stamp_us)
    assert [it.offset for it in over] == [0]
    assert w.flow.let_go(w.stamp_us) == []
    w.apply(over, log_pb2.RETRY_CAUSE_LET_GO)
    assert w.offsets(a) == [0]
    row = w.log.retries(0)[1]
    assert (row.state, row.due_us, row.attempts) == (State.PARKED_FOR_GOOD, NEVER_US, 0)


def test_a_record_without_attempts_left_dies_and_its_lane_goes_on() -> None:
    w = keyed(max_attempts=2, dead_letter_topic="dead")
    a = w.member("a")
    w.append(b"k", b"k")
    for _ in range(2):
        assert w.offsets(a) == [0]
        w.apply([w.flow.nack(a, 0, 0).charge], delay_ms=0)
    assert w.flow.window.floor == 1
    assert w.offsets(a) == [1]


def test_fewer_attempts_than_before_make_records_die_and_more_let_them_live() -> None:
    w = keyed(max_attempts=3, dead_letter_topic="dead")
    a = w.member("a")
    w.append(b"k", b"l")
    assert w.offsets(a) == [0, 1]
    w.apply([w.flow.nack(a, 0, 0).charge], delay_ms=0)
    w.flow.redefine(defined(Ordering.KEY, max_attempts=1, dead_letter_topic="dead"))
    assert w.offsets(a) == []
    w.flow.redefine(defined(Ordering.KEY, max_attempts=2, dead_letter_topic="dead"))
    assert w.offsets(a) == [0]
    w.flow.nack(a, 0, 0, RELEASE)
    w.flow.redefine(defined(Ordering.KEY, max_attempts=1, dead_letter_topic="dead"))
    dying = w.flow.take_dying()
    assert [it.offset for it in dying] == [0]
    assert w.flow.take_dying() == []
    assert dying[0].lane == lane_of(b"k")


def test_a_lane_never_follows_the_floor() -> None:
    """Retention takes a leased record: its lane is free when the lease ends, not before."""
    w = keyed()
    a, b = w.member("a"), w.member("b")
    w.append(b"k", b"x")
    w.append(b"k", b"k")
    assert w.offsets(a) == [0, 1]
    w.log.trim(0, 2)
    w.append(b"z")
    assert w.offsets(b) == [4]
    assert [it for it in w.group.effects if isinstance(it, Trimmed)] == [Trimmed(w.flow, 0, 2)]
    assert w.flow.window.floor == 2
    assert w.flow.settle(a, 0, [(0, 1)]) == ([], [])
    assert w.offsets(b) == [2]


def test_a_seek_forgets_everything_but_who_works_on_which_key() -> None:
    w = keyed()
    a, b = w.member("a"), w.member("b")
    w.append(b"k", b"l", b"", b"k")
    assert w.offsets(a) == [0, 1, 2]
    w.flow.settle(a, 0, [(1, 2)])
    w.log.seek(0, 0)
    w.flow.seek(0)
    assert w.offsets(b) == [1, 2], "the keys that are in work are taken, a record without one is not"
    outcome = w.flow.settle(a, 0, [(0, 1)])
    assert outcome.settled == []
    assert [type(it.error) for it in outcome.refused] == [LeaseExpiredError]
    assert w.offsets(b) == [0]


def test_rows_of_a_group_that_was_not_by_key_find_their_lanes() -> None:
    w = pooled()
    a = w.member("a")
    w.append(b"k", b"k", b"l")
    assert w.offsets(a) == [0, 1, 2]
    w.apply([w.flow.nack(a, 0, 1).charge], delay_ms=0)
    again = keyed()
    again.log = w.log
    again.group.open(w.log, 0)
    b = again.member("b")
    assert again.offsets(b) == [0, 2], "the failed one is behind another of its key"
    again.flow.settle(b, 0, [(0, 1)])
    assert again.offsets(b) == [1]


# -- partitions in order ----------------------------------------------------------


def test_everything_behind_a_nack_is_void() -> None:
    w = in_order()
    a = w.member("a", credits=8)
    w.append(*[b"k"] * 10)
    w.group.settings = type(w.group.settings)(credit_linger=0.0)
    w.parcel(a)
    assert w.offsets(a) == list(range(8))
    w.flow.settle(a, 1, [(0, 2), (5, 6)])
    w.apply([w.flow.nack(a, 1, 3).charge], delay_ms=10)
    assert a.in_flight == 1, "the record before it goes on"
    outcome = w.flow.settle(a, 1, [(4, 5)])
    assert [type(it.error) for it in outcome.refused] == [LeaseExpiredError]
    assert refusal(w.flow.nack(a, 1, 6)) is LeaseExpiredError
    a.credits = 100
    assert w.offsets(a) == []
    w.stamp_us += 10_000
    parcel = w.parcel(a)
    assert parcel is not None
    assert [(it.offset, it.attempts) for it in unpack(parcel)] == [(3, 1)]
    assert w.offsets(a) == [4]
    assert w.offsets(a) == [6, 7, 8, 9], "what had been acked does not come again"


def test_releases_of_a_run_one_by_one_are_not_refused() -> None:
    w = in_order()
    a = w.member("a")
    w.append(*[b"k"] * 6)
    assert len(w.offsets(a)) == 6
    for offset in range(2, 6):
        assert w.flow.nack(a, 1, offset, RELEASE) == Nacked()
    assert a.in_flight == 2
    assert w.offsets(a) == [2, 3, 4, 5]


def test_a_parked_record_stops_its_partition_and_says_so() -> None:
    w = in_order()
    a = w.member("a")
    w.append(b"", b"", b"")
    w.offsets(a)
    w.apply([w.flow.nack(a, 0, 1, bus_pb2.NACK_KIND_PARK).charge], log_pb2.RETRY_CAUSE_PARK)
    assert w.offsets(a) == []
    assert w.group.effects[-1] == PauseChanged(w.flow, Pause(PauseReason.PARKED, 1))
    w.flow.settled_in_log([(1, 2)])
    assert w.offsets(a) == [2]
    assert w.group.effects[-1] == PauseChanged(w.flow, None)


def test_cumulative_acks_and_the_next_owner() -> None:
    w = in_order()
    a, b = w.member("a"), w.member("b")
    w.append(*[b"k"] * 6)
    w.offsets(a)
    assert w.flow.settle_below(a, 3).settled == [(0, 3)]
    assert w.flow.window.floor == 3
    assert w.flow.drop_member(a) == []
    w.group.owners[0] = b
    assert w.offsets(b) == [3, 4, 5]
    assert refusal(w.flow.nack(a, 0, 4)) is LeaseExpiredError


def test_what_retention_took_of_a_run_is_not_settled_once_more() -> None:
    w = in_order()
    a = w.member("a")
    w.append(b"", b"")
    w.append(b"", b"")
    w.offsets(a)
    w.log.trim(0, 2)
    w.append(b"")
    assert w.offsets(a) == [4]
    assert w.flow.settle_below(a, 4).settled == [(2, 4)]
    assert (w.flow.window.floor, a.in_flight) == (4, 1)


def test_what_a_transaction_holds_stops_the_next_owner() -> None:
    w = in_order()
    a, b = w.member("a"), w.member("b")
    w.append(*[b"k"] * 5)
    w.offsets(a)
    to = Holder("tx", lender=a)
    assert w.flow.lend(a, 1, [(0, 2)], to) == []
    assert w.flow.settle(a, 1, [(1, 2)]).settled == []
    a.gone = True
    assert w.flow.drop_member(a) == []
    w.group.owners[0] = b
    assert w.offsets(b) == [], "what comes next is not known yet"
    assert w.flow.settle_lent(to) == [(0, 2)]
    assert w.flow.window.floor == 2
    assert w.offsets(b) == [2, 3, 4]


def test_what_a_transaction_gives_back_behind_a_nack_is_void_too() -> None:
    w = in_order()
    a = w.member("a")
    w.append(*[b"k"] * 5)
    w.offsets(a)
    to = Holder("tx", lender=a)
    assert w.flow.lend(a, 1, [(2, 4)], to) == []
    w.apply([w.flow.nack(a, 1, 1).charge], delay_ms=0)
    assert w.offsets(a) == [1]
    assert w.offsets(a) == [], "a transaction holds what comes next"
    w.flow.take_back(to, a)
    assert w.offsets(a) == [2, 3, 4]


@pytest.mark.parametrize("make", [keyed, in_order, pooled])
def test_a_transaction_takes_all_or_nothing(make: type) -> None:
    w = make()
    a = w.member("a")
    w.append(*(b"%d" % n for n in range(4)))
    w.offsets(a)
    w.flow.settle(a, 0, [(1, 2)])
    to = Holder("tx", lender=a)
    refused = w.flow.lend(a, 1, [(0, 3)], to)
    assert [(it.first, it.last, type(it.error)) for it in refused] == [(1, 1, AlreadySettledError)]
    assert refused[0].error.metadata["offset"] == "1"
    refused = w.flow.lend(a, 1, [(3, 9)], to)
    assert {type(it.error) for it in refused} <= {NotDeliveredError, LeaseExpiredError}
    assert (to.in_flight, a.in_flight) == (0, 3)
    assert w.flow.lend(a, 1, [(2, 4)], to) == []
    w.flow.take_back(to, a)
    assert w.flow.settle(a, 1, [(0, 4)]).refused == []
    assert w.flow.window.floor == 4


@pytest.mark.parametrize("make", [keyed, in_order, pooled])
def test_a_charge_that_is_not_made_leaves_the_record_as_it_was(make: type) -> None:
    w = make()
    a = w.member("a")
    w.append(b"k", b"")
    w.offsets(a)
    for offset in (0, 1):
        w.flow.nack(a, 0, offset)
        w.flow.uncharge(offset)
    assert not len(w.flow.retrying)
    parcel = w.parcel(a)
    assert parcel is not None
    assert [(it.offset, it.attempts) for it in unpack(parcel)] == [(0, 0), (1, 0)]


@pytest.mark.parametrize("make", [keyed, in_order, pooled])
def test_after_a_reload_the_rows_decide(make: type) -> None:
    """Of two failures one is in the log: the other is still to be proposed, or forgotten."""
    w = make()
    a = w.member("a")
    w.append(b"k", b"l", b"m", b"n")
    w.offsets(a)
    w.flow.settle(a, 0, [(0, 1)])
    charges = [w.flow.nack(a, 0, offset).charge for offset in (2, 1)]
    assert charges[1] is not None
    w.log.apply(Op(0, charges=[Charge(1, log_pb2.RETRY_CAUSE_NACK, charges[1].lane, 0)]), w.stamp_us)
    w.log.reload(w.flow, {2})
    assert 0 in w.flow.window, "settled here is settled"
    row = w.flow.retrying.get(1)
    assert row is not None
    assert (row.attempts, row.charged) == (1, False)
    first = w.offsets(a)
    assert first == [1]
    assert 2 not in w.offsets(a)
    w.log.reload(w.flow, set())
    again = w.offsets(a)
    assert again in ([2], [2, 3])


# -- suspects ---------------------------------------------------------------------


def test_the_first_records_of_the_dead_are_charged_the_others_not() -> None:
    w = keyed()
    a = w.member("a", concurrency=2)
    w.append(*(b"%d" % n for n in range(5)))
    w.offsets(a)
    w.flow.settle(a, 0, [(0, 1)])
    suspects = suspects_of(a, [w.flow])
    assert suspects == {(TOPIC, 0): {1, 2}}
    assert suspects_of(Holder("old", whole_only=True), [w.flow]) == {}
    a.gone = True
    w.apply(w.flow.drop_member(a, suspects[TOPIC, 0]), log_pb2.RETRY_CAUSE_LOST)
    assert {o: row.attempts for o, row in w.log.retries(0).items()} == {1: 1, 2: 1}
    b = w.member("b", concurrency=2)
    c = w.member("c", concurrency=2)
    assert w.offsets(b) == [1], "alone"
    assert w.group.aside is b
    assert w.offsets(b) == []
    assert w.offsets(c) == [3, 4], "others work on"
    w.flow.settle(b, 0, [(1, 2)])
    assert w.offsets(b) == [2]
    w.flow.settle(b, 0, [(2, 3)])
    w.append(b"new")
    assert w.offsets(b) == [5]
    assert w.group.aside is None


def test_one_busy_member_is_set_aside_until_it_is_idle() -> None:
    w = keyed()
    a, b, c = w.member("a", credits=1), w.member("b", credits=3), w.member("c", credits=1)
    w.append(*(b"%d" % n for n in range(8)))
    assert w.offsets(a) == [0]
    assert w.offsets(b) == [1, 2, 3]
    a.gone = True
    w.apply(w.flow.drop_member(a, {0}), log_pb2.RETRY_CAUSE_LOST)
    b.credits = c.credits = 5
    assert w.offsets(b) == []
    assert w.group.aside is b
    assert w.offsets(c) == [4, 5, 6, 7]
    w.flow.settle(b, 0, [(1, 3)])
    assert w.offsets(b) == []
    w.flow.settle(b, 0, [(3, 4)])
    assert w.offsets(b) == [0]
    # Were it gone, another would take its part.
    b.gone = True
    w.apply(w.flow.drop_member(b, {0}), log_pb2.RETRY_CAUSE_LOST)
    w.flow.settle(c, 0, [(4, 8)])
    assert w.offsets(c) == [0]
    assert w.group.aside is c


def test_the_owner_takes_its_own_suspects() -> None:
    w = in_order()
    a = w.member("a")
    w.append(*[b""] * 4)
    w.offsets(a)
    assert suspects_of(a, [w.flow]) == {(TOPIC, 0): {0}}
    w.apply(w.flow.drop_member(a, {0}), log_pb2.RETRY_CAUSE_LOST)
    assert w.offsets(a) == [0]
    assert w.offsets(a) == []
    w.flow.settle(a, 0, [(0, 1)])
    assert w.offsets(a) == [1, 2, 3]


def test_silence_spares_what_was_extended() -> None:
    w = pooled()
    a, b = w.member("a", concurrency=1), w.member("b")
    w.append(*[b""] * 5)
    w.offsets(a)
    assert w.flow.extend(a, 1, [(2, 3)], until=10.0) == []
    refused = w.flow.extend(a, 1, [(4, 7)], until=10.0)
    assert [(it.first, it.last, type(it.error)) for it in refused] == [(5, 6, NotDeliveredError)]
    charged = w.flow.drop_member(a, {0}, now=9.0)
    assert [it.offset for it in charged] == [0]
    w.apply(charged, log_pb2.RETRY_CAUSE_EXPIRED, delay_ms=0)
    assert a.in_flight == 2
    assert w.offsets(b) == [0, 1, 3]
    assert w.flow.drop_member(a, (), now=10.0) == []
    assert w.offsets(b) == [2, 4]


def test_only_the_oldest_leases_go_when_their_time_is_over() -> None:
    w = pooled(max_lease_ms=1_000)
    a = w.member("a", credits=1)
    w.append(b"")
    w.append(b"")
    assert w.offsets(a) == [0]
    w.now, a.credits = 0.9, 1
    assert w.offsets(a) == [1]
    assert a.ages.over(0.99, 1.0) == 0
    through = a.ages.over(1.0, 1.0)
    assert through == 1
    w.flow.drop_member(a, through=through)
    assert [(it.first, it.end) for it in w.flow.leases] == [(1, 2)]


# -- holding ----------------------------------------------------------------------


def test_what_a_member_still_works_on_stays_its_own_under_a_new_leader() -> None:
    w = keyed()
    a = w.member("a")
    w.append(b"k", b"l", b"k", b"m")
    assert w.offsets(a) == [0, 1, 3]
    w.group.open(w.log, 0)  # another leader: nothing had become durable
    a, b = Holder("a", 100), Holder("b", 100)
    claims = [(0, 1), (2, 4), (7, 1 << 60)]
    with w.log.store.read() as reader:
        kept = take_up(reader, w.flow, a, claims, w.cache, w.stamp_us)
    assert kept == [(0, 1), (2, 3), (3, 4)], "not what there is not"
    assert w.offsets(b) == [1]
    assert w.flow.settle(a, 0, [(0, 1), (3, 4)]).refused == []
    assert w.offsets(b) == [], "the second of the key is still with the one who settled the first"
    assert w.flow.settle(a, 0, [(2, 3)]).refused == []
    w.append(b"k")
    assert w.offsets(b) == [4]


def test_a_lane_of_two_claims_is_free_once_both_have_ended() -> None:
    for first_fails in (False, True):
        w = keyed()
        w.append(b"k", b"k", b"k")
        a, b = w.member("a"), w.member("b")
        with w.log.store.read() as reader:
            assert take_up(reader, w.flow, a, [(0, 2)], w.cache, w.stamp_us) == [(0, 1), (1, 2)]
            assert take_up(reader, w.flow, b, [(2, 3)], w.cache, w.stamp_us) == [], "another member's lane"
        if first_fails:
            w.flow.drop_member(a)
            assert w.offsets(b) == [0]
        else:
            w.flow.settle(a, 0, [(1, 2)])
            assert w.offsets(b) == []
            w.flow.settle(a, 0, [(0, 1)])
            assert w.offsets(b) == [2]


def test_what_was_kept_and_given_back_is_delivered_once() -> None:
    for make in (keyed, pooled, in_order):
        w = make()
        w.append(b"k", b"", b"")
        a = w.member("a")
        with w.log.store.read() as reader:
            assert take_up(reader, w.flow, a, [(0, 2)], w.cache, w.stamp_us) in ([(0, 1), (1, 2)], [(0, 2)])
        w.flow.drop_member(a)
        b = w.member("b")
        w.group.owners[0] = b
        assert w.offsets(b) == [0, 1, 2]


# -- bounds -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [keyed, in_order, pooled])
def test_at_the_bound_it_stands_still_and_says_so(make: type) -> None:
    w = make(max_unacked=4)
    a = w.member("a")
    w.append(b"k", b"k", b"l", b"l")
    w.append(b"m", b"n")
    first = w.offsets(a)
    assert set(first) <= {0, 1, 2, 3}
    assert w.group.effects == [PauseChanged(w.flow, Pause(PauseReason.MAX_UNACKED, 0))]
    w.flow.settle(a, 0, [(offset, offset + 1) for offset in first if offset])
    left = w.offsets(a)
    assert 4 not in left
    w.flow.settle(a, 0, [(0, 1)])
    assert w.offsets(a)
    assert w.group.effects[1:] in ([], [PauseChanged(w.flow, None)]) or make is keyed


def test_with_too_many_retries_new_records_wait_and_old_ones_do_not() -> None:
    w = pooled(max_retrying=2)
    a = w.member("a", credits=2)
    w.append(b"", b"")
    w.append(b"", b"")
    assert w.offsets(a) == [0, 1]
    w.apply([w.flow.nack(a, 0, 0).charge, w.flow.nack(a, 0, 1).charge], delay_ms=5)
    a.credits = 9
    assert w.offsets(a) == []
    assert w.group.effects == [PauseChanged(w.flow, Pause(PauseReason.RETRIES_FULL, 0))]
    w.stamp_us += 5_000
    assert w.offsets(a) == [0, 1]
    w.flow.settle(a, 0, [(0, 1)])
    assert w.offsets(a) == [2, 3]
    # A new leader is not kept from what was handed out before it.
    full = pooled(max_retrying=1)
    full.append(*[b""] * 3)
    b = full.member("b")
    full.offsets(b)
    full.apply([full.flow.nack(b, 0, 1).charge, full.flow.nack(b, 0, 2).charge], delay_ms=10**6)
    full.group.open(full.log, 0)
    assert full.offsets(Holder("c", 9)) == [0]


def test_credits_are_never_exceeded_and_a_pause_takes_them_all() -> None:
    w = keyed()
    a = w.member("a", credits=3)
    w.append(*(b"%d" % n for n in range(9)))
    assert len(w.offsets(a)) == 3
    assert a.credits == 0
    assert w.parcel(a) is None


def test_a_hot_key_is_looked_through_in_steps() -> None:
    w = keyed(max_unacked=200_000)
    a = w.member("a")
    for _ in range(10):
        w.append(*[b"hot"] * 4_000)
    assert w.offsets(a) == [0]
    empty = 0
    w.append(b"cold")
    while (parcel := w.parcel(a)) is not None and not parcel.records:
        empty += 1
    assert empty >= 1
    assert parcel is not None
    assert [it.offset for it in unpack(parcel)] == [40_000]
    assert isinstance(w.flow, KeyFlow)
    assert w.flow.lanes.deferred == 39_999


def test_a_vanished_partition_is_told() -> None:
    w = pooled()
    a = w.member("a")
    w.append(b"")
    partitions.drop(w.log.store.writer(), TOPIC, 0, 100)
    w.log.store.commit()
    assert w.parcel(a) is None
    assert w.group.effects == [Vanished(w.flow)]


# -- at most once -----------------------------------------------------------------


def test_at_most_once_is_settled_before_it_is_sent() -> None:
    w = pooled(semantics=Semantics.AT_MOST_ONCE)
    a = w.member("a", credits=3)
    w.append(*[b""] * 3)
    parcel = w.parcel(a)
    assert parcel is not None
    assert (parcel.lease, a.lease, a.in_flight) == (0, 0, 0)
    assert parcel.spent == [(w.flow, (0, 3))]
    assert w.flow.window.floor == 3
    assert [it.offset for it in unpack(parcel)] == [0, 1, 2]


# -- bytes ------------------------------------------------------------------------


@pytest.mark.parametrize("make", [in_order, pooled])
def test_whole_batches_go_byte_for_byte(make: type) -> None:
    w = make()
    a = w.member("a")
    stored = [w.append(b"k", b"", size=5_000), w.append(b"x"), w.append(*[b"y"] * 9)]
    parcel = w.parcel(a)
    assert parcel is not None
    assert parcel.sparse == []
    assert [it.data for _, slices in parcel.whole for it in slices] == stored
    assert parcel.bytes == sum(map(len, stored))
    assert parcel.lease == a.lease == 1


def test_a_sparse_batch_is_what_was_picked_and_no_more() -> None:
    w = keyed()
    a = w.member("a", credits=2)
    headers = [[("h", b"1")], [], [("i", b"2"), ("j", b"3")], []]
    w.log.append(0, [b"k", b"k", b"l", b""], 100, headers)
    w.log.append(0, [b"m"], 100)
    parcel = w.parcel(a)
    assert parcel is not None
    (picked,) = parcel.sparse
    assert (picked.runs(), picked.append_deltas_us, picked.attempts) == ((0, [0, 1, 1, 1]), [], [])
    facts = check_batch(picked.batch)
    assert (facts.count, facts.min_timestamp_us, facts.max_timestamp_us) == (2, 7, 9)
    batch = decode_batch(picked.batch)
    assert batch.keys == [b"k", b"l"]
    assert [dict(h) for h in batch.headers] == [{"h": b"1"}, {"i": b"2", "j": b"3"}]
    assert 200 < len(picked.batch) < 300
    a.credits = 9
    parcel = w.parcel(a)
    assert parcel is not None
    (picked,) = parcel.sparse
    assert picked.offsets == [3, 4]
    assert picked.append_deltas_us == [0, 1], "of two batches"
    assert decode_batch(picked.batch).keys == [b"", b"m"]


def test_a_message_has_room_for_so_many_bytes_and_one_record_at_least() -> None:
    w = keyed()
    a = w.member("a")
    w.append(*(b"%d" % n for n in range(10)), size=1_000)
    assert w.offsets(a, room=1) == [0]
    assert w.offsets(a, room=2_500) == [1, 2, 3]
    assert w.offsets(a, room=1_000) == [4]


def test_a_small_part_of_a_large_batch_is_cut_out() -> None:
    w = pooled()
    a = w.member("a", credits=3)
    w.append(*[b""] * 10, size=LARGE_BATCH // 8)
    w.parcel(a)  # lingers for credits
    parcel = w.parcel(a)
    assert parcel is not None
    assert (parcel.whole, [it.offsets for it in parcel.sparse]) == ([], [[0, 1, 2]])
    assert parcel.bytes < LARGE_BATCH // 2
    a.credits = 6
    w.parcel(a)
    parcel = w.parcel(a)
    assert parcel is not None
    assert [(it.first, it.last) for _, slices in parcel.whole for it in slices] == [(3, 8)], "more than half"


def test_a_client_of_old_is_sent_stored_batches_only() -> None:
    w = keyed()
    a = w.member("a", whole_only=True)
    stored = w.append(b"k", b"k", b"l", b"m")
    parcel = w.parcel(a)
    assert parcel is not None
    ((_, slices),) = parcel.whole
    assert [(it.first, it.last, it.data) for it in slices] == [(0, 0, stored), (2, 3, stored)]
    assert parcel.sparse == []


def test_a_batch_waits_for_credits_a_little() -> None:
    w = in_order()
    w.group.settings = type(w.group.settings)(credit_linger=0.5)
    a = w.member("a", credits=2)
    w.append(*[b""] * 4)
    assert w.parcel(a) is None
    assert a.linger_until == 0.5
    w.now = 0.3
    assert w.parcel(a) is None
    assert a.linger_until == 0.5
    a.credits = 4
    assert w.offsets(a) == [0, 1, 2, 3]
    assert a.linger_until is None
    a.credits = 3
    w.append(b"")
    w.append(*[b""] * 4)
    assert w.offsets(a) == [4], "what fits goes"
    assert a.linger_until == 0.8
    w.now = 0.8
    assert w.offsets(a) == [5, 6]


# -- turns, damage ----------------------------------------------------------------


def test_flows_take_turns() -> None:
    w = World(defined(Ordering.NONE), count=3)
    a = w.member("a")
    for number in range(3):
        for _ in range(3):
            w.append(b"", partition=number, size=100)
    turns = []
    for _ in range(9):
        parcel = w.parcel(a, room=1)
        assert parcel is not None
        turns.append(parcel.whole[0][0].key[1])
    assert turns == [0, 1, 2] * 3


@pytest.mark.parametrize("make", [keyed, in_order, pooled])
def test_a_damaged_batch_is_not_handed_out_nor_passed_over(make: type) -> None:
    w = make()
    a = w.member("a")
    w.append(b"k")
    w.append(b"l")
    w.append(b"m")
    key = w.log.store._tables[Table.INDEX].keys[1]
    writer = w.log.store.writer()
    row = writer.get(Table.INDEX, key)
    assert row is not None
    writer.delete(Table.INDEX, key)
    w.log.store.commit()
    assert w.offsets(a) == [0], "what is before it goes"
    for _ in range(2):
        with pytest.raises(DamagedRowError):
            w.parcel(a)
    assert (a.in_flight, a.credits) == (1, 999)
    w.log.store.writer().put(Table.INDEX, key, row)
    w.log.store.commit()
    assert w.offsets(a) == [1, 2]


# -- the cache --------------------------------------------------------------------


def test_the_cache_keeps_what_was_used_last_within_its_bound() -> None:
    w = keyed()
    for _ in range(20):
        w.append(b"k", b"l", size=1_000)
    with w.log.store.read() as reader:
        one = BatchCache(1).at(reader, TOPIC, 0, 0)
        assert one.size > 4_000
        cache = BatchCache(5 * one.size)
        first = cache.at(reader, TOPIC, 0, 1)
        for offset in range(40):
            cache.at(reader, TOPIC, 0, offset)
            assert cache.at(reader, TOPIC, 0, 0) is first, "used all the time"
            assert cache.bytes <= 5 * one.size
        assert len(cache) == 5
        assert cache.at(reader, TOPIC, 0, 39) is cache.at(reader, TOPIC, 0, 38)
        small = BatchCache(1)
        assert small.at(reader, TOPIC, 0, 7).base == 6
        assert small.at(reader, TOPIC, 0, 3).base == 2
        assert len(small) == 1
        with pytest.raises(DamagedRowError):
            small.at(reader, TOPIC, 0, 40)


def test_lanes_of_a_batch_are_the_hashes_of_its_keys() -> None:
    w = keyed()
    w.append(b"a", b"", b"a", b"N14228")
    w.append(b"", b"")
    with w.log.store.read() as reader:
        lanes = w.cache.at(reader, TOPIC, 0, 0).lanes
        assert lanes == [0xD24EC4F1A98C6E5B, 0, 0xD24EC4F1A98C6E5B, lane_of(b"N14228")]
        assert w.cache.at(reader, TOPIC, 0, 5).lanes == [0, 0]


def test_each_ordering_has_its_flow() -> None:
    assert isinstance(in_order().flow, DeepFlow)
    assert isinstance(keyed().flow, KeyFlow)
