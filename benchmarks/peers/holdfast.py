"""Holdfast: three brokers of this checkout, and its own SDK."""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc

import holdfast
from benchmarks.peers import system
from holdfast.chaos.processes import BrokerProcess, LocalCluster

#: Calls of publish_many under way at a time: one is being acknowledged while the next is encoded.
_CALLS = 3
#: Records a consumer may hold: enough that the broker never waits for an acknowledgement.
_IN_FLIGHT = 100_000
_TAKE = 5_000


class Cluster(system.Cluster):
    """``holdfast serve`` with the settings it has by default."""

    name = "holdfast"
    title = "Holdfast"
    durability = "fsynced on a majority"
    fsynced = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._brokers = LocalCluster(directory)

    @classmethod
    def missing(cls) -> str | None:
        return None

    @classmethod
    def version(cls) -> str:
        return f"this checkout ({importlib.metadata.version('holdfast')}), its SDK, grpcio {grpc.__version__}"

    async def start(self) -> None:
        try:
            await asyncio.to_thread(self._brokers.start)
        except holdfast.HoldfastError as error:
            raise RuntimeError(str(error)) from error

    async def stop(self) -> None:
        await asyncio.to_thread(self._brokers.kill_all)

    def addresses(self) -> list[str]:
        return self._brokers.endpoints

    def pids(self) -> list[list[int]]:
        return [[broker.pid] if broker.running else [] for broker in self._brokers.brokers.values()]

    async def leader_of(self, topic: str) -> int:
        """One node leads all topics."""
        leader = await asyncio.to_thread(self._brokers.wait_leader)
        return list(self._brokers.brokers).index(leader)

    def kill(self, node: int) -> None:
        self._node(node).kill()

    async def restart(self, node: int) -> None:
        broker = self._node(node)
        broker.start()
        await asyncio.to_thread(self._brokers.wait_serving, broker.node_id)
        await asyncio.to_thread(self._wait_in_sync, broker.node_id)

    def _wait_in_sync(self, node_id: str) -> None:
        """Until the node has applied what the leader had committed when it came back.

        Raises RuntimeError when it has not after half a minute.
        """
        index = self._brokers.status(self._brokers.wait_leader()).commit_index
        deadline = time.monotonic() + 30
        while self._brokers.status(node_id).applied_index < index:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{node_id} is not in sync after 30 s")
            time.sleep(0.02)

    def _node(self, node: int) -> BrokerProcess:
        return list(self._brokers.brokers.values())[node]


class Client(system.Client):
    """The SDK with its default options; ``publish_many`` and batches, as documented for speed."""

    async def connect(self) -> None:
        self._bus = await holdfast.connect(self.addresses).start()

    async def close(self) -> None:
        await self._bus.close()

    async def create(self, topic: str) -> None:
        await self._bus.create_topic(topic, partitions=1)

    async def publish(self, topic: str, payload: bytes) -> None:
        await self._bus.publish(topic, payload)

    async def publish_all(self, topic: str, payloads: Sequence[bytes], times: int) -> None:
        room = asyncio.Semaphore(_CALLS)

        async def one() -> None:
            async with room:
                summary = await self._bus.publish_many(topic, payloads)
            if summary.count != len(payloads):
                raise RuntimeError(f"{summary.count} of {len(payloads)} records were acknowledged")

        await asyncio.gather(*[one() for _ in range(times)])

    async def replay(self, topic: str, count: int) -> tuple[int, int]:
        records = size = 0
        async for batch in self._bus.replay_batches(topic, end=count):
            values = batch.values
            records += len(values)
            size += sum(map(len, values))
        return records, size

    async def consume(self, topic: str, group: str, count: int) -> int:
        consumed = 0
        async with self._bus.subscribe(topic, group, max_in_flight=_IN_FLIGHT) as subscription:
            while consumed < count:
                records = await subscription.take(min(_TAKE, count - consumed))
                if not records:
                    raise RuntimeError(f"the subscription ended after {consumed} of {count} records")
                for record in records:
                    subscription.ack(record)
                consumed += len(records)
            await subscription.committed()
        return consumed

    async def deliveries(self, topic: str) -> AsyncIterator[Sequence[bytes]]:
        async for batch in self._bus.replay_batches(topic, start="latest", follow=True):
            yield batch.values

    async def publish_through_failure(self, topic: str, payload: bytes) -> None:
        """Plain ``publish``: the SDK finds the new leader by itself."""
        await self._bus.publish(topic, payload, timeout=60)


CLUSTERS = {"holdfast": Cluster}
CLIENTS = {"holdfast": Client}
