"""What becomes of records: settled, failed, lost, given up; over the real state machine."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.cluster.commands import encode_op
from holdfast.cluster.delivery.hearing import MAX_ITEMS
from holdfast.cluster.delivery.settling import GONE
from holdfast.cluster.state.limits import StateLimits
from holdfast.errors import HoldfastError, InvalidArgumentError, OverloadedError, StorageFullError
from holdfast.storage.retries import State
from holdfast.v1 import bus_pb2, log_pb2

from .live_kit import T0, Client, Place, World, definition

PARTITION, KEY, NONE = bus_pb2.ORDERING_PARTITION, bus_pb2.ORDERING_KEY, bus_pb2.ORDERING_NONE
A, B, C = ("t", 0, 0), ("t", 0, 1), ("t", 0, 2)


def one(
    ordering: int = KEY,
    *,
    world: World | None = None,
    start: dict[str, Any] | None = None,
    **fields: Any,
) -> tuple[World, Client]:
    """A group of one member in a topic of one partition."""
    world = world or World({"t": 1})
    client = Client(world, "a", definition=definition(ordering=ordering, **fields), **(start or {}))
    world.run()
    return world, client


def retry(**fields: int) -> bus_pb2.RetryPolicy:
    return bus_pb2.RetryPolicy(jitter_permille=0, **fields)


@pytest.mark.parametrize("ordering", [PARTITION, KEY, NONE])
def test_what_is_acked_is_durable_before_it_is_said_so(ordering: int) -> None:
    world, a = one(ordering)
    world.publish("t", 0, b"k1", b"k2", b"k3")
    world.run()
    assert a.seen == [A, B, C]
    first = a.ack(A, C)
    assert world.settled() == set()
    assert a.settled() == {}
    world.advance(0.004)
    assert world.settled() == set()
    world.settle_down()
    assert world.settled() == {0, 2}
    assert world.floor() == 1
    assert a.settled() == {first: []}
    a.ack(B)
    world.settle_down()
    assert world.floor() == 3
    assert [(o.partition, o.offset) for c in a.got("committed") for o in c.offsets] == [(0, 1), (0, 3)]


def test_acks_of_many_messages_share_an_operation() -> None:
    world, a = one(NONE)
    world.publish("t", 0, *[b""] * 100)
    world.run()
    before = len(world.proposed)
    for place in list(a.handed):
        a.ack(place)
    world.settle_down()
    assert len(world.proposed) == before + 1
    assert len(a.settled()) == 100
    flow = world.proposed[-1].settle.flows[0]
    assert (flow.floor, list(flow.runs)) == (100, [])  # in order: the floor says it all


def test_a_cumulative_ack() -> None:
    world, a = one(PARTITION)
    world.publish("t", 0, b"", b"", b"")
    world.run()
    a.settle(acks=[bus_pb2.OffsetRuns(slot=a.slot("t", 0), base=2, cumulative=True)])
    world.settle_down()
    assert world.floor() == 2
    world, a = one(KEY)
    with pytest.raises(InvalidArgumentError, match="cumulative"):
        a.settle(acks=[bus_pb2.OffsetRuns(slot=a.slot("t", 0), base=2, cumulative=True)])


def test_a_failed_record_waits_as_its_policy_says_and_no_longer() -> None:
    world, a = one(KEY, retry=retry(initial_ms=2_000))
    world.publish("t", 0, b"k", b"k", b"other")
    world.run()
    assert a.seen == [A, C]
    number = a.nack(A, error="db down")
    world.settle_down()
    assert a.settled() == {number: []}
    row = world.retries()[0]
    assert (row.attempts, row.state, row.lane != 0) == (1, State.WAITING, True)
    assert [text for _, text in row.errors] == ["db down"]
    due_s = (row.due_us - T0) / 1e6
    world.advance(due_s - world.now - 0.001)
    assert a.seen == [A, C]
    world.advance(0.002)
    assert a.seen == [A, C, A]
    assert a.attempts[A] == 1
    a.ack(A, C)
    world.settle_down()
    assert a.seen[-1] == B
    assert world.retries() == {}


def test_a_nack_with_a_delay_of_its_own() -> None:
    world, a = one(NONE)
    world.publish("t", 0, b"")
    world.run()
    a.nack(A, delay_ms=10)
    world.advance(0.04)
    assert a.seen == [A, A]


def test_a_long_error_goes_no_further_than_it_is_kept() -> None:
    """With all of it, operations would be larger than any may be, and the group would stand still."""
    world, a = one(NONE)
    world.publish("t", 0, *[b""] * 50)
    world.run()
    before = len(world.proposed)
    for offset in range(50):
        a.nack(("t", 0, offset), error="x" * 100_000)
    world.settle_down()
    assert {len(row.errors[0][1]) for row in world.retries().values()} == {200}
    assert sum(op.ByteSize() for op in world.proposed[before:]) < 50 * 300


def test_a_release_costs_nothing() -> None:
    world, a = one(KEY)
    world.publish("t", 0, b"k")
    world.run()
    before = len(world.proposed)
    number = a.nack(A, bus_pb2.NACK_KIND_RELEASE)
    world.settle_down()
    assert a.seen == [A, A]
    assert a.attempts[A] == 0
    assert len(world.proposed) == before
    assert a.settled() == {number: []}


def test_a_record_released_for_ever_is_charged() -> None:
    world, a = one(KEY)
    world.publish("t", 0, b"k")
    for _ in range(100):
        world.run()
        a.nack(A, bus_pb2.NACK_KIND_RELEASE)
    world.settle_down()
    assert world.retries()[0].attempts == 1


def test_a_park_that_ends() -> None:
    world, a = one(KEY)
    world.publish("t", 0, b"k", b"k")
    world.run()
    a.nack(A, bus_pb2.NACK_KIND_PARK, delay_ms=60_000, error="later")
    world.settle_down()
    assert (world.retries()[0].state, world.retries()[0].attempts) == (State.PARKED, 0)
    for _ in range(6):
        world.advance(9.9)
        a.beat()
    assert a.seen == [A]
    world.advance(1)
    assert a.seen == [A, A]
    assert a.attempts[A] == 0


def test_a_park_for_good_ends_when_somebody_says_so() -> None:
    world, a = one(KEY)
    world.publish("t", 0, b"k", b"k")
    world.run()
    a.nack(A, bus_pb2.NACK_KIND_PARK)
    world.settle_down()
    assert world.retries()[0].state == State.PARKED_FOR_GOOD
    op = log_pb2.RestoreOp(group="g")
    op.flows.add(topic_id=world.topics["t"], partition=0, base=0, runs=[0, 1])
    world.do(encode_op(log_pb2.Op(restore=op)))
    world.leader.changed(["g"], world.index)
    world.settle_down()
    assert a.seen == [A, A]


# -- dead letters -----------------------------------------------------------


def dying(ordering: int = KEY, attempts: int = 2, **more: Any) -> tuple[World, Client]:
    world = World({"t": 1, "dead": 1})
    return one(
        ordering,
        world=world,
        retry=retry(max_attempts=attempts, initial_ms=100),
        dead_letter_topic="dead",
        **more,
    )


@pytest.mark.parametrize("ordering", [PARTITION, KEY, NONE])
def test_after_its_last_attempt_a_record_is_a_dead_letter(ordering: int) -> None:
    world, a = dying(ordering)
    world.publish("t", 0, b"k", b"k")
    world.run()
    a.nack(A, error="first")
    world.advance(0.5)
    assert world.letters("dead") == []
    number = a.nack(A, error="second")
    world.settle_down()
    (letter,) = world.letters("dead")
    assert letter.record.value == world.values[A]
    assert letter.record.key == b"k"
    assert (letter.death.group, letter.death.topic, letter.death.offset) == ("g", "t", 0)
    assert letter.death.attempts == 2
    assert [text for _, text in letter.death.errors] == ["first", "second"]
    assert world.settled() == {0}
    assert world.retries() == {}
    assert a.settled()[number] == []
    assert B in a.seen
    # In one entry: the same operation settles it.
    op = world.proposed[-1].settle
    assert len(op.dead) == 1
    assert op.flows[0].retries[0].dead


def test_a_rejected_record_is_a_dead_letter_at_once() -> None:
    world, a = dying(attempts=5)
    world.publish("t", 0, b"k")
    world.run()
    a.nack(A, bus_pb2.NACK_KIND_REJECT, error="does not parse")
    world.settle_down()
    (letter,) = world.letters("dead")
    assert letter.death.attempts == 1
    assert letter.death.errors[0][1] == "does not parse"


def test_a_rejected_record_without_a_dead_letter_topic_is_parked() -> None:
    world, a = one(KEY)
    world.publish("t", 0, b"k")
    world.run()
    a.nack(A, bus_pb2.NACK_KIND_REJECT)
    world.settle_down()
    assert world.retries()[0].state == State.PARKED_FOR_GOOD


def test_a_dead_letter_topic_that_is_gone() -> None:
    world, a = dying(attempts=1)
    world.publish("t", 0, b"k")
    world.run()
    world.delete("dead")
    a.nack(A, error="x")
    world.settle_down()
    row = world.retries()[0]
    assert row.state == State.PARKED_FOR_GOOD
    assert [text for _, text in row.errors][-1] == GONE


def test_a_definition_that_lowers_the_attempts() -> None:
    """A record has more attempts than it may: it dies without another."""
    world, a = dying(attempts=5)
    world.publish("t", 0, b"k")
    world.run()
    for _ in range(2):
        a.nack(A, delay_ms=100)
        world.advance(0.5)
    a.nack(A, delay_ms=60_000)
    world.settle_down()
    world.define(ordering=KEY, retry=retry(max_attempts=2), dead_letter_topic="dead")
    world.settle_down()
    assert len(world.letters("dead")) == 1
    assert world.settled() == {0}


def test_a_full_disk_holds_up_dead_letters_and_nothing_else() -> None:
    world, a = dying(attempts=1)
    world.publish("t", 0, b"k", b"l")
    world.run()
    number = a.nack(A)
    a.ack(B)
    world.advance(0.005, running=False)
    world.step(StorageFullError("no room"))
    world.step()  # at once, without the dead letter
    assert world.settled() == {1}
    assert world.letters("dead") == []
    assert [(p.paused, p.reason, p.offset) for p in a_paused(a)] == [(True, bus_pb2.PAUSE_REASON_STORAGE, 0)]
    world.advance(3)
    assert world.settled() == {0, 1}
    assert len(world.letters("dead")) == 1
    assert a.settled()[number] == []
    assert [p.paused for p in a_paused(a)] == [True, False]


def a_paused(client: Client) -> list[bus_pb2.Paused]:
    client.pump()
    return client.got("paused")


# -- who is charged ---------------------------------------------------------


def test_a_dead_member_is_charged_for_what_it_may_have_begun() -> None:
    world, a = one(KEY, start={"concurrency": 2})
    world.publish("t", 0, *(b"%d" % n for n in range(10)))
    world.run()
    assert len(a.handed) == 10
    a.ack(("t", 0, 3))
    a.disconnect()
    b = Client(world, "b", credits=0)
    world.advance(1.4)
    assert world.retries() == {}
    world.advance(0.2)
    assert {at: (row.attempts, row.losses, row.state) for at, row in world.retries().items()} == {
        0: (1, 1, State.SUSPECT),
        1: (1, 1, State.SUSPECT),
    }
    assert b.session is not None
    # What may have killed it travels alone.
    world.leader.credit(b.session, 100)
    world.run()
    assert b.seen == [("t", 0, 0)]
    b.ack(("t", 0, 0))
    world.settle_down()
    assert b.seen == [("t", 0, 0), ("t", 0, 1)]
    b.ack(("t", 0, 1))
    world.settle_down()
    assert len(b.seen) == 9
    assert set(b.attempts.values()) == {0, 1}


def test_a_record_that_kills_its_process_dies_and_charges_its_neighbours_once() -> None:
    world, a = dying(attempts=3, start={"concurrency": 4})
    world.publish("t", 0, *(b"%d" % n for n in range(8)))
    world.run()
    poison = world.values["t", 0, 2]
    client, deaths = a, 0
    for n in range(60):
        bad = [p for p in client.handed if client.handed[p].value == poison]
        if bad:
            client.disconnect()
            deaths += 1
            world.advance(2)
            client = Client(world, f"next{n}", concurrency=4)
            world.run()
        elif client.handed:
            client.ack(next(iter(client.handed)))
            world.settle_down()
        else:
            break
    assert deaths == 3
    assert [letter.record.value for letter in world.letters("dead")] == [poison]
    assert world.settled() == set(range(8))
    assert max(max(c.attempts.values(), default=0) for c in world.clients.values()) == 2


def test_nobody_is_charged_for_a_member_that_comes_back() -> None:
    world, a = one(KEY, start={"concurrency": 2})
    world.publish("t", 0, b"1", b"2", b"3", b"4")
    world.run()
    a.disconnect()
    a.connect(holding=[A, B])
    world.run()
    assert a.welcome is not None
    (kept,) = a.welcome.kept
    assert (kept.topic, kept.partition, kept.base, list(kept.runs)) == ("t", 0, 0, [0, 2])
    assert a.seen[4:] == [C, ("t", 0, 3)]
    a.ack(A, B)
    world.settle_down()
    assert world.settled() == {0, 1}
    assert world.retries() == {}


def test_a_static_member_that_comes_back_with_empty_hands_may_have_died() -> None:
    world, a = one(KEY, start={"concurrency": 1, "static_grace_ms": 60_000})
    world.publish("t", 0, b"1", b"2")
    world.run()
    a.disconnect()
    a.connect()
    world.settle_down()
    assert {at: row.losses for at, row in world.retries().items()} == {0: 1}


def test_who_says_too_much_at_once_is_refused() -> None:
    """Every item may have to be refused by itself, and everybody else waits meanwhile."""
    world, a = one(KEY)
    world.publish("t", 0, b"1", b"2")
    world.run()
    slot = a.slot("t", 0)
    foreign = bus_pb2.OffsetRuns(slot=slot, base=5, runs=[1, 1] * MAX_ITEMS)
    nacks = [bus_pb2.Nack(slot=slot, offset=0)] * (MAX_ITEMS + 1)
    wide = bus_pb2.OffsetRuns(slot=slot, base=0, runs=[0, 150_000])
    extensions = [bus_pb2.Extension(of=wide)] * 100
    for said in ({"acks": [foreign]}, {"nacks": nacks}, {"acks": [wide] * 100}, {"extensions": extensions}):
        with pytest.raises(InvalidArgumentError) as caught:
            a.settle(**said)
        assert caught.value.metadata == {"field": "settle"}
    world.settle_down()
    assert world.settled() == set()
    assert world.retries() == {}
    number = a.settle(acks=[bus_pb2.OffsetRuns(slot=slot, base=0, runs=[0, 1] + [1, 1] * (MAX_ITEMS // 2))])
    world.settle_down()
    assert len(a.settled()[number]) == MAX_ITEMS // 2
    assert world.settled() == {0}


def test_a_member_that_sends_garbage_is_not_charged() -> None:
    world, a = one(KEY)
    world.publish("t", 0, b"1")
    world.run()
    a.disconnect(garbage=True)
    b = Client(world, "b")
    world.advance(2)
    assert b.seen == [A]
    assert world.retries() == {}


def test_an_orderly_leave_gives_back_at_once() -> None:
    world, a = one(KEY)
    world.publish("t", 0, b"1")
    world.run()
    b = Client(world, "b")
    world.run()
    a.disconnect(orderly=True)
    world.run()
    assert b.seen == [A]
    assert world.retries() == {}


# -- leases -----------------------------------------------------------------


def test_a_member_that_says_anything_keeps_its_records() -> None:
    world, a = one(KEY, ack_timeout_ms=10_000)
    world.publish("t", 0, b"1")
    world.run()
    for _ in range(30):
        world.advance(9)
        a.beat()
    a.ack(A)
    world.settle_down()
    assert world.settled() == {0}
    assert a.seen == [A]


@pytest.mark.parametrize("ordering", [PARTITION, KEY, NONE])
def test_a_silent_member_loses_its_records_and_nothing_else(ordering: int) -> None:
    world = World({"t": 2})
    a, b = (Client(world, n, definition=definition(ordering=ordering, ack_timeout_ms=10_000)) for n in "ab")
    world.run()
    owners, entries = world.owners(), len(world.reshapes())
    for n in (0, 1):
        world.publish("t", n, b"1", b"2")
    world.run()
    lost = sorted(a.handed)
    assert lost
    held = dict(a.handed)
    for _ in range(4):
        world.advance(3)
        b.beat()
    rows = {(n, at): row for n in (0, 1) for at, row in world.retries("t", n).items()}
    assert len(rows) == 1
    assert next(iter(rows.values())).attempts == 1
    assert world.members() == ["a", "b"]
    assert world.owners() == owners
    assert len(world.reshapes()) == entries
    # It speaks again: its acks come too late, and it goes on.
    place = lost[0]
    it = held[place]
    ack = bus_pb2.OffsetRuns(slot=it.slot, lease=it.lease, base=place[2], runs=[0, 1])
    number = a.settle(acks=[ack])
    world.settle_down()
    assert a.settled()[number] == [(place[2], place[2], "LEASE_EXPIRED")]
    if ordering == PARTITION:
        for _ in range(3):
            world.advance(1)
            a.beat()
        assert a.seen[-1] in lost


def test_what_is_extended_stays() -> None:
    world, a = one(KEY, ack_timeout_ms=10_000)
    world.publish("t", 0, b"1", b"2")
    world.run()
    it = a.handed[B]
    of = bus_pb2.OffsetRuns(slot=it.slot, lease=it.lease, base=1, runs=[0, 1])
    a.settle(extensions=[bus_pb2.Extension(of=of, by_ms=60_000)])
    world.advance(30)
    assert set(world.retries()) == {0}
    a.ack(B)
    world.settle_down()
    assert 1 in world.settled()


def test_the_longest_a_record_may_stay() -> None:
    """Heartbeats or not."""
    world, a = one(KEY, ack_timeout_ms=10_000, max_lease_ms=60_000)
    world.publish("t", 0, b"1")
    world.run()
    for _ in range(11):
        world.advance(5)
        a.beat()
    assert world.retries() == {}
    assert a.seen == [A]
    for _ in range(3):
        world.advance(5)
        a.beat()
    assert world.retries()[0].attempts == 1


def test_what_was_never_delivered_is_refused() -> None:
    world, a = one(KEY)
    world.publish("t", 0, b"1")
    world.run()
    slot = a.slot("t", 0)
    number = a.settle(
        acks=[
            bus_pb2.OffsetRuns(slot=slot, base=5, runs=[0, 2]),
            bus_pb2.OffsetRuns(slot=99, base=0, runs=[0, 1]),
        ],
        nacks=[bus_pb2.Nack(slot=slot, lease=7, offset=0)],
    )
    world.settle_down()
    assert a.settled() == {
        number: [(5, 6, "NOT_DELIVERED"), (0, 0, "NOT_DELIVERED"), (0, 0, "NOT_DELIVERED")]
    }
    a.ack(A)  # the stream goes on


@pytest.mark.parametrize(
    "message",
    [
        bus_pb2.Settle(acks=[bus_pb2.OffsetRuns(slot=1, base=-1, runs=[0, 1])]),
        bus_pb2.Settle(acks=[bus_pb2.OffsetRuns(slot=1, runs=[0])]),
        bus_pb2.Settle(nacks=[bus_pb2.Nack(slot=1, offset=-4)]),
        bus_pb2.Settle(nacks=[bus_pb2.Nack(slot=1, kind=9)]),  # type: ignore[arg-type]
        bus_pb2.Settle(nacks=[bus_pb2.Nack(slot=1, delay_ms=1 << 50)]),
        bus_pb2.Settle(extensions=[bus_pb2.Extension(by_ms=1 << 50)]),
    ],
)
def test_garbage(message: bus_pb2.Settle) -> None:
    world, a = one(KEY)
    assert a.session is not None
    with pytest.raises(InvalidArgumentError) as caught:
        world.leader.settle(a.session, message)
    assert caught.value.metadata["field"]


# -- semantics --------------------------------------------------------------


def test_at_most_once_settles_before_it_sends() -> None:
    world, a = one(NONE, semantics=bus_pb2.SEMANTICS_AT_MOST_ONCE)
    assert a.welcome is not None
    assert "lost" in a.welcome.note
    world.publish("t", 0, b"", b"")
    a.pump()
    world.advance(0.006, running=False)
    a.pump()
    assert a.seen == []
    assert len(world.queue) == 1
    world.step()
    assert world.settled() == {0, 1}
    world.run()
    assert a.seen == [A, B]
    number = a.nack(A)
    world.settle_down()
    assert a.settled()[number] == [(0, 0, "FAILED_PRECONDITION")]
    world.lead()
    a.connect()
    world.advance(2)
    assert a.seen == [A, B]


def test_at_most_once_loses_what_its_member_does_not_wait_for() -> None:
    world, a = one(NONE, semantics=bus_pb2.SEMANTICS_AT_MOST_ONCE)
    world.publish("t", 0, b"")
    a.pump()
    a.disconnect()
    world.advance(2)
    b = Client(world, "b")
    world.advance(2)
    assert b.seen == []
    assert world.settled() == {0}


def test_exactly_once_takes_no_acks() -> None:
    world, a = one(KEY, semantics=bus_pb2.SEMANTICS_EXACTLY_ONCE)
    world.publish("t", 0, b"1")
    world.run()
    number = a.ack(A)
    world.settle_down()
    assert a.settled()[number] == [(0, 0, "TRANSACTION_REQUIRED")]
    assert world.settled() == set()


# -- whatever becomes of proposals, and of leaders --------------------------


@pytest.mark.parametrize("fate", ["lost", "dropped", OverloadedError("x"), StorageFullError("x")])
@pytest.mark.parametrize("ordering", [PARTITION, KEY, NONE])
def test_a_failure_is_charged_once_whatever_becomes_of_its_operation(
    fate: str | HoldfastError, ordering: int
) -> None:
    world, a = one(ordering, retry=retry(initial_ms=60_000))
    world.publish("t", 0, b"1", b"2")
    world.run()
    numbers = [a.nack(A), a.ack(B)] if ordering != PARTITION else [a.nack(A)]
    world.advance(0.005, running=False)
    world.step(fate)
    world.advance(5)
    assert world.retries()[0].attempts == 1
    assert a.settled() == {number: [] for number in numbers}
    assert a.seen.count(A) == 1
    if fate in ("lost", "dropped"):
        fence = [op for op in world.proposed if op.WhichOneof("op") == "settle" and not op.settle.flows]
        assert len(fence) == 1


def test_a_fence_that_is_lost_is_proposed_again() -> None:
    world, a = one(KEY, retry=retry(initial_ms=60_000))
    world.publish("t", 0, b"1")
    world.run()
    a.nack(A)
    world.advance(0.005, running=False)
    world.step("lost")
    world.step("dropped")
    world.advance(0.02, running=False)
    world.step(OverloadedError("x"))
    world.advance(5)
    assert world.retries()[0].attempts == 1


def test_rows_are_read_when_they_are_visible_and_not_before() -> None:
    world, a = one(KEY, retry=retry(initial_ms=60_000))
    world.publish("t", 0, b"1")
    world.run()
    world.show_at_once = False
    a.nack(A)
    world.advance(0.005, running=False)
    world.step("lost")
    world.step()  # the fence
    world.advance(1, running=False)
    assert not world.queue
    world.show_at_once = True
    world.show()
    world.advance(1)
    assert world.retries()[0].attempts == 1
    assert len(a.settled()) == 1


def test_an_unknown_outcome_of_a_dead_letter_makes_one() -> None:
    for fate in ("lost", "dropped"):
        world, a = dying(attempts=1)
        world.publish("t", 0, b"k")
        world.run()
        number = a.nack(A)
        world.advance(0.005, running=False)
        world.step(fate)
        world.advance(5)
        assert len(world.letters("dead")) == 1
        assert world.settled() == {0}
        assert a.settled() == {number: []}


def test_a_change_of_leader_keeps_attempts_and_due_times() -> None:
    world, a = one(KEY, retry=retry(initial_ms=20_000))
    world.publish("t", 0, b"1", b"2", b"3")
    world.run()
    a.nack(A)
    a.ack(C)
    world.settle_down()
    due_us = world.retries()[0].due_us
    world.lead()
    world.advance(0.5)
    a.connect()
    world.run()
    assert a.seen[3:] == [B]  # the rest of what was handed out, and not what is settled or waits
    world.advance((due_us - T0) / 1e6 - world.now - 0.01)
    assert a.seen.count(A) == 1
    world.advance(0.02)
    assert a.seen.count(A) == 2
    assert a.attempts[A] == 1


def test_a_change_of_leader_leaves_with_members_what_they_work_on() -> None:
    """By key: the others wait until all who may hold something are back."""
    world = World({"t": 1})
    a = Client(world, "a", definition=definition(ordering=KEY), credits=1)
    world.run()
    b = Client(world, "b", credits=0)
    world.run()
    world.publish("t", 0, b"k", b"k", b"l")
    world.run()
    assert a.seen == [A]
    world.lead()
    b.start["credits"] = 10
    b.connect()
    world.advance(1)
    assert b.seen == []
    a.start["credits"] = 0
    a.connect(holding=[A])
    world.run()
    assert b.seen == [C]
    a.ack(A)
    world.settle_down()
    assert world.settled() == {0}
    assert b.seen == [C, B]
    assert world.retries() == {}


def test_after_a_change_of_leader_nobody_waits_for_ever() -> None:
    world = World({"t": 1})
    Client(world, "a", definition=definition(ordering=KEY))
    b = Client(world, "b", credits=0)
    world.run()
    world.publish("t", 0, b"k")
    world.run()
    world.lead()
    b.start["credits"] = 10
    b.connect()
    world.advance(1.4)
    assert b.seen == []
    world.advance(0.2)
    assert b.seen == [A]
    assert world.retries() == {}


# -- others that change the group -------------------------------------------


@pytest.mark.parametrize("ordering", [PARTITION, KEY, NONE])
def test_a_seek_takes_back_what_was_handed_out(ordering: int) -> None:
    world, a = one(ordering)
    world.publish("t", 0, b"1", b"2", b"3")
    world.run()
    a.ack(A, B, C)
    world.settle_down()
    assert world.floor() == 3
    world.publish("t", 0, b"4")
    world.run()
    last: Place = ("t", 0, 3)
    it = a.handed[last]
    world.seek("t", 0, 1)
    world.run()
    # By key, who works on a record ends that first.
    assert a.seen[4:] == ([B, C] if ordering == KEY else [B, C, last])
    ack = bus_pb2.OffsetRuns(slot=it.slot, lease=it.lease, base=3, runs=[0, 1])
    number = a.settle(acks=[ack])
    world.settle_down()
    refused = "FENCED" if ordering == PARTITION else "LEASE_EXPIRED"
    assert a.settled()[number] == [(3, 3, refused)]
    assert a.seen[4:] == [B, C, last]
    a.ack(B, C, last)
    world.settle_down()
    assert world.floor() == 4


@pytest.mark.parametrize("late", [False, True])
def test_an_ack_on_its_way_while_somebody_seeks(late: bool) -> None:
    """It settles nothing at the new position, whether or not the leader has heard of the seek."""
    world, a = one(PARTITION)
    world.publish("t", 0, b"1", b"2", b"3")
    world.run()
    number = a.ack(A, B, C)
    if late:
        world.advance(0.005, running=False)
        assert len(world.queue) == 1
    world.seek("t", 0, 0)
    world.advance(3)
    assert world.floor() == 0
    assert world.settled() == set()
    ((refusal,),) = [refused for n, refused in a.settled().items() if n == number]
    assert refusal[2] == "FENCED"
    assert a.seen == [A, B, C, A, B, C]


def test_records_that_retention_removed() -> None:
    world, a = one(NONE, start={"credits": 0})
    world.publish("t", 0, b"1", b"2")
    world.publish("t", 0, b"3")
    world.trim("t", 0, 2)
    assert a.session is not None
    world.leader.credit(a.session, 10)
    world.settle_down()
    assert a.seen == [C]
    assert world.floor() == 2


def test_the_bound_of_what_is_not_settled_is_told() -> None:
    world, a = one(NONE, max_unacked=2)
    world.publish("t", 0, b"1")
    world.publish("t", 0, b"2")
    world.publish("t", 0, b"3")
    world.run()
    world.leader.tick()
    assert a.seen == [A, B]
    (pause,) = a.got("paused")
    assert (pause.paused, pause.reason, pause.offset) == (True, bus_pb2.PAUSE_REASON_MAX_UNACKED, 0)
    a.ack(A)
    world.settle_down()
    assert a.seen == [A, B, C]


def test_failures_beyond_the_bound_of_all_groups() -> None:
    world, a = one(NONE, world=World({"t": 1}, limits=StateLimits(max_retries=1)))
    world.publish("t", 0, b"1", b"2")
    world.run()
    first, second = a.nack(A, delay_ms=60_000), a.nack(B, delay_ms=60_000)
    world.settle_down()
    assert a.settled() == {first: [], second: [(1, 1, "LIMIT_EXCEEDED")]}
    assert a.seen == [A, B, B]
    assert set(world.retries()) == {0}


def test_rows_decide_nothing_before_the_fence() -> None:
    """The operation is in the log, behind what somebody else changes; its record is not charged again."""
    world, a = one(KEY, retry=retry(initial_ms=60_000))
    world.publish("t", 0, b"1")
    world.run()
    number = a.nack(A)
    world.advance(0.005, running=False)
    world.step("late")
    world.define(ordering=KEY, retry=retry(initial_ms=30_000))
    world.advance(5)
    assert world.retries()[0].attempts == 1
    assert a.settled() == {number: []}
