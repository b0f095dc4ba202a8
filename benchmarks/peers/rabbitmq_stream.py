"""RabbitMQ's stream through rstream, on the protocol of the stream plugin."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, ClassVar, TypeVar

from rstream import OffsetNotFound, OffsetType, ServerError
from rstream import connection as rstream_connection
from rstream.client import Client as Connection
from rstream.exceptions import LeaderNotAvailable
from rstream.schema import Deliver, MetadataUpdate, OffsetSpec, PublishConfirm, PublishError

from benchmarks.peers import system
from benchmarks.peers.rabbitmq_cluster import NODES, RabbitCluster
from benchmarks.peers.rabbitmq_publisher import FRAME_BYTES, FRAME_RECORDS, Publisher, SubEntryPublisher

#: What rstream reads from a socket at a time; its own 256 bytes cost it two thirds of its replay.
rstream_connection.CHUNK_SIZE = 256 << 10

#: The most a frame may hold by both sides' defaults.
_FRAME_MAX = 1 << 20
#: Chunks the broker may send ahead.
_CREDIT = 50
_STORE_EVERY = 10_000
#: A question to a node, and a record's confirmation, while nodes are dying.
_ANSWER_SECONDS = 1.0
_PATIENCE_SECONDS = 10.0
_RETRY_SECONDS = 0.01

T = TypeVar("T")

# It would warn of each question for a leader that found none; who asks sees that by itself.
logging.getLogger("rstream").setLevel(logging.ERROR)

#: What a node that is dying, or a stream without a leader, raises.
_BROKEN = (OSError, TimeoutError, ServerError, LeaderNotAvailable)

#: Erlang: the node that leads a stream, and whether every stream ends at the same offset on each member.
_LEADER = """
    {ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>)),
    {ok, Members} = rabbit_stream_coordinator:members(maps:get(name, amqqueue:get_type_state(Queue))),
    [Leader] = [Node || {Node, {Pid, writer}} <- maps:to_list(Members), is_pid(Pid)],
    Leader.
"""
#: A restarted 3.10 may come up without its member of the coordinator, and the next node to die would take the
#: majority of that with it; ``recover`` is what the node does when it starts.
_IN_SYNC = f"""
    Nodes = rabbit_nodes:all_running(),
    [rpc:call(Node, rabbit_stream_coordinator, recover, [])
     || Node <- Nodes, rpc:call(Node, erlang, whereis, [rabbit_stream_coordinator]) =:= undefined],
    Counters = maps:from_list([{{Node, rpc:call(Node, osiris_counters, overview, [])}} || Node <- Nodes]),
    Offset = fun(Stream, Node, Pid, Role) when is_pid(Pid) ->
        Kind = maps:get(Role, #{{writer => osiris_writer, replica => osiris_replica}}),
        maps:get(offset, maps:get({{Kind, Stream}}, maps:get(Node, Counters)))
    end,
    Equal = fun(Queue) ->
        {{ok, Members}} = rabbit_stream_coordinator:members(maps:get(name, amqqueue:get_type_state(Queue))),
        Ends = [Offset(amqqueue:get_name(Queue), Node, Pid, Role)
                || {{Node, {{Pid, Role}}}} <- maps:to_list(Members)],
        length(Ends) =:= {NODES} andalso length(lists:usort(Ends)) =:= 1
    end,
    lists:all(Equal, [Q || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_stream_queue]).
"""


class StreamCluster(RabbitCluster):
    """A confirm comes when a majority has the record in its page cache; a stream never calls fsync."""

    name = "rabbitmq-stream"
    title = "RabbitMQ stream"
    durability = "in the page caches of a majority, no fsync"
    fsynced = False
    plugins = "rabbitmq_stream"
    library = "rstream"

    def _settings(self, node: int) -> str:
        port = self._stream[node]
        return (
            f"stream.listeners.tcp.local = 127.0.0.1:{port}\n"
            "stream.advertised_host = 127.0.0.1\n"
            f"stream.advertised_port = {port}\n"
        )

    def _client_ports(self) -> list[int]:
        return self._stream

    async def leader_of(self, topic: str) -> int:
        """Asked of the coordinator of streams, which names the leader."""
        return await self._leader(_LEADER % topic)

    async def _in_sync(self) -> bool:
        return await self._holds(_IN_SYNC)


class SubEntryCluster(StreamCluster):
    """The same nodes, for a client that publishes many records as one entry.

    The clients' documentation (rstream's and the Java client's) offers sub-entries for throughput, at the
    price of latency and of possible duplicates even with deduplication: to the broker the whole has one
    publishing id and one confirmation. None of the clients makes any unless told to. Reading is measured
    too, because what is stored has another format.
    """

    name = "rabbitmq-stream-sub"
    title = f"RabbitMQ stream, sub-entries of {FRAME_BYTES // 1000} KB or {FRAME_RECORDS:,} records"
    #: In the others every record is published alone, as in the row of plain entries.
    workloads = frozenset(
        {
            *("pipelined-100", "pipelined-1k", "pipelined-10k", "mixed", "latency-half"),
            *("replay-100", "replay-1k", "group"),
        }
    )


class StreamClient(system.Client):
    """rstream 1.1, used at the level of its connection and its frames, below ``Producer`` and ``Consumer``: a
    chunk is handled at a time instead of a callback per record, and what is to be sent leaves at once.

    Every record is an entry of its own, as rstream's ``send_batch`` has it ("the fastest publishing method"),
    and is confirmed by its own id; single records go out in batches of what is published at the same time.
    Publishers connect to the leader, readers to a replica, as documented.
    """

    #: How a topic's publisher sends many records.
    publisher: ClassVar[type[Publisher]] = Publisher

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses)
        self._connections: dict[tuple[str, int], Connection] = {}
        self._ends: dict[Connection, asyncio.Future[None]] = {}
        self._publishers: dict[str, Publisher] = {}
        self._subscriptions = 0
        self._numbers = 0
        self._declaring = asyncio.Lock()
        self._connecting = asyncio.Lock()
        self._first = 0
        self._suspect = False

    # -- connections -----------------------------------------------------------

    async def connect(self) -> None:
        """To every node: while one dies, the others are slow to take new connections."""
        for address in self.addresses:
            host, _, port = address.rpartition(":")
            async with self._connecting:
                await self._to(host, int(port))

    async def close(self) -> None:
        await asyncio.gather(*[connection.close() for connection in self._connections.values()])

    async def _any(self) -> Connection:
        """A connection there is, else to the first node that answers. Raises ConnectionError if none does."""
        for connection in self._connections.values():
            if connection.is_connection_alive() and not self._suspect:
                return connection
        last: Exception = ConnectionError("no node")
        for turn in range(len(self.addresses)):
            host, _, port = self.addresses[(self._first + turn) % len(self.addresses)].rpartition(":")
            try:
                async with self._connecting:
                    return await self._to(host, int(port))
            except _BROKEN as error:
                last = error
        raise ConnectionError(str(last)) from last

    async def _to(self, host: str, port: int) -> Connection:
        found = self._connections.get((host, port))
        if found is not None and found.is_connection_alive():
            return found
        made = Connection(
            host,
            port,
            frame_max=_FRAME_MAX,
            heartbeat=60,
            connection_name="holdfast-bench",
            connection_closed_handler=lambda _: self._lost(made),
        )
        # rstream tells of a lost connection only while it serves a stream.
        made.add_stream("any")
        await made.start()
        async with asyncio.timeout(_ANSWER_SECONDS * 5):
            await made.authenticate("/", "guest", "guest")
        made.add_handler(MetadataUpdate, self._moved, "metadata")
        self._ends[made] = asyncio.get_running_loop().create_future()
        self._connections[host, port] = made
        return made

    async def _answer(self, connection: Connection, question: Coroutine[Any, Any, T]) -> T:
        """What a node answers. Raises ConnectionError if the connection breaks first; rstream would wait."""
        asking = asyncio.create_task(question)
        waiting: set[asyncio.Future[Any]] = {asking, self._ends[connection]}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not asking.done():
                asking.cancel()
        if not asking.done():
            raise ConnectionError("the connection broke before the answer")
        return asking.result()

    def _lost(self, connection: Connection) -> None:
        end = self._ends.get(connection)
        if end is not None and not end.done():
            end.set_result(None)
        for publisher in self._publishers.values():
            if publisher.connection is connection:
                publisher.broken(ConnectionError("the connection broke"))

    def _moved(self, frame: MetadataUpdate) -> None:
        """The broker ends the publishers of a stream that has another leader."""
        publisher = self._publishers.get(frame.metadata_info.stream)
        if publisher is not None:
            publisher.broken(ConnectionError("the stream has another leader"))

    # -- publishing -----------------------------------------------------------

    async def create(self, topic: str) -> None:
        await (await self._any()).create_stream(topic, {"initial-cluster-size": NODES})
        await self._publisher(topic)

    async def _publisher(self, topic: str) -> Publisher:
        found = self._publishers.get(topic)
        if found is not None and found.failure is None:
            return found
        async with self._declaring:
            found = self._publishers.get(topic)
            if found is not None and found.failure is None:
                return found
            located = await self._any()
            leader, _ = await self._answer(located, located.query_leader_and_replicas(topic))
            async with self._connecting:
                connection = await self._to(leader.host, leader.port)
            self._numbers = (self._numbers + 1) % 256
            made = self.publisher(connection, self._numbers)
            connection.add_handler(PublishConfirm, made.confirmed, str(self._numbers))
            connection.add_handler(PublishError, made.refused, str(self._numbers))
            await self._answer(connection, connection.declare_publisher(topic, None, self._numbers))
            self._publishers[topic] = made
            return made

    async def publish(self, topic: str, payload: bytes) -> None:
        await (await self._publisher(topic)).publish(payload)

    async def publish_all(self, topic: str, payloads: Sequence[bytes], times: int) -> None:
        await (await self._publisher(topic)).publish_all(payloads, times)

    async def publish_through_failure(self, topic: str, payload: bytes) -> None:
        """Asks the nodes for the stream's leader until there is one, as the protocol has it. rstream's own
        recovery does the same, but waits two seconds or more before it asks."""
        while True:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    publisher = await self._publisher(topic)
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await publisher.publish(payload)
                return
            except _BROKEN as error:
                if isinstance(error, TimeoutError):
                    self._first += 1  # a node may be there and not answer: ask another one
                self._suspect = isinstance(error, TimeoutError)
                await asyncio.sleep(_RETRY_SECONDS)

    # -- reading -----------------------------------------------------------

    async def replay(self, topic: str, count: int) -> tuple[int, int]:
        """A subscription from the first offset; each chunk's payloads are a list of bytes."""
        records = size = 0
        async for _, payloads in self._chunks(topic, OffsetType.FIRST, None):
            some = payloads[: count - records]
            records += len(some)
            size += sum(map(len, some))
            if records >= count:
                break
        return records, size

    async def consume(self, topic: str, group: str, count: int) -> int:
        """Offsets are stored on the broker, cumulatively; the protocol has no answer to that, so the last one
        is sent when this returns."""
        connection = await self._reader(topic)
        try:
            start: int | None = await connection.query_offset(topic, group) + 1
        except OffsetNotFound:
            start = None
        consumed, stored = 0, 0
        async for offset, payloads in self._chunks(
            topic, OffsetType.FIRST if start is None else OffsetType.OFFSET, start
        ):
            # A chunk is delivered whole, also if the offset asked for is in its middle.
            skipped = max(0, (start or 0) - offset)
            taken = payloads[skipped : skipped + count - consumed]
            consumed += len(taken)
            if consumed >= count or consumed - stored >= _STORE_EVERY:
                stored = consumed
                await connection.store_offset(topic, group, offset + skipped + len(taken) - 1)
            if consumed >= count:
                break
        return consumed

    async def deliveries(self, topic: str) -> AsyncIterator[Sequence[bytes]]:
        async for _, payloads in self._chunks(topic, OffsetType.NEXT, None):
            yield payloads

    async def _reader(self, topic: str) -> Connection:
        leader, replicas = await (await self._any()).query_leader_and_replicas(topic)
        node = replicas[0] if replicas else leader
        async with self._connecting:
            return await self._to(node.host, node.port)

    async def _chunks(
        self, topic: str, kind: OffsetType, offset: int | None
    ) -> AsyncIterator[tuple[int, list[bytes]]]:
        """(offset of the first, payloads) of each chunk; a credit for another one as soon as one is here."""
        connection = await self._reader(topic)
        self._subscriptions = number = (self._subscriptions + 1) % 256
        arrived: asyncio.Queue[Deliver] = asyncio.Queue()

        async def deliver(frame: Deliver) -> None:
            if frame.subscription_id == number:
                await connection.credit(number, 1)
                arrived.put_nowait(frame)

        connection.add_handler(Deliver, deliver, str(number))
        await connection.run_queue_listener_task(number, deliver)
        await connection.subscribe(topic, number, OffsetSpec.from_params(kind, offset), _CREDIT)
        try:
            while True:
                frame = await arrived.get()
                yield frame.chunk_first_offset, frame.get_messages()
        finally:
            connection.remove_handler(Deliver, str(number))
            await connection.stop_queue_listener_task(number)
            if connection.is_connection_alive():
                await connection.unsubscribe(number)


class SubEntryClient(StreamClient):
    """The same with ``publish_all`` in sub-entries, without compression."""

    publisher = SubEntryPublisher
