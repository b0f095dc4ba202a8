"""Life of a broker: start, serve through any node, restart, fail, stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import holdfast
from holdfast.chaos.processes import free_ports
from holdfast.client.groups import GroupDefinition
from holdfast.errors import StorageError, UnavailableError
from holdfast.rpc.broker import Broker
from holdfast.rpc.settings import make
from holdfast.v1 import bus_pb2, cluster_pb2, topics_pb2

from .brokers import Client, error_of, publish_request, single, three

TOPICS = topics_pb2.ListTopicsRequest()
STATUS = cluster_pb2.GetStatusRequest()
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_restart_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    acked: list[bytes] = []
    for _ in range(3):
        async with single(tmp_path) as (_, client):
            client.acked = acked
            await client.check()
    assert len(acked) == 3


async def test_any_node_takes_any_call(tmp_path: Path) -> None:
    async with three(tmp_path) as (brokers, clients):
        acked: list[bytes] = []
        for client in clients:
            client.acked = acked
            await client.check()
        # A topic made through one node can be used through another at once.
        for i, client in enumerate(clients):
            await client.create_topic(f"made-{i}")
            other = clients[(i + 1) % 3]
            await other.bus.Publish(publish_request([b"x"], f"made-{i}"), timeout=10)
            names = [t.name for t in (await other.topics.ListTopics(TOPICS, timeout=10)).topics]
            assert f"made-{i}" in names
        leaders = set()
        for client in clients:
            status = await client.cluster.GetStatus(STATUS, timeout=10)
            leaders.add((status.leader_id, status.leader_address))
            assert [member.node_id for member in status.members] == ["n1", "n2", "n3"]
        assert len(leaders) == 1
        leader_id, address = leaders.pop()
        assert address == brokers[int(leader_id[1]) - 1].client_address
        await same_digests(clients)


async def same_digests(clients: list[Client]) -> None:
    index = max([(await c.cluster.GetStatus(STATUS, timeout=10)).applied_index for c in clients])
    request = cluster_pb2.GetDigestRequest(min_applied_index=index)
    answers = [await client.cluster.GetDigest(request, timeout=10) for client in clients]
    assert len({tuple((p.topic, p.end_offset, p.digest) for p in a.partitions) for a in answers}) == 1


async def test_losing_the_leader_loses_nothing(tmp_path: Path) -> None:
    async with three(tmp_path) as (brokers, clients):
        await clients[0].check()
        status = await clients[0].cluster.GetStatus(STATUS, timeout=10)
        gone = int(status.leader_id[1]) - 1
        await brokers[gone].stop()
        client = clients[(gone + 1) % 3]
        client.acked = clients[0].acked
        refusals = set()
        async with asyncio.timeout(20):
            while client.acked[-1:] != [b"after"]:
                try:
                    await client.publish(b"after", producer_id=7)
                except grpc.aio.AioRpcError as error:
                    refusals.add(error_of(error)[1])
        assert refusals <= {"NO_LEADER", "OUTCOME_UNKNOWN", "UNAVAILABLE"}
        await client.check()


async def test_a_follower_alone_is_not_ready(tmp_path: Path) -> None:
    members = "n1=127.0.0.1:1/2,n2=127.0.0.1:3/4,n3=127.0.0.1:5/6"
    settings = make(members=members, listen="127.0.0.1:0", peer_listen="127.0.0.1:0", data_dir=tmp_path)
    async with Broker(settings) as broker:
        with pytest.raises(UnavailableError, match="no leader"):
            await broker.wait_ready(0.05)
        client = Client(broker.client_address)
        check = await client.health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert check.status == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.create_topic()
        assert error_of(caught.value)[:2] == ("UNAVAILABLE", "NO_LEADER")
        assert not (await client.cluster.GetStatus(STATUS, timeout=10)).leader_id
        await client.close()


async def test_health_and_reflection(tmp_path: Path) -> None:
    async with single(tmp_path) as (_, client):
        for service in ("", "holdfast.v1.EventBus"):
            request = health_pb2.HealthCheckRequest(service=service)
            assert (await client.health.Check(request, timeout=10)).status == SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [answer async for answer in stub.ServerReflectionInfo(iter([ask]), timeout=10)]
        names = {service.name for service in answers[0].list_services_response.service}
        assert {"holdfast.v1.EventBus", "holdfast.v1.Topics", "holdfast.v1.Cluster"} <= names


async def test_stop_answers_what_is_in_flight(tmp_path: Path) -> None:
    async with single(tmp_path) as (broker, client):
        calls = [asyncio.ensure_future(client.bus.Publish(publish_request([b"%d" % i]))) for i in range(50)]
        follow = client.bus.Replay(bus_pb2.ReplayRequest(topic="t", follow=True), timeout=30)
        await follow.read()
        idle = client.bus.PublishStream(timeout=30)
        await idle.write(publish_request([b"streamed"]))
        assert (await idle.read()).results[0].response.acks
        await broker.stop()
        assert await idle.code() is grpc.StatusCode.UNAVAILABLE
        results = await asyncio.gather(*calls, return_exceptions=True)
        refused = [r for r in results if isinstance(r, BaseException)]
        assert all(error_of(r)[0] == "UNAVAILABLE" for r in refused if error_has_details(r))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drain(follow)
        assert error_of(caught.value)[0] == "UNAVAILABLE"
    acknowledged = len(results) - len(refused)
    async with single(tmp_path) as (_, client):
        assert len(await client.replay()) >= acknowledged


async def drain(call: grpc.aio.UnaryStreamCall[object, object]) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


def error_has_details(error: BaseException) -> bool:
    return isinstance(error, grpc.aio.AioRpcError) and "grpc-status-details-bin" in dict(
        error.trailing_metadata() or ()
    )


async def test_a_failed_engine_ends_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    broker = Broker(make(listen="127.0.0.1:0", data_dir=tmp_path), on_failure=told.set_result)
    async with broker:
        await broker.wait_ready()
        client = Client(broker.client_address)
        await client.create_topic()
        await client.publish(b"kept")

        def broken() -> None:
            raise StorageError("the disk is gone")

        monkeypatch.setattr(broker.store, "commit", broken)
        monkeypatch.setattr(broker.store, "persist", broken)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.publish(b"lost")
        assert error_of(caught.value)[0] in ("ABORTED", "UNAVAILABLE")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.publish(b"later")
        assert error_of(caught.value)[0] == "UNAVAILABLE"
        assert broker.failed is await asyncio.wait_for(told, 10)
        async for check in client.health.Watch(health_pb2.HealthCheckRequest(), timeout=10):
            if check.status == NOT_SERVING:
                break
        await client.close()
    monkeypatch.undo()
    async with single(tmp_path) as (_, client):
        assert (await client.replay())[:1] == [b"kept"]


SERVE = """
import sys
import urllib.request
from holdfast.rpc.broker import run
from holdfast.rpc.settings import load
run(load(env={}, overrides=dict(arg.split("=", 1) for arg in sys.argv[1:])))
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_process_says_when_it_is_ready_and_stops_on_a_signal(signum: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVE, "listen=127.0.0.1:0", f"data_dir={tmp_path}", "log.format=json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        ready = json.loads(process.stderr.readline())
        assert ready["event"] == "ready"
        assert ready["pid"] == process.pid
        assert ready["client_address"].startswith("127.0.0.1:")
        os.kill(process.pid, signum)
        rest = process.stderr.read()
        assert process.wait(20) == 0, rest


async def test_telemetry_shows_publishes_and_state(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry")
    (port,) = free_ports(1)
    telemetry = {"enabled": True, "prometheus": f"127.0.0.1:{port}"}
    async with single(tmp_path, telemetry=telemetry) as (_, client):
        await client.check()
        with pytest.raises(grpc.aio.AioRpcError):
            await client.bus.Publish(publish_request([b"x"], "nope"), timeout=10)
        call = client.bus.PublishStream(iter([publish_request([b"y"])]), timeout=10)
        assert [len(message.results) async for message in call] == [1]
        with await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    lines = {line.split(" ")[0]: line.rpartition(" ")[2] for line in text.splitlines() if line[:1] != "#"}
    published = [value for name, value in lines.items() if name.startswith("holdfast_publish_records_total")]
    assert published == ["2.0"]
    assert any('reason="UNKNOWN_TOPIC"' in name for name in lines)
    leader = [value for name, value in lines.items() if name == "holdfast_leader"]
    assert leader == ["1.0"]


async def test_telemetry_shows_what_members_do(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry")
    (port,) = free_ports(1)
    telemetry = {"enabled": True, "prometheus": f"127.0.0.1:{port}"}
    async with (
        single(tmp_path, telemetry=telemetry) as (broker, _),
        holdfast.connect(broker.client_address) as bus,
        asyncio.timeout(20),
    ):
        for value in (b"1", b"2", b"3"):
            await bus.publish("t", value)
        async with bus.join("billing", GroupDefinition(topics=["t"], ordering="none")) as member:
            record = await anext(aiter(member))
            record.ack()
            await member.settled()
            answer = await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{port}/metrics")
            with answer:
                text = answer.read().decode()
    lines = {line.split("{")[0]: line.rpartition(" ")[2] for line in text.splitlines() if 'billing"' in line}
    assert lines["holdfast_group_in_flight"] == "2.0"
    assert lines["holdfast_group_members"] == "1.0"
    assert lines["holdfast_settle_acks_total"] == "1.0"
