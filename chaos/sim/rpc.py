"""gRPC between simulated clients and nodes: the real handlers and the real client library, no sockets.

What is kept of gRPC: messages of one connection arrive in order or not at all,
flow control, deadlines, statuses with their metadata, what cancelling does at
both ends, refused and hanging connections, and keepalive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, NoReturn, cast

import grpc

from holdfast.chaos.sim.loop import SimLoop
from holdfast.chaos.sim.world import Entry, World

#: Bytes of one direction of a stream that are not read yet, before its writer waits.
WINDOW = 64 << 10
#: gRPC's own bytes around a message.
_OVERHEAD = 64
#: When a silent peer is given up (seconds after the silence began): by clients, by servers.
CLIENT_KEEPALIVE = (10.0, 15.0)
SERVER_KEEPALIVE = (15.0, 20.0)

_REFUSED = (
    "failed to connect to all addresses; last error: UNKNOWN: {address}: "
    "Failed to connect to remote host: connect: Connection refused (111)"
)
_TIMED_OUT = (
    "failed to connect to all addresses; last error: UNKNOWN: {address}: "
    "Failed to connect to remote host: Timeout occurred: FD Shutdown"
)
_OK, _UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE

Metadata = tuple[tuple[str, str | bytes], ...]
Link = Literal["silent", "refused"]
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]


class Status(NamedTuple):
    code: grpc.StatusCode
    details: str = ""
    trailing: Metadata = ()


class _CallDetails(NamedTuple):
    method: str
    invocation_metadata: Metadata = ()


def _metadata(pairs: Metadata) -> grpc.aio.Metadata:
    return grpc.aio.Metadata(*pairs)


class ClientNetwork:
    """Connections between clients (and nodes that call nodes) and the nodes' services."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.stream("client-network")
        self.latency = (0.0002, 0.0008)
        self.messages = 0
        self._servers: dict[str, SimServer] = {}
        self._cuts: dict[tuple[str, str], Link] = {}
        self._frozen: set[str] = set()
        self._silent: set[str] = set()
        self._wires: dict[Wire, None] = {}

    # -- processes come and go -------------------------------------------------------

    def serve(self, server: SimServer) -> None:
        """A node's process listens."""
        self._servers[server.address] = server
        self._silent.discard(server.address)

    def server_died(self, address: str, how: Literal["reset", "end", "silent"] = "reset") -> None:
        """A node's process is gone.

        Args:
            how: its kernel tells clients at once (``reset``: what was under way
                is lost; ``end``: what it had sent arrives first), or, without
                power, not at all.
        """
        server = self._servers.pop(address, None)
        if server is None:
            return
        if how == "silent":
            self._silent.add(address)
        for wire in self._wires_of(address):
            wire.server_gone(how)

    def client_died(self, client: str) -> None:
        """A client's process is gone; its connections are closed by its kernel."""
        for wire in [wire for wire in self._wires if wire.client == client]:
            wire.client_gone()

    def freeze(self, address: str) -> None:
        """A node's process stands still; its kernel takes what comes, and nobody answers."""
        self._frozen.add(address)
        for wire in self._wires_of(address):
            wire.watch_client()

    def thaw(self, address: str) -> None:
        self._frozen.discard(address)

    # -- links ------------------------------------------------------------------------------

    def cut(self, client: str, address: str, how: Link = "silent") -> None:
        """Nothing passes between a client and a node; ``refused``: connections break and are refused."""
        self._cuts[client, address] = how
        for wire in self._wires_of(address):
            if wire.client == client:
                if how == "refused":
                    wire.cut_off(Status(_UNAVAILABLE, "recvmsg:Connection reset by peer"))
                else:
                    wire.go_silent()

    def heal(self, client: str, address: str) -> None:
        self._cuts.pop((client, address), None)
        for wire in self._wires_of(address):
            if wire.client == client:
                wire.come_back()

    def heal_all(self) -> None:
        for client, address in list(self._cuts):
            self.heal(client, address)

    def reachable(self, client: str, address: str) -> Literal["yes", "refused", "silent"]:
        cut = self._cuts.get((client, address))
        if cut is not None:
            return cut
        if address in self._frozen or address in self._silent:
            return "silent"
        return "yes" if address in self._servers else "refused"

    def quiet(self, wire: Wire) -> bool:
        """Whether the wire's client hears nothing from the other end."""
        return wire.silent or wire.address in self._frozen or wire.server_silent

    # -- for channels ---------------------------------------------------------------------------

    def channel(
        self, client: str, loop: SimLoop, address: str, options: Iterable[tuple[str, Any]] = ()
    ) -> grpc.aio.Channel:
        """A channel as ``grpc.aio.insecure_channel`` makes them."""
        return cast(grpc.aio.Channel, SimChannel(self, client, loop, address, options))

    def connect(self, channel: SimChannel) -> Wire:
        wire = Wire(self, channel, self._servers[channel.address])
        self._wires[wire] = None
        return wire

    def delay(self) -> float:
        low, high = self.latency
        return low + (high - low) * self.rng.random()

    def forget(self, wire: Wire) -> None:
        self._wires.pop(wire, None)

    def _wires_of(self, address: str) -> list[Wire]:
        return [wire for wire in self._wires if wire.address == address]


class Wire:
    """One connection: what is sent on it arrives in order, or never."""

    def __init__(self, network: ClientNetwork, channel: SimChannel, server: SimServer) -> None:
        self.network = network
        self.world = network.world
        self.channel = channel
        self.server = server
        self.client = channel.client
        self.address = channel.address
        self.silent = False
        self.server_silent = False
        self.client_up = True
        self.server_up = True
        self.client_calls: dict[ClientCall, None] = {}
        self.server_calls: dict[ServerCall, None] = {}
        self._last = [0.0, 0.0]
        self._lanes = (f"{self.client} > {self.address}", f"{self.address} > {self.client}")
        self._held: list[Callable[[], None]] = []
        self._silences = 0

    # -- messages ----------------------------------------------------------------------

    def to_server(self, action: Callable[[], None]) -> None:
        if self.client_up:
            self._send(0, partial(self._at_server, action))

    def to_client(self, action: Callable[[], None]) -> None:
        if self.server_up:
            self._send(1, partial(self._at_client, action))

    def _send(self, direction: int, arrival: Callable[[], None]) -> None:
        network = self.network
        network.messages += 1
        when = self.world.now + network.delay()
        when = max(when, self._last[direction])
        self._last[direction] = when
        self.world.at(when, arrival, self._lanes[direction])

    def _at_server(self, action: Callable[[], None]) -> None:
        if self.silent:
            self._held.append(partial(self._at_server, action))
        elif self.server_up:
            action()

    def _at_client(self, action: Callable[[], None]) -> None:
        if self.silent:
            self._held.append(partial(self._at_client, action))
        elif self.client_up:
            action()

    # -- its end --------------------------------------------------------------------------

    def server_gone(self, how: Literal["reset", "end", "silent"]) -> None:
        self.server_up = False
        self.server_calls.clear()
        if how == "silent":
            self.server_silent = True
            self.watch_client()
            return
        end = partial(self.end_client, Status(_UNAVAILABLE, "Socket closed"))
        if how == "reset":
            self.world.at(self.world.now + self.network.delay(), partial(self._at_client, end))
        else:
            self._send(1, partial(self._at_client, end))

    def client_gone(self) -> None:
        """The client closed the connection, or its process died."""
        if self.client_up:
            self._send(0, partial(self._at_server, self.end_server))
            self.client_up = False
            self.client_calls.clear()
            self.channel.lost(self)
            if not self.server_up:
                self.network.forget(self)

    def cut_off(self, status: Status) -> None:
        """Both ends are told."""
        self.end_client(status)
        self.end_server()

    def end_client(self, status: Status) -> None:
        if not self.client_up:
            return
        self.client_up = False
        self.channel.lost(self)
        for call in list(self.client_calls):
            call.broken(status)
        self.client_calls.clear()
        if not self.server_up:
            self.network.forget(self)

    def end_server(self) -> None:
        if not self.server_up:
            return
        self.server_up = False
        for call in list(self.server_calls):
            call.client_closed()
        self.server_calls.clear()
        if not self.client_up:
            self.network.forget(self)

    # -- silence ----------------------------------------------------------------------------

    def go_silent(self) -> None:
        if self.silent:
            return
        self.silent = True
        self._silences += 1
        self.watch_client()
        low, high = SERVER_KEEPALIVE
        after = low + (high - low) * self.network.rng.random()
        self.world.at(self.world.now + after, partial(self._server_waited, self._silences))

    def watch_client(self) -> None:
        """The other end says nothing from now on: give it up when that lasts."""
        low, high = CLIENT_KEEPALIVE
        after = low + (high - low) * self.network.rng.random()
        self.world.at(self.world.now + after, self._client_waited)

    def _client_waited(self) -> None:
        if self.client_up and self.network.quiet(self):
            self.end_client(Status(_UNAVAILABLE, "keepalive watchdog timeout"))

    def _server_waited(self, silence: int) -> None:
        if self.silent and self._silences == silence:
            self.end_server()

    def come_back(self) -> None:
        """The link works again: what was held is sent once more, after a while."""
        if self.silent:
            silence = self._silences
            self.world.at(
                self.world.now + 0.2 + 0.8 * self.network.rng.random(), partial(self._resend, silence)
            )

    def _resend(self, silence: int) -> None:
        cut = self.network.reachable(self.client, self.address) == "silent"
        if not self.silent or self._silences != silence or (cut and not self.server_silent):
            return
        self.silent = False
        held, self._held = self._held, []
        for arrival in held:
            arrival()
        if self.client_up and not self.server_up and not self.server_silent:
            self.end_client(Status(_UNAVAILABLE, "recvmsg:Connection reset by peer"))
        elif self.server_up and not self.client_up:
            self.end_server()


# -- the client's end ------------------------------------------------------------------------


class SimChannel:
    """What of ``grpc.aio.Channel`` the client library and the brokers use."""

    def __init__(
        self,
        network: ClientNetwork,
        client: str,
        loop: SimLoop,
        address: str,
        options: Iterable[tuple[str, Any]] = (),
    ) -> None:
        given = dict(options)
        self.network = network
        self.client = client
        self.loop = loop
        self.address = address
        self.closed = False
        self.calls: dict[ClientCall, None] = {}
        self._wire: Wire | None = None
        self._connecting = False
        self._waiting: list[ClientCall] = []
        self._first = given.get("grpc.initial_reconnect_backoff_ms", 1_000) / 1000
        self._longest = given.get("grpc.max_reconnect_backoff_ms", 120_000) / 1000
        self._patience = given.get("grpc.min_reconnect_backoff_ms", 20_000) / 1000
        self._backoff = self._first
        self._retry_at = 0.0
        self._last_failure = ""
        self._drained: asyncio.Future[None] | None = None

    # -- as grpc.aio has it ----------------------------------------------------------------

    def unary_unary(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None
    ) -> Callable[..., UnaryCall]:
        return partial(self._unary_unary, path, request_serializer, response_deserializer)

    def unary_stream(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None
    ) -> Callable[..., StreamCall]:
        return partial(self._unary_stream, path, request_serializer, response_deserializer)

    def stream_stream(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None
    ) -> Callable[..., StreamCall]:
        return partial(self._stream_stream, path, request_serializer, response_deserializer)

    async def close(self, grace: float | None = None) -> None:
        self.closed = True
        if grace and self.calls:
            self._drained = self.loop.create_future()
            await asyncio.wait([self._drained], timeout=grace)
        for call in list(self.calls):
            call.cancel()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.client_gone()

    # -- calls --------------------------------------------------------------------------------

    def _unary_unary(
        self,
        path: str,
        serialize: Any,
        deserialize: Any,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> UnaryCall:
        raw = request if serialize is None else serialize(request)
        call = UnaryCall(self, path, deserialize, timeout, tuple(metadata), raw)
        self._begin(call)
        return call

    def _unary_stream(
        self,
        path: str,
        serialize: Any,
        deserialize: Any,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> StreamCall:
        raw = request if serialize is None else serialize(request)
        call = StreamCall(self, path, deserialize, timeout, tuple(metadata), raw, None)
        self._begin(call)
        return call

    def _stream_stream(
        self,
        path: str,
        serialize: Any,
        deserialize: Any,
        request_iterator: AsyncIterator[Any] | None = None,
        *,
        timeout: float | None = None,
        metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> StreamCall:
        call = StreamCall(self, path, deserialize, timeout, tuple(metadata), None, serialize)
        self._begin(call)
        if request_iterator is not None:
            call.consume(request_iterator)
        return call

    def _begin(self, call: ClientCall) -> None:
        if self.closed:
            raise grpc.aio.UsageError("Channel is closed.")
        self.calls[call] = None
        if self._wire is not None:
            call.connected(self._wire)
        elif self._connecting:
            self._waiting.append(call)
        elif self.network.world.now < self._retry_at:
            self.loop.call_soon(call.broken, Status(_UNAVAILABLE, self._last_failure))
        else:
            self._waiting.append(call)
            self._connect()

    def ended(self, call: ClientCall) -> None:
        self.calls.pop(call, None)
        if not self.calls and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # -- connecting ------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._connecting = True
        network = self.network
        if network.reachable(self.client, self.address) == "silent":
            after = max(self._patience, self._backoff)
        else:
            after = 3 * network.delay()
        network.world.at(network.world.now + after, self._connected)

    def _connected(self) -> None:
        self._connecting = False
        if self.closed or self.loop.dead:
            return
        network = self.network
        state = network.reachable(self.client, self.address)
        waiting, self._waiting = self._waiting, []
        if state == "yes":
            self._backoff = self._first
            self._wire = wire = network.connect(self)
            for call in waiting:
                if not call.done():
                    call.connected(wire)
            return
        text = _REFUSED if state == "refused" else _TIMED_OUT
        self._last_failure = text.format(address=self.address)
        self._retry_at = network.world.now + self._backoff * (0.8 + 0.4 * network.rng.random())
        self._backoff = min(self._backoff * 1.6, self._longest)
        for call in waiting:
            call.broken(Status(_UNAVAILABLE, self._last_failure))

    def lost(self, wire: Wire) -> None:
        if self._wire is wire:
            self._wire = None


class ClientCall:
    """What calls of all kinds have in common."""

    def __init__(
        self,
        channel: SimChannel,
        path: str,
        deserialize: Any,
        timeout: float | None,
        metadata: Metadata,
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.deadline: float | None = None
        self._channel = channel
        self._loop = channel.loop
        self._deserialize = deserialize
        self._status: Status | None = None
        self._cancelled = False
        self._wire: Wire | None = None
        self._peer: ServerCall | None = None
        self._ended: asyncio.Future[None] | None = None
        self._callbacks: list[Callable[[Any], None]] = []
        self._timer: Entry | None = None
        if timeout is not None:
            world = channel.network.world
            self.deadline = world.now + max(0.0, timeout)
            self._timer = world.at(self.deadline, self._late)

    # -- as grpc.aio has it ------------------------------------------------------------------

    def done(self) -> bool:
        return self._status is not None

    def cancelled(self) -> bool:
        return self._status is not None and self._status.code is grpc.StatusCode.CANCELLED

    def cancel(self) -> bool:
        if self._status is not None:
            return False
        self._cancelled = True
        self._give_up(Status(grpc.StatusCode.CANCELLED, "Locally cancelled by application!"))
        return True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._status is None:
            self._callbacks.append(callback)
        else:
            self._loop.call_soon(callback, self)

    def time_remaining(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - self._channel.network.world.now)

    async def code(self) -> grpc.StatusCode:
        return (await self._final()).code

    async def details(self) -> str:
        return (await self._final()).details

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return _metadata((await self._final()).trailing)

    async def wait_for_connection(self) -> None:
        if self._status is not None:
            self._raise_for_status()

    # -- for the wire --------------------------------------------------------------------------

    def connected(self, wire: Wire) -> None:
        self._wire = wire
        wire.client_calls[self] = None

    def broken(self, status: Status) -> None:
        """The connection failed: no answer will come."""
        self._end(status)

    def _late(self) -> None:
        self._timer = None
        if self._status is None:
            self._give_up(Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _give_up(self, status: Status) -> None:
        wire = self._wire
        if wire is not None:
            wire.to_server(self._tell_server)
        self._end(status)

    def _tell_server(self) -> None:
        if self._peer is not None:
            self._peer.client_closed()

    def _end(self, status: Status) -> None:
        if self._status is not None:
            return
        self._status = status
        if self._timer is not None:
            World.cancel(self._timer)
            self._timer = None
        if self._wire is not None:
            self._wire.client_calls.pop(self, None)
        self._channel.ended(self)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        for callback in self._callbacks:
            self._loop.call_soon(callback, self)
        self._wake()

    def _wake(self) -> None:
        raise NotImplementedError

    async def _final(self) -> Status:
        while self._status is None:
            if self._ended is None:
                self._ended = self._loop.create_future()
            await asyncio.shield(self._ended)
        return self._status

    def _raise_for_status(self) -> None:
        status = self._status
        assert status is not None
        if self._cancelled:
            raise asyncio.CancelledError
        if status.code is not _OK:
            raise grpc.aio.AioRpcError(
                status.code,
                grpc.aio.Metadata(),
                _metadata(status.trailing),
                details=status.details,
                debug_error_string="",
            )


class UnaryCall(ClientCall):
    """One request, one answer; awaitable."""

    def __init__(
        self,
        channel: SimChannel,
        path: str,
        deserialize: Any,
        timeout: float | None,
        metadata: Metadata,
        request: bytes,
    ) -> None:
        super().__init__(channel, path, deserialize, timeout, metadata)
        self._request = request
        self._answer: bytes | None = None
        self._done: asyncio.Future[None] = self._loop.create_future()

    def connected(self, wire: Wire) -> None:
        super().connected(wire)
        wire.to_server(partial(self._arrive, wire))

    def _arrive(self, wire: Wire) -> None:
        self._peer = wire.server.accept(wire, self, self._request)

    def answered(self, data: bytes | None, status: Status) -> None:
        if self._status is None:
            self._answer = data
            self._end(status)

    def _wake(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            yield from self._done
        except asyncio.CancelledError:
            if self._status is None:
                self.cancel()
            raise
        self._raise_for_status()
        assert self._answer is not None
        return self._answer if self._deserialize is None else self._deserialize(self._answer)


class StreamCall(ClientCall):
    """A stream of answers, and of requests unless there is just one."""

    def __init__(
        self,
        channel: SimChannel,
        path: str,
        deserialize: Any,
        timeout: float | None,
        metadata: Metadata,
        request: bytes | None,
        serialize: Any,
    ) -> None:
        super().__init__(channel, path, deserialize, timeout, metadata)
        self._request = request
        self._serialize = serialize
        self._arrived: deque[bytes] = deque()
        self._final_status: Status | None = None
        self._reader: asyncio.Future[None] | None = None
        #: Bytes written that the server has not read.
        self._unread = 0
        self._writers: deque[asyncio.Future[None]] = deque()
        #: Written before there was a connection.
        self._early: list[bytes] = []
        self._half_closed = request is not None
        self._poller: asyncio.Task[None] | None = None

    # -- writing ----------------------------------------------------------------------------

    async def write(self, request: Any) -> None:
        if self._status is not None:
            raise asyncio.InvalidStateError("RPC already finished.")
        if self._half_closed:
            raise asyncio.InvalidStateError('RPC is half closed after calling "done_writing".')
        raw: bytes = request if self._serialize is None else self._serialize(request)
        try:
            while self._unread >= WINDOW or self._wire is None:
                waiter = self._loop.create_future()
                self._writers.append(waiter)
                await waiter
                if self._status is not None:
                    self._raise_for_status()
                    raise asyncio.InvalidStateError("RPC already finished.")
        except asyncio.CancelledError:
            if self._status is None:
                self.cancel()
            raise
        self._unread += len(raw) + _OVERHEAD
        self._wire.to_server(partial(self._message_arrives, raw))

    async def done_writing(self) -> None:
        if self._status is not None or self._half_closed:
            return
        while self._wire is None:
            waiter = self._loop.create_future()
            self._writers.append(waiter)
            await waiter
            if self._status is not None:
                return
        self._half_closed = True
        self._wire.to_server(self._end_arrives)

    def consume(self, requests: AsyncIterator[Any]) -> None:
        """Write what the iterator gives."""
        self._poller = self._loop.create_task(self._consume(requests))

    async def _consume(self, requests: AsyncIterator[Any]) -> None:
        try:
            async for request in requests:
                try:
                    await self.write(request)
                except grpc.aio.AioRpcError:
                    return
            await self.done_writing()
        except Exception:  # noqa: BLE001  (as gRPC does: the call ends)
            self.cancel()
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _message_arrives(self, raw: bytes) -> None:
        if self._peer is not None:
            self._peer.message(raw)

    def _end_arrives(self) -> None:
        if self._peer is not None:
            self._peer.half_close()

    def was_read(self, size: int) -> None:
        """The server has taken a message: there is room for another."""
        self._unread -= size + _OVERHEAD
        if self._unread < WINDOW:
            self._wake_writers()

    def _wake_writers(self) -> None:
        writers, self._writers = self._writers, deque()
        for waiter in writers:
            if not waiter.done():
                waiter.set_result(None)

    # -- reading ------------------------------------------------------------------------------

    async def read(self) -> Any:
        if self._status is not None:
            self._raise_for_status()
            return EOF
        raw = await self._next()
        if raw is None:
            self._raise_for_status()
            return EOF
        return raw if self._deserialize is None else self._deserialize(raw)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._responses()

    async def _responses(self) -> AsyncIterator[Any]:
        while (raw := await self._next()) is not None:
            yield raw if self._deserialize is None else self._deserialize(raw)
        self._raise_for_status()

    async def _next(self) -> bytes | None:
        while not self._arrived:
            if self._status is not None:
                return None
            if self._final_status is not None:
                self._end(self._final_status)
                return None
            self._reader = self._loop.create_future()
            try:
                await self._reader
            except asyncio.CancelledError:
                if self._status is None:
                    self.cancel()
                raise
        raw = self._arrived.popleft()
        peer = self._peer
        if peer is not None:
            peer.was_read(len(raw))
        if not self._arrived and self._final_status is not None:
            self._end(self._final_status)
        return raw

    # -- for the wire ----------------------------------------------------------------------------

    def connected(self, wire: Wire) -> None:
        super().connected(wire)
        wire.to_server(partial(self._arrive, wire))
        self._wake_writers()

    def _arrive(self, wire: Wire) -> None:
        self._peer = wire.server.accept(wire, self, self._request)

    def message(self, raw: bytes) -> None:
        if self._status is None:
            self._arrived.append(raw)
            self._wake_reader()

    def ended(self, status: Status) -> None:
        """The server's last word; what it said before can still be read."""
        if self._status is not None:
            return
        self._final_status = status
        if self._arrived:
            return
        self._end(status)

    def _wake(self) -> None:
        self._arrived.clear()
        self._wake_reader()
        self._wake_writers()
        if self._poller is not None and not self._poller.done():
            self._poller.cancel()

    def _wake_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)


# -- the server's end ------------------------------------------------------------------------


class SimServer:
    """A node's process as its clients see it: handlers on the node's loop."""

    def __init__(
        self,
        address: str,
        loop: SimLoop,
        handlers: Sequence[grpc.GenericRpcHandler[Any, Any]],
    ) -> None:
        self.address = address
        self.loop = loop
        self._handlers = handlers
        self._methods: dict[str, Any] = {}

    def accept(self, wire: Wire, call: ClientCall, request: bytes | None) -> ServerCall | None:
        """A call has arrived; None when nobody is there any more."""
        if self.loop.dead or call.done():
            return None
        method = self._methods.get(call.path)
        if method is None:
            details: Any = _CallDetails(call.path)
            for handler in self._handlers:
                method = handler.service(details)
                if method is not None:
                    self._methods[call.path] = method
                    break
        served = ServerCall(self, wire, call)
        wire.server_calls[served] = None
        served.start(method, request)
        return served


class ServerCall:
    """One call on the server; the context its handler is given."""

    def __init__(self, server: SimServer, wire: Wire, call: ClientCall) -> None:
        self._loop = server.loop
        self._wire = wire
        self._call = call
        self._task: asyncio.Task[None] | None = None
        self._arrived: deque[bytes] = deque()
        self._half_closed = False
        self._reader: asyncio.Future[None] | None = None
        self._unread = 0
        self._writer: asyncio.Future[None] | None = None
        self._ended = False
        self._client_closed = False
        self._trailing: Metadata = ()
        self._code = _OK
        self._details = ""
        self._callbacks: list[Callable[[Any], None]] = []

    def start(self, method: Any, request: bytes | None) -> None:
        if method is None:
            self._finish(Status(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
        elif method.unary_unary is not None:
            self._task = self._loop.create_task(self._unary(method.unary_unary, request))
        elif method.unary_stream is not None:
            self._task = self._loop.create_task(self._stream(method.unary_stream, request))
        else:
            self._task = self._loop.create_task(self._stream(method.stream_stream, self._requests()))

    async def _unary(self, behaviour: Any, request: bytes | None) -> None:
        try:
            answer = await behaviour(request, self)
        except grpc.aio.AbortError:
            return
        except Exception as error:  # noqa: BLE001  (reported)
            self._failed(error)
            return
        if not self._ended:
            self._finish(Status(self._code, self._details, self._trailing), answer)

    async def _stream(self, behaviour: Any, request: Any) -> None:
        try:
            async for answer in behaviour(request, self):
                if self._ended:
                    return
                await self._write(answer)
        except grpc.aio.AbortError:
            return
        except Exception as error:  # noqa: BLE001  (reported)
            self._failed(error)
            return
        if not self._ended:
            self._finish(Status(self._code, self._details, self._trailing))

    async def _write(self, answer: bytes) -> None:
        call = self._call
        assert isinstance(call, StreamCall)
        while self._unread >= WINDOW:
            self._writer = self._loop.create_future()
            await self._writer
        self._unread += len(answer) + _OVERHEAD
        self._wire.to_client(partial(call.message, answer))

    def was_read(self, size: int) -> None:
        self._unread -= size + _OVERHEAD
        writer = self._writer
        if writer is not None and self._unread < WINDOW and not writer.done():
            self._writer = None
            writer.set_result(None)

    def _failed(self, error: Exception) -> None:
        self._loop.call_exception_handler(
            {"message": f"{self._call.path} failed unexpectedly: {error!r}", "exception": error}
        )
        if not self._ended:
            self._finish(Status(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}"))

    def _finish(self, status: Status, answer: bytes | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        self._wire.server_calls.pop(self, None)
        call = self._call
        if isinstance(call, UnaryCall):
            self._wire.to_client(partial(call.answered, answer, status))
        else:
            assert isinstance(call, StreamCall)
            self._wire.to_client(partial(call.ended, status))
        for callback in self._callbacks:
            self._loop.call_soon(callback, self)

    # -- what the client does ---------------------------------------------------------------

    def message(self, raw: bytes) -> None:
        if not self._ended:
            self._arrived.append(raw)
            self._wake_reader()

    def half_close(self) -> None:
        self._half_closed = True
        self._wake_reader()

    def client_closed(self) -> None:
        """The client cancelled, ran out of time, or is gone: the handler is cancelled."""
        self._wire.server_calls.pop(self, None)
        if self._ended:
            return
        self._ended = self._client_closed = True
        if self._task is not None:
            self._task.cancel()
        for callback in self._callbacks:
            self._loop.call_soon(callback, self)

    def _wake_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    async def _requests(self) -> AsyncIterator[bytes]:
        call = self._call
        assert isinstance(call, StreamCall)
        while True:
            while not self._arrived:
                if self._client_closed:
                    raise asyncio.CancelledError
                if self._half_closed:
                    return
                self._reader = self._loop.create_future()
                await self._reader
            raw = self._arrived.popleft()
            call.was_read(len(raw))
            yield raw

    # -- the handler's context ------------------------------------------------------------------

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        if self._ended and not self._client_closed:
            raise grpc.aio.UsageError("Abort already called!")
        self._finish(Status(code, details, (*self._trailing, *trailing_metadata)))
        raise grpc.aio.AbortError("Locally aborted.")

    def time_remaining(self) -> float | None:
        return self._call.time_remaining()

    def peer(self) -> str:
        return f"ipv4:{self._call._channel.client}"

    def invocation_metadata(self) -> Metadata:
        return self._call.metadata

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._trailing = tuple(trailing_metadata)

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def cancelled(self) -> bool:
        return self._client_closed

    def done(self) -> bool:
        return self._ended
