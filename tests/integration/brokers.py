"""Real brokers in this process, and a plain client of theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_status import rpc_status

from holdfast.chaos.processes import free_ports
from holdfast.records import decode_batch, encode_batch
from holdfast.rpc.broker import Broker
from holdfast.rpc.settings import make
from holdfast.v1 import (
    bus_pb2,
    bus_pb2_grpc,
    cluster_pb2_grpc,
    topics_pb2,
    topics_pb2_grpc,
)


class Client:
    """Stubs for one broker, and a memory of what was acknowledged."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", 64 << 20),
                ("grpc.max_send_message_length", 64 << 20),
            ],
        )
        self.bus = bus_pb2_grpc.EventBusStub(self.channel)
        self.topics = topics_pb2_grpc.TopicsStub(self.channel)
        self.cluster = cluster_pb2_grpc.ClusterStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self.acked: list[bytes] = []

    async def create_topic(self, name: str = "t", partitions: int = 1) -> topics_pb2.Topic:
        return await self.topics.CreateTopic(
            topics_pb2.CreateTopicRequest(name=name, partitions=partitions), timeout=10
        )

    async def publish(self, value: bytes, topic: str = "t", **more: Any) -> bus_pb2.PublishResponse:
        """One record to partition 0; remembered when acknowledged."""
        request = publish_request([value], topic, **more)
        answer = await self.bus.Publish(request, timeout=10)
        self.acked.append(value)
        return answer

    async def replay(self, topic: str = "t", **more: Any) -> list[bytes]:
        """All values of partition 0."""
        request = bus_pb2.ReplayRequest(topic=topic, format=bus_pb2.FORMAT_BATCHES, linearizable=True, **more)
        values: list[bytes] = []
        async for message in self.bus.Replay(request, timeout=30):
            for stored in message.batches:
                decoded = decode_batch(stored.batch)
                low = stored.first_offset - stored.base_offset
                high = stored.last_offset - stored.base_offset
                values += decoded.values[low : high + 1]
        return values

    async def check(self) -> None:
        """The broker still serves, and nothing acknowledged is gone, doubled or out of order."""
        await self.publish(b"check %d" % len(self.acked))
        assert await self.replay() == self.acked

    async def close(self) -> None:
        await self.channel.close()


def publish_request(values: list[bytes], topic: str = "t", **more: Any) -> bus_pb2.PublishRequest:
    batch = bus_pb2.PartitionBatch(
        partition=0, base_sequence=more.pop("base_sequence", 0), batch=encode_batch(values)
    )
    return bus_pb2.PublishRequest(topic=topic, batches=[batch], **more)


@asynccontextmanager
async def single(data_dir: Path, **settings: Any) -> AsyncIterator[tuple[Broker, Client]]:
    """A running single node with topic "t" of one partition, and a client."""
    async with Broker(make(listen="127.0.0.1:0", data_dir=data_dir, **settings)) as broker:
        await broker.wait_ready()
        client = Client(broker.client_address)
        try:
            await client.topics.CreateTopic(
                topics_pb2.CreateTopicRequest(name="t", partitions=1, if_not_exists=True), timeout=10
            )
            yield broker, client
        finally:
            await client.close()


@asynccontextmanager
async def three(data_dir: Path, **settings: Any) -> AsyncIterator[tuple[list[Broker], list[Client]]]:
    """Three running brokers with topic "t" of one partition, and a client of each."""
    ports = free_ports(6)
    members = {
        f"n{i + 1}": {"client": f"127.0.0.1:{ports[2 * i]}", "peer": f"127.0.0.1:{ports[2 * i + 1]}"}
        for i in range(3)
    }
    brokers = [
        Broker(
            make(
                node_id=node_id,
                members=members,
                listen=member["client"],
                peer_listen=member["peer"],
                data_dir=data_dir / node_id,
                **settings,
            )
        )
        for node_id, member in members.items()
    ]
    clients: list[Client] = []
    try:
        for broker in brokers:
            await broker.start()
        await asyncio.gather(*(broker.wait_ready() for broker in brokers))
        clients = [Client(broker.client_address) for broker in brokers]
        await clients[0].create_topic()
        yield brokers, clients
    finally:
        for client in clients:
            await client.close()
        for broker in brokers:
            await broker.stop()


def error_of(caught: BaseException | None) -> tuple[str, str, dict[str, str]]:
    """Code, reason and facts of a failed call."""
    assert isinstance(caught, grpc.aio.AioRpcError), caught
    status = rpc_status.from_call(caught)
    assert status is not None, caught
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "holdfast"
    return caught.code().name, info.reason, dict(info.metadata)


def retry_delay_ms(caught: grpc.aio.AioRpcError) -> int | None:
    """What RetryInfo says; None without one."""
    status = rpc_status.from_call(caught)
    assert status is not None
    for detail in status.details:
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return int(info.retry_delay.ToMilliseconds())
    return None
