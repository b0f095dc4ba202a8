"""Groups are defined, redefined, given members and owners, sent elsewhere, and deleted."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.cluster.state.events import GroupCreated, GroupDeleted
from holdfast.cluster.state.group_view import group_message
from holdfast.cluster.state.limits import StateLimits
from holdfast.storage import acks, flow_keys, flows, groups, members, retries
from holdfast.storage.flows import FlowRow
from holdfast.storage.port import Table
from holdfast.storage.retries import RetryRow, State
from holdfast.v1 import bus_pb2, groups_pb2, log_pb2

from .group_kit import EXACTLY_ONCE, KEY, definition, drop, index, put, reshape, seek
from .replica_kit import Replica, append, commit, delete, trim

LIMITS = StateLimits(
    max_groups=3, max_members_per_group=3, max_members=4, max_flows=6, step_rows=4, max_topics=9
)


@pytest.fixture
def replica() -> Replica:
    """Topic "t" with two partitions of ten records each."""
    made = Replica(LIMITS)
    made.topic("t", 2)
    made.do(append(1, [(0, 10), (1, 10)]))
    return made


def shown(replica: Replica, group: str = "g") -> groups_pb2.Group:
    return group_message(replica.w, group)


def settled(replica: Replica, partition: int, bits: int, *, waiting: tuple[int, ...] = ()) -> None:
    """As if members had settled records above the floor, and failed with others."""
    flow = flow_keys.flow_key("g", 1, partition)
    acks.write(replica.w, flow, 0, bits)
    for offset in waiting:
        retries.write(replica.w, flow, offset, RetryRow(1, 0, State.WAITING, 5, 5))
    row = flows.read(replica.w, "g", 1, partition)
    after = FlowRow(row.fence, bits.bit_count(), len(waiting), 7, row.owner)
    flows.write(replica.w, "g", 1, partition, after)


# -- definitions ---------------------------------------------------------------------


def test_a_definition_is_stored_complete(replica: Replica) -> None:
    result = replica.do(put("g", definition("t", ordering=KEY)))
    made_at = index(replica)
    assert result.group == shown(replica)
    assert (result.group.generation, result.group.implicit) == (made_at, False)
    assert result.group.created_at_us == replica.time_us
    assert result.group.definition.ack_timeout_ms == 30_000
    assert result.group.definition.retry.max_attempts == 0
    assert result.group.definition.start.earliest


def test_a_repeat_changes_nothing(replica: Replica) -> None:
    replica.do(put("g"))
    before = replica.dump()
    for again in (put("g"), put("g", create_only=True), put("g", definition("t", "t"))):
        replica.do(again)
    assert replica.dump() == before


def test_a_redefinition_keeps_what_the_group_is_and_holds(replica: Replica) -> None:
    made = replica.do(put("g")).group
    replica.do(reshape("g", made.generation, join=["a"], owners=[(1, 0, "a")], start=[(1, 0, 3)], seen=[1]))
    before = shown(replica)
    after = replica.do(put("g", definition("t", max_unacked=7))).group
    assert after.definition.max_unacked == 7
    assert after.generation == index(replica), "whoever worked with the old one has to look again"
    found = shown(replica)
    assert found.members == before.members
    assert found.partitions == before.partitions
    assert found.created_at_us == made.created_at_us
    assert replica.refused(reshape("g", before.generation, leave=["a"]))[0] == "STALE_GROUP"


@pytest.mark.parametrize(
    ("fields", "field", "has", "asked"),
    [
        ({"semantics": EXACTLY_ONCE}, "semantics", "at_least_once", "exactly_once"),
        ({"ordering": KEY}, "ordering", "partition", "key"),
    ],
)
def test_what_is_fixed_conflicts_by_name(
    replica: Replica, fields: dict[str, Any], field: str, has: str, asked: str
) -> None:
    replica.do(put("g"))
    facts = {"field": field, "group_has": has, "asked": asked}
    assert replica.refused(put("g", definition("t", **fields))) == ("GROUP_CONFLICT", facts)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (definition("t", "u"), "topics"),
        (definition("t", patterns=["x*"]), "patterns"),
        (definition("t", ordering=KEY), "ordering"),
        (definition("t", max_retrying=9), "max_retrying"),
        (definition("t", start=bus_pb2.Position(latest=True)), "start"),
        (bus_pb2.GroupDefinition(patterns=["t"]), "topics"),
    ],
)
def test_create_only_refuses_any_difference(
    replica: Replica, wanted: bus_pb2.GroupDefinition, field: str
) -> None:
    replica.do(put("g"))
    reason, facts = replica.refused(put("g", wanted, create_only=True))
    assert (reason, facts["field"]) == ("GROUP_CONFLICT", field)


def test_a_subscription_that_defines_nothing_changes_no_definition(replica: Replica) -> None:
    replica.do(put("g", definition("t", ordering=KEY)))
    before = replica.dump()
    result = replica.do(put("g", definition("u"), implicit=True))
    assert result.group.definition.ordering == KEY
    assert not result.group.implicit
    assert replica.dump() == before


def test_what_nobody_defined_may_become_anything_without_members(replica: Replica) -> None:
    generation = replica.do(put("g", implicit=True)).group.generation
    generation = replica.do(reshape("g", generation, join=["a"])).group.generation
    assert shown(replica).implicit
    assert replica.refused(put("g", definition("t", ordering=KEY)))[0] == "GROUP_CONFLICT"
    assert replica.refused(put("g", definition("u"), create_only=True))[1]["field"] == "topics"
    replica.do(reshape("g", generation, leave=["a"]))
    replica.do(put("g", definition("t", ordering=KEY)))
    assert not shown(replica).implicit
    assert replica.refused(put("g", definition("t")))[0] == "GROUP_CONFLICT", "now somebody defined it"


def test_an_implicit_group_becomes_explicit_under_its_members(replica: Replica) -> None:
    generation = replica.do(put("g", implicit=True)).group.generation
    replica.do(reshape("g", generation, join=["a"]))
    replica.do(put("g", definition("t", max_unacked=5)))
    found = shown(replica)
    assert (found.implicit, [m.id for m in found.members]) == (False, ["a"])


def test_a_group_that_only_committed_can_be_defined(replica: Replica) -> None:
    replica.do(commit("g", (1, 0, 4)))
    bare = shown(replica)
    assert (bare.implicit, bare.generation, bare.HasField("definition")) == (True, 0, False)
    assert replica.refused(reshape("g", 0, join=["a"]))[0] == "FAILED_PRECONDITION"
    replica.do(put("g", definition("t", ordering=KEY), create_only=True))
    found = shown(replica)
    assert [(p.partition, p.floor) for p in found.partitions] == [(0, 4)]
    assert found.generation == index(replica)
    replica.do(commit("g", (1, 0, 5), (1, 1, 1)))
    assert shown(replica).definition.ordering == KEY, "commits keep the definition"


def test_dead_letters_need_a_topic_that_takes_them(replica: Replica) -> None:
    wanted = definition("t", "small", "big", attempts=3, dead_letter_topic="dead")
    facts = {"field": "dead_letter_topic", "topic": "dead"}
    assert replica.refused(put("g", wanted)) == ("UNKNOWN_TOPIC", facts)
    replica.topic("dead", max_record_bytes=20_000)
    replica.topic("small", max_record_bytes=20_000 - (16 << 10))
    replica.do(put("g", wanted))
    replica.topic("big", max_record_bytes=20_001 - (16 << 10))
    reason, facts = replica.refused(put("h", wanted))
    assert (reason, facts["field"], facts["source"]) == ("INVALID_ARGUMENT", "dead_letter_topic", "big")
    replica.do(delete("dead"))
    replica.topic("dead")
    replica.do(put("h", wanted))  # neither side is known here: a broker's own limit is


def test_definitions_that_make_no_sense(replica: Replica) -> None:
    assert replica.refused(put("g", bus_pb2.GroupDefinition()))[1] == {"field": "topics"}
    assert replica.refused(put("g", definition(attempts=2)))[1] == {"field": "dead_letter_topic"}
    for name in ("", "a b", "..", "_dead/", "_dead/a/b", "x/y", "x" * 250):
        assert replica.refused(put(name))[1] == {"field": "group"}
    replica.do(put("_dead/t"))


def test_groups_are_bounded(replica: Replica) -> None:
    for name in "abc":
        replica.do(put(name))
    assert replica.refused(put("d")) == ("LIMIT_EXCEEDED", {"limit": "3"})
    replica.do(put("a", definition("t", max_unacked=1)))
    replica.do(drop("b"))
    replica.do(put("d"))


# -- members, owners, first positions ---------------------------------------------------


def test_members_and_owners(replica: Replica) -> None:
    made = replica.do(put("g")).group
    static = log_pb2.MemberRow(id="b", name="second", fixed=True, grace_ms=9_000)
    first = replica.do(
        reshape(
            "g",
            made.generation,
            join=["a", static],
            owners=[(1, 0, "a"), (1, 1, "b")],
            start=[(1, 0, 0), (1, 1, 10)],
            seen=[1],
        )
    ).group.generation
    assert first == index(replica)
    found = shown(replica)
    assert [(m.id, m.name, m.fixed, m.grace_ms) for m in found.members] == [
        ("a", "name of a", False, 0),
        ("b", "second", True, 9_000),
    ]
    assert {m.joined_at_us for m in found.members} == {replica.time_us}
    assert [(p.topic, p.partition, p.floor, p.owner, p.fence) for p in found.partitions] == [
        ("t", 0, 0, "a", first),
        ("t", 1, 10, "b", first),
    ]
    second = replica.do(reshape("g", first, leave=["b"], owners=[(1, 1, "a")])).group.generation
    found = shown(replica)
    assert [(p.owner, p.fence) for p in found.partitions] == [("a", first), ("a", second)]
    assert [m.id for m in found.members] == ["a"]


def test_a_generation_is_the_index_and_never_comes_again(replica: Replica) -> None:
    generation = replica.do(put("g")).group.generation
    seen = [generation]
    for op in (
        lambda g: reshape("g", g, join=["a"]),
        lambda g: reshape("g", g, leave=["a"]),
        lambda _: seek("g", (1, 0, 2)),
        lambda _: put("g", definition("t", max_unacked=3)),
    ):
        generation = replica.do(op(generation)).group.generation
        assert generation == index(replica)
        seen.append(generation)
    replica.do(drop("g"))
    assert replica.do(put("g")).group.generation > max(seen)
    assert seen == sorted(set(seen))


def test_several_operations_of_one_entry_have_generations_of_their_own(replica: Replica) -> None:
    results = replica.run(put("g"), put("g", definition("t", max_unacked=3))).results
    first, second = (result.group.generation for result in results)
    assert second == first + 1


def test_what_was_worked_out_from_another_generation_is_refused(replica: Replica) -> None:
    generation = replica.do(put("g")).group.generation
    replica.do(reshape("g", generation, join=["a"]))
    facts = {"generation": str(index(replica))}
    assert replica.refused(reshape("g", generation, join=["b"])) == ("STALE_GROUP", facts)
    assert replica.refused(reshape("nobody", 0))[0] == "UNKNOWN_GROUP"


def test_a_position_that_is_there_wins(replica: Replica) -> None:
    generation = replica.do(put("g")).group.generation
    replica.do(commit("g", (1, 0, 6)))
    replica.do(reshape("g", generation, start=[(1, 0, 0), (1, 1, 2)]))
    assert [(p.partition, p.floor) for p in shown(replica).partitions] == [(0, 6), (1, 2)]
    row = groups.read(replica.w, "g")
    assert row is not None
    assert row.held == 2


def test_a_start_that_was_trimmed_meanwhile_is_raised(replica: Replica) -> None:
    generation = replica.do(put("g")).group.generation
    replica.do(append(1, [(0, 5)]))
    replica.do(trim(1, 0, 10))
    replica.do(reshape("g", generation, start=[(1, 0, 4)]))
    assert shown(replica).partitions[0].floor == 10


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"join": ["a", "a"]}, "INVALID_ARGUMENT", "join"),
        ({"join": ["a b"]}, "INVALID_ARGUMENT", "join"),
        ({"join": ["x" * 65]}, "INVALID_ARGUMENT", "join"),
        ({"join": [""]}, "INVALID_ARGUMENT", "join"),
        ({"owners": [(1, 0, "stranger")]}, "INVALID_ARGUMENT", "owners"),
        ({"leave": ["old"], "owners": [(1, 0, "old")]}, "INVALID_ARGUMENT", "owners"),
        ({"owners": [(1, 0, "old"), (1, 0, "")]}, "INVALID_ARGUMENT", "owners"),
        ({"start": [(1, 0, 1), (1, 0, 1)]}, "INVALID_ARGUMENT", "open"),
        ({"owners": [(9, 0, "old")]}, "UNKNOWN_TOPIC", None),
        ({"start": [(1, 2, 0)]}, "UNKNOWN_PARTITION", None),
        ({"start": [(1, 0, 11)]}, "OFFSET_OUT_OF_RANGE", None),
        ({"start": [(1, 0, -1)]}, "OFFSET_OUT_OF_RANGE", None),
    ],
)
def test_reshapes_that_make_no_sense(
    replica: Replica, change: dict[str, Any], reason: str, field: str | None
) -> None:
    generation = replica.do(put("g")).group.generation
    generation = replica.do(reshape("g", generation, join=["old"])).group.generation
    found, facts = replica.refused(reshape("g", generation, **change))
    assert (found, facts.get("field")) == (reason, field)


def test_only_partitions_handled_in_order_have_owners(replica: Replica) -> None:
    generation = replica.do(put("g", definition("t", ordering=KEY))).group.generation
    refused = replica.refused(reshape("g", generation, join=["a"], owners=[(1, 0, "a")]))
    assert refused == ("INVALID_ARGUMENT", {"field": "owners"})
    replica.do(reshape("g", generation, join=["a"], start=[(1, 0, 0)]))


def test_members_are_bounded(replica: Replica) -> None:
    a = replica.do(put("a")).group.generation
    b = replica.do(put("b")).group.generation
    assert replica.refused(reshape("a", a, join=["1", "2", "3", "4"])) == ("LIMIT_EXCEEDED", {"limit": "3"})
    a = replica.do(reshape("a", a, join=["1", "2", "3"])).group.generation
    assert replica.refused(reshape("b", b, join=["1", "2"])) == ("LIMIT_EXCEEDED", {"limit": "4"})
    replica.do(reshape("b", b, join=["1"]))
    a = replica.do(reshape("a", a, join=["3", "4"], leave=["1"])).group.generation
    assert members.ids(replica.w, "a") == ["2", "3", "4"]
    # Who leaves and joins by one operation is a member of this entry on.
    replica.do(reshape("a", a, join=["2"], leave=["2"]))
    row = members.read(replica.w, "a", "2")
    assert row is not None
    assert row.joined_at_us == replica.time_us


def test_flows_are_bounded(replica: Replica) -> None:
    replica.topic("u", 5)
    generation = replica.do(put("g")).group.generation
    generation = replica.do(reshape("g", generation, join=["a"])).group.generation
    everything = [(1, 0), (1, 1), *((2, p) for p in range(5))]
    owners = [(*place, "a") for place in everything]
    starts = [(*place, 0) for place in everything]
    assert replica.refused(reshape("g", generation, owners=owners)) == ("LIMIT_EXCEEDED", {"limit": "6"})
    assert replica.refused(reshape("g", generation, start=starts)) == ("LIMIT_EXCEEDED", {"limit": "6"})
    generation = replica.do(reshape("g", generation, owners=owners[:6], start=starts[:6])).group.generation
    replica.do(reshape("g", generation, owners=owners[:6], start=starts[:6]))
    assert replica.refused(seek("g", (2, 4, 0))) == ("LIMIT_EXCEEDED", {"limit": "6"})


def test_topics_that_were_met_are_remembered_while_they_are_there(replica: Replica) -> None:
    def seen() -> list[int]:
        row = groups.read(replica.w, "g")
        assert row is not None
        return list(log_pb2.GroupRow.FromString(row.definition).topics_seen)

    replica.topic("u")
    generation = replica.do(put("g")).group.generation
    generation = replica.do(reshape("g", generation, seen=[2, 1, 2])).group.generation
    assert seen() == [1, 2]
    generation = replica.do(put("g", definition("u"))).group.generation
    assert seen() == [1, 2]
    replica.do(delete("t"))
    replica.topic("v")
    replica.do(reshape("g", generation, seen=[3, 77]))
    assert seen() == [2, 3]


def test_who_is_gone_owns_nothing(replica: Replica) -> None:
    generation = replica.do(put("g")).group.generation
    generation = replica.do(
        reshape("g", generation, join=["a"], owners=[(1, 0, "a")], start=[(1, 0, 0)])
    ).group.generation
    replica.do(reshape("g", generation, leave=["a"]))
    assert [p.owner for p in shown(replica).partitions] == [""]


# -- positions -----------------------------------------------------------------------------


def test_a_seek_forgets_what_was_settled_and_fences(replica: Replica) -> None:
    generation = replica.do(put("g")).group.generation
    first = replica.do(
        reshape(
            "g",
            generation,
            join=["a"],
            owners=[(1, 0, "a"), (1, 1, "a")],
            start=[(1, 0, 0), (1, 1, 0)],
        )
    ).group.generation
    settled(replica, 0, 0b1011_0000, waiting=(2, 6))
    settled(replica, 1, 0b10)
    result = replica.do(seek("g", (1, 0, 3)))
    assert not result.more
    assert [(p.topic, p.partition, p.floor) for p in result.group.partitions] == [("t", 0, 3)]
    moved, other = shown(replica).partitions
    fence = index(replica)
    assert (moved.floor, moved.settled_above, moved.retrying) == (3, 0, 0)
    assert (moved.owner, moved.fence) == ("a", fence), "its owner goes on, once it knows"
    assert (other.settled_above, other.fence) == (1, first)
    assert not list(retries.scan_group(replica.w, "g"))
    assert [(p, chunk) for _, p, chunk, _ in acks.scan_group(replica.w, "g")] == [(1, 0)]
    assert shown(replica).generation == fence


def test_a_long_seek_goes_on_where_it_stopped(replica: Replica) -> None:
    replica.do(put("g"))
    replica.do(commit("g", (1, 0, 2), (1, 1, 2)))
    settled(replica, 0, 0b11_0100, waiting=(2, 3, 4, 5, 6, 7, 8, 9))
    settled(replica, 1, 0b1000, waiting=(5,))
    wanted = [(1, 0, 0), (1, 1, 10)]
    steps = 0
    while wanted:
        before = replica.w.count(Table.RETRIES)
        result = replica.do(seek("g", *wanted))
        steps += 1
        assert before - replica.w.count(Table.RETRIES) <= LIMITS.step_rows
        done = {(1, p.partition) for p in result.group.partitions}
        wanted = [goal for goal in wanted if goal[:2] not in done]
        assert result.more == bool(wanted)
        flow = flows.read(replica.w, "g", 1, 0)
        assert flow.fence == index(replica), "fenced while it lasts"
        assert flow.retrying == len(list(retries.scan(replica.w, flow_keys.flow_key("g", 1, 0))))
        if wanted and (1, 0) not in done:
            assert groups.committed(replica.w, "g", 1, 0) == 2, "a position moves when all is cleared"
    assert steps == 3
    assert [(p.floor, p.settled_above, p.retrying) for p in shown(replica).partitions] == [
        (0, 0, 0),
        (10, 0, 0),
    ]
    assert not replica.w.count(Table.ACKS)


def test_the_steps_of_a_seek_are_bounded_over_all_its_partitions(replica: Replica) -> None:
    replica.do(put("g"))
    replica.do(commit("g", (1, 0, 0), (1, 1, 0)))
    for partition in (0, 1):
        settled(replica, partition, 0, waiting=(1, 2, 3))
    result = replica.do(seek("g", (1, 0, 5), (1, 1, 5)))
    assert result.more
    assert [p.partition for p in result.group.partitions] == [0]
    assert replica.w.count(Table.RETRIES) == 6 - LIMITS.step_rows
    result = replica.do(seek("g", (1, 1, 5)))
    assert (result.more, replica.w.count(Table.RETRIES)) == (False, 0)


def test_seeks_that_make_no_sense(replica: Replica) -> None:
    assert replica.refused(seek("g", (1, 0, 0)))[0] == "UNKNOWN_GROUP"
    replica.do(put("g"))
    assert replica.refused(seek("g"))[1] == {"field": "flows"}
    assert replica.refused(seek("g", (1, 0, 0), (1, 0, 1)))[1] == {"field": "flows"}
    assert replica.refused(seek("g", (9, 0, 0)))[0] == "UNKNOWN_TOPIC"
    assert replica.refused(seek("g", (1, 2, 0)))[0] == "UNKNOWN_PARTITION"
    reason, facts = replica.refused(seek("g", (1, 1, 0), (1, 0, 11)))
    assert (reason, facts["partition"], facts["end_offset"]) == ("OFFSET_OUT_OF_RANGE", "0", "10")


def test_no_commit_passes_a_seek(replica: Replica) -> None:
    replica.do(commit("g", (1, 0, 8), (1, 1, 8)))
    replica.do(seek("g", (1, 0, 2)))
    fence = index(replica)
    facts = {"topic": "t", "partition": "0"}
    assert replica.refused(commit("g", (1, 1, 9), (1, 0, 9))) == ("FENCED", facts)
    assert replica.refused(commit("g", (1, 0, 9), fence=fence - 1)) == ("FENCED", facts)
    replica.do(commit("g", (1, 0, 3), fence=fence))
    replica.do(commit("g", (1, 1, 9)))
    assert [p.floor for p in shown(replica).partitions] == [3, 9]


def test_a_group_without_a_definition_can_be_sought(replica: Replica) -> None:
    replica.do(commit("g", (1, 0, 9)))
    replica.do(seek("g", (1, 0, 1), (1, 1, 2)))
    found = shown(replica)
    assert [p.floor for p in found.partitions] == [1, 2]
    assert not found.HasField("definition")
    row = groups.read(replica.w, "g")
    assert row is not None
    assert row.held == 2


# -- the end ---------------------------------------------------------------------------------


def test_a_group_goes_with_all_it_holds_step_by_step(replica: Replica) -> None:
    replica.do(put("g"))
    replica.do(put("gg"))
    before = replica.dump()
    replica.do(put("g", definition("t", max_unacked=3)))
    replica.do(commit("g", (1, 0, 1), (1, 1, 1)))
    settled(replica, 0, 0b1110, waiting=(5, 6, 7, 8, 9))
    settled(replica, 1, 0b1110)
    more = [replica.do(drop("g")).more, replica.do(drop("g")).more]
    assert more == [True, False]
    after = replica.dump()
    assert {table: rows for table, rows in after.items() if table is not Table.GROUPS} == {
        table: rows for table, rows in before.items() if table is not Table.GROUPS
    }
    assert groups.list_groups(replica.w) == ["gg"], "a name that begins alike is another group"
    assert replica.refused(drop("g"))[0] == "UNKNOWN_GROUP"


def test_a_group_with_members_stays(replica: Replica) -> None:
    generation = replica.do(put("g")).group.generation
    generation = replica.do(reshape("g", generation, join=["a"])).group.generation
    assert replica.refused(drop("g")) == ("FAILED_PRECONDITION", {"group": "g"})
    replica.do(reshape("g", generation, leave=["a"]))
    assert not replica.do(drop("g")).more


# -- what is said of it ------------------------------------------------------------------------


def test_others_than_the_coordinator_are_told_of(replica: Replica) -> None:
    assert replica.run(put("g")).groups_changed == {"g"}
    assert not replica.run(put("g")).groups_changed
    generation = shown(replica).generation
    assert not replica.run(reshape("g", generation, start=[(1, 0, 0)])).groups_changed
    assert replica.run(seek("g", (1, 0, 2))).groups_changed == {"g"}
    assert not replica.run(seek("g", (1, 0, 99))).groups_changed
    assert replica.run(drop("g")).groups_changed == {"g"}
    assert not replica.run(commit("g", (1, 0, 1))).groups_changed


def test_events() -> None:
    seen: list[object] = []
    replica = Replica(events=seen.append)
    replica.topic()
    seen.clear()
    replica.do(put("g"))
    replica.do(put("g", definition("t", max_unacked=4)))
    replica.do(drop("g"))
    assert seen == [GroupCreated("g"), GroupDeleted("g")]


def test_topics_that_are_gone_are_not_shown(replica: Replica) -> None:
    replica.topic("a", 1)
    replica.do(commit("g", (1, 1, 1), (1, 0, 1), (2, 0, 0)))
    assert [(p.topic, p.partition) for p in shown(replica).partitions] == [("a", 0), ("t", 0), ("t", 1)]
    flows.write(replica.w, "g", 2, 0, FlowRow(fence=1))
    replica.do(delete("a"))
    assert [(p.topic, p.partition) for p in shown(replica).partitions] == [("t", 0), ("t", 1)]
    bare = group_message(replica.w, "g", members=False, partitions=False)
    assert not bare.partitions
