"""How far groups are behind, asked of any broker, with the client library and on the command line."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import holdfast
import holdfast.testing
from holdfast.chaos.processes import LocalCluster
from holdfast.cli.commands.group_lag import _behind
from holdfast.client.groups import GroupDefinition
from holdfast.cluster.commands import encode_op
from holdfast.errors import InvalidArgumentError, UnknownGroupError
from holdfast.v1 import bus_pb2, groups_pb2, groups_pb2_grpc, log_pb2

from .brokers import three
from .conftest import Holdfast


async def test_every_node_says_the_same_at_one_index(tmp_path: Path) -> None:
    """Records are settled in any order, some wait, and all three count the same."""
    async with three(tmp_path) as (brokers, clients):
        stubs = [groups_pb2_grpc.GroupsStub(client.channel) for client in clients]
        for number in range(12):
            await clients[0].publish(b"%d" % number)
        definition = bus_pb2.GroupDefinition(topics=["t"], ordering=bus_pb2.ORDERING_KEY)
        await stubs[1].PutGroup(groups_pb2.PutGroupRequest(name="g", definition=definition), timeout=10)
        settle = log_pb2.SettleOp(group="g")
        flow = settle.flows.add(topic_id=1, partition=0, floor=2, base=0, runs=[4, 1, 2, 3])
        flow.retries.add(offset=2, cause=log_pb2.RETRY_CAUSE_NACK)
        flow.retries.add(offset=3, cause=log_pb2.RETRY_CAUSE_PARK)
        bridge = brokers[0].bridge
        assert bridge is not None
        await bridge.submit(encode_op(log_pb2.Op(settle=settle)), 10)

        async def ask(node: int) -> groups_pb2.GetLagResponse:
            request = groups_pb2.GetLagRequest(group="g", linearizable=True)
            return await stubs[node].GetLag(request, timeout=10)

        async with asyncio.timeout(20):
            while True:
                answers = [await ask(node) for node in range(3)]
                if len({answer.applied_index for answer in answers}) == 1:
                    break
        for answer in answers:
            for lag in answer.lags:
                assert lag.seconds == (answer.as_of_us - lag.oldest_append_us) / 1e6 > 0
                lag.ClearField("seconds")
        first, *others = ([lag.SerializeToString(deterministic=True) for lag in a.lags] for a in answers)
        assert all(other == first for other in others)
        (lag,) = answers[0].lags
        assert (lag.records, lag.floor, lag.end, lag.retrying, lag.parked) == (6, 2, 12, 2, 1)


async def test_the_client_s_call() -> None:
    async with holdfast.testing.embedded() as bus:
        before = datetime.now(UTC) - timedelta(seconds=1)
        await bus.create_topic("orders", partitions=2)
        await bus.create_topic("shop")
        await bus.publish_many("orders", [b"%d" % n for n in range(10)], keys=["k"] * 10)
        await bus.create_group("billing", GroupDefinition(topics="orders"))
        await bus.create_group("watch", GroupDefinition(patterns="sh*"))
        (full,) = [p.partition for p in (await bus.topic("orders")).partition_info if p.end_offset]
        await bus.seek_group("billing", "orders", {full: 7})
        lags = await bus.lag()
        assert [
            (lag.group, lag.topic, lag.records)
            for lag in lags
            if lag.partition == full or lag.group == "watch"
        ] == [
            ("billing", "orders", 3),
            ("watch", "shop", 0),
        ]
        assert len(lags) == 3
        lag = next(lag for lag in await bus.lag("billing", linearizable=True) if lag.partition == full)
        assert (lag.floor, lag.end, lag.retrying, lag.parked) == (7, 10, 0, 0)
        assert lag.oldest_at is not None
        assert before < lag.oldest_at
        assert 0 <= lag.seconds < 60
        (idle,) = await bus.lag("watch")
        assert (idle.seconds, idle.oldest_at) == (0.0, None)
        with pytest.raises(UnknownGroupError):
            await bus.lag("typo")
        with pytest.raises(InvalidArgumentError):
            await bus.lag("a b")


async def test_more_partitions_than_a_page_has() -> None:
    async with holdfast.testing.embedded() as bus:
        await bus.create_topic("t", partitions=600)
        for name in ("a", "b"):
            await bus.create_group(name, GroupDefinition(topics="t"))
        lags = await bus.lag()
        assert [(lag.group, lag.partition) for lag in lags] == [(g, n) for g in "ab" for n in range(600)]


def test_without_an_event_loop(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, size=1) as cluster, holdfast.connect_sync(cluster.endpoints) as bus:
        bus.create_topic("t")
        bus.publish("t", b"x")
        bus.create_group("g", GroupDefinition(topics="t"))
        assert [lag.records for lag in bus.lag("g", linearizable=True)] == [1]


def test_on_the_command_line(holdfast: Holdfast) -> None:
    assert "no group has begun" in holdfast("group", "lag").stderr
    holdfast("topic", "create", "shop")
    holdfast("publish", "shop", *"abcde")
    holdfast("group", "create", "slow", "-t", "shop")
    holdfast("group", "create", "done", "-t", "shop")
    holdfast("group", "seek", "done", "--topic", "shop", "--to", "latest", "--yes")
    header, done, slow = holdfast("group", "lag").stdout.splitlines()
    assert header.split() == ["GROUP", "TOPIC", "PARTITION", "LAG", "BEHIND", "RETRYING", "PARKED"]
    assert done.split() == ["done", "shop", "0", "0", "-", "0", "0"]
    assert slow.split()[:4] == ["slow", "shop", "0", "5"]
    assert slow.split()[4].endswith("s")
    (lag,) = json.loads(holdfast("group", "lag", "slow", "--json").stdout)["lags"]
    assert {key: lag[key] for key in ("group", "topic", "partition", "records", "floor", "end")} == {
        "group": "slow",
        "topic": "shop",
        "partition": 0,
        "records": 5,
        "floor": 0,
        "end": 5,
    }
    assert lag["seconds"] > 0
    assert lag["oldest_at"].endswith("Z")
    assert "UNKNOWN_GROUP" in holdfast("group", "lag", "typo", status=1).stderr
    header, done, slow = holdfast("group", "list", "--lag").stdout.splitlines()
    assert header.split()[-2:] == ["LAG", "BEHIND"]
    assert done.split()[-2:] == ["0", "-"]
    assert slow.split()[-2] == "5"
    listed = json.loads(holdfast("group", "list", "--lag", "--json").stdout)["groups"]
    assert [(group["name"], group["lag"]) for group in listed] == [("done", 0), ("slow", 5)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (59.9, "59.9s"), (61.0, "1m01s"), (3_600.0, "1h00m"), (200_000.0, "2d07h")],
)
def test_times_as_a_person_reads_them(seconds: float, text: str) -> None:
    assert _behind(1, seconds) == text
