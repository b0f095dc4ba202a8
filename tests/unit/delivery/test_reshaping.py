"""One ReshapeOp in flight; what moves from a living member drains first."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.cluster.commands import check_op
from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.hello import Hello
from holdfast.cluster.delivery.membership import Membership
from holdfast.cluster.delivery.reshaping import Reshape, Reshaping
from holdfast.cluster.delivery.sessions import Session
from holdfast.v1 import log_pb2

REJOIN, WITHIN = 1.5, 30.0
P: list[PartitionKey] = [(1, n) for n in range(4)]


@dataclass
class Flow:
    owner: str = ""
    leased: bool = False


class World:
    """A group whose operations are applied at once when told so."""

    def __init__(self) -> None:
        self.members = Membership(REJOIN)
        self.shape = Reshaping("g", self.members, WITHIN)
        self.flows: dict[PartitionKey, Flow] = {}
        self.now = 0.0
        self.concerned: set[PartitionKey] = set()
        self.sessions: dict[str, Session] = {}

    def join(self, *members: str, grace_ms: int | None = None) -> None:
        for member in members:
            hello = Hello(group="g", member=member, grace_ms=grace_ms)
            self.sessions[member] = Session("s", hello, self.now, lambda: None)
            self.members.arrive(self.sessions[member])

    def leave(self, member: str, *, orderly: bool = True) -> None:
        self.members.depart(self.sessions.pop(member), self.now, orderly=orderly)

    def review(self) -> tuple[list[PartitionKey], list[PartitionKey]]:
        return self.shape.review(self.now, P, self.flows)

    def collect(self) -> Reshape | None:
        opens = [log_pb2.FlowStart(topic_id=t, partition=n) for t, n in P if (t, n) not in self.flows]
        return self.shape.collect(self.now, 5, self.flows, self.concerned.__contains__, opens, [])

    def apply(self) -> None:
        op = self.shape.ended()
        self.members.changed(op.join, op.leave, self.now)
        for start in op.open:
            self.flows[start.topic_id, start.partition] = Flow()
        for owner in op.owners:
            self.flows[owner.topic_id, owner.partition].owner = owner.member
        self.shape.changed(op)

    def change(self) -> log_pb2.ReshapeOp:
        """Everything that may change now does."""
        self.review()
        it = self.collect()
        assert it is not None
        self.apply()
        return it.op

    def owners(self) -> str:
        return "".join(self.flows[key].owner or "-" for key in P)


def test_the_first_member_opens_and_owns_everything() -> None:
    world = World()
    world.join("a")
    op = world.change()
    assert op.expected == 5
    assert [row.id for row in op.join] == ["a"]
    assert len(op.open) == 4
    assert world.owners() == "aaaa"
    world.review()
    assert world.collect() is None


def test_what_waits_goes_with_the_next_operation() -> None:
    world = World()
    world.join("a")
    world.review()
    first = world.collect()
    assert first is not None
    assert check_op(first.framed).reshape == first.op
    world.join("b", "c")
    world.review()
    assert world.collect() is None
    world.apply()
    assert world.owners() == "aaaa"
    op = world.change()
    assert [row.id for row in op.join] == ["b", "c"]
    assert sorted(world.owners()) == sorted("aabc")


def test_what_nothing_is_leased_of_moves_at_once() -> None:
    world = World()
    world.join("a")
    world.change()
    world.join("b")
    assert world.review() == ([], [])
    world.change()
    assert world.owners() == "aabb"


def test_a_partition_drains_before_it_moves() -> None:
    world = World()
    world.join("a")
    world.change()
    for flow in world.flows.values():
        flow.leased = True
    world.join("b")
    assert world.review() == ([(1, 2), (1, 3)], [])
    assert set(world.shape.draining) == {(1, 2), (1, 3)}
    op = world.change()
    assert [row.id for row in op.join] == ["b"]
    assert not op.owners
    world.flows[1, 3].leased = False
    op = world.change()
    assert [(o.partition, o.member) for o in op.owners] == [(3, "b")]
    assert world.owners() == "aaab"
    assert world.review() == ([], [])
    assert world.collect() is None
    world.now = WITHIN  # it never ends: it moves all the same
    assert world.shape.next_time(0.0) == WITHIN
    world.change()
    assert world.owners() == "aabb"
    assert not world.shape.draining
    assert world.shape.next_time(0.0) is None


def test_a_hand_over_that_is_done_changes_no_other() -> None:
    """Two members give up; when one is done the other is asked for what it was asked for."""
    world = World()
    world.join("a", "b")
    world.change()
    for flow in world.flows.values():
        flow.leased = True
    world.join("c", "d")
    asked, _ = world.review()
    assert len(asked) == 2
    world.change()
    world.flows[asked[0]].leased = False
    world.change()
    assert world.review() == ([], [])
    assert set(world.shape.draining) == {asked[1]}


def test_who_is_asked_in_vain_is_told() -> None:
    world = World()
    world.join("a")
    world.change()
    for flow in world.flows.values():
        flow.leased = True
    world.join("b")
    world.change()
    world.leave("b")
    asked, kept = world.review()
    assert (asked, sorted(kept)) == ([], [(1, 2), (1, 3)])
    op = world.change()
    assert list(op.leave) == ["b"]
    assert not op.owners
    assert world.owners() == "aaaa"


def test_what_is_on_its_way_holds_up_its_partition_only() -> None:
    world = World()
    world.join("a")
    world.change()
    world.concerned = {(1, 3)}
    world.join("b")
    op = world.change()
    assert [o.partition for o in op.owners] == [2]
    world.concerned = set()
    op = world.change()
    assert [o.partition for o in op.owners] == [3]


def test_partitions_of_who_is_gone_move_at_once() -> None:
    world = World()
    world.join("a", "b")
    world.change()
    for flow in world.flows.values():
        flow.leased = True
    world.leave("b")
    op = world.change()
    assert list(op.leave) == ["b"]
    assert len(op.owners) == 2
    assert world.owners() == "aaaa"


def test_who_is_away_keeps_its_partitions() -> None:
    world = World()
    world.join("a", "b")
    world.change()
    before = world.owners()
    world.leave("b", orderly=False)
    world.review()
    assert world.collect() is None
    world.now += REJOIN
    world.members.tick(world.now)
    op = world.change()
    assert list(op.leave) == ["b"]
    assert world.owners() == "aaaa" != before


def test_what_is_leased_of_who_is_away_waits_for_its_return() -> None:
    """It cannot be told, and what it holds may be known to itself alone."""
    world = World()
    world.join("a", grace_ms=60_000)
    world.change()
    world.leave("a", orderly=False)
    world.join("b")
    assert world.review() == ([], [])
    world.change()
    assert world.owners() == "aaaa"
    assert world.shape.held_up
    world.now += REJOIN
    world.members.tick(world.now)
    world.change()
    assert world.owners() == "aabb"


def test_moving() -> None:
    world = World()
    world.join("a")
    world.review()
    world.collect()
    assert world.shape.moving == set(P)
    world.apply()
    assert not world.shape.moving


def test_a_refused_operation_is_worked_out_anew() -> None:
    world = World()
    world.join("a")
    world.review()
    first = world.collect()
    assert first is not None
    world.shape.ended()
    world.review()
    again = world.collect()
    assert again is not None
    assert again.op == first.op
