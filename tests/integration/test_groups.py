"""Groups through any broker of a cluster, and with the client library."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import holdfast
import holdfast.testing
from holdfast.chaos.processes import LocalCluster
from holdfast.cli.run import run
from holdfast.client.groups import GroupDefinition
from holdfast.client.retry import Retry
from holdfast.cluster.commands import encode_op
from holdfast.errors import (
    FailedPreconditionError,
    GroupConflictError,
    OffsetOutOfRangeError,
    UnknownGroupError,
    UnknownTopicError,
)
from holdfast.rpc.broker import Broker
from holdfast.v1 import bus_pb2, cluster_pb2, groups_pb2, groups_pb2_grpc, log_pb2

from .brokers import single, three


async def test_calls_through_followers(tmp_path: Path) -> None:
    """What is done through one follower is seen through the other at once, and the leader is told."""
    async with three(tmp_path) as (brokers, clients):
        status = await clients[0].cluster.GetStatus(cluster_pb2.GetStatusRequest(), timeout=10)
        leader = int(status.leader_id[1]) - 1
        here, there = (n for n in range(3) if n != leader)
        told: asyncio.Queue[frozenset[str]] = asyncio.Queue()
        _bridge(brokers[leader]).follow_groups(told.put_nowait)
        for number in range(5):
            await clients[here].publish(b"%d" % number)
        through = groups_pb2_grpc.GroupsStub(clients[here].channel)
        other = groups_pb2_grpc.GroupsStub(clients[there].channel)

        definition = bus_pb2.GroupDefinition(topics=["t"], ordering=bus_pb2.ORDERING_KEY)
        made = await through.PutGroup(groups_pb2.PutGroupRequest(name="g", definition=definition), timeout=10)
        assert await told.get() == {"g"}
        assert await other.GetGroup(groups_pb2.GetGroupRequest(name="g"), timeout=10) == made
        moved = await other.SeekGroup(
            groups_pb2.SeekGroupRequest(name="g", topic="t", to=bus_pb2.Position(offset=3)), timeout=10
        )
        assert await told.get() == {"g"}
        assert [(p.topic, p.floor, p.fence) for p in moved.partitions] == [("t", 3, moved.generation)]
        assert await through.GetGroup(groups_pb2.GetGroupRequest(name="g"), timeout=10) == moved
        definition.ordering = bus_pb2.ORDERING_NONE
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await through.PutGroup(groups_pb2.PutGroupRequest(name="g", definition=definition), timeout=10)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        await through.DeleteGroup(groups_pb2.DeleteGroupRequest(name="g"), timeout=10)
        assert not (await other.ListGroups(groups_pb2.ListGroupsRequest(), timeout=10)).groups


async def test_health_and_reflection_know_the_service(tmp_path: Path) -> None:
    async with single(tmp_path) as (_, client):
        request = health_pb2.HealthCheckRequest(service="holdfast.v1.Groups")
        answer = await client.health.Check(request, timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [answer async for answer in stub.ServerReflectionInfo(iter([ask]), timeout=10)]
        assert "holdfast.v1.Groups" in {s.name for s in answers[0].list_services_response.service}


async def test_the_client_s_calls() -> None:
    async with holdfast.testing.embedded() as bus:
        await bus.create_topic("orders", partitions=2)
        await bus.create_topic("orders.dead")
        await bus.publish_many("orders", [b"%d" % n for n in range(10)], keys=["k"] * 10)
        definition = GroupDefinition(
            topics=["orders"],
            ordering="key",
            retry=Retry(attempts=5, initial=1.0, maximum=60.0),
            dead_letter="orders.dead",
        )
        made = await bus.create_group("billing", definition)
        assert made.definition is not None
        assert (made.definition.topics, made.definition.ordering) == (("orders",), "key")
        assert (made.definition.retry.attempts, made.definition.retry.multiplier) == (5, 2.0)
        assert (made.definition.ack_timeout, made.definition.start) == (30.0, "earliest")
        assert await bus.create_group("billing", definition) == made
        assert await bus.create_group("billing", made.definition) == made
        with pytest.raises(GroupConflictError) as conflict:
            await bus.create_group("billing", GroupDefinition(topics="orders"))
        assert conflict.value.metadata == {"field": "ordering", "group_has": "key", "asked": "partition"}
        with pytest.raises(UnknownTopicError):
            await bus.put_group("other", GroupDefinition(topics="ordres"))

        changed = await bus.put_group("billing", GroupDefinition(topics="orders", ordering="key"))
        assert changed.definition is not None
        assert (changed.definition.retry.attempts, changed.definition.dead_letter) == (0, "")

        end = {p.partition: p.end_offset for p in (await bus.topic("orders")).partition_info}
        moved = await bus.seek_group("billing", "orders", "latest")
        assert {p.partition: p.floor for p in moved.partitions} == end
        (full,) = [partition for partition, offset in end.items() if offset]
        moved = await bus.seek_group("billing", "orders", {full: 4})
        assert {p.partition: p.floor for p in moved.partitions} == {**end, full: 4}
        moved = await bus.seek_group("billing", "orders", "earliest", partitions=[full])
        assert {p.floor for p in moved.partitions} == {0}
        with pytest.raises(OffsetOutOfRangeError):
            await bus.seek_group("billing", "orders", 11, partitions=[full])

        await bus.put_group("audit", GroupDefinition(patterns="or*", start="latest"))
        assert [group.name for group in await bus.groups()] == ["audit", "billing"]
        assert await bus.group("billing") == moved
        assert await bus.retries("billing") == []
        await bus.delete_group("billing")
        with pytest.raises(UnknownGroupError):
            await bus.group("billing")
        with pytest.raises(UnknownGroupError):
            await bus.delete_group("billing")
        with pytest.raises(UnknownGroupError):
            await bus.retries("billing")


async def test_a_seek_under_a_consumer_that_knows_nothing_of_definitions() -> None:
    """Its stream ends and comes back; no commit of its own undoes the seek."""
    async with holdfast.testing.embedded() as bus, asyncio.timeout(60):
        await bus.create_topic("t")
        await bus.publish_many("t", [b"%d" % n for n in range(3_000)])
        events: list[holdfast.SubscriptionEvent] = []
        async with bus.subscribe("t", "g", max_in_flight=100, on_event=events.append) as records:
            offsets: list[int] = []
            sought = False
            async for record in records:
                offsets.append(record.offset)
                record.ack()
                if record.offset == 2_000 and not sought:
                    # Amid acks and commits that are under way.
                    await bus.seek_group("g", "t", 500)
                    sought = True
                if sought and record.offset == 2_999:
                    break
            assert await records.committed() == {("t", 0): 3_000}
        assert any(isinstance(event, holdfast.Disconnected) for event in events)
        after = offsets[2_001:]
        # What was handed out already when the stream ended is not handed out twice.
        assert [offset for offset in after if offset < 1_900] == list(range(500, 1_900))
        assert sorted({*after, 2_000}) == list(range(500, 3_000))


async def test_a_group_that_is_defined_under_such_a_consumer_is_closed_to_it() -> None:
    async with holdfast.testing.embedded() as bus, asyncio.timeout(60):
        await bus.create_topic("t")
        await bus.publish("t", b"x")
        async with bus.subscribe("t", "g") as records:
            await records.take(1)
            await bus.put_group("g", GroupDefinition(topics="t"))
            with pytest.raises(FailedPreconditionError, match="is defined"):
                await records.take(1)


async def test_more_groups_than_a_page_has() -> None:
    async with holdfast.testing.embedded() as bus:
        await bus.create_topic("t")
        definition = GroupDefinition(topics="t")
        names = [f"g{number:04}" for number in range(1_001)]
        for start in range(0, len(names), 100):
            await asyncio.gather(*[bus.create_group(name, definition) for name in names[start : start + 100]])
        assert [group.name for group in await bus.groups()] == names


async def test_parked_records_are_seen_and_restored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the client, and on the command line."""
    async with single(tmp_path) as (broker, client), holdfast.connect(broker.client_address) as bus:
        for number in range(6):
            await client.publish(b"%d" % number)
        await bus.put_group("g", GroupDefinition(topics="t"))
        await _park(broker, 1, 2, 4)
        assert [(r.offset, r.parked, r.due_at) for r in await bus.retries("g")] == [
            (1, True, None),
            (2, True, None),
            (4, True, None),
        ]
        assert (await bus.group("g")).partitions[0].retrying == 3

        async def command(*arguments: str) -> list[str]:
            given = ["group", *arguments, "-e", broker.client_address]
            assert await asyncio.to_thread(run, given) == 0
            return capsys.readouterr().out.splitlines()

        shown = await command("retries", "g", "--parked", "--limit", "2")
        assert shown == [
            "TOPIC  PARTITION  OFFSET  ATTEMPTS  STATE   LAST ERROR",
            "t              0       1         0  parked  no price",
            "t              0       2         0  parked  no price",
        ]
        assert await command("restore", "g", "-t", "t", "-p", "0", "-o", "1", "-o", "3") == [
            "restored 1 record"
        ]
        again, *_ = await bus.retries("g")
        assert (again.offset, again.parked) == (1, False)
        assert await command("restore", "g", "--all", "--discard", "--yes", "--json") == ['{"discarded":2}']
        assert await bus.retries("g", parked=True) == []
        assert await bus.restore("g", [again]) == 0, "it is not parked any more"
        (line,) = await command("retries", "g", "--json")
        assert json.loads(line)["errors"][0]["error"] == "no price"


def test_without_an_event_loop(tmp_path: Path) -> None:
    with (
        LocalCluster(tmp_path, size=1) as cluster,
        holdfast.connect_sync(cluster.endpoints) as bus,
    ):
        bus.create_topic("t")
        made = bus.create_group("g", GroupDefinition(topics="t"))
        changed = bus.put_group("g", GroupDefinition(topics="t", max_unacked=5))
        assert changed.generation > made.generation
        assert bus.group("g") == changed
        assert [group.name for group in bus.groups()] == ["g"]
        assert [p.floor for p in bus.seek_group("g", "t", "latest", timeout=5).partitions] == [0]
        assert bus.retries("g", parked=True) == []
        bus.delete_group("g")
        assert bus.groups() == []


async def _park(broker: Broker, *offsets: int) -> None:
    """As the coordinator does when a member parks records of topic 1."""
    op = log_pb2.Op()
    op.settle.group = "g"
    flow = op.settle.flows.add(topic_id=1)
    for offset in offsets:
        flow.retries.add(offset=offset, cause=log_pb2.RETRY_CAUSE_PARK, error="no price")
    await _bridge(broker).submit(encode_op(op), 10)


def _bridge(broker: Broker) -> Any:
    return broker._services.publish._bridge  # type: ignore[union-attr]
