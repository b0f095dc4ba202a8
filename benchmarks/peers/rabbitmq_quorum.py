"""RabbitMQ's quorum queue through pika's asyncio adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.spec import Basic

from benchmarks.peers import system
from benchmarks.peers.confirms import settle
from benchmarks.peers.rabbitmq_cluster import NODES, RabbitCluster
from benchmarks.peers.system import Unsupported

#: Publishes not confirmed yet at a time, by number and by bytes. More does not make it faster: the queue
#: takes what it can, the rest waits in the channel.
_WINDOW = 4000
_WINDOW_BYTES = 8 << 20
#: Publishes between two looks at the connection.
_BURST = 100
#: The most deliveries without an acknowledgement that AMQP can name for a consumer.
_MOST_UNACKNOWLEDGED = 65535
#: A consumer that acknowledges: so many deliveries ahead, an acknowledgement for so many of them at a time.
_PREFETCH = 4000
_ACK_EVERY = 500
#: Nothing comes for so long while records are missing: they are gone.
_IDLE_SECONDS = 5.0
#: A record not confirmed for so long is published again on another connection.
_PATIENCE_SECONDS = 10.0

_PERSISTENT = pika.BasicProperties(delivery_mode=2)

#: Erlang: the node that leads a queue, and whether every queue's log ends at the same place on each member.
_LEADER = """
    {ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>)),
    {Name, _} = amqqueue:get_pid(Queue),
    {ok, _, {_, Leader}} = ra:members({Name, node()}),
    Leader.
"""
_IN_SYNC = f"""
    Equal = fun(Queue) ->
        {{resource, Host, queue, Name}} = amqqueue:get_name(Queue),
        Members = rabbit_quorum_queue:status(Host, Name),
        Ends = [proplists:get_value(<<"Log Index">>, Member) || Member <- Members],
        length(Ends) =:= {NODES} andalso is_integer(hd(Ends)) andalso length(lists:usort(Ends)) =:= 1
    end,
    lists:all(Equal, [Q || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue]).
"""


class QuorumCluster(RabbitCluster):
    """A confirm comes when a majority has the record in its log, fsynced; the log batches what waits."""

    name = "rabbitmq-quorum"
    title = "RabbitMQ quorum queue"
    durability = "fsynced on a majority"
    fsynced = True
    plugins = ""
    library = "pika"

    def _client_ports(self) -> list[int]:
        return self._amqp

    async def leader_of(self, topic: str) -> int:
        """Asked of the members themselves, so it is right after an election too."""
        return await self._leader(_LEADER % topic)

    async def _in_sync(self) -> bool:
        return await self._holds(_IN_SYNC)


class _Confirms:
    """A channel in confirm mode, and what the broker has not confirmed on it yet."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pending: dict[int, asyncio.Future[None] | None] = {}
        self._tag = 0
        self._moved = asyncio.Event()
        self.failure: Exception | None = None
        channel.add_on_close_callback(self._closed)

    async def select(self) -> None:
        selected: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._channel.confirm_delivery(self._settled, callback=selected.set_result)
        await selected

    async def publish(self, topic: str, payload: bytes) -> None:
        """Returns when confirmed. Raises AMQPError when the record was refused or the connection broke."""
        confirmed = asyncio.get_running_loop().create_future()
        self._send(topic, payload, confirmed)
        await confirmed

    async def publish_all(self, topic: str, payloads: Sequence[bytes], times: int) -> None:
        size = max(map(len, payloads), default=1)
        window = max(_BURST, min(_WINDOW, _WINDOW_BYTES // max(1, size)))
        for _ in range(times):
            for start in range(0, len(payloads), _BURST):
                for payload in payloads[start : start + _BURST]:
                    self._send(topic, payload, None)
                await asyncio.sleep(0)
                await self._at_most(window - _BURST)
        await self._at_most(0)

    def _send(self, topic: str, payload: bytes, confirmed: asyncio.Future[None] | None) -> None:
        if self.failure:
            raise self.failure
        self._tag += 1
        self._pending[self._tag] = confirmed
        self._channel.basic_publish("", topic, payload, _PERSISTENT)

    async def _at_most(self, pending: int) -> None:
        while len(self._pending) > pending:
            if self.failure:
                raise self.failure
            self._moved.clear()
            await self._moved.wait()
        if self.failure:
            raise self.failure

    def _settled(self, frame: Any) -> None:
        """A confirm of one record, or of all up to it."""
        method = frame.method
        if isinstance(method, Basic.Nack):
            self.failure = AMQPError("the queue refused a record")
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._pending if tag <= method.delivery_tag]
        settle([self._pending.pop(tag) for tag in tags], self.failure)
        self._moved.set()

    def _closed(self, _: Channel, reason: Exception) -> None:
        self.failure = reason
        settle(self._pending.values(), self.failure)
        self._pending.clear()
        self._moved.set()


class QuorumClient(system.Client):
    """pika 1.4 with its asyncio adapter: of pika (blocking and asyncio), aio-pika, aiormq, py-amqp and
    amqpstorm it takes the least processor time per record, both pipelined and one by one.

    It connects to the first node that answers. That node also declares the queues, so it leads them
    (``client-local``, the default) and nothing takes a detour. Records are persistent; confirms are awaited
    in a window. A queue is one group: whoever consumes takes records away, whatever the group's name.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses)
        self._connection: AsyncioConnection | None = None
        self._confirms: _Confirms | None = None
        self._connecting = asyncio.Lock()
        self._next = 0

    # -- connection -----------------------------------------------------------

    async def connect(self) -> None:
        """To the first address that answers, in turn. Raises the last one's AMQPError."""
        for left in reversed(range(len(self.addresses))):
            address = self.addresses[self._next % len(self.addresses)]
            try:
                self._connection = await _open(address)
                self._confirms = _Confirms(await self._channel())
                await self._confirms.select()
                return
            except AMQPError:
                self._next += 1
                if not left:
                    raise

    async def close(self) -> None:
        if self._connection is not None and self._connection.is_open:
            closed = asyncio.get_running_loop().create_future()
            self._connection.add_on_close_callback(lambda *_: closed.set_result(None))
            self._connection.close()
            await closed

    async def _channel(self) -> Channel:
        assert self._connection is not None
        opened = asyncio.get_running_loop().create_future()
        self._connection.channel(on_open_callback=opened.set_result)
        channel: Channel = await opened
        return channel

    def _ready(self) -> _Confirms:
        assert self._confirms is not None, "not connected"
        return self._confirms

    # -- publishing -----------------------------------------------------------

    async def create(self, topic: str) -> None:
        assert self._connection is not None
        arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-quorum-initial-group-size": NODES}
        version = str((self._connection.server_properties or {}).get("version", "3"))
        if int(version.partition(".")[0]) >= 4:
            # From 4.0 on a record is dropped after 20 deliveries, unless asked otherwise; replay needs more.
            arguments["x-delivery-limit"] = -1
        channel = await self._channel()
        declared = asyncio.get_running_loop().create_future()
        channel.queue_declare(topic, durable=True, arguments=arguments, callback=declared.set_result)
        await declared
        await _closed(channel)

    async def publish(self, topic: str, payload: bytes) -> None:
        await self._ready().publish(topic, payload)

    async def publish_all(self, topic: str, payloads: Sequence[bytes], times: int) -> None:
        await self._ready().publish_all(topic, payloads, times)

    async def publish_through_failure(self, topic: str, payload: bytes) -> None:
        """pika leaves reconnecting to its caller: on a broken connection, the next node that answers."""
        while True:
            confirms = self._ready()
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await confirms.publish(topic, payload)
                return
            except (AMQPError, TimeoutError):
                await self._reconnect(confirms)

    async def _reconnect(self, broken: _Confirms) -> None:
        async with self._connecting:
            while self._confirms is broken:
                self._next += 1
                try:
                    await self.connect()
                except AMQPError:
                    await asyncio.sleep(0.01)

    # -- reading -----------------------------------------------------------

    async def replay(self, topic: str, count: int) -> tuple[int, int]:
        """A queue has no replay: what is acknowledged is deleted. So ``count`` records are consumed without
        an acknowledgement, and closing the channel, still within the call, gives them back to the queue.

        A consumer can hold 65,535; more takes more of them, and the order is lost between those.
        """
        bodies: list[bytes] = []
        done = asyncio.Event()

        def take(_: Channel, __: Basic.Deliver, ___: pika.BasicProperties, body: bytes) -> None:
            bodies.append(body)
            if len(bodies) >= count:
                done.set()

        channels = []
        for start in range(0, count, _MOST_UNACKNOWLEDGED):
            channels.append(await self._channel())
            await _consume(channels[-1], topic, min(_MOST_UNACKNOWLEDGED, count - start), take)
        await _all_came(done, bodies, count)
        await asyncio.gather(*[_closed(channel) for channel in channels])
        return count, sum(map(len, bodies[:count]))

    async def consume(self, topic: str, group: str, count: int) -> int:
        """Cumulative acknowledgements (``multiple``); AMQP has no answer to them, so the last one is sent,
        and the channel closed, when this returns. What the group consumed is gone for every other group."""
        bodies: list[bytes] = []
        done = asyncio.Event()

        def take(channel: Channel, method: Basic.Deliver, _: pika.BasicProperties, body: bytes) -> None:
            if len(bodies) >= count:
                return  # ahead of what was asked for: goes back to the queue with the channel's end
            bodies.append(body)
            if len(bodies) % _ACK_EVERY == 0 or len(bodies) == count:
                channel.basic_ack(method.delivery_tag, multiple=True)
            if len(bodies) == count:
                done.set()

        channel = await self._channel()
        await _consume(channel, topic, _PREFETCH, take)
        await _all_came(done, bodies, count)
        await _closed(channel)
        return len(bodies)

    async def deliveries(self, topic: str) -> AsyncIterator[Sequence[bytes]]:
        """Also what the queue still holds from before: a queue gives every record to somebody once."""
        bodies: list[bytes] = []
        last = 0
        came = asyncio.Event()

        def take(_: Channel, method: Basic.Deliver, __: pika.BasicProperties, body: bytes) -> None:
            nonlocal last
            bodies.append(body)
            last = method.delivery_tag
            came.set()

        channel = await self._channel()
        channel.add_on_close_callback(lambda *_: came.set())
        await _consume(channel, topic, _PREFETCH, take)
        try:
            while channel.is_open:
                await came.wait()
                came.clear()
                if bodies:
                    some, bodies = bodies, []
                    channel.basic_ack(last, multiple=True)
                    yield some
        finally:
            if channel.is_open:
                channel.close()


async def _open(address: str) -> AsyncioConnection:
    """A connection to one node. Raises AMQPError."""
    host, _, port = address.rpartition(":")
    opened: asyncio.Future[AsyncioConnection] = asyncio.get_running_loop().create_future()

    def failed(_: AsyncioConnection, error: BaseException) -> None:
        opened.set_exception(error if isinstance(error, AMQPError) else AMQPError(str(error)))

    AsyncioConnection(
        pika.ConnectionParameters(host, int(port)),
        on_open_callback=opened.set_result,
        on_open_error_callback=failed,
    )
    return await opened


async def _consume(channel: Channel, topic: str, prefetch: int, take: Callable[..., None]) -> None:
    """Begin to consume with acknowledgements, ``prefetch`` deliveries ahead of them."""
    limited, begun = (asyncio.get_running_loop().create_future() for _ in range(2))
    channel.basic_qos(prefetch_count=prefetch, callback=limited.set_result)
    await limited
    channel.basic_consume(topic, take, callback=begun.set_result)
    await begun


async def _all_came(done: asyncio.Event, bodies: Sequence[bytes], count: int) -> None:
    """Wait for ``count`` bodies. Raises Unsupported when none comes any more: a queue gives a record once."""
    before = -1
    while not done.is_set():
        if len(bodies) == before:
            raise Unsupported(f"a queue deletes what is acknowledged: {before} of {count} records were left")
        before = len(bodies)
        await asyncio.wait({asyncio.ensure_future(done.wait())}, timeout=_IDLE_SECONDS)


async def _closed(channel: Channel) -> None:
    """Close a channel and wait for the broker's answer; what it had delivered goes back to the queue."""
    closed = asyncio.get_running_loop().create_future()
    channel.add_on_close_callback(lambda *_: closed.set_result(None))
    channel.close()
    await closed
