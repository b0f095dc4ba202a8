"""A group under random joins, leaves, deliveries, acks and commits, against simple rules."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.coordinator import Coordinator
from holdfast.cluster.delivery.events import DeliveryPaused, DeliveryResumed, GroupRebalanced, OffsetsTrimmed
from holdfast.cluster.delivery.group import Group, Opening
from holdfast.cluster.delivery.members import Flow, Member
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.errors import LimitExceededError, UnknownTopicError

TOPICS = {1: ("a", 3), 2: ("b", 2)}
NAMES = {topic: name for topic, (name, _) in TOPICS.items()}
END = 40


def make_member(group: Group, topics: set[int], credits: int = 1_000) -> Member:
    return Member(
        id=group.new_member_id(),
        name="",
        topics={topic: NAMES[topic] for topic in topics},
        credits=credits,
        notify=lambda: None,
    )


def counts(topics: set[int]) -> dict[int, int]:
    return {topic: TOPICS[topic][1] for topic in topics}


class GroupModel(RuleBasedStateMachine):
    """``log`` is what is committed; ``done`` what members acknowledged under any owner."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds = DeliverySettings(max_unacked=8, max_members_per_group=4)
        self.coordinator = Coordinator(7, self.bounds)
        self.log: dict[PartitionKey, int] = {}
        self.done: dict[PartitionKey, set[int]] = defaultdict(set)
        self.given: dict[str, set[tuple[PartitionKey, int]]] = defaultdict(set)
        self.members: list[Member] = []
        self.committing: list[tuple[Group, list[tuple[Flow, int]]]] = []
        self.owner_in: dict[tuple[int, PartitionKey], str] = {}

    @property
    def group(self) -> Group:
        return self.coordinator.group("g")

    def opening(self, key: PartitionKey) -> Opening:
        committed = self.log.get(key)
        return (0 if committed is None else committed), committed

    @rule(topics=st.sets(st.sampled_from([1, 2]), min_size=1), credits=st.integers(0, 20))
    def join(self, topics: set[int], credits: int) -> None:
        group = self.group
        member = make_member(group, topics, credits)
        if len(group.members) == 4:
            with pytest.raises(LimitExceededError):
                group.join(member, counts(topics), self.opening)
            return
        before = group.generation
        group.join(member, counts(topics), self.opening)
        assert group.generation > before
        assert member.assignment_due
        self.members.append(member)

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(self.members))
        self.members.remove(member)
        self.group.leave(member)
        assert not member.owned
        self.coordinator.forget_if_idle(self.group)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), records=st.integers(1, 12))
    def deliver(self, data: st.DataObject, records: int) -> None:
        member = data.draw(st.sampled_from(self.members))
        for flow in member.owned.values():
            first, stop = flow.window.span()
            limit = min(self.group.room(flow), member.credits, records, END - first)
            if stop is not None:
                limit = min(limit, stop - first)
            if limit <= 0:
                continue
            end = first + limit
            assert flow.durable is not None, "delivered before the position is durable"
            assert first >= self.log[flow.key]
            assert not self.done[flow.key] & set(range(first, end)), "delivered after it was acked"
            self.given[member.id] |= {(flow.key, offset) for offset in range(first, end)}
            credits = member.credits
            self.group.delivered(member, flow, end, limit)
            assert member.credits == credits - limit >= 0
            assert flow.window.outstanding <= self.bounds.max_unacked

    @precondition(lambda self: self.members)
    @rule(data=st.data(), first=st.integers(0, END), length=st.integers(1, 4))
    def ack(self, data: st.DataObject, first: int, length: int) -> None:
        member = data.draw(st.sampled_from(self.members))
        topic = data.draw(st.sampled_from([1, 2]))
        key = (topic, data.draw(st.integers(0, TOPICS[topic][1] - 1)))
        offsets = set(range(first, first + length))
        taken = self.group.ack(member, NAMES[topic], key[1], first, first + length - 1)
        mine = {offset for given, offset in self.given[member.id] if given == key}
        if key in member.owned:
            window = member.owned[key].window
            below = {o for o in offsets if o < window.base}
            assert taken == (not below and max(offsets) < window.next_offset)
            assert not taken or offsets <= mine | self.done[key], "took an ack of what it was not given"
        else:
            assert not taken
            reason = member.refusals[-1].error.reason
            assert reason == ("FENCED" if key in member.lost else "NOT_DELIVERED")
        if taken:
            self.done[key] |= offsets

    @rule()
    def commit(self) -> None:
        group = self.group
        if group.commit_due:
            taken = group.collect_commit()
            for flow, offset in taken:
                assert set(range(offset)) <= self.done[flow.key], "committed over a gap"
            self.committing.append((group, taken))
        self.coordinator.forget_if_idle(group)

    @precondition(lambda self: self.committing)
    @rule(works=st.booleans())
    def commit_ends(self, works: bool) -> None:
        group, taken = self.committing.pop(0)
        if not works:
            group.commit_failed(taken)
            return
        for flow, offset in taken:
            assert offset >= self.log.get(flow.key, 0), "went back"
            self.log[flow.key] = offset
        group.commit_done(taken)
        self.coordinator.forget_if_idle(group)

    @rule()
    def grant(self) -> None:
        for member in self.members:
            self.group.grant(member, 5)

    @invariant()
    def every_partition_has_one_owner(self) -> None:
        group = self.group
        read = {topic for member in self.members for topic in member.topics}
        expected = {(topic, number) for topic in read for number in range(TOPICS[topic][1])}
        owners = [(key, member.id) for member in self.members for key in member.owned]
        assert sorted(key for key, _ in owners) == sorted(expected)
        for key, name in owners:
            assert group.flows[key].owner is group.members[name]
            assert self.owner_in.setdefault((group.generation, key), name) == name
        self.coordinator.forget_if_idle(group)


GroupModel.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestGroup = GroupModel.TestCase


# -- single facts ----------------------------------------------------------------


class Bench:
    """A group of topic "a" with one member and its events."""

    def __init__(self, **bounds: int) -> None:
        self.events: list[object] = []
        self.coordinator = Coordinator(3, DeliverySettings(**bounds), self.events.append)
        self.group = self.coordinator.group("g")
        self.member = self.join()

    def join(self, topics: set[int] | None = None) -> Member:
        member = make_member(self.group, topics or {1})
        self.group.join(member, counts(topics or {1}), lambda key: (0, 0))
        return member

    def flow(self, partition: int = 0) -> Flow:
        return self.group.flows[1, partition]

    def give(self, end: int, partition: int = 0) -> None:
        flow = self.flow(partition)
        assert flow.owner is not None
        self.group.delivered(flow.owner, flow, end, end - flow.window.next_offset)

    def of(self, kind: type) -> list[object]:
        return [event for event in self.events if isinstance(event, kind)]


def test_generations_grow_from_leader_to_leader() -> None:
    later = Coordinator(4, DeliverySettings()).group("g")
    assert later.generation > Bench().group.generation


def test_pausing_and_going_on_are_told_once() -> None:
    bench = Bench(max_unacked=4)
    assert bench.group.room(bench.flow()) == 4
    bench.give(4)
    assert bench.group.room(bench.flow()) == bench.group.room(bench.flow()) == 0
    assert bench.of(DeliveryPaused) == [DeliveryPaused("g", "a", 0, 0, 4)]
    bench.group.ack(bench.member, "a", 0, 1, 3)
    assert bench.of(DeliveryResumed) == []
    bench.group.ack(bench.member, "a", 0, 0, 0)
    assert bench.of(DeliveryResumed) == [DeliveryResumed("g", "a", 0)]
    assert bench.group.room(bench.flow()) == 4


def test_trimmed_records_are_passed_over() -> None:
    bench = Bench()
    bench.give(3)
    bench.group.trimmed(bench.flow(), 10)
    assert bench.of(OffsetsTrimmed) == [OffsetsTrimmed("g", "a", 0, 0, 10)]
    assert bench.flow().window.committed == bench.flow().window.next_offset == 10
    assert bench.group.collect_commit() == [(bench.flow(), 10)]


def test_only_members_that_change_are_told() -> None:
    bench = Bench()
    bench.join({2})
    bench.member.assignment_due = False
    bench.join({2})
    assert not bench.member.assignment_due
    assert [event.moved for event in bench.of(GroupRebalanced)][-1] == 1  # type: ignore[attr-defined]


def test_a_flow_nobody_reads_waits_for_its_commit() -> None:
    bench = Bench()
    bench.give(3)
    bench.group.ack(bench.member, "a", 0, 0, 1)
    bench.group.leave(bench.member)
    assert list(bench.group.flows) == [(1, 0)]
    assert not bench.group.idle
    again = bench.join()
    assert again.owned[1, 0].window.committed == 2
    bench.group.leave(again)
    taken = bench.group.collect_commit()
    assert taken[0][1] == 2
    bench.group.commit_done(taken)
    assert bench.group.idle
    bench.coordinator.forget_if_idle(bench.group)
    assert not bench.coordinator.groups


def test_a_deleted_topic_ends_only_those_who_read_it() -> None:
    bench = Bench()
    other = bench.join({2})
    bench.group.drop_topic(1, UnknownTopicError("gone"))
    assert isinstance(bench.member.ended, UnknownTopicError)
    assert other.ended is None
    assert {key[0] for key in bench.group.flows} == {2}


def test_limits() -> None:
    bench = Bench(max_partitions_per_group=4, max_credits=1_000, max_groups=1)
    with pytest.raises(LimitExceededError, match="partitions"):
        bench.join({2})
    assert set(bench.group.members) == {bench.member.id}
    with pytest.raises(LimitExceededError, match="credits"):
        bench.group.grant(bench.member, 1)
    with pytest.raises(LimitExceededError, match="groups"):
        bench.coordinator.group("h")
    with pytest.raises(ValueError, match="credits"):
        bench.group.delivered(bench.member, bench.flow(), 2_000, 2_000)


def test_a_group_that_cannot_go_on_is_forgotten() -> None:
    bench = Bench()
    bench.coordinator.discard(bench.group, UnknownTopicError("gone"))
    assert isinstance(bench.member.ended, UnknownTopicError)
    bench.group.leave(bench.member)
    assert not bench.coordinator.groups
    bench.coordinator.touch([(1, 0)])
