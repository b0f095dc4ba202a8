"""Real brokers in this process, and the little a test needs to talk to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from holdfast.chaos.processes import free_ports
from holdfast.records import Compression, encode_batch
from holdfast.rpc.broker import Broker
from holdfast.rpc.settings import make
from holdfast.v1 import bus_pb2, bus_pb2_grpc, records_pb2, topics_pb2, topics_pb2_grpc

PATIENCE = 20.0


class Node:
    """A broker and its stubs."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.channel = grpc.aio.insecure_channel(
            broker.client_address, options=(("grpc.max_receive_message_length", 64 << 20),)
        )
        self.bus = bus_pb2_grpc.EventBusStub(self.channel)
        self.topics = topics_pb2_grpc.TopicsStub(self.channel)

    @property
    def leads(self) -> bool:
        return self.broker.engine.status().role == "leader"

    async def create(self, topic: str = "t", partitions: int = 1, **limits: int) -> topics_pb2.Topic:
        request = topics_pb2.CreateTopicRequest(
            name=topic, partitions=partitions, limits=topics_pb2.TopicLimits(**limits)
        )
        return await self.topics.CreateTopic(request, timeout=PATIENCE)

    async def publish(
        self,
        values: Sequence[bytes],
        partition: int = 0,
        topic: str = "t",
        times: Sequence[int] | int = 7,
        compression: Compression = Compression.NONE,
    ) -> bus_pb2.PartitionAck:
        """One batch."""
        batch = encode_batch(values, timestamps_us=times, compression=compression)
        request = bus_pb2.PublishRequest(
            topic=topic, batches=[bus_pb2.PartitionBatch(partition=partition, batch=batch)]
        )
        answer = await self.bus.Publish(request, timeout=PATIENCE)
        return answer.acks[0]

    async def replay(self, **request: Any) -> list[bus_pb2.ReplayResponse]:
        """A whole replay that ends."""
        request.setdefault("topic", "t")
        call = self.bus.Replay(bus_pb2.ReplayRequest(**request), timeout=PATIENCE)
        return [message async for message in call]

    async def close(self) -> None:
        await self.channel.close()
        await self.broker.stop()


@asynccontextmanager
async def single(path: Path) -> AsyncIterator[Node]:
    """A cluster of one."""
    broker = Broker(make({"data_dir": str(path / "data"), "listen": "127.0.0.1:0", **_QUIET}))
    await broker.start()
    await broker.wait_ready()
    node = Node(broker)
    try:
        yield node
    finally:
        await node.close()


_QUIET: dict[str, Any] = {"telemetry": {"enabled": False}}


@asynccontextmanager
async def three(path: Path) -> AsyncIterator[list[Node]]:
    """A cluster of three, its leader known to all."""
    ports = free_ports(6)
    members = {
        f"n{i}": {"client": f"127.0.0.1:{ports[2 * i]}", "peer": f"127.0.0.1:{ports[2 * i + 1]}"}
        for i in range(3)
    }
    async with AsyncExitStack() as stack:
        brokers = []
        for name, member in members.items():
            broker = Broker(
                make(
                    {
                        "node_id": name,
                        "data_dir": str(path / name),
                        "listen": member["client"],
                        "peer_listen": member["peer"],
                        "members": members,
                        **_QUIET,
                    }
                )
            )
            await broker.start()
            stack.push_async_callback(broker.stop)
            brokers.append(broker)
        for broker in brokers:
            await broker.wait_ready()
        nodes = [Node(broker) for broker in brokers]
        for node in nodes:
            stack.push_async_callback(node.close)
        yield nodes


async def leader_of(nodes: Iterable[Node]) -> Node:
    """The node that leads; waits for one that all of ``nodes`` have heard of."""
    nodes = list(nodes)
    async with asyncio.timeout(PATIENCE):
        while True:
            for node in nodes:
                name = node.broker.settings.node_id
                if node.leads and all(n.broker.bridge.progress.leader_id == name for n in nodes):
                    return node
            await asyncio.sleep(0.02)


class Member:
    """One subscription, driven by hand."""

    def __init__(self, node: Node, group: str = "g", topics: Sequence[str] = ("t",), **start: Any) -> None:
        start.setdefault("credits", 1_000)
        self.call = node.bus.Subscribe()
        self._start = bus_pb2.SubscribeStart(group=group, topics=topics, **start)
        self.backlog: list[bus_pb2.SubscribeResponse] = []
        self.delivered: list[tuple[int, int]] = []  # (partition, offset)
        self.values: dict[tuple[int, int], bytes] = {}
        self.deliveries = 0

    async def __aenter__(self) -> Member:
        await self.call.write(bus_pb2.SubscribeRequest(start=self._start))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.call.cancel()

    async def grant(self, records: int) -> None:
        await self.call.write(bus_pb2.SubscribeRequest(credit=bus_pb2.Credit(records=records)))

    async def ack(self, first: int, last: int | None = None, partition: int = 0, topic: str = "t") -> None:
        item = bus_pb2.AckRange(
            topic=topic, partition=partition, first_offset=first, last_offset=first if last is None else last
        )
        await self.call.write(bus_pb2.SubscribeRequest(ack=bus_pb2.Ack(ranges=[item])))

    async def next(self, kind: str) -> Any:
        """The next message of a kind; others are kept for later."""
        for at, message in enumerate(self.backlog):
            if message.WhichOneof("kind") == kind:
                del self.backlog[at]
                return getattr(message, kind)
        async with asyncio.timeout(PATIENCE):
            while True:
                message = await self.call.read()
                if message is grpc.aio.EOF:
                    raise EOFError(kind)
                if message.WhichOneof("kind") == "delivery":
                    self._note(message.delivery)
                if message.WhichOneof("kind") == kind:
                    return getattr(message, kind)
                self.backlog.append(message)

    def _note(self, delivery: bus_pb2.Delivery) -> None:
        self.deliveries += 1
        for record in delivery.records:
            self.delivered.append((record.partition, record.offset))
            self.values[record.partition, record.offset] = record.value
        for batch in delivery.batches:
            for offset in range(batch.first_offset, batch.last_offset + 1):
                self.delivered.append((batch.partition, offset))

    async def until_delivered(self, count: int) -> list[tuple[int, int]]:
        """Read until this many records came in all."""
        self.backlog = [each for each in self.backlog if each.WhichOneof("kind") != "delivery"]
        while len(self.delivered) < count:
            await self.next("delivery")
        return self.delivered

    async def until_committed(self, offset: int, partition: int = 0) -> None:
        while True:
            committed = await self.next("committed")
            for each in committed.offsets:
                if each.partition == partition and each.offset >= offset:
                    return


def records_of(messages: Iterable[bus_pb2.ReplayResponse]) -> list[records_pb2.Record]:
    return [record for message in messages for record in message.records]


def error_of(caught: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Code, reason and facts of a failed call."""
    status = rpc_status.from_call(caught)
    info = error_details_pb2.ErrorInfo()
    assert status is not None, caught
    assert status.details[0].Unpack(info)
    return caught.code(), info.reason, dict(info.metadata)
