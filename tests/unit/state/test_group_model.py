"""Groups against a naive model, and two replicas against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.cluster.state.group_view import group_message
from holdfast.cluster.state.limits import StateLimits
from holdfast.storage import acks, flow_keys, flows, groups, retries
from holdfast.storage.flows import FlowRow
from holdfast.storage.port import Table
from holdfast.storage.retries import RetryRow, State
from holdfast.v1 import bus_pb2

from .group_kit import definition, drop, index, put, reshape, seek
from .replica_kit import Replica, append, commit

LIMITS = StateLimits(max_groups=2, max_members_per_group=2, max_members=3, max_flows=5, step_rows=3)
NAMES = st.sampled_from(["g", "gg", "h"])
MEMBERS = st.sampled_from(["a", "b", "c"])
PARTITIONS = st.integers(0, 2)
END = 20
OFFSETS = st.integers(0, END)
ORDERINGS = st.sampled_from([bus_pb2.ORDERING_PARTITION, bus_pb2.ORDERING_KEY])


@dataclass
class Flow:
    owner: str = ""
    fence: int = 0
    settled: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)

    @property
    def empty(self) -> bool:
        return not (self.owner or self.fence or self.settled or self.waiting)


@dataclass
class Group:
    ordering: int = 0  # 0: not defined
    max_unacked: int = 0
    implicit: bool = True
    generation: int = 0
    members: set[str] = field(default_factory=set)
    floors: dict[int, int] = field(default_factory=dict)
    flows: dict[int, Flow] = field(default_factory=dict)

    def flow(self, partition: int) -> Flow:
        return self.flows.get(partition, Flow())


class Comparison(RuleBasedStateMachine):
    """Every result is what the model says; so is every group."""

    def __init__(self) -> None:
        super().__init__()
        self.replicas = [Replica(LIMITS), Replica(LIMITS)]
        self.groups: dict[str, Group] = {}
        for replica in self.replicas:
            replica.topic("t", 3)
            replica.do(append(1, [(p, END) for p in range(3)]))

    @property
    def index(self) -> int:
        return index(self.replicas[0])

    def run(self, op: bytes) -> str:
        """Reason; "" for success."""
        results = [replica.run(op).results for replica in self.replicas]
        assert results[0] == results[1]
        self.result = results[0][0]
        return self.result.error.reason

    def directly(self, write: Callable[[Replica], None]) -> None:
        for replica in self.replicas:
            write(replica)

    def next_generation(self, group: Group) -> int:
        group.generation = max(group.generation + 1, self.index)
        return group.generation

    def count_flows(self) -> int:
        return sum(not flow.empty for group in self.groups.values() for flow in group.flows.values())

    # -- definitions ------------------------------------------------------------

    @rule(
        name=NAMES,
        ordering=ORDERINGS,
        max_unacked=st.integers(1, 2),
        create_only=st.booleans(),
        implicit=st.booleans(),
    )
    def put(self, name: str, ordering: int, max_unacked: int, create_only: bool, implicit: bool) -> None:
        wanted = definition("t", ordering=ordering, max_unacked=max_unacked)
        reason = self.run(put(name, wanted, create_only=create_only, implicit=implicit))
        group = self.groups.get(name)
        if group is None:
            if len(self.groups) == LIMITS.max_groups:
                assert reason == "LIMIT_EXCEEDED"
                return
            group = self.groups[name] = Group()
        same = (group.ordering, group.max_unacked) == (ordering, max_unacked)
        if group.ordering:
            if implicit and not group.implicit:
                assert reason == ""
                return
            free = group.implicit and not group.members
            if (create_only and not same) or (not create_only and not free and group.ordering != ordering):
                assert reason == "GROUP_CONFLICT"
                return
        assert reason == ""
        if not same or group.implicit != implicit or not group.ordering:
            group.ordering, group.max_unacked, group.implicit = ordering, max_unacked, implicit
            self.next_generation(group)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        group = self.groups.get(name)
        if group is None:
            assert self.run(drop(name)) == "UNKNOWN_GROUP"
            return
        if group.members:
            assert self.run(drop(name)) == "FAILED_PRECONDITION"
            return
        self.until_done(lambda: self.run(drop(name)) == "")
        del self.groups[name]

    # -- members ----------------------------------------------------------------

    @precondition(lambda self: any(group.ordering for group in self.groups.values()))
    @rule(
        data=st.data(),
        stale=st.sampled_from([0, 0, 0, 0, 1]),
        join=st.sets(MEMBERS, max_size=2),
        leave=st.sets(MEMBERS, max_size=2),
        owners=st.dictionaries(PARTITIONS, st.one_of(MEMBERS, st.just("")), max_size=2),
        start=st.dictionaries(PARTITIONS, st.integers(0, END + 1), max_size=2),
    )
    def reshape(
        self,
        data: st.DataObject,
        stale: int,
        join: set[str],
        leave: set[str],
        owners: dict[int, str],
        start: dict[int, int],
    ) -> None:
        name = data.draw(st.sampled_from([n for n in sorted(self.groups) if self.groups[n].ordering]))
        group = self.groups[name]
        op = reshape(
            name,
            group.generation - stale,
            join=sorted(join),
            leave=sorted(leave),
            owners=[(1, partition, owner) for partition, owner in owners.items()],
            start=[(1, partition, offset) for partition, offset in start.items()],
        )
        reason = self.run(op)
        after = (group.members - leave) | join
        others = sum(len(each.members) for each in self.groups.values()) - len(group.members)
        new_flows = sum(group.flow(partition).empty for partition in owners)
        opened = {p: offset for p, offset in start.items() if p not in group.floors}
        positions = sum(len(each.floors) for each in self.groups.values())
        grows = len(after) > len(group.members)
        if stale:
            assert reason == "STALE_GROUP"
        elif grows and (
            len(after) > LIMITS.max_members_per_group or len(after) + others > LIMITS.max_members
        ):
            assert reason == "LIMIT_EXCEEDED"
        elif any(owner and owner not in after for owner in owners.values()) or (
            owners and group.ordering != bus_pb2.ORDERING_PARTITION
        ):
            assert reason == "INVALID_ARGUMENT"
        elif new_flows and self.count_flows() + new_flows > LIMITS.max_flows:
            assert reason == "LIMIT_EXCEEDED"
        elif any(offset > END for offset in start.values()):
            assert reason == "OFFSET_OUT_OF_RANGE"
        elif opened and positions + len(opened) > LIMITS.max_flows:
            assert reason == "LIMIT_EXCEEDED"
        else:
            assert reason == ""
            generation = self.next_generation(group)
            group.members = after
            for partition, owner in owners.items():
                flow = group.flows.setdefault(partition, Flow())
                flow.owner, flow.fence = owner, generation
            group.floors.update(opened)

    # -- positions ----------------------------------------------------------------

    @rule(
        name=st.sampled_from(["g", "gg"]),
        partition=PARTITIONS,
        offset=OFFSETS,
        stale=st.sampled_from([0, 0, 1]),
    )
    def commit(self, name: str, partition: int, offset: int, stale: int) -> None:
        group = self.groups.get(name)
        if group is None or partition not in group.floors:
            return
        if group.flow(partition).settled or group.flow(partition).waiting:
            return  # what becomes of these is told elsewhere
        fence = group.flow(partition).fence
        reason = self.run(commit(name, (1, partition, offset), fence=max(fence - stale, 0)))
        if fence and stale:
            assert reason == "FENCED"
            return
        assert reason == ""
        group.floors[partition] = max(group.floors[partition], offset)

    @precondition(lambda self: any(group.floors for group in self.groups.values()))
    @rule(data=st.data(), settled=st.sets(OFFSETS, max_size=5), waiting=st.sets(OFFSETS, max_size=9))
    def work(self, data: st.DataObject, settled: set[int], waiting: set[int]) -> None:
        """As if members had settled some records and failed with others."""
        name = data.draw(st.sampled_from([n for n in sorted(self.groups) if self.groups[n].floors]))
        group = self.groups[name]
        partition = data.draw(st.sampled_from(sorted(group.floors)))
        flow = group.flow(partition)
        if flow.empty and self.count_flows() == LIMITS.max_flows:
            return
        floor = group.floors[partition]
        flow.settled = {offset for offset in settled if offset > floor}
        flow.waiting = {offset for offset in waiting if offset >= floor} - flow.settled
        group.flows[partition] = flow

        def write(replica: Replica) -> None:
            w, key = replica.w, flow_keys.flow_key(name, 1, partition)
            for offset in range(END + 1):
                retries.delete(w, key, offset)
            for offset in sorted(flow.waiting):
                retries.write(w, key, offset, RetryRow(1, 0, State.WAITING, 1, 1))
            acks.write(w, key, 0, sum(1 << offset for offset in flow.settled))
            row = FlowRow(flow.fence, len(flow.settled), len(flow.waiting), 0, flow.owner)
            flows.write(w, name, 1, partition, row)

        self.directly(write)

    @rule(name=NAMES, goals=st.dictionaries(PARTITIONS, st.integers(0, END + 1), max_size=3))
    def seek(self, name: str, goals: dict[int, int]) -> None:
        op = seek(name, *((1, partition, offset) for partition, offset in goals.items()))
        group = self.groups.get(name)
        if group is None:
            assert self.run(op) == "UNKNOWN_GROUP"
            return
        new = sum(group.flow(partition).empty for partition in goals)
        if not goals:
            assert self.run(op) == "INVALID_ARGUMENT"
        elif any(offset > END for offset in goals.values()):
            assert self.run(op) == "OFFSET_OUT_OF_RANGE"
        elif new and self.count_flows() + new > LIMITS.max_flows:
            assert self.run(op) == "LIMIT_EXCEEDED"
        else:
            self.seek_all(name, group, dict(goals))

    def seek_all(self, name: str, group: Group, goals: dict[int, int]) -> None:
        def step() -> bool:
            op = seek(name, *((1, partition, offset) for partition, offset in goals.items()))
            if self.run(op):
                return False
            generation = self.next_generation(group)
            for done in self.result.group.partitions:
                assert done.floor == goals.pop(done.partition)
                owner = group.flow(done.partition).owner
                group.flows[done.partition] = Flow(owner, generation)
                group.floors[done.partition] = done.floor
            return True

        self.until_done(step)
        assert not goals

    def until_done(self, step: Callable[[], bool]) -> None:
        """Repeat a bounded step while it says that there is more; none deletes more than it may."""
        tables = (Table.RETRIES, Table.ACKS, Table.FLOWS, Table.OFFSETS)
        w = self.replicas[0].w
        for _ in range(20):
            before = [w.count(table) for table in tables]
            assert step()
            assert all(
                had - w.count(table) <= LIMITS.step_rows for had, table in zip(before, tables, strict=True)
            )
            if not self.result.more:
                return
        raise AssertionError("there is no end to it")

    # -- what must hold ---------------------------------------------------------------

    @invariant()
    def groups_are_what_the_model_holds(self) -> None:
        w = self.replicas[0].w
        assert groups.list_groups(w) == sorted(self.groups)
        for name, group in self.groups.items():
            found = group_message(w, name)
            assert (found.generation, found.implicit) == (group.generation, group.implicit)
            assert (found.definition.ordering, found.definition.max_unacked) == (
                group.ordering,
                group.max_unacked,
            )
            assert [member.id for member in found.members] == sorted(group.members)
            wanted = []
            for partition in sorted(group.floors.keys() | group.flows.keys()):
                flow = group.flow(partition)
                if partition in group.floors or not flow.empty:
                    owner = flow.owner if flow.owner in group.members else ""
                    floor = group.floors.get(partition, 0)
                    wanted.append((partition, floor, len(flow.settled), len(flow.waiting), owner, flow.fence))
            assert [
                (p.partition, p.floor, p.settled_above, p.retrying, p.owner, p.fence)
                for p in found.partitions
            ] == wanted
            row = groups.read(w, name)
            assert row is not None
            assert row.held == len(group.floors)

    @invariant()
    def nothing_is_left_of_what_was_forgotten(self) -> None:
        w = self.replicas[0].w
        every = [flow for group in self.groups.values() for flow in group.flows.values()]
        assert w.count(Table.RETRIES) == sum(len(flow.waiting) for flow in every)
        assert w.count(Table.ACKS) == sum(1 for flow in every if flow.settled)
        assert w.count(Table.FLOWS) == self.count_flows()
        assert w.count(Table.OFFSETS) == sum(len(group.floors) for group in self.groups.values())
        assert w.count(Table.MEMBERS) == sum(len(group.members) for group in self.groups.values())

    def teardown(self) -> None:
        assert self.replicas[0].dump() == self.replicas[1].dump()


Comparison.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestComparison = Comparison.TestCase
