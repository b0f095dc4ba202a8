"""A follower's part in Subscribe: the stream is piped to the leader, bytes untouched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc

from holdfast.errors import HoldfastError, NoLeaderError
from holdfast.rpc.egress import EgressStream
from holdfast.rpc.services.leader_channel import (
    FORWARDED,
    ChannelFactory,
    LeaderChannel,
    RemoteStatusError,
    insecure_channel,
    status_details,
)
from holdfast.v1 import bus_pb2

__all__ = ["FORWARDED", "ChannelFactory", "LeaderPipe", "RemoteStatusError", "insecure_channel"]

_SERVICE = bus_pb2.DESCRIPTOR.services_by_name["EventBus"].full_name


class LeaderPipe:
    """Subscriptions that are piped to leaders.

    Args:
        node_id: this node.
        connect: makes a channel to a client address.
    """

    def __init__(self, node_id: str, connect: ChannelFactory = insecure_channel) -> None:
        self._node_id = node_id
        self._channel = LeaderChannel(connect)

    @property
    def active(self) -> int:
        """Calls being piped."""
        return self._channel.active

    async def run(
        self, address: str, first: bytes, requests: AsyncIterator[bytes], egress: EgressStream
    ) -> AsyncGenerator[bytes, None]:
        """Answers of the leader at ``address``.

        Raises:
            RemoteStatusError: the leader refused or ended the subscription.
            NoLeaderError: it cannot be reached, or leads no longer.
        """
        method = self._channel.to(address).stream_stream(f"/{_SERVICE}/Subscribe", None, None)
        call: Any = method(_chain(first, requests), metadata=((FORWARDED, self._node_id),))
        self._channel.add(call, address)
        try:
            async for response in call:
                with egress.sending(len(response)):
                    yield response
                # Before the next one is read: it stays with the leader until there is room.
                await egress.turn()
        except grpc.aio.AioRpcError as error:
            details = status_details(error)
            if details is None:
                raise _lost(address) from error
            raise RemoteStatusError(error, details) from error
        except asyncio.CancelledError:
            # Our own task was cancelled, or `leader_is` gave up the call.
            if self._channel.given_up(call):
                raise _lost(address) from None
            raise
        finally:
            self._channel.end(call)

    def leader_is(self, address: str | None) -> None:
        """Another leader is known: end the calls that go to the old one."""
        self._channel.leader_is(address)

    async def close(self) -> None:
        await self._channel.close()


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for item in rest:
        yield item


def _lost(address: str) -> HoldfastError:
    return NoLeaderError(
        f"the leader at {address} cannot be reached or has changed; subscribe again",
        metadata={"leader_address": address},
    )
