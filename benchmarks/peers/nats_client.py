"""The client of NATS JetStream: nats-py, which is the one its makers keep."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client as Connection
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StorageType, StreamConfig

from benchmarks.peers import system
from benchmarks.peers.nats_streams import FastIngest, Pull, publish_async

#: Messages a durable consumer acknowledges at a time (cumulatively).
_ACK_EVERY = 1_000
#: Unacknowledged messages the server lets a durable consumer hold: it never has to wait for one.
_MAX_ACK_PENDING = 100_000


def stream_name(topic: str) -> str:
    """The stream of a topic. A stream's name has no dots; its subject is the topic."""
    return topic.replace(".", "_")


class Client(system.Client):
    """nats-py with subjects not validated and a pending buffer of 8 MiB.

    * ``publish``: ``js.publish_async`` and its future, which costs less than ``js.publish``.
    * ``publish_all``: fast batch publishing (ADR-50, server 2.14), where the server acknowledges every 500
      messages instead of each one; with an older server ``js.publish_async`` with its default window.
    * Reading: a pull consumer with requests always outstanding and a callback, which is what other clients of
      NATS call Consume; the ordered push consumer and ``fetch`` of nats-py are slower.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses)
        self._connections: dict[str, Connection] = {}
        self._by_topic: dict[str, Connection] = {}
        self._jetstreams: dict[Connection, JetStreamContext] = {}
        self._ingests: dict[Connection, FastIngest] = {}

    async def connect(self) -> None:
        await self._connection(self.addresses[0])

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()

    async def create(self, topic: str) -> None:
        connection = self._connections[self.addresses[0]]
        await connection.jetstream(timeout=30).add_stream(
            StreamConfig(
                name=stream_name(topic),
                subjects=[topic],
                storage=StorageType.FILE,
                num_replicas=3,
                allow_batched=_has_fast_ingest(connection) or None,
            )
        )
        await self._leader(topic)

    async def publish(self, topic: str, payload: bytes) -> None:
        connection = self._by_topic.get(topic) or await self._leader(topic)
        await (await self._jetstreams[connection].publish_async(topic, payload))

    async def publish_all(self, topic: str, payloads: Sequence[bytes], times: int) -> None:
        connection = await self._leader(topic)
        if _has_fast_ingest(connection):
            if connection not in self._ingests:
                self._ingests[connection] = FastIngest(connection)
            await self._ingests[connection].publish(topic, payloads, times)
        else:
            await publish_async(self._jetstreams[connection], topic, payloads, times)

    async def replay(self, topic: str, count: int) -> tuple[int, int]:
        records = size = 0
        async with await self._pull(topic, DeliverPolicy.ALL, count) as pull:
            while records < count:
                taken = await pull.take()
                records += len(taken)
                size += sum([len(message.data) for message in taken])
        return records, size

    async def consume(self, topic: str, group: str, count: int) -> int:
        """A durable pull consumer, ``ack_policy: all``: each thousandth message is acknowledged and with it
        those before. The last acknowledgement is confirmed by the server."""
        connection = await self._leader(topic)
        stream = stream_name(topic)
        await connection.jetstream(timeout=30).add_consumer(
            stream,
            ConsumerConfig(
                durable_name=group,
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.ALL,
                max_ack_pending=_MAX_ACK_PENDING,
            ),
        )
        consumed = unacknowledged = 0
        async with Pull(connection, stream, group, limit=count) as pull:
            while True:
                taken = await pull.take()
                consumed += len(taken)
                unacknowledged += len(taken)
                if consumed >= count:
                    await taken[-1].ack_sync(timeout=30)
                    return consumed
                if unacknowledged >= _ACK_EVERY:
                    await taken[-1].ack()
                    unacknowledged = 0

    async def deliveries(self, topic: str) -> AsyncIterator[Sequence[bytes]]:
        async with await self._pull(topic, DeliverPolicy.NEW) as pull:
            while True:
                yield [message.data for message in await pull.take()]

    async def publish_through_failure(self, topic: str, payload: bytes) -> None:
        """``js.publish`` again and again until acknowledged, with a message id so that it is stored once.

        nats-py reconnects to another server by itself. A publish without an answer is given up after a
        quarter of a second: the default of five would hide the moment in which the new leader is there.
        """
        connection = self._by_topic.get(topic) or await self._leader(topic)
        headers = {"Nats-Msg-Id": uuid.uuid4().hex}
        jetstream = connection.jetstream()
        while True:
            try:
                await jetstream.publish(topic, payload, timeout=0.25, headers=headers)
            except nats.errors.Error:
                await asyncio.sleep(0.01)
            else:
                return

    async def _pull(self, topic: str, policy: DeliverPolicy, limit: int | None = None) -> Pull:
        """An ephemeral consumer without acknowledgements, kept in the memory of one server."""
        connection = await self._leader(topic)
        stream = stream_name(topic)
        consumer = await connection.jetstream(timeout=30).add_consumer(
            stream,
            ConsumerConfig(
                deliver_policy=policy,
                ack_policy=AckPolicy.NONE,
                num_replicas=1,
                mem_storage=True,
                inactive_threshold=60,
            ),
        )
        return Pull(connection, stream, consumer.name, limit)

    async def _leader(self, topic: str) -> Connection:
        """A connection to the server that leads the topic's stream. Raises NATS's errors without a stream."""
        found = self._by_topic.get(topic)
        if found is None:
            jetstream = self._connections[self.addresses[0]].jetstream(timeout=30)
            cluster = (await jetstream.stream_info(stream_name(topic))).cluster
            leader = cluster.leader if cluster else None
            address = self.addresses[int(leader.removeprefix("n")) if leader else 0]
            found = self._by_topic[topic] = await self._connection(address)
        return found

    async def _connection(self, first: str) -> Connection:
        """A connection that begins with the given server and goes to the others when that one is lost."""
        if first not in self._connections:
            others = [address for address in self.addresses if address != first]
            self._connections[first] = await nats.connect(
                [f"nats://{address}" for address in [first, *others]],
                dont_randomize=True,
                connect_timeout=1,
                reconnect_time_wait=0,
                max_reconnect_attempts=-1,
                pending_size=8 << 20,
                skip_subject_validation=True,
            )
            self._jetstreams[self._connections[first]] = self._connections[first].jetstream()
        return self._connections[first]


def _has_fast_ingest(connection: Connection) -> bool:
    version = connection.connected_server_version
    return (version.major, version.minor) >= (2, 14)
