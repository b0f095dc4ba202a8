"""Topics and Cluster over gRPC, against an engine without consensus."""

from __future__ import annotations

import grpc
import pytest
from rpc_fakes import Served, error_of, make_engine

from holdfast.errors import NoLeaderError
from holdfast.v1 import bus_pb2, cluster_pb2, records_pb2, topics_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def create(name: str = "t", partitions: int = 2, **more: object) -> topics_pb2.CreateTopicRequest:
    return topics_pb2.CreateTopicRequest(name=name, partitions=partitions, **more)  # type: ignore[arg-type]


async def test_life_of_a_topic() -> None:
    async with Served(make_engine()) as served:
        made = await served.topics.CreateTopic(create())
        assert (made.name, made.id, made.partitions) == ("t", 1, 2)
        again = await served.topics.CreateTopic(create(if_not_exists=True))
        assert again.id == made.id
        await served.bus.Publish(
            bus_pb2.PublishRequest(topic="t", records=[records_pb2.Record(value=b"x")], partition=1)
        )
        got = await served.topics.GetTopic(topics_pb2.GetTopicRequest(name="t"))
        assert [(p.start_offset, p.end_offset) for p in got.partition_info] == [(0, 0), (0, 1)]
        await served.topics.CreateTopic(create("a"))
        listed = await served.topics.ListTopics(topics_pb2.ListTopicsRequest())
        assert [t.name for t in listed.topics] == ["a", "t"]
        limits = topics_pb2.TopicLimits(max_record_bytes=10)
        updated = await served.topics.UpdateTopic(topics_pb2.UpdateTopicRequest(name="t", limits=limits))
        assert updated.limits.max_record_bytes == 10
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.bus.Publish(
                bus_pb2.PublishRequest(topic="t", records=[records_pb2.Record(value=bytes(11))])
            )
        assert error_of(caught.value)[1] == "RECORD_TOO_LARGE"
        await served.topics.DeleteTopic(topics_pb2.DeleteTopicRequest(name="t"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.topics.GetTopic(topics_pb2.GetTopicRequest(name="t"))
        assert error_of(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_TOPIC")


@pytest.mark.parametrize(
    ("method", "request_", "code", "reason"),
    [
        ("CreateTopic", create("a b"), INVALID, "INVALID_ARGUMENT"),
        ("CreateTopic", create(".."), INVALID, "INVALID_ARGUMENT"),
        ("CreateTopic", create("x", 100_000), INVALID, "INVALID_ARGUMENT"),
        (
            "CreateTopic",
            create("x", limits=topics_pb2.TopicLimits(retention_ms=-1)),
            INVALID,
            "INVALID_ARGUMENT",
        ),
        ("CreateTopic", create("t"), grpc.StatusCode.ALREADY_EXISTS, "TOPIC_EXISTS"),
        ("DeleteTopic", topics_pb2.DeleteTopicRequest(name="x"), grpc.StatusCode.NOT_FOUND, "UNKNOWN_TOPIC"),
        ("UpdateTopic", topics_pb2.UpdateTopicRequest(name="x"), grpc.StatusCode.NOT_FOUND, "UNKNOWN_TOPIC"),
        (
            "UpdateTopic",
            topics_pb2.UpdateTopicRequest(name="t", partitions=3),
            grpc.StatusCode.FAILED_PRECONDITION,
            "FAILED_PRECONDITION",
        ),
    ],
)
async def test_bad_requests(method: str, request_: object, code: grpc.StatusCode, reason: str) -> None:
    async with Served(make_engine()) as served:
        await served.topics.CreateTopic(create("t"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(served.topics, method)(request_)
        assert error_of(caught.value)[:2] == (code, reason)
        assert (await served.topics.GetTopic(topics_pb2.GetTopicRequest(name="t"))).partitions == 2


async def test_reads_work_without_a_leader() -> None:
    async with Served(make_engine()) as served:
        await served.topics.CreateTopic(create("t"))
        served.engine.fail = NoLeaderError("none")
        listed = await served.topics.ListTopics(topics_pb2.ListTopicsRequest())
        assert [t.name for t in listed.topics] == ["t"]


async def test_status_and_digest() -> None:
    async with Served(make_engine()) as served:
        await served.topics.CreateTopic(create("t"))
        status = await served.cluster.GetStatus(cluster_pb2.GetStatusRequest())
        assert (status.node_id, status.role, status.leader_id) == ("n1", cluster_pb2.ROLE_LEADER, "n1")
        assert status.leader_address == status.members[0].client_address
        digest = await served.cluster.GetDigest(
            cluster_pb2.GetDigestRequest(topic="t", min_applied_index=2), timeout=5
        )
        assert [p.partition for p in digest.partitions] == [0, 1]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.cluster.GetDigest(cluster_pb2.GetDigestRequest(min_applied_index=99), timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
