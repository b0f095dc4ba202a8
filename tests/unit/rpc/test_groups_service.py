"""The Groups service over gRPC, against an engine without consensus."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from rpc_fakes import Served, error_of, make_engine

from holdfast.cluster.commands import encode_op
from holdfast.errors import NoLeaderError
from holdfast.records import encode_batch
from holdfast.rpc.settings import Limits
from holdfast.storage import acks, flow_keys, flows, groups, members, retries
from holdfast.storage.flows import FlowRow
from holdfast.storage.members import MemberRow
from holdfast.storage.retries import NEVER_US, RetryRow, State
from holdfast.v1 import bus_pb2, groups_pb2, log_pb2, topics_pb2

CODES = grpc.StatusCode


def definition(*topics: str, **fields: Any) -> bus_pb2.GroupDefinition:
    return bus_pb2.GroupDefinition(topics=topics or ["t"], **fields)


async def topic(served: Served, name: str = "t", partitions: int = 2, **limits: int) -> None:
    await served.topics.CreateTopic(
        topics_pb2.CreateTopicRequest(
            name=name, partitions=partitions, limits=topics_pb2.TopicLimits(**limits)
        )
    )


async def publish(served: Served, times: list[int], partition: int = 0) -> None:
    batch = encode_batch([b"x"] * len(times), timestamps_us=times)
    await served.bus.Publish(
        bus_pb2.PublishRequest(topic="t", batches=[bus_pb2.PartitionBatch(partition=partition, batch=batch)])
    )


async def put(served: Served, name: str = "g", **more: Any) -> groups_pb2.Group:
    more.setdefault("definition", definition())
    return await served.groups.PutGroup(groups_pb2.PutGroupRequest(name=name, **more))


async def get(served: Served, name: str = "g") -> groups_pb2.Group:
    return await served.groups.GetGroup(groups_pb2.GetGroupRequest(name=name))


async def seek(served: Served, *partitions: int, **position: Any) -> groups_pb2.Group:
    return await served.groups.SeekGroup(
        groups_pb2.SeekGroupRequest(
            name="g", topic="t", partitions=partitions, to=bus_pb2.Position(**position)
        )
    )


def floors(group: groups_pb2.Group) -> list[tuple[str, int, int]]:
    return [(p.topic, p.partition, p.floor) for p in group.partitions]


async def refused(call: Any) -> tuple[str, str | None]:
    """Reason and field."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    _, reason, facts = error_of(caught.value)
    return reason, facts.get("field")


async def test_life_of_a_group() -> None:
    async with Served(make_engine()) as served:
        await topic(served)
        told: list[frozenset[str]] = []
        served.engine.bridge.follow_groups(told.append)
        made = await put(served, definition=definition(ordering=bus_pb2.ORDERING_KEY))
        assert (made.name, made.definition.ack_timeout_ms) == ("g", 30_000)
        assert await put(served, definition=made.definition, create_only=True) == made
        assert await get(served) == made
        changed = await put(served, definition=definition(ordering=bus_pb2.ORDERING_KEY, max_unacked=9))
        assert changed.definition.max_unacked == 9
        assert changed.generation > made.generation
        listed = await served.groups.ListGroups(groups_pb2.ListGroupsRequest())
        assert list(listed.groups) == [changed]
        await served.groups.DeleteGroup(groups_pb2.DeleteGroupRequest(name="g"))
        assert await refused(get(served)) == ("UNKNOWN_GROUP", None)
        assert set().union(*told) == {"g"}


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        ({"name": "a b"}, "INVALID_ARGUMENT", "name"),
        ({"name": "_dead/t"}, "INVALID_ARGUMENT", "name"),
        ({"definition": None}, "INVALID_ARGUMENT", "definition"),
        ({"definition": definition(ack_timeout_ms=1)}, "INVALID_ARGUMENT", "ack_timeout_ms"),
        ({"definition": definition("t", "typo")}, "UNKNOWN_TOPIC", "topics"),
        ({"definition": definition(dead_letter_topic="typo")}, "UNKNOWN_TOPIC", "dead_letter_topic"),
        ({"definition": definition(dead_letter_topic="small")}, "INVALID_ARGUMENT", "dead_letter_topic"),
        (
            {"definition": definition("large", dead_letter_topic="plain")},
            "INVALID_ARGUMENT",
            "dead_letter_topic",
        ),
        ({"definition": definition(semantics=3)}, "GROUP_CONFLICT", "semantics"),
        ({"definition": definition(max_unacked=1), "create_only": True}, "GROUP_CONFLICT", "max_unacked"),
    ],
)
async def test_puts_that_are_refused(request_: dict[str, Any], reason: str, field: str) -> None:
    async with Served(make_engine(), Limits(max_record_bytes=1 << 20)) as served:
        await topic(served)
        await topic(served, "plain")
        await topic(served, "small", max_record_bytes=(1 << 20) + (16 << 10) - 1)
        await topic(served, "large", max_record_bytes=(1 << 20) - (16 << 10) + 1)
        before = await put(served)
        assert await refused(put(served, **request_)) == (reason, field)
        assert await get(served) == before


async def test_topics_without_limits_of_their_own_go_together() -> None:
    async with Served(make_engine()) as served:
        await topic(served)
        await topic(served, "dead")
        made = await put(served, definition=definition(dead_letter_topic="dead"))
        assert made.definition.dead_letter_topic == "dead"


async def test_a_topic_that_is_gone_may_stay_in_a_definition_and_not_come_in() -> None:
    async with Served(make_engine()) as served:
        await topic(served)
        await topic(served, "u")
        made = await put(served, definition=definition("t", "u"))
        await served.topics.DeleteTopic(topics_pb2.DeleteTopicRequest(name="u"))
        made.definition.max_unacked = 4
        assert (await put(served, definition=made.definition)).definition.max_unacked == 4
        await put(served, definition=definition("t"))
        assert await refused(put(served, definition=definition("t", "u"))) == ("UNKNOWN_TOPIC", "topics")


async def test_groups_are_listed_by_pages_without_the_brokers_own() -> None:
    async with Served(make_engine()) as served:
        w = served.engine.store.writer()
        names = [f"g{n:02}" for n in range(7)]
        for name in [*names, "_dead/a", "_dead/b", "_dead/c"]:
            groups.write(w, name, groups.GroupRow())
        served.engine.store.commit()
        for limit in (1, 2, 3, 7, 8, 0):
            found: list[str] = []
            after = ""
            while True:
                page = await served.groups.ListGroups(groups_pb2.ListGroupsRequest(after=after, limit=limit))
                assert len(page.groups) <= (limit or 1_000)
                found += [group.name for group in page.groups]
                after = page.next
                if not after:
                    break
            assert found == names
        listing = served.groups.ListGroups
        assert await refused(listing(groups_pb2.ListGroupsRequest(limit=1_001))) == (
            "INVALID_ARGUMENT",
            "limit",
        )
        assert await refused(listing(groups_pb2.ListGroupsRequest(after="x" * 600))) == (
            "INVALID_ARGUMENT",
            "after",
        )
        assert await refused(get(served, "_dead/a")) == ("INVALID_ARGUMENT", "name")


async def test_reads_work_without_a_leader() -> None:
    async with Served(make_engine()) as served:
        await topic(served)
        await put(served)
        served.engine.fail = NoLeaderError("none")
        assert (await get(served)).name == "g"
        listed = await served.groups.ListGroups(groups_pb2.ListGroupsRequest())
        assert [group.name for group in listed.groups] == ["g"]
        assert (await refused(put(served)))[0] == "NO_LEADER"


async def test_seeks() -> None:
    async with Served(make_engine()) as served:
        await topic(served, partitions=3)
        await publish(served, [10, 20, 30])
        await publish(served, [40, 50], partition=1)
        await put(served)
        assert floors(await seek(served, latest=True)) == [("t", 0, 3), ("t", 1, 2), ("t", 2, 0)]
        assert floors(await seek(served, 0, offset=1)) == [("t", 0, 1), ("t", 1, 2), ("t", 2, 0)]
        assert floors(await seek(served, earliest=True)) == [("t", 0, 0), ("t", 1, 0), ("t", 2, 0)]
        # Within a batch, too.
        assert floors(await seek(served, time_us=20)) == [("t", 0, 1), ("t", 1, 0), ("t", 2, 0)]
        assert floors(await seek(served, time_us=45)) == [("t", 0, 3), ("t", 1, 1), ("t", 2, 0)]
        named = bus_pb2.PartitionOffsets(offsets={0: 2})
        moved = await seek(served, offsets=named)
        assert floors(moved) == [("t", 0, 2), ("t", 1, 1), ("t", 2, 0)], "no other partition"
        fences = [p.fence for p in moved.partitions]
        assert fences[0] == moved.generation > max(fences[1:])


async def test_a_seek_of_many_rows_is_done_in_one_call() -> None:
    async with Served(make_engine()) as served:
        await topic(served)
        await publish(served, list(range(1_000)))
        await publish(served, list(range(1_000)), partition=1)
        await put(served)
        w = served.engine.store.writer()
        for partition in (0, 1):
            flow = flow_keys.flow_key("g", 1, partition)
            groups.commit_offset(w, "g", 1, partition, 0)
            for offset in range(600):
                retries.write(w, flow, offset, RetryRow(1, 0, State.WAITING, 1, 1))
            acks.write(w, flow, 0, 1 << 700)
            flows.write(w, "g", 1, partition, FlowRow(0, 1, 600))
        served.engine.store.commit()
        before = served.engine.index
        found = await seek(served, offset=5)
        assert [(p.floor, p.settled_above, p.retrying) for p in found.partitions] == [(5, 0, 0)] * 2
        assert served.engine.index - before > 4
        assert not list(retries.scan_group(w, "g"))


async def test_seeks_that_are_refused() -> None:
    async with Served(make_engine()) as served:
        await topic(served)
        await publish(served, [10, 20, 30])
        assert await refused(seek(served, earliest=True)) == ("UNKNOWN_GROUP", None)
        await put(served)
        before = await get(served)
        named = bus_pb2.PartitionOffsets(offsets={0: 2})
        for call, reason, field in (
            (seek(served), "INVALID_ARGUMENT", "to"),
            (seek(served, 0, 0, earliest=True), "INVALID_ARGUMENT", "partitions"),
            (seek(served, 0, 1, offsets=named), "INVALID_ARGUMENT", "partitions"),
            (seek(served, offsets=bus_pb2.PartitionOffsets()), "INVALID_ARGUMENT", "to"),
            (seek(served, 2, earliest=True), "UNKNOWN_PARTITION", None),
            (seek(served, offset=1), "OFFSET_OUT_OF_RANGE", None),  # partition 1 is empty
            (seek(served, offset=-1), "OFFSET_OUT_OF_RANGE", None),
        ):
            assert await refused(call) == (reason, field)
        unknown = groups_pb2.SeekGroupRequest(name="g", topic="no", to=bus_pb2.Position(earliest=True))
        assert (await refused(served.groups.SeekGroup(unknown)))[0] == "UNKNOWN_TOPIC"
        assert await get(served) == before


async def test_a_deletion_takes_as_many_steps_as_it_needs() -> None:
    async with Served(make_engine()) as served:
        await topic(served)
        await put(served)
        w = served.engine.store.writer()
        flow = flow_keys.flow_key("g", 1, 0)
        for offset in range(600):
            retries.write(w, flow, offset, RetryRow(1, 0, State.WAITING, 1, 1))
        members.write(w, "g", "m", MemberRow("", False, 0, 0))
        served.engine.store.commit()
        deletion = groups_pb2.DeleteGroupRequest(name="g")
        assert (await refused(served.groups.DeleteGroup(deletion)))[0] == "FAILED_PRECONDITION"
        members.delete(w, "g", "m")
        before = served.engine.index
        await served.groups.DeleteGroup(deletion)
        assert served.engine.index - before == 3
        assert (await refused(served.groups.DeleteGroup(deletion)))[0] == "UNKNOWN_GROUP"


async def park(served: Served, offsets: list[int], partition: int = 0, delay_ms: int | None = None) -> None:
    """As the coordinator does when a member parks records."""
    op = log_pb2.Op()
    op.settle.group = "g"
    flow = op.settle.flows.add(topic_id=1, partition=partition)
    for offset in offsets:
        item = flow.retries.add(offset=offset, cause=log_pb2.RETRY_CAUSE_PARK, error="no price")
        if delay_ms is not None:
            item.delay_ms = delay_ms
    await served.engine.bridge.submit(encode_op(op), 5)


def place(offset: int, partition: int = 0, name: str = "t") -> groups_pb2.RetryPlace:
    return groups_pb2.RetryPlace(topic=name, partition=partition, offset=offset)


async def parked(served: Served) -> list[tuple[int, int]]:
    page = await served.groups.ListRetries(groups_pb2.ListRetriesRequest(group="g", parked_only=True))
    return [(retry.place.partition, retry.place.offset) for retry in page.retries]


async def test_parked_records_are_restored_and_the_coordinator_is_told() -> None:
    async with Served(make_engine()) as served:
        await topic(served)
        await publish(served, list(range(20)))
        await publish(served, list(range(20)), partition=1)
        await put(served)
        await park(served, [2, 3, 5, 9])
        await park(served, [0, 1], partition=1, delay_ms=60_000)
        assert await parked(served) == [(0, 2), (0, 3), (0, 5), (0, 9), (1, 0), (1, 1)]
        told: list[frozenset[str]] = []
        served.engine.bridge.follow_groups(told.append)

        async def restore(*places: groups_pb2.RetryPlace, discard: bool = False) -> int:
            request = groups_pb2.RestoreRequest(group="g", places=places, discard=discard)
            return (await served.groups.Restore(request)).records

        # Twice the same, and some that are not parked: they are left alone.
        assert await restore(place(3), place(2), place(3), place(4), place(1, 1)) == 3
        assert told == [{"g"}]
        assert await parked(served) == [(0, 5), (0, 9), (1, 0)]
        page = await served.groups.ListRetries(groups_pb2.ListRetriesRequest(group="g"))
        due = {retry.place.offset: retry.due_us for retry in page.retries if not retry.parked}
        assert due == {1: served.engine.time_us, 2: served.engine.time_us, 3: served.engine.time_us}
        assert await restore(place(2)) == 0
        assert await restore(place(5), discard=True) == 1
        assert [(p.partition, p.settled_above) for p in (await get(served)).partitions] == [(0, 1), (1, 0)]
        assert await restore() == 2
        assert await parked(served) == []
        assert await restore() == 0
        assert len(told) == 3


async def test_all_parked_records_are_more_than_one_step() -> None:
    async with Served(make_engine()) as served:
        await topic(served)
        await publish(served, list(range(4_000)))
        await put(served)
        for start in range(0, 3_000, 1_000):
            await park(served, list(range(start, start + 1_000)))
        request = groups_pb2.RestoreRequest(group="g", discard=True)
        assert (await served.groups.Restore(request)).records == 3_000
        (part,) = (await get(served)).partitions
        assert (part.floor, part.retrying) == (3_000, 0)
        assert list(retries.scan_group(served.engine.store.writer(), "g")), "rows go with later steps"
        assert await parked(served) == []


async def test_restores_that_are_refused() -> None:
    async with Served(make_engine()) as served:
        await topic(served)
        await publish(served, [1, 2, 3])

        def restore(*places: groups_pb2.RetryPlace) -> Any:
            return served.groups.Restore(groups_pb2.RestoreRequest(group="g", places=places))

        assert await refused(restore()) == ("UNKNOWN_GROUP", None)
        await put(served)
        assert await refused(restore(place(0, name="no"))) == ("UNKNOWN_TOPIC", "topic")
        assert await refused(restore(place(0, 2))) == ("UNKNOWN_PARTITION", None)
        assert await refused(restore(place(-1))) == ("INVALID_ARGUMENT", "offset")
        assert (await refused(restore(place(9))))[0] == "OFFSET_OUT_OF_RANGE"
        assert await refused(restore(*[place(n) for n in range(1_001)])) == ("INVALID_ARGUMENT", "places")


async def test_records_that_wait_are_listed_by_pages() -> None:
    async with Served(make_engine()) as served:
        await topic(served)
        await topic(served, "u")
        await put(served)
        w = served.engine.store.writer()
        errors = ((5, "no price"), (6, "again"))
        for topic_id in (1, 2):
            for offset in range(5):
                parked = offset in (1, 3)
                state = State.PARKED_FOR_GOOD if parked else State.WAITING
                row = RetryRow(2, 1, state, NEVER_US if parked else 9, 5, 0, errors)
                retries.write(w, flow_keys.flow_key("g", topic_id, 1), offset, row)
        served.engine.store.commit()

        async def listed(limit: int, parked_only: bool = False) -> list[groups_pb2.Retry]:
            request = groups_pb2.ListRetriesRequest(group="g", limit=limit, parked_only=parked_only)
            found: list[groups_pb2.Retry] = []
            while True:
                page = await served.groups.ListRetries(request)
                found += page.retries
                if not page.HasField("next"):
                    return found
                request.after.CopyFrom(page.next)

        for limit in (1, 3, 10, 0):
            every = await listed(limit)
            assert [(r.place.topic, r.place.partition, r.place.offset) for r in every] == [
                (name, 1, offset) for name in "tu" for offset in range(5)
            ]
            parked = await listed(limit, parked_only=True)
            assert [r.place.offset for r in parked] == [1, 3, 1, 3]
        assert all(r.parked and not r.HasField("due_us") for r in parked)
        first = every[0]
        assert (first.attempts, first.losses, first.parked, first.due_us) == (2, 1, False, 9)
        assert (first.first_failed_us, [(e.time_us, e.error) for e in first.errors]) == (5, list(errors))
        gone = groups_pb2.ListRetriesRequest(group="g", after=groups_pb2.RetryPlace(topic="no"))
        assert (await refused(served.groups.ListRetries(gone)))[0] == "UNKNOWN_TOPIC"
        nobody = groups_pb2.ListRetriesRequest(group="nobody")
        assert (await refused(served.groups.ListRetries(nobody)))[0] == "UNKNOWN_GROUP"
