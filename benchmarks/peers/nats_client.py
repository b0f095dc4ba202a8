"""The client of NATS JetStream: nats-py, which is the one its makers keep, and natsrpy to read in bulk."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence

import nats
import nats.errors
from nats.aio.client import Client as Connection
from nats.js import JetStreamContext, api
from natsrpy import Nats
from natsrpy.exceptions import NatsrpySessionError
from natsrpy.js import AckPolicy, JetStreamMessage, PullConsumer, PullConsumerConfig

from benchmarks.peers import system
from benchmarks.peers.nats_streams import NO_RESPONDERS, FastIngest, Pull, windowed

#: Messages of one fetch; a durable consumer acknowledges as many at a time (cumulatively).
_FETCH = 5_000
#: How long a fetch waits: of what has to be there; of what may be published yet.
_PATIENCE_SECONDS = 30
_EXPIRES_SECONDS = 1
#: Unacknowledged messages the server lets a durable consumer hold: it never has to wait for one.
_MAX_ACK_PENDING = 100_000


def stream_name(topic: str) -> str:
    """The stream of a topic. A stream's name has no dots; its subject is the topic."""
    return topic.replace(".", "_")


class Client(system.Client):
    """nats-py with subjects not validated and a pending buffer of 8 MiB.

    * ``publish``: ``js.publish_async`` and its future, which costs less than ``js.publish``.
    * ``publish_all``: fast batch publishing (ADR-50, server 2.14), where the server acknowledges every 500
      messages instead of each one; with an older server a window of 4,000 messages and one inbox.
    * ``replay``, ``consume``: ``fetch`` of natsrpy, a client in Rust by others, in batches of 5,000. It takes
      half the processor time per message of the fastest way of nats-py (5.5 µs: a pull consumer with a
      callback and requests always outstanding), whose own ``fetch`` and ordered consumer take 7 to 25 µs. For
      publishing it is slower than the above.
    * ``deliveries``: nats-py, a pull consumer with a callback and requests always outstanding.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses)
        self._connections: dict[str, Connection] = {}
        self._by_topic: dict[str, Connection] = {}
        self._leaders: dict[str, str] = {}
        self._readers: dict[str, Nats] = {}
        self._jetstreams: dict[Connection, JetStreamContext] = {}
        self._ingests: dict[Connection, FastIngest] = {}
        self._connecting = asyncio.Lock()

    async def connect(self) -> None:
        await self._connection(self.addresses[0])

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()
        for reader in self._readers.values():
            await reader.shutdown()

    async def create(self, topic: str) -> None:
        connection = self._connections[self.addresses[0]]
        await connection.jetstream(timeout=30).add_stream(
            api.StreamConfig(
                name=stream_name(topic),
                subjects=[topic],
                storage=api.StorageType.FILE,
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
            await windowed(connection, topic, payloads, times)

    async def replay(self, topic: str, count: int) -> tuple[int, int]:
        consumer = await self._consumer(
            topic,
            PullConsumerConfig(
                ack_policy=AckPolicy.NONE, num_replicas=1, memory_storage=True, inactive_threshold=60
            ),
        )
        records = size = 0
        while records < count:
            taken = await _fetch(consumer, count - records, _PATIENCE_SECONDS)
            if not taken:
                raise RuntimeError(f"{topic} gave {records} of {count} records")
            records += len(taken)
            size += sum([len(message.payload) for message in taken])
        return records, size

    async def consume(self, topic: str, group: str, count: int) -> int:
        """A durable pull consumer of three replicas, ``ack_policy: all``: the last message of each fetch is
        acknowledged and with it those before. The very last acknowledgement is confirmed by the server."""
        consumer = await self._consumer(
            topic,
            PullConsumerConfig(
                durable_name=group, ack_policy=AckPolicy.ALL, max_ack_pending=_MAX_ACK_PENDING
            ),
        )
        consumed = 0
        while consumed < count:
            taken = await _fetch(consumer, count - consumed, _EXPIRES_SECONDS)
            consumed += len(taken)
            if taken:
                await taken[-1].ack(double=consumed >= count)
        return consumed

    async def deliveries(self, topic: str) -> AsyncIterator[Sequence[bytes]]:
        connection = await self._leader(topic)
        stream = stream_name(topic)
        consumer = await connection.jetstream(timeout=30).add_consumer(
            stream,
            api.ConsumerConfig(
                deliver_policy=api.DeliverPolicy.NEW,
                ack_policy=api.AckPolicy.NONE,
                num_replicas=1,
                mem_storage=True,
                inactive_threshold=60,
            ),
        )
        async with Pull(connection, stream, consumer.name) as pull:
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

    async def _consumer(self, topic: str, config: PullConsumerConfig) -> PullConsumer:
        """A consumer of natsrpy on a connection to the leader; created, or found as it is."""
        await self._leader(topic)
        address = self._leaders[topic]
        async with self._connecting:
            if address not in self._readers:
                self._readers[address] = Nats([f"nats://{address}"])
                await self._readers[address].startup()
        jetstream = await self._readers[address].jetstream()
        stream = await jetstream.streams.get(stream_name(topic))
        return await stream.consumers.create(config)

    async def _leader(self, topic: str) -> Connection:
        """A connection to the server that leads the topic's stream. Raises NATS's errors without a stream."""
        async with self._connecting:
            if topic not in self._leaders:
                jetstream = self._connections[self.addresses[0]].jetstream(timeout=30)
                cluster = (await jetstream.stream_info(stream_name(topic))).cluster
                leader = cluster.leader if cluster else None
                address = self.addresses[int(leader.removeprefix("n")) if leader else 0]
                self._by_topic[topic] = await self._connection(address)
                self._leaders[topic] = address
        return self._by_topic[topic]

    async def _connection(self, first: str) -> Connection:
        """A connection that begins with the given server and goes to the others when that one is lost."""
        if first not in self._connections:
            others = [address for address in self.addresses if address != first]
            connection = await nats.connect(
                [f"nats://{address}" for address in [first, *others]],
                dont_randomize=True,
                connect_timeout=1,
                reconnect_time_wait=0,
                max_reconnect_attempts=-1,
                pending_size=8 << 20,
                skip_subject_validation=True,
            )
            self._jetstreams[connection] = connection.jetstream()
            self._connections[first] = connection
        return self._connections[first]


async def _fetch(consumer: PullConsumer, wanted: int, seconds: float) -> Sequence[JetStreamMessage]:
    """Up to a batch of messages. A new consumer answers 503 until it has a leader: asked again.

    Raises TimeoutError when that takes half a minute, NatsrpySessionError for other answers.
    """
    async with asyncio.timeout(_PATIENCE_SECONDS + seconds):
        while True:
            try:
                return await consumer.fetch(min(_FETCH, wanted), expires=seconds)
            except NatsrpySessionError as error:
                if NO_RESPONDERS not in str(error):
                    raise
                await asyncio.sleep(0.01)


def _has_fast_ingest(connection: Connection) -> bool:
    version = connection.connected_server_version
    return (version.major, version.minor) >= (2, 14)
