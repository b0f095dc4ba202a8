"""What a group reports of its records and rebalances, as metrics count it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from holdfast.cluster.delivery.events import GroupRebalanced, RecordsCharged, RecordsDied, RecordsHeard
from holdfast.v1 import bus_pb2

from .live_kit import Client, World, definition

KEY, NONE, PARTITION = bus_pb2.ORDERING_KEY, bus_pb2.ORDERING_NONE, bus_pb2.ORDERING_PARTITION
A, B, C, D = (("t", 0, n) for n in range(4))


def one(**fields: Any) -> tuple[World, Client]:
    """A member by key of a topic of one partition, with four records in its hands."""
    world = World({"t": 1, "dead": 1})
    fields = {"ordering": KEY, "dead_letter_topic": "dead", **fields}
    client = Client(world, "a", definition=definition(**fields))
    world.run()
    world.publish("t", 0, b"k1", b"k2", b"k3", b"k4")
    world.run()
    return world, client


def counted(world: World) -> dict[str, int]:
    total: Counter[str] = Counter()
    for event in world.events:
        if isinstance(event, RecordsHeard):
            total += Counter({"acked": event.acked, "released": event.released})
        elif isinstance(event, RecordsCharged):
            total[event.cause] += event.records
        elif isinstance(event, RecordsDied):
            total["died"] += event.records
    return dict(total)


def test_what_members_say_is_counted_by_what_it_is() -> None:
    world, a = one()
    assert world.leader.in_flight() == {"g": 4}
    a.ack(A)
    a.nack(B)
    a.nack(C, bus_pb2.NACK_KIND_PARK, delay_ms=60_000)
    a.nack(D, bus_pb2.NACK_KIND_REJECT)
    assert world.leader.in_flight() == {"g": 0}
    assert counted(world) == {"acked": 1}  # the others are no facts yet
    world.settle_down()
    assert counted(world) == {"acked": 1, "nack": 1, "parked": 1, "rejected": 1, "died": 1}


def test_a_release_and_what_is_refused_are_not_charges() -> None:
    world, a = one()
    it = a.handed[A]
    a.nack(A, bus_pb2.NACK_KIND_RELEASE)
    a.settle(acks=[bus_pb2.OffsetRuns(slot=it.slot, lease=it.lease, base=0, runs=[0, 1])])
    world.settle_down()
    assert counted(world) == {"released": 1}


def test_silence_death_and_the_last_attempt() -> None:
    world, a = one(ack_timeout_ms=5_000, retry=bus_pb2.RetryPolicy(max_attempts=1))
    world.advance(5.1)  # it says nothing
    assert counted(world) == {"expired": 1, "died": 1}
    a.beat()
    world.run()
    world.events.clear()
    a.disconnect()
    assert world.leader.in_flight() == {"g": 0}
    world.advance(3)
    assert counted(world) == {"lost": 1, "died": 1}


def test_what_is_settled_at_most_once_is_counted() -> None:
    world, a = one(ordering=NONE, semantics=bus_pb2.SEMANTICS_AT_MOST_ONCE, dead_letter_topic="")
    world.settle_down()
    assert a.error is None
    assert counted(world) == {"acked": 4}


def test_hand_overs_are_those_between_members_who_are_there() -> None:
    world = World({"t": 2})
    a = Client(world, "a", definition=definition(ordering=PARTITION, ack_timeout_ms=5_000))
    world.run()
    world.publish("t", 0, b"")
    world.publish("t", 1, b"")
    world.run()
    b = Client(world, "b")
    for _ in range(6):
        world.advance(1)
        a.beat()  # alive, and at work for longer than a hand-over waits
        b.beat()
    seen = [event for event in world.events if isinstance(event, GroupRebalanced)]
    assert [(event.moved, event.timed_out) for event in seen] == [(0, 0), (1, 1)]
    b.disconnect(orderly=True)
    world.settle_down()
    last = [event for event in world.events if isinstance(event, GroupRebalanced)][-1]
    assert (last.members, last.moved, last.timed_out) == (1, 0, 0)
