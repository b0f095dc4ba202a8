"""Records that transactions under way consume, over the real state machine."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.cluster.commands import encode_op
from holdfast.cluster.delivery.claims import Claim
from holdfast.errors import (
    AlreadySettledError,
    FencedError,
    HoldfastError,
    InvalidArgumentError,
    LeaseExpiredError,
    NotDeliveredError,
    OutcomeUnknownError,
    RecordTooLargeError,
    from_reason,
)
from holdfast.v1 import bus_pb2, log_pb2

from .live_kit import GROUP, Client, Place, World, definition

PARTITION, KEY, NONE = bus_pb2.ORDERING_PARTITION, bus_pb2.ORDERING_KEY, bus_pb2.ORDERING_NONE
ONCE = bus_pb2.SEMANTICS_EXACTLY_ONCE
A, B, C = ("t", 0, 0), ("t", 0, 1), ("t", 0, 2)


def joined(world: World, *members: str, ordering: int = KEY, **fields: Any) -> list[Client]:
    clients = [
        Client(world, name, definition=definition(ordering=ordering, semantics=ONCE, **fields))
        for name in members
    ]
    world.run()
    return clients


def one(ordering: int = KEY, *keys: bytes) -> tuple[World, Client]:
    world = World({"t": 1})
    (client,) = joined(world, "a", ordering=ordering)
    world.publish("t", 0, *(keys or (b"k1", b"k2", b"k3")))
    world.run()
    return world, client


def consumed(client: Client, *places: Place, **change: Any) -> bus_pb2.Consumed:
    assert client.session is not None
    message = bus_pb2.Consumed(group=GROUP, session=client.session.id)
    for place in places:
        it = client.handed[place]
        slot = it.slot or client.slot(*place[:2])
        message.offsets.add(**({"slot": slot, "lease": it.lease, "base": place[2], "runs": [0, 1]} | change))
    return message


def commit(world: World, claim: Claim, number: int = 1) -> HoldfastError | None:
    """What the log says to the transaction."""
    op = log_pb2.TransactOp(transaction_id=number.to_bytes(16, "big"), keep_ms=60_000, consume=[claim.settle])
    (result,) = world.apply(encode_op(log_pb2.Op(transact=op)))
    if not result.HasField("error"):
        return None
    error = result.error
    return from_reason(error.reason, error.message, metadata=dict(error.metadata))


def decide(world: World, claim: Claim, error: HoldfastError | None) -> None:
    world.leader.decided(claim, error, world.index)
    world.run()


@pytest.mark.parametrize("ordering", [PARTITION, KEY, NONE])
def test_committed_records_are_settled_once_for_all(ordering: int) -> None:
    world, a = one(ordering)
    claim = world.leader.claim(consumed(a, A, B))
    flow = claim.settle.flows[0]
    assert (claim.settle.group, flow.base, list(flow.runs)) == (GROUP, 0, [0, 2])
    assert commit(world, claim) is None
    decide(world, claim, None)
    assert world.settled() == {0, 1}
    world.settle_down()
    assert [o.offset for c in a.got("committed") for o in c.offsets] == [2]
    assert a.seen == [A, B, C]
    with pytest.raises(AlreadySettledError) as caught:
        world.leader.claim(consumed(a, B))
    assert caught.value.metadata["offset"] == "1"
    world.lead()
    a.connect([C])
    world.advance(5)
    assert a.seen == [A, B, C], "nothing of it comes again from another leader"


def test_the_next_of_a_key_waits_for_the_commit() -> None:
    world, a = one(KEY, b"k", b"k", b"other")
    assert a.seen == [A, C]
    claim = world.leader.claim(consumed(a, A))
    assert commit(world, claim) is None
    world.advance(1)
    assert a.seen == [A, C]
    decide(world, claim, None)
    assert a.seen == [A, C, B]


@pytest.mark.parametrize("ordering", [PARTITION, KEY, NONE])
def test_a_refused_transaction_leaves_the_records_with_their_member(ordering: int) -> None:
    world, a = one(ordering)
    claim = world.leader.claim(consumed(a, A, C))
    decide(world, claim, RecordTooLargeError("not like this"))
    world.advance(1)
    assert a.seen == [A, B, C]
    again = world.leader.claim(consumed(a, A, B, C))
    assert commit(world, again) is None
    decide(world, again, None)
    assert world.settled() == {0, 1, 2}


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("ordering", [PARTITION, KEY, NONE])
def test_an_unknown_outcome_is_decided_by_the_log(ordering: int, applied: bool) -> None:
    world, a = one(ordering)
    claim = world.leader.claim(consumed(a, A, B))
    if applied:
        assert commit(world, claim) is None
    world.leader.decided(claim, OutcomeUnknownError("who knows"), world.index)
    assert world.group.blocked, "nothing is proposed before it is known"
    assert [op.WhichOneof("op") for op in world.proposed[-1:]] == ["settle"], "a fence"
    world.run()
    assert not world.group.blocked
    assert world.settled() == ({0, 1} if applied else set())
    if applied:
        with pytest.raises(AlreadySettledError):
            world.leader.claim(consumed(a, A))
    else:
        again = world.leader.claim(consumed(a, A, B))
        assert commit(world, again, 2) is None
        decide(world, again, None)
    world.advance(1)
    assert a.seen == [A, B, C]
    assert world.settled() == {0, 1}


@pytest.mark.parametrize("ordering", [KEY, NONE])
def test_until_it_is_decided_nothing_else_ends_the_leases(ordering: int) -> None:
    world = World({"t": 1})
    a, b = joined(world, "a", "b", ordering=ordering)
    world.publish("t", 0, b"k1")
    world.run()
    owner, other = (a, b) if a.handed else (b, a)
    message = consumed(owner, A)
    claim = world.leader.claim(message)
    with pytest.raises(LeaseExpiredError):
        world.leader.claim(message)
    owner.nack(A)
    world.settle_down()
    assert [refused[0][2] for refused in owner.settled().values()] == ["LEASE_EXPIRED"]
    for _ in range(20):
        world.advance(5)
        other.beat()
    owner.disconnect()
    world.advance(5)
    assert other.seen == []
    assert world.retries() == {}, "nobody is charged for it"
    decide(world, claim, RecordTooLargeError("not like this"))
    assert other.seen == [A], "its member is gone"
    again = world.leader.claim(consumed(other, A))
    assert commit(world, again) is None
    other.disconnect(orderly=True)
    world.advance(5)
    decide(world, again, None)
    world.settle_down()
    assert world.settled() == {0}


def test_a_group_is_not_forgotten_under_a_transaction() -> None:
    world, a = one(NONE)
    claim = world.leader.claim(consumed(a, A))
    a.disconnect(orderly=True)
    world.advance(60)
    assert GROUP in world.leader.groups
    decide(world, claim, OutcomeUnknownError("who knows"))
    world.advance(1)
    assert GROUP not in world.leader.groups


def test_an_owner_that_comes_later_waits_for_the_transaction_of_the_one_before() -> None:
    world, a = one(PARTITION)
    claim = world.leader.claim(consumed(a, A))
    a.disconnect(orderly=True)
    (b,) = joined(world, "b", ordering=PARTITION)
    world.advance(5)
    assert world.owners() == {0: "b"}
    assert b.seen == []
    error = commit(world, claim)
    assert isinstance(error, FencedError)
    decide(world, claim, error)
    assert b.seen == [A, B, C]


def test_a_record_that_somebody_else_settled_is_learnt_of() -> None:
    """By place, through another node: this leader hears of it with the refusal, at the latest."""
    world, a = one(NONE)
    claim = world.leader.claim(consumed(a, A))
    assert commit(world, claim, 7) is None  # somebody else's, in effect
    error = commit(world, claim, 8)
    assert isinstance(error, AlreadySettledError)
    decide(world, claim, error)
    with pytest.raises((AlreadySettledError, LeaseExpiredError)):
        world.leader.claim(consumed(a, A))
    other = world.leader.claim(consumed(a, B))
    assert commit(world, other, 9) is None
    decide(world, other, None)
    world.settle_down()
    assert world.floor() == 2


def test_all_or_none_of_several_partitions() -> None:
    world = World({"t": 2})
    (a,) = joined(world, "a", ordering=NONE)
    for partition in (0, 1):
        world.publish("t", partition, b"", b"")
    world.run()
    here, there = ("t", 0, 0), ("t", 1, 0)
    message = consumed(a, here, there)
    message.offsets[1].lease = 99
    with pytest.raises(NotDeliveredError) as caught:
        world.leader.claim(message)
    assert caught.value.metadata == {"group": GROUP, "topic": "t", "partition": "1", "offset": "0"}
    claim = world.leader.claim(consumed(a, there, here, ("t", 1, 1)))
    assert [(f.partition, f.base, list(f.runs)) for f in claim.settle.flows] == [
        (1, 0, [0, 2]),
        (0, 0, [0, 1]),
    ]
    assert commit(world, claim) is None
    decide(world, claim, None)
    assert (world.settled(partition=0), world.settled(partition=1)) == ({0}, {0, 1})


def test_everything_below_an_offset() -> None:
    world, a = one(PARTITION)
    message = consumed(a, A, base=2, lease=0, runs=[], cumulative=True)
    claim = world.leader.claim(message)
    assert list(claim.settle.flows[0].runs) == [0, 2]
    assert claim.settle.flows[0].fence > 0
    assert commit(world, claim) is None
    decide(world, claim, None)
    assert world.floor() == 2
    with pytest.raises(InvalidArgumentError):
        world.leader.claim(message)
    other, b = one(KEY)
    with pytest.raises(InvalidArgumentError):
        other.leader.claim(consumed(b, A, base=2, lease=0, runs=[], cumulative=True))


def test_what_no_session_of_the_group_was_handed() -> None:
    world, a = one(NONE)
    message = consumed(a, A)
    for change in ({"session": "1.99"}, {"group": "other"}):
        wrong = bus_pb2.Consumed()
        wrong.CopyFrom(message)
        for name, value in change.items():
            setattr(wrong, name, value)
        with pytest.raises(NotDeliveredError):
            world.leader.claim(wrong)
    for field, value in (("slot", 9), ("base", 50), ("lease", 9)):
        with pytest.raises(NotDeliveredError):
            world.leader.claim(consumed(a, A, **{field: value}))
    with pytest.raises(InvalidArgumentError):
        world.leader.claim(consumed(a, A, runs=[0]))
    with pytest.raises(InvalidArgumentError):
        world.leader.claim(consumed(a, A, runs=[]))
    a.disconnect()
    with pytest.raises(NotDeliveredError):
        world.leader.claim(message)


def test_a_goodbye_waits_for_the_transaction() -> None:
    world, a = one(NONE)
    claim = world.leader.claim(consumed(a, A))
    session = a.session
    assert session is not None
    world.leader.say_goodbye(session)
    assert session.unsettled == 1
    assert commit(world, claim) is None
    decide(world, claim, None)
    assert session.unsettled == 0
