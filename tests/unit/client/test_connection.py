"""Finding brokers and leaders, repeating calls, and what failures become."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import holdfast
from holdfast.client.backoff import Backoff
from holdfast.client.connection import Connection, parse_endpoints
from holdfast.client.failures import from_rpc
from holdfast.client.options import ClientOptions
from holdfast.errors import (
    DeadlineExceededError,
    HoldfastError,
    InternalError,
    InvalidArgumentError,
    NoLeaderError,
    OutcomeUnknownError,
    OverloadedError,
    TopicExistsError,
    UnavailableError,
    UnknownTopicError,
)

from .fake_bus import FakeCluster


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a:1", ["a:1"]),
        ("a:1, b:2,a:1", ["a:1", "b:2"]),
        (["a:1", "[::1]:2"], ["a:1", "[::1]:2"]),
    ],
)
def test_endpoints(given: str | list[str], expected: list[str]) -> None:
    assert parse_endpoints(given) == expected


@pytest.mark.parametrize("wrong", ["", [], "host", "host:", ":1", "host:x", "host:70000", ["a:1", "b"]])
def test_wrong_endpoints(wrong: str | list[str]) -> None:
    with pytest.raises(InvalidArgumentError):
        holdfast.connect(wrong)


@pytest.mark.parametrize(
    "options",
    [
        {"linger_ms": -1},
        {"batch_bytes": 0},
        {"batch_bytes": 1 << 30},
        {"max_in_flight": 9},
        {"max_buffered_bytes": 0},
        {"timeout": 0},
        {"compression": "lz4"},
    ],
)
def test_wrong_options(options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        holdfast.connect("a:1", **options)  # type: ignore[arg-type]


async def test_the_others_are_learnt_from_one() -> None:
    async with FakeCluster(3) as cluster, holdfast.connect(cluster.endpoints[1]) as bus:
        cluster.leader = 2
        await bus.create_topic("t")
        await bus.publish("t", b"x")
        statuses = await bus.statuses()
        assert set(statuses) == set(cluster.endpoints)
        assert [s.role for s in statuses.values() if isinstance(s, holdfast.ClusterInfo)].count("leader") == 1
        await cluster.nodes[0].stop()
        statuses = await bus.statuses()
        assert isinstance(statuses[cluster.endpoints[0]], UnavailableError)


async def test_discovery_can_be_switched_off() -> None:
    async with FakeCluster(2) as cluster, holdfast.connect(cluster.endpoints[1], discover=False) as bus:
        await bus.create_topic("t")
        await bus.publish("t", b"x")  # a follower: it forwards
        assert list(await bus.statuses()) == [cluster.endpoints[1]]


async def test_calls_are_repeated_elsewhere() -> None:
    async with FakeCluster(2) as cluster, holdfast.connect(cluster.endpoints) as bus:
        cluster.call_faults.extend([NoLeaderError("no"), OutcomeUnknownError("?"), UnavailableError("no")])
        await bus.create_topic("t")
        await cluster.nodes[0].stop()
        assert (await bus.topic("t")).name == "t"
        await cluster.nodes[0].start()
        await cluster.nodes[1].stop()
        assert (await bus.topic("t")).name == "t"


async def test_calls_end_with_the_last_failure() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        cluster.call_faults.extend([NoLeaderError("still none")] * 1000)
        with pytest.raises(NoLeaderError, match="still none"):
            await bus.topic("t", timeout=0.1)
        cluster.call_faults.clear()
        with pytest.raises(UnknownTopicError):
            await bus.topic("t")


async def test_created_by_an_earlier_try() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("t", partitions=2)
        cluster.call_faults.append(TopicExistsError("exists"))
        with pytest.raises(TopicExistsError):
            await bus.create_topic("t", partitions=2)
        cluster.call_faults.extend([OutcomeUnknownError("?"), TopicExistsError("exists")])
        assert (await bus.create_topic("t", partitions=2)).partitions == 2
        cluster.call_faults.extend([OutcomeUnknownError("?"), TopicExistsError("exists")])
        with pytest.raises(TopicExistsError):
            await bus.create_topic("t", partitions=3)


async def test_no_leader() -> None:
    async with FakeCluster(2) as cluster:
        connection = Connection(cluster.endpoints, ClientOptions())
        await connection.start()
        first = await connection.leader(1)
        assert first.address == cluster.endpoints[0]
        assert not await connection.newer_leader(cluster.term)
        cluster.move_leader()
        async with asyncio.timeout(5):
            while not await connection.newer_leader(cluster.term - 1):
                await asyncio.sleep(0.05)  # what was seen a moment ago counts for a moment
        await asyncio.gather(*[node.stop() for node in cluster.nodes])
        with pytest.raises(NoLeaderError):
            await connection.leader(0.1)
        await connection.close()


def test_backoff_grows_is_bounded_and_jittered() -> None:
    backoff = Backoff(0.01, 0.1, jitter=lambda: 1.0)
    assert [round(backoff.delay(), 3) for _ in range(6)] == [0.01, 0.02, 0.04, 0.08, 0.1, 0.1]
    backoff.reset()
    assert backoff.delay(hint_ms=50) == pytest.approx(0.05)
    assert backoff.delay(hint_ms=60_000) == pytest.approx(0.1)
    assert Backoff(0.01, 0.1, jitter=lambda: 0.0).delay() == pytest.approx(0.005)
    backoff.reset()
    gone = UnavailableError("gone")
    assert backoff.after(gone) == 0.0
    assert backoff.after(gone) == pytest.approx(0.05)
    backoff.reset()
    assert backoff.after(OverloadedError("full")) == pytest.approx(0.1)


def failure(
    code: grpc.StatusCode, reason: str = "", domain: str = "holdfast", retry: bool = False
) -> HoldfastError:
    status = status_pb2.Status(code=code.value[0], message="text")
    if reason:
        info = error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata={"a": "b"})
        status.details.add().Pack(info)
    if retry:
        delay = error_details_pb2.RetryInfo()
        delay.retry_delay.FromMilliseconds(70)
        status.details.add().Pack(delay)
    trailing = grpc.aio.Metadata(("x", "y"), ("grpc-status-details-bin", status.SerializeToString()))
    return from_rpc(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, "text"), "a:1")


def test_failures() -> None:
    found = failure(grpc.StatusCode.NOT_FOUND, "UNKNOWN_TOPIC")
    assert isinstance(found, UnknownTopicError)
    assert (found.message, found.metadata, found.retriable) == ("text", {"a": "b"}, False)
    found = failure(grpc.StatusCode.UNAVAILABLE, "NO_LEADER", retry=True)
    assert isinstance(found, NoLeaderError)
    assert found.retry_after_ms == 70
    # Of a newer broker: what matters is whether it may be tried again.
    assert isinstance(failure(grpc.StatusCode.UNAVAILABLE, "MOON_PHASE", retry=True), UnavailableError)
    assert isinstance(failure(grpc.StatusCode.ABORTED, "MOON_PHASE"), InternalError)
    # Of gRPC itself: the last of its words says it.
    text = "failed to connect to all addresses; last error: UNKNOWN: ipv4:1.2.3.4:1: Connection refused"
    nothing = grpc.aio.Metadata()
    refused = from_rpc(grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, text), "b:1")
    assert refused.message == "broker b:1 is not reachable: Connection refused"
    # Of somebody else: the code decides.
    assert isinstance(failure(grpc.StatusCode.UNAVAILABLE, "X", domain="proxy"), UnavailableError)
    assert isinstance(failure(grpc.StatusCode.DEADLINE_EXCEEDED), DeadlineExceededError)
    assert isinstance(failure(grpc.StatusCode.UNKNOWN), InternalError)
    broken = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff"))
    error = grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, grpc.aio.Metadata(), broken, None)
    assert isinstance(from_rpc(error, "a:1"), UnavailableError)
