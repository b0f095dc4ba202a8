"""A follower's part in Subscribe: the stream is piped to the leader, bytes untouched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import grpc

from holdfast.errors import HoldfastError, NoLeaderError
from holdfast.rpc.egress import EgressStream
from holdfast.rpc.services.handlers import Context
from holdfast.v1 import bus_pb2

ChannelFactory = Callable[[str], grpc.aio.Channel]

#: Marks a piped call, so that two nodes that disagree about the leader do not
#: pipe it in a circle.
FORWARDED = "holdfast-forwarded-by"
_DETAILS_KEY = "grpc-status-details-bin"
_SERVICE = bus_pb2.DESCRIPTOR.services_by_name["EventBus"].full_name
_MAX_MESSAGE = 64 << 20


def insecure_channel(address: str) -> grpc.aio.Channel:
    """A plain-text channel to another broker."""
    return grpc.aio.insecure_channel(
        address,
        options=(
            ("grpc.max_receive_message_length", _MAX_MESSAGE),
            ("grpc.max_send_message_length", _MAX_MESSAGE),
            ("grpc.keepalive_time_ms", 15_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.use_local_subchannel_pool", 1),
        ),
    )


class RemoteStatusError(Exception):
    """The leader ended the call with a Holdfast status, to be passed on as it is."""

    def __init__(self, error: grpc.aio.AioRpcError, details: bytes) -> None:
        super().__init__(error.details())
        self.code = error.code()
        self.text = error.details() or ""
        self.details = details

    async def pass_on(self, context: Context) -> None:
        """End the client's call the way the leader ended ours."""
        await context.abort(self.code, self.text, ((_DETAILS_KEY, self.details),))


class LeaderPipe:
    """Channels to leaders, and the calls that are piped through them.

    Args:
        node_id: this node.
        connect: makes a channel to a client address.
    """

    def __init__(self, node_id: str, connect: ChannelFactory = insecure_channel) -> None:
        self._node_id = node_id
        self._connect = connect
        self._channel: grpc.aio.Channel | None = None
        self._address = ""
        self._calls: dict[Any, str] = {}  # call -> address of the leader it goes to
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def active(self) -> int:
        """Calls being piped."""
        return len(self._calls)

    async def run(
        self, address: str, first: bytes, requests: AsyncIterator[bytes], egress: EgressStream
    ) -> AsyncGenerator[bytes, None]:
        """Answers of the leader at ``address``.

        Raises:
            RemoteStatusError: the leader refused or ended the subscription.
            NoLeaderError: it cannot be reached, or leads no longer.
        """
        method = self._open(address).stream_stream(f"/{_SERVICE}/Subscribe", None, None)
        call: Any = method(_chain(first, requests), metadata=((FORWARDED, self._node_id),))
        self._calls[call] = address
        try:
            async for response in call:
                with egress.sending(len(response)):
                    yield response
                # Before the next one is read: it stays with the leader until there is room.
                await egress.turn()
        except grpc.aio.AioRpcError as error:
            details = _details(error)
            if details is None:
                raise _lost(address) from error
            raise RemoteStatusError(error, details) from error
        except asyncio.CancelledError:
            # Our own task was cancelled, or `leader_is` gave up the call.
            if call not in self._calls:
                raise _lost(address) from None
            raise
        finally:
            self._calls.pop(call, None)
            call.cancel()

    def leader_is(self, address: str | None) -> None:
        """Another leader is known: end the calls that go to the old one."""
        for call, there in list(self._calls.items()):
            if there != address:
                del self._calls[call]
                call.cancel()

    async def close(self) -> None:
        self.leader_is(None)
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close(None)
        if self._closing:
            await asyncio.gather(*self._closing)

    def _open(self, address: str) -> grpc.aio.Channel:
        if self._channel is None or self._address != address:
            if self._channel is not None:
                task = asyncio.ensure_future(self._channel.close(1.0))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            self._channel = self._connect(address)
            self._address = address
        return self._channel


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for item in rest:
        yield item


def _details(error: grpc.aio.AioRpcError) -> bytes | None:
    pairs: Any = error.trailing_metadata() or ()
    for key, value in pairs:
        if key == _DETAILS_KEY:
            return value if isinstance(value, bytes) else value.encode("latin-1")
    return None


def _lost(address: str) -> HoldfastError:
    return NoLeaderError(
        f"the leader at {address} cannot be reached or has changed; subscribe again",
        metadata={"leader_address": address},
    )
