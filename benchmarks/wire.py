"""Publishing on the bare wire: generated messages and gRPC, no SDK.

These are the rows of the prototype that Holdfast has to beat.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from holdfast.records import encode_batch
from holdfast.v1 import bus_pb2, topics_pb2

OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
]


class Wire:
    """A channel to one broker and the calls the benchmarks make."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self._publish: Any = self.channel.unary_unary(
            "/holdfast.v1.EventBus/Publish", response_deserializer=bus_pb2.PublishResponse.FromString
        )
        self._stream: Any = self.channel.stream_stream(
            "/holdfast.v1.EventBus/PublishStream",
            response_deserializer=bus_pb2.PublishStreamResponse.FromString,
        )

    async def create_topic(self, name: str, partitions: int) -> None:
        call: Any = self.channel.unary_unary(
            "/holdfast.v1.Topics/CreateTopic",
            request_serializer=topics_pb2.CreateTopicRequest.SerializeToString,
            response_deserializer=topics_pb2.Topic.FromString,
        )
        await call(
            topics_pb2.CreateTopicRequest(name=name, partitions=partitions, if_not_exists=True), timeout=20
        )

    async def sequential(self, request: bytes, count: int) -> float:
        """Median latency in milliseconds of one publisher that awaits each ack."""
        latencies = []
        for _ in range(count):
            started = time.perf_counter()
            await self._publish(request, timeout=20)
            latencies.append(time.perf_counter() - started)
        return statistics.median(latencies) * 1e3

    async def concurrent(self, request: bytes, callers: int, count: int) -> float:
        """Publishes per second of ``callers`` publishers, each awaiting its acks."""

        async def caller() -> None:
            for _ in range(count // callers):
                await self._publish(request, timeout=20)

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return count // callers * callers / (time.perf_counter() - started)

    async def pipelined(self, request: bytes, count: int, window: int) -> float:
        """Requests per second of one stream with at most ``window`` unanswered."""
        room = asyncio.Semaphore(window)
        answered = 0

        async def requests() -> AsyncIterator[bytes]:
            for _ in range(count):
                await room.acquire()
                yield request

        started = time.perf_counter()
        async for response in self._stream(requests()):
            for result in response.results:
                if result.HasField("error"):
                    raise RuntimeError(result.error.message)
                answered += 1
                room.release()
        if answered != count:
            raise RuntimeError(f"{answered} of {count} requests were answered")
        return count / (time.perf_counter() - started)


def request_of(topic: str, payload_bytes: int, partition: int = 0) -> bytes:
    """A PublishRequest with one batch of one incompressible record."""
    batch = encode_batch([random.Random(7).randbytes(payload_bytes)])
    request = bus_pb2.PublishRequest(
        topic=topic, batches=[bus_pb2.PartitionBatch(partition=partition, batch=batch)]
    )
    return request.SerializeToString()
