"""One channel to whichever broker leads, and the calls on it that are passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from holdfast.cluster.results import Progress
from holdfast.errors import NoLeaderError
from holdfast.rpc.services.handlers import Context
from holdfast.rpc.topology import Topology

ChannelFactory = Callable[[str], grpc.aio.Channel]

#: Marks a call that was passed on, so that two nodes that disagree about the leader do not
#: pass it in a circle.
FORWARDED = "holdfast-forwarded-by"
_DETAILS_KEY = "grpc-status-details-bin"
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


class LeaderChannel:
    """The channel to the present leader, made when it is first needed, and the calls that go through it.

    Args:
        connect: makes a channel to a client address.
    """

    def __init__(self, connect: ChannelFactory = insecure_channel) -> None:
        self._connect = connect
        self._channel: grpc.aio.Channel | None = None
        self._address = ""
        self._calls: dict[Any, str] = {}  # call -> address of the leader it goes to
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def active(self) -> int:
        """Calls under way."""
        return len(self._calls)

    def to(self, address: str) -> grpc.aio.Channel:
        """The channel to this leader; one to another is closed."""
        if self._channel is None or self._address != address:
            if self._channel is not None:
                task = asyncio.ensure_future(self._channel.close(1.0))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            self._channel = self._connect(address)
            self._address = address
        return self._channel

    def add(self, call: Any, address: str) -> None:
        """A call goes to the leader at this address."""
        self._calls[call] = address

    def given_up(self, call: Any) -> bool:
        """Whether ``leader_is`` ended the call."""
        return call not in self._calls

    def end(self, call: Any) -> None:
        """The call is over."""
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


def leader_address(progress: Progress, topology: Topology, context: Context) -> str:
    """Where the leader takes calls; not asked on the leader.

    Raises:
        NoLeaderError: none is known, or the node that passed the call on took this one for it.
    """
    leader = progress.leader_id
    if leader is None or leader == topology.node_id:
        raise NoLeaderError("no leader is known; try again")
    address = topology.client_address(leader)
    forwarded = any(key == FORWARDED for key, _ in context.invocation_metadata() or ())
    if address is None or forwarded:
        raise moved(leader, address)
    return address


def moved(leader: str | None, address: str | None) -> NoLeaderError:
    """This node does not lead, or no longer."""
    facts = {} if leader is None else {"leader": leader}
    if address is not None:
        facts["leader_address"] = address
    where = "" if leader is None else f"; the leader is {leader}"
    return NoLeaderError(f"this node does not lead{where}; call it there", metadata=facts)


def status_details(error: grpc.aio.AioRpcError) -> bytes | None:
    """What a Holdfast status says beyond code and text; None: the status is gRPC's own."""
    pairs: Any = error.trailing_metadata() or ()
    for key, value in pairs:
        if key == _DETAILS_KEY:
            return value if isinstance(value, bytes) else value.encode("latin-1")
    return None
