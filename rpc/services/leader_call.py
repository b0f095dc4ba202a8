"""A follower's part in calls that only the leader can answer: passed on to it, bytes untouched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import grpc

from holdfast.cluster.results import Progress, Role
from holdfast.errors import HoldfastError, NoLeaderError, OutcomeUnknownError
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.services.handlers import Context
from holdfast.rpc.services.leader_channel import (
    FORWARDED,
    ChannelFactory,
    LeaderChannel,
    RemoteStatusError,
    insecure_channel,
    leader_address,
    status_details,
)
from holdfast.rpc.topology import Topology

#: The error of a call whose answer was lost on the way.
Lost = Callable[[str], HoldfastError]


class LeaderCall:
    """Unary and server-streaming calls that are passed on to the leader.

    Statuses come back as the leader gave them. A call that was passed on once is
    not passed on again: two nodes that disagree about the leader would do it for ever.

    Args:
        bridge: who leads.
        topology: where it takes calls.
        connect: makes a channel to a client address.
    """

    def __init__(
        self, bridge: EngineBridge, topology: Topology, connect: ChannelFactory = insecure_channel
    ) -> None:
        self._bridge = bridge
        self._topology = topology
        self._channel = LeaderChannel(connect)
        self._unlisten = bridge.listen(self._on_progress)

    @property
    def leads(self) -> bool:
        """Whether this node is the leader: then it answers itself."""
        return self._bridge.progress.role is Role.LEADER

    async def unary(
        self, path: str, raw: bytes, context: Context, timeout: float, *, changes: bool = True
    ) -> bytes:
        """The leader's answer to a serialised request.

        Args:
            path: ``/package.Service/Method``.
            timeout: in seconds.
            changes: the call changes something, so that one whose answer is lost may have done it.

        Raises:
            RemoteStatusError: the leader refused it.
            NoLeaderError: no leader is known.
            OutcomeUnknownError: the leader was lost before it answered; NoLeaderError when the call
                changes nothing.
        """
        address = leader_address(self._bridge.progress, self._topology, context)
        method: Any = self._channel.to(address).unary_unary(path, None, None)
        call = method(raw, timeout=timeout, metadata=self._mark())
        self._channel.add(call, address)
        try:
            answer: bytes = await call
            return answer
        except grpc.aio.AioRpcError as error:
            raise _failure(error, address, unknown_outcome if changes else no_leader) from error
        except asyncio.CancelledError:
            # Our own task was cancelled, or the leader was given up.
            if self._channel.given_up(call):
                raise (unknown_outcome if changes else no_leader)(address) from None
            raise
        finally:
            self._channel.end(call)

    async def stream(self, path: str, raw: bytes, context: Context) -> AsyncGenerator[bytes, None]:
        """The leader's answers to a serialised request.

        Raises:
            RemoteStatusError: the leader refused it, or ended it with an error.
            NoLeaderError: no leader is known, or it was lost.
        """
        address = leader_address(self._bridge.progress, self._topology, context)
        method: Any = self._channel.to(address).unary_stream(path, None, None)
        call = method(raw, metadata=self._mark())
        self._channel.add(call, address)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise _failure(error, address, no_leader) from error
        except asyncio.CancelledError:
            if self._channel.given_up(call):
                raise no_leader(address) from None
            raise
        finally:
            self._channel.end(call)

    async def close(self) -> None:
        """End what is under way; its callers are told to go to another broker."""
        self._unlisten()
        await self._channel.close()

    def _mark(self) -> tuple[tuple[str, str], ...]:
        return ((FORWARDED, self._topology.node_id),)

    def _on_progress(self, progress: Progress) -> None:
        if self._channel.active and progress.leader_id is not None:
            self._channel.leader_is(self._topology.client_address(progress.leader_id))


def no_leader(address: str) -> HoldfastError:
    return NoLeaderError(
        f"the leader at {address} cannot be reached or has changed; try again",
        metadata={"leader_address": address},
    )


def unknown_outcome(address: str) -> HoldfastError:
    return OutcomeUnknownError(
        f"the leader at {address} was lost before it answered; the call may have taken effect",
        metadata={"leader_address": address},
    )


def _failure(error: grpc.aio.AioRpcError, address: str, lost: Lost) -> Exception:
    details = status_details(error)
    return lost(address) if details is None else RemoteStatusError(error, details)
