"""Joins, leaves, static members, returns and hand-overs, over the real state machine."""

from __future__ import annotations

from collections import Counter

import pytest

from holdfast.cluster.delivery.events import GroupRebalanced
from holdfast.cluster.state.limits import StateLimits
from holdfast.errors import NoLeaderError
from holdfast.v1 import bus_pb2

from .live_kit import GROUP, Client, World, definition

KEY, NONE = bus_pb2.ORDERING_KEY, bus_pb2.ORDERING_NONE


def test_the_first_member_makes_the_group() -> None:
    world = World()
    a = Client(world, "a", definition=definition(), consumer_name="worker")
    world.run()
    assert [op.WhichOneof("op") for op in world.proposed] == ["put_group", "reshape"]
    assert a.welcome is not None
    assert (a.welcome.protocol, a.welcome.member_id, a.welcome.heartbeat_ms) == (2, "a", 10_000)
    assert list(a.welcome.definition.topics) == ["t"]
    (assignment,) = a.assignments
    assert sorted((p.topic, p.partition) for p in assignment.partitions) == [("t", 0), ("t", 1), ("t", 2)]
    assert all(p.fence == assignment.generation == world.index for p in assignment.partitions)
    assert world.owners() == {0: "a", 1: "a", 2: "a"}
    assert world.members() == ["a"]


def test_a_hundred_members_that_start_together_cost_a_handful_of_entries() -> None:
    world = World({"t": 100})
    for n in range(100):
        Client(world, f"m{n:02}", definition=definition())
    world.run()
    assert len(world.members()) == 100
    assert set(Counter(world.owners().values()).values()) == {1}
    assert len(world.proposed) <= 4


def test_a_member_that_defines_nothing() -> None:
    world = World()
    a = Client(world, "a", topics=["t"])
    world.run()
    assert a.welcome is not None
    assert list(a.welcome.definition.topics) == ["t"]
    b = Client(world, "b")
    world.run()
    assert b.welcome is not None


def test_a_group_nobody_has_defined() -> None:
    world = World()
    a = Client(world, "a")
    world.run()
    assert a.error is not None
    assert a.error.reason == "UNKNOWN_GROUP"
    assert GROUP not in world.leader.groups


def test_a_definition_that_conflicts() -> None:
    world = World()
    Client(world, "a", definition=definition())
    b = Client(world, "b", definition=definition(ordering=KEY))
    world.run()
    assert b.error is not None
    assert b.error.reason == "GROUP_CONFLICT"
    assert b.error.metadata["field"] == "ordering"
    c = Client(world, "c", definition=definition(ack_timeout_ms=30_000))  # as it is
    world.run()
    assert c.welcome is not None


def test_a_group_nobody_asked_for_may_become_anything_while_it_is_empty() -> None:
    world = World()
    a = Client(world, "a", topics=["t"])
    world.run()
    a.disconnect(orderly=True)
    world.run()
    assert world.members() == []
    assert GROUP not in world.leader.groups
    b = Client(world, "b", definition=definition(ordering=KEY))
    world.run()
    assert b.welcome is not None
    assert b.welcome.definition.ordering == KEY


def test_a_topic_that_is_not_there() -> None:
    world = World()
    a = Client(world, "a", definition=definition(["t", "missing"]))
    world.run()
    assert a.error is not None
    assert a.error.reason == "UNKNOWN_TOPIC"
    world.advance(5)
    assert GROUP not in world.leader.groups
    world.create("missing")
    a.connect()
    world.run()
    assert a.welcome is not None


def test_a_slip_of_the_pen_makes_no_group() -> None:
    """It would be defined to read what is not there, and nobody could join it under the right name."""
    world = World()
    wrong = [Client(world, name, definition=definition(["tt"])) for name in "ab"]
    right = Client(world, "c", definition=definition(["t"]))
    world.run()
    assert [client.error and client.error.reason for client in wrong] == ["UNKNOWN_TOPIC"] * 2
    assert right.welcome is not None
    assert set(world.owners().values()) == {"c"}


def test_what_the_state_machine_refuses_a_member_is_told() -> None:
    world = World(limits=StateLimits(max_members_per_group=2))
    clients = [Client(world, name, definition=definition()) for name in "ab"]
    world.run()
    c = Client(world, "c")
    world.run()
    assert c.error is not None
    assert c.error.reason == "LIMIT_EXCEEDED"
    world.advance(5)
    assert world.members() == ["a", "b"]
    clients[0].disconnect(orderly=True)
    world.run()
    c.connect()
    world.advance(1)
    assert c.welcome is not None


def test_a_leave_moves_only_what_it_leaves() -> None:
    world = World({"t": 6})
    clients = {name: Client(world, name, definition=definition()) for name in "abc"}
    world.run()
    before = world.owners()
    clients["b"].disconnect(orderly=True)
    world.run()
    after = world.owners()
    assert set(after.values()) == {"a", "c"}
    assert all(after[n] == name for n, name in before.items() if name != "b")
    assert world.members() == ["a", "c"]
    (event,) = [e for e in world.events if isinstance(e, GroupRebalanced)][-1:]
    assert (event.members, event.partitions) == (2, 6)


def test_a_broken_connection_moves_nothing_when_the_member_comes_back() -> None:
    world = World()
    a, b = (Client(world, name, definition=definition()) for name in "ab")
    world.run()
    before, entries = world.owners(), len(world.proposed)
    a.disconnect()
    world.advance(1.4)
    a.connect()
    world.advance(10)
    assert world.owners() == before
    assert len(world.proposed) == entries
    assert a.welcome is not None
    assert len(a.assignments[-1].partitions) == sum(1 for name in before.values() if name == "a")
    assert len(b.assignments) == 1


def test_a_member_that_does_not_come_back_loses_its_partitions() -> None:
    world = World()
    a, _ = (Client(world, name, definition=definition()) for name in "ab")
    world.run()
    a.disconnect()
    world.advance(1.4)
    assert "a" in world.owners().values()
    world.advance(0.2)
    assert set(world.owners().values()) == {"b"}
    assert world.members() == ["b"]


def test_a_static_member_keeps_its_partitions_for_its_grace() -> None:
    world = World()
    a, b = (Client(world, name, definition=definition(), static_grace_ms=60_000) for name in "ab")
    world.run()
    before, entries = world.owners(), len(world.proposed)
    a.disconnect()
    world.advance(59)
    b.beat()
    assert world.owners() == before
    a.connect()
    world.advance(5)
    assert world.owners() == before
    assert len(world.proposed) == entries
    a.disconnect()
    world.advance(61)
    assert set(world.owners().values()) == {"b"}


def test_the_newest_stream_of_a_member_wins() -> None:
    world = World()
    a = Client(world, "a", definition=definition(), static_grace_ms=60_000)
    world.run()
    old, entries = a.session, len(world.proposed)
    a.connect()
    assert old is not None
    assert old.ended is not None
    assert old.ended.reason == "FENCED"
    world.run()
    world.leader.leave(old)
    world.advance(10)
    assert a.welcome is not None
    assert len(a.slots) == 3
    assert len(world.proposed) == entries
    assert world.members() == ["a"]


def test_a_change_of_leader_moves_nothing() -> None:
    world = World({"t": 5})
    clients = [Client(world, name, definition=definition()) for name in "abc"]
    world.run()
    before, entries = world.owners(), len(world.proposed)
    world.lead()
    for client in clients:
        world.advance(0.4)
        client.connect()
    world.advance(10)
    assert world.owners() == before
    assert len(world.proposed) == entries
    assert all(client.welcome is not None for client in clients)


def test_a_new_leader_lets_go_who_does_not_come() -> None:
    world = World({"t": 4})
    clients = [Client(world, name, definition=definition()) for name in "ab"]
    world.run()
    world.lead()
    clients[0].connect()
    world.advance(1.4)
    assert world.members() == ["a", "b"]
    world.advance(0.2)
    assert world.members() == ["a"]
    assert set(world.owners().values()) == {"a"}


def test_a_new_leader_lets_go_a_group_of_which_nobody_comes() -> None:
    world = World()
    Client(world, "a", definition=definition())
    Client(world, "b", static_grace_ms=20_000)
    world.run()
    world.lead()
    assert world.leader.groups == {}
    world.advance(1.6)
    assert world.members() == ["b"]
    world.advance(20)
    assert world.members() == []
    assert world.leader.groups == {}


def test_an_idle_group_costs_nothing() -> None:
    """No members, nothing in memory; members that only beat, nothing proposed."""
    world = World()
    a = Client(world, "a", definition=definition())
    world.run()
    entries = len(world.proposed)
    for _ in range(20):
        world.advance(10)
        a.beat()
    assert len(world.proposed) == entries
    a.disconnect(orderly=True)
    world.run()
    assert world.leader.groups == {}
    assert not world.leader.reads([(1, 0)])


def test_a_partition_drains_before_it_is_handed_over() -> None:
    world = World({"t": 2})
    a = Client(world, "a", definition=definition())
    world.run()
    for n in (0, 1):
        world.publish("t", n, b"", b"")
    world.run()
    assert len(a.handed) == 4
    b = Client(world, "b")
    world.run()
    (moves,) = a.revoked()
    assert world.owners() == {0: "a", 1: "a"}
    assert b.assignments[-1].partitions == []
    assert a.got("revoking")[0].within_ms == 30_000
    kept, given = sorted({0, 1} - {moves[1]}), moves[1]
    world.publish("t", given, b"")
    world.publish("t", kept[0], b"")
    world.run()
    assert ("t", given, 2) not in a.handed
    assert ("t", kept[0], 2) in a.handed
    a.ack(("t", given, 0))
    world.settle_down()
    assert world.owners() == {0: "a", 1: "a"}
    a.ack(("t", given, 1))
    world.settle_down()
    assert world.owners() == {kept[0]: "a", given: "b"}
    assert b.seen == [("t", given, 2)]  # nothing is delivered twice
    assert world.settled("t", given) == {0, 1}
    assert set(a.slots.values()) == {("t", kept[0])}


def test_a_hand_over_does_not_wait_for_ever() -> None:
    world = World({"t": 2})
    a = Client(world, "a", definition=definition(ack_timeout_ms=10_000))
    world.run()
    for n in (0, 1):
        world.publish("t", n, b"", b"")
    world.run()
    b = Client(world, "b")
    world.run()
    ((_, given),) = a.revoked()
    slot = a.slot("t", given)
    for _ in range(11):
        world.advance(1)
        if world.now < 110.0:
            a.beat()
            b.beat()
    assert world.owners()[given] == "b"
    assert b.seen == [("t", given, 0), ("t", given, 1)]
    assert set(b.attempts.values()) == {0}
    a.settle(acks=[bus_pb2.OffsetRuns(slot=slot, lease=1, base=0, runs=[0, 1])])
    world.settle_down()
    assert list(a.settled().values())[-1] == [(0, 0, "FENCED")]


def test_who_was_asked_in_vain_goes_on() -> None:
    world = World({"t": 2})
    a = Client(world, "a", definition=definition())
    world.run()
    for n in (0, 1):
        world.publish("t", n, b"")
    world.run()
    b = Client(world, "b")
    world.run()
    ((_, given),) = a.revoked()
    b.disconnect(orderly=True)
    world.run()
    assert world.owners() == {0: "a", 1: "a"}
    world.publish("t", given, b"")
    world.run()
    assert ("t", given, 1) in a.handed
    assert ("t", given) in [(p.topic, p.partition) for p in a.assignments[-1].partitions]


def test_by_key_a_join_or_leave_moves_nothing() -> None:
    world = World()
    a = Client(world, "a", definition=definition(ordering=KEY))
    world.run()
    b = Client(world, "b")
    world.run()
    assert len(a.slots) == len(b.slots) == 3
    assert len(a.assignments) == 1
    assert world.owners() == {}
    b.disconnect(orderly=True)
    world.run()
    assert len(a.assignments) == 1


def test_a_topic_that_comes_later_is_read_from_its_first_record() -> None:
    world = World({"a1": 1})
    world.publish("a1", 0, b"")
    asked = bus_pb2.GroupDefinition(patterns=["a*"], start=bus_pb2.Position(latest=True))
    client = Client(world, "c", definition=asked)
    world.run()
    assert client.seen == []
    world.create("a2", 2)
    world.publish("a2", 1, b"")
    world.publish("a1", 0, b"")
    world.run()
    assert sorted(client.seen) == [("a1", 0, 1), ("a2", 1, 0)]
    assert sorted(client.slots.values()) == [("a1", 0), ("a2", 0), ("a2", 1)]


def test_a_topic_that_is_deleted() -> None:
    world = World({"a1": 1, "a2": 1})
    named = Client(world, "n", definition=definition(["a1", "a2"]))
    world.run()
    world.delete("a2")
    world.run()
    assert named.error is not None
    assert named.error.reason == "UNKNOWN_TOPIC"
    world.advance(5)
    assert world.members() == []
    assert world.leader.groups == {}


def test_a_deleted_topic_that_matched_a_pattern_is_read_no_more() -> None:
    world = World({"a1": 1, "a2": 1})
    client = Client(world, "c", definition=bus_pb2.GroupDefinition(patterns=["a?"]))
    world.run()
    world.publish("a2", 0, b"")
    world.run()
    world.delete("a2")
    world.run()
    assert client.error is None
    assert list(client.slots.values()) == [("a1", 0)]
    world.publish("a1", 0, b"")
    world.run()
    assert client.seen[-1] == ("a1", 0, 0)


@pytest.mark.parametrize("fate", ["lost", "dropped", NoLeaderError("no")])
@pytest.mark.parametrize("which", [0, 1])
def test_joining_whatever_becomes_of_the_proposals(fate: str | NoLeaderError, which: int) -> None:
    """Of the definition, or of the reshape: the answer is lost, with or without the operation."""
    world = World()
    a = Client(world, "a", definition=definition())
    for n in range(which + 1):
        world.step(fate if n == which else "applied")
    world.advance(3)
    assert a.welcome is not None
    assert world.owners() == {0: "a", 1: "a", 2: "a"}
    world.publish("t", 0, b"")
    world.run()
    assert a.seen == [("t", 0, 0)]


@pytest.mark.parametrize("fate", ["applied", "lost", "dropped", "late"])
def test_nothing_is_handed_out_of_a_partition_that_changes_hands(fate: str) -> None:
    world = World({"t": 2})
    a = Client(world, "a", definition=definition())
    world.run()
    b = Client(world, "b")
    for n in (0, 1):
        world.publish("t", n, b"")
    a.pump()
    assert len(a.seen) == 1
    world.step(fate)
    world.advance(3)
    assert len(a.seen) == len(b.seen) == 1
    assert {*a.seen, *b.seen} == {("t", 0, 0), ("t", 1, 0)}


@pytest.mark.parametrize("fate", [NoLeaderError("no"), "dropped"])
def test_who_comes_back_does_not_wait_behind_a_failure(fate: str | NoLeaderError) -> None:
    world = World()
    a = Client(world, "a", definition=definition())
    world.run()
    a.disconnect()
    Client(world, "b")
    world.step(fate)
    a.connect()
    a.pump()
    assert a.welcome is not None


def test_what_is_due_is_not_put_off_by_what_happens_meanwhile() -> None:
    world = World()
    a, b = (Client(world, name, definition=definition()) for name in "ab")
    world.run()
    a.disconnect()
    world.now += 1.6
    for _ in range(4):
        world.now += 0.0005
        b.pump()
        world.leader.tick()
    world.run()
    assert world.members() == ["b"]
