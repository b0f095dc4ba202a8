"""What a member was handed and says of it, against a broker of a few lines."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.client.handed import MAX_ITEMS, Handed, Nack, offsets_of, runs_of
from holdfast.v1 import bus_pb2

RETRY = Nack(bus_pb2.NACK_KIND_RETRY)
RELEASE = Nack(bus_pb2.NACK_KIND_RELEASE)


def member(*, in_order: bool = False, partitions: int = 2) -> Handed:
    handed = Handed(in_order=in_order)
    assign(handed, partitions)
    return handed


def assign(handed: Handed, partitions: int, first_slot: int = 1) -> None:
    handed.assign(
        [
            bus_pb2.AssignedPartition(topic="t", partition=n, slot=first_slot + n, fence=7)
            for n in range(partitions)
        ]
    )


def begin(handed: Handed, slot: int, *offsets: int) -> None:
    for offset in offsets:
        assert handed.begin(handed.slots[slot], offset, handed.slots[slot].open[offset] >> 1)


def acks(settle: bus_pb2.Settle) -> dict[tuple[int, int], list[int]]:
    return {(runs.slot, runs.lease): list(offsets_of(runs.base, runs.runs)) for runs in settle.acks}


@given(st.sets(st.integers(0, 200), min_size=1))
def test_runs_are_the_offsets(offsets: set[int]) -> None:
    base, runs = runs_of(sorted(offsets))
    assert list(offsets_of(base, runs)) == sorted(offsets)
    assert all(length > 0 for length in runs[1::2])
    assert all(gap > 0 for gap in runs[2::2])


def test_acks_go_by_lease() -> None:
    handed = member()
    handed.deliver(1, 5, [0, 1, 2])
    handed.deliver(1, 6, [3])
    handed.deliver(2, 6, [0])
    begin(handed, 1, 0, 1, 2, 3)
    for offset in (2, 0, 3):
        assert handed.ack("t", 0, offset)
    assert not handed.ack("t", 0, 2), "twice"
    assert not handed.ack("t", 1, 9), "never handed"
    assert not handed.ack("t", 7, 0), "no such partition"
    assert handed.open == 2
    (settle,) = handed.collect()
    assert acks(settle) == {(1, 5): [0, 2], (1, 6): [3]}
    assert not handed.due
    assert handed.unconfirmed
    handed.settled(settle.number)
    assert not handed.unconfirmed


def test_ack_through_takes_all_up_to_a_record() -> None:
    handed = member(in_order=True)
    handed.deliver(1, 1, [0, 1, 2])
    handed.deliver(1, 2, [3, 4])
    assert handed.ack_through("t", 0, 3) == 4
    (settle,) = handed.collect()
    assert acks(settle) == {(1, 1): [0, 1, 2], (1, 2): [3]}
    assert handed.ack_through("t", 0, 3) == 0
    assert handed.open == 1


def test_behind_a_failure_nothing_is_valid_until_it_is_answered() -> None:
    handed = member(in_order=True)
    handed.deliver(1, 1, [0, 1, 2, 3])
    begin(handed, 1, 0, 1, 2)
    assert handed.nack("t", 0, 1, RETRY)
    assert handed.lost == [("t", 0, 2)], "it had been begun"
    assert not handed.ack("t", 0, 2)
    assert handed.ack("t", 0, 0)
    # On its way when the broker heard of the failure.
    assert handed.deliver(1, 2, [4, 5]) is None
    settle, release = handed.collect()
    assert acks(settle) == {(1, 1): [0]}
    assert [(n.offset, n.kind) for n in settle.nacks] == [(1, bus_pb2.NACK_KIND_RETRY)]
    assert [(n.offset, n.lease, n.kind) for n in release.nacks] == [(4, 2, bus_pb2.NACK_KIND_RELEASE)]
    handed.settled(settle.number)
    assert handed.deliver(1, 3, [1]) is None, "the release is not answered yet"
    handed.settled(release.number)
    assert handed.deliver(1, 4, [1, 2]) is not None
    # Of another partition nothing was void.
    assert handed.deliver(2, 4, [0]) is not None


def test_a_failed_key_leaves_the_others_alone() -> None:
    handed = member()
    handed.deliver(1, 1, [0, 1, 2])
    assert handed.nack("t", 0, 1, Nack(bus_pb2.NACK_KIND_PARK, 500, "later"))
    (settle,) = handed.collect()
    (nack,) = settle.nacks
    assert (nack.slot, nack.lease, nack.offset, nack.delay_ms, nack.error) == (1, 1, 1, 500, "later")
    assert handed.deliver(1, 2, [3]) is not None
    assert handed.ack("t", 0, 2)


def test_a_delay_of_nothing_is_not_no_delay() -> None:
    handed = member()
    handed.deliver(1, 1, [0, 1])
    handed.nack("t", 0, 0, Nack(bus_pb2.NACK_KIND_RETRY, 0))
    handed.nack("t", 0, 1, RETRY)
    (settle,) = handed.collect()
    assert [nack.HasField("delay_ms") for nack in settle.nacks] == [True, False]


def test_what_was_said_and_what_runs_is_claimed_again() -> None:
    handed = member()
    handed.deliver(1, 1, [0, 1, 2, 3, 4, 5])
    begin(handed, 1, 0, 1, 2, 3)
    handed.ack("t", 0, 0)
    handed.collect()  # sent, not answered
    handed.nack("t", 0, 1, RETRY)  # not sent
    handed.extend("t", 0, 2, 500)
    (claim,) = handed.disconnect()
    assert (claim.topic, claim.partition) == ("t", 0)
    assert list(offsets_of(claim.base, claim.runs)) == [0, 1, 2, 3], "4 and 5 nobody has begun"
    assert not handed.slots
    # The next connection breaks before it is answered: the claim stands.
    assert [list(offsets_of(c.base, c.runs)) for c in handed.disconnect()] == [[0, 1, 2, 3]]
    base, runs = runs_of([0, 1, 3])
    handed.welcome([bus_pb2.Holding(topic="t", partition=0, base=base, runs=runs)])
    assign(handed, 2, first_slot=8)
    assert handed.lost == [("t", 0, 2)]
    assert not handed.ack("t", 0, 2)
    assert handed.ack("t", 0, 3)
    (settle,) = handed.collect()
    assert acks(settle) == {(8, 0): [0, 3]}
    assert [(n.slot, n.lease, n.offset) for n in settle.nacks] == [(8, 0, 1)]
    handed.settled(settle.number)
    assert not handed.unconfirmed


def claiming(*, in_order: bool = False) -> Handed:
    """Five records that the application has, between a hello and its answer."""
    handed = member(in_order=in_order, partitions=1)
    handed.deliver(1, 1, [0, 1, 2, 3, 4])
    begin(handed, 1, 0, 1, 2, 3, 4)
    handed.disconnect()
    return handed


def answered(handed: Handed) -> bus_pb2.Settle:
    """All claims are granted: what is said then."""
    handed.welcome([bus_pb2.Holding(topic="t", partition=0, base=0, runs=[0, 5])])
    assign(handed, 1, first_slot=8)
    (settle,) = handed.collect()
    return settle


def test_what_is_said_while_claims_are_under_way_is_not_forgotten() -> None:
    handed = claiming()
    assert handed.ack("t", 0, 0)
    assert not handed.ack("t", 0, 0), "twice"
    assert handed.nack("t", 0, 1, RETRY)
    handed.consumed("t", 0, 4)
    assert not handed.ack("t", 0, 7), "never handed"
    assert handed.unconfirmed
    settle = answered(handed)
    assert acks(settle) == {(8, 0): [0]}
    assert [(n.slot, n.offset) for n in settle.nacks] == [(8, 1)]
    assert handed.open == 2, "2 and 3 are still worked on"
    assert handed.lost == []


def test_all_up_to_a_record_while_claims_are_under_way() -> None:
    handed = claiming()
    assert handed.ack_through("t", 0, 2) == 3
    assert acks(answered(handed)) == {(8, 0): [0, 1, 2]}


def test_behind_a_failure_nothing_is_valid_while_claims_are_under_way() -> None:
    handed = claiming(in_order=True)
    assert handed.nack("t", 0, 2, RETRY)
    assert handed.lost == [("t", 0, 3), ("t", 0, 4)]
    settle = answered(handed)
    assert [(n.slot, n.offset) for n in settle.nacks] == [(8, 2)]
    assert handed.open == 2, "0 and 1 are still worked on"


def test_partitions_that_go_take_their_records_with_them() -> None:
    handed = member()
    handed.deliver(2, 1, [0, 1, 2])
    begin(handed, 2, 0, 1)
    handed.ack("t", 1, 0)
    assign(handed, 1)
    assert handed.lost == [("t", 1, 1)]
    assert handed.open == 0
    assert not handed.due
    assert handed.deliver(2, 2, [3]) is None
    assert handed.lease("t", 1, 1) is None


def test_what_waits_of_a_partition_that_went_is_not_begun() -> None:
    handed = member(in_order=True)
    gone, stays = handed.slots[2], handed.slots[1]
    for number in (1, 2):
        handed.deliver(number, 1, [0, 1])
    assign(handed, 1)
    assert not handed.begin(gone, 0, 1)
    assert handed.begin(stays, 0, 1)
    handed.disconnect()
    assert not handed.begin(stays, 1, 1)


def test_what_was_given_back_is_taken_from_its_later_delivery() -> None:
    handed = member(in_order=True)
    slot = handed.deliver(1, 1, [0, 1, 2])
    assert slot is not None
    begin(handed, 1, 0)
    handed.nack("t", 0, 0, RELEASE)
    (settle,) = handed.collect()
    handed.settled(settle.number)
    handed.deliver(1, 2, [0, 1, 2])
    assert not handed.begin(slot, 1, 1), "of the first delivery, behind the record that was given back"
    assert handed.begin(slot, 0, 2)


def test_a_transaction_settles_without_a_word() -> None:
    handed = member()
    handed.deliver(1, 4, [0])
    assert handed.lease("t", 0, 0) == (1, 4)
    handed.consumed("t", 0, 0)
    assert handed.lease("t", 0, 0) is None
    assert (handed.open, handed.due) == (0, False)


operations = st.lists(
    st.tuples(
        st.sampled_from(("deliver", "begin", "ack", "nack", "release", "send", "answer", "break", "through")),
        st.integers(0, 1),
        st.integers(0, 12),
    ),
    max_size=60,
)


class Broker:
    """Keeps leases as the protocol says, by partition or by key with every record its own key."""

    def __init__(self, in_order: bool) -> None:
        self.handed = Handed(in_order=in_order)
        self.in_order = in_order
        self.settled: set[tuple[int, int]] = set()
        self.leases: dict[tuple[int, int], int] = {}
        self.lease = 0
        self.sent: list[bus_pb2.Settle] = []
        self.granted = 50
        self.slot = 0
        assign(self.handed, 2, 1)
        self.slot = 1

    def hand_out(self, partition: int, upto: int) -> None:
        offsets = [
            o for o in range(upto) if (partition, o) not in self.settled and (partition, o) not in self.leases
        ]
        if self.in_order and offsets:
            held = [o for p, o in self.leases if p == partition]
            offsets = [o for o in offsets if not held or o > max(held)]
        if not offsets:
            return
        self.lease += 1
        self.granted -= len(offsets)
        for offset in offsets:
            self.leases[partition, offset] = self.lease
        self.handed.deliver(self.slot + partition, self.lease, offsets)

    def answer(self) -> None:
        if not self.sent:
            return
        settle = self.sent.pop(0)
        for runs in settle.acks:
            for offset in offsets_of(runs.base, runs.runs):
                place = (runs.slot - self.slot, offset)
                if self.leases.get(place) == runs.lease or (place in self.leases and not runs.lease):
                    del self.leases[place]
                    self.settled.add(place)
        for nack in settle.nacks:
            place = (nack.slot - self.slot, nack.offset)
            if self.leases.get(place) == nack.lease or (place in self.leases and not nack.lease):
                for other in list(self.leases):
                    if other == place or (self.in_order and other[0] == place[0] and other[1] > place[1]):
                        del self.leases[other]
        self.handed.settled(settle.number)

    def reconnect(self, meanwhile: Callable[[], object]) -> None:
        """All leases end but those that are claimed."""
        self.sent.clear()
        claims = self.handed.disconnect()
        meanwhile()
        claimed = {(c.partition, o) for c in claims for o in offsets_of(c.base, c.runs)}
        kept = claimed & set(self.leases)
        self.leases = dict.fromkeys(kept, -1)
        self.slot += 2
        self.granted = 50
        found = []
        for partition in (0, 1):
            offsets = sorted(o for p, o in kept if p == partition)
            if offsets:
                base, runs = runs_of(offsets)
                found.append(bus_pb2.Holding(topic="t", partition=partition, base=base, runs=runs))
        self.handed.welcome(found)
        assign(self.handed, 2, self.slot)


@pytest.mark.parametrize("in_order", [False, True])
@given(steps=operations)
def test_nothing_is_forgotten_and_nothing_is_stuck(in_order: bool, steps: list[tuple[str, int, int]]) -> None:
    broker = Broker(in_order)
    handed = broker.handed
    for kind, partition, offset in steps:
        slot = handed.by_place["t", partition]
        if kind == "deliver":
            broker.hand_out(partition, offset)
        elif kind == "begin" and offset in slot.open:
            assert handed.begin(slot, offset, slot.open[offset] >> 1)
        elif kind == "ack":
            handed.ack("t", partition, offset)
        elif kind == "through":
            handed.ack_through("t", partition, offset)
        elif kind == "nack":
            handed.nack("t", partition, offset, RETRY)
        elif kind == "release":
            handed.nack("t", partition, offset, RELEASE)
        elif kind == "send":
            broker.sent += handed.collect()
        elif kind == "answer":
            broker.answer()
        elif kind == "break":
            said = (
                partial(handed.ack, "t", partition, offset),
                partial(handed.nack, "t", partition, offset, RETRY),
                partial(handed.ack_through, "t", partition, offset),
            )
            broker.reconnect(said[offset % 3])
        assert handed.open == sum(len(slot.open) for slot in handed.slots.values())
    # In the end everything can be handled: no lease is held that the member does not know of.
    for _ in range(6):
        while handed.due or broker.sent:
            broker.sent += handed.collect()
            broker.answer()
        for partition in (0, 1):
            broker.hand_out(partition, 12)
            for open_offset in list(handed.by_place["t", partition].open):
                handed.ack("t", partition, open_offset)
    broker.sent += handed.collect()
    while broker.sent:
        broker.answer()
    assert broker.settled == {(p, o) for p in (0, 1) for o in range(12)}
    assert not handed.unconfirmed
    assert handed.open == 0


def test_much_is_said_in_several_messages() -> None:
    """Brokers refuse a message of more than they can answer without holding up others."""
    handed = member()
    each_second = range(0, 4 * MAX_ITEMS, 2)
    handed.deliver(1, 5, range(4 * MAX_ITEMS))
    begin(handed, 1, *each_second)
    for offset in each_second:
        assert handed.ack("t", 0, offset)
    handed.deliver(2, 6, [0])
    begin(handed, 2, 0)
    assert handed.ack("t", 1, 0)
    settles = handed.collect()
    assert [settle.number for settle in settles] == [1, 2, 3]
    assert all(len(of.runs) // 2 < MAX_ITEMS for settle in settles for of in settle.acks)
    assert all(sum(1 + len(of.runs) // 2 for of in settle.acks) < 2 * MAX_ITEMS for settle in settles)
    said = [offset for settle in settles for of in settle.acks if of.slot == 1 for offset in acked(of)]
    assert said == list(each_second)
    assert [(of.slot, of.lease) for of in settles[-1].acks][-1] == (2, 6)
    for settle in settles:
        assert handed.unconfirmed
        handed.settled(settle.number)
    assert not handed.unconfirmed


def acked(of: bus_pb2.OffsetRuns) -> list[int]:
    return list(offsets_of(of.base, of.runs))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("no \udcff UTF-8", "no ? UTF-8"),  # as in names of files
        ("x" * 10_000_000, "x" * 200),  # brokers end the stream of who sends it
        ("\u20ac" * 200, "\u20ac" * 66),
    ],
)
def test_any_error_can_be_sent(error: str, said: str) -> None:
    handed = member()
    handed.deliver(1, 5, [0])
    begin(handed, 1, 0)
    assert handed.nack("t", 0, 0, RETRY._replace(error=error))
    (settle,) = handed.collect()
    assert settle.nacks[0].error == said
