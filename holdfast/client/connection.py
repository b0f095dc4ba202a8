"""Endpoints, the search for the leader, and calls that survive a broker's failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from holdfast.client.backoff import Backoff
from holdfast.client.effects import REAL, Effects
from holdfast.client.failures import from_rpc, is_uncertain, said_by_broker
from holdfast.client.options import ClientOptions
from holdfast.client.shared_look import SharedLook
from holdfast.client.stored import ReplayMessage, parse_replay
from holdfast.errors import (
    ClosedError,
    DeadlineExceededError,
    HoldfastError,
    InvalidArgumentError,
    NoLeaderError,
    OverloadedError,
    StorageFullError,
    UnavailableError,
)
from holdfast.v1 import bus_pb2, cluster_pb2, topics_pb2

#: Longest a single try of a call may take, so that one hung broker does not eat the deadline.
_TRY_SECONDS = 4.0
_PROBE_SECONDS = 0.5
#: Between two questions who leads: a quarter of the time already waited, within these bounds, so that a short
#: outage ends for the client when it ends, and a long one is not a storm of questions.
_ASK_SECONDS = (0.02, 0.25)
_ASK_SHARE = 0.25
#: How long to insist on the leader itself before any broker that forwards will do.
_INSIST_SECONDS = 1.0

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


class Method(Generic[_Request, _Response]):
    """A call of the wire contract that takes one request."""

    def __init__(self, service: str, name: str, response: type[_Response]) -> None:
        self.path = f"/holdfast.v1.{service}/{name}"
        self.response = response


GET_STATUS: Method[cluster_pb2.GetStatusRequest, cluster_pb2.ClusterStatus] = Method(
    "Cluster", "GetStatus", cluster_pb2.ClusterStatus
)
GET_DIGEST: Method[cluster_pb2.GetDigestRequest, cluster_pb2.GetDigestResponse] = Method(
    "Cluster", "GetDigest", cluster_pb2.GetDigestResponse
)
CREATE_TOPIC: Method[topics_pb2.CreateTopicRequest, topics_pb2.Topic] = Method(
    "Topics", "CreateTopic", topics_pb2.Topic
)
GET_TOPIC: Method[topics_pb2.GetTopicRequest, topics_pb2.Topic] = Method(
    "Topics", "GetTopic", topics_pb2.Topic
)
LIST_TOPICS: Method[topics_pb2.ListTopicsRequest, topics_pb2.ListTopicsResponse] = Method(
    "Topics", "ListTopics", topics_pb2.ListTopicsResponse
)
UPDATE_TOPIC: Method[topics_pb2.UpdateTopicRequest, topics_pb2.Topic] = Method(
    "Topics", "UpdateTopic", topics_pb2.Topic
)
PUBLISH: Method[bus_pb2.PublishRequest, bus_pb2.PublishResponse] = Method(
    "EventBus", "Publish", bus_pb2.PublishResponse
)
DELETE_TOPIC: Method[topics_pb2.DeleteTopicRequest, topics_pb2.DeleteTopicResponse] = Method(
    "Topics", "DeleteTopic", topics_pb2.DeleteTopicResponse
)


class Endpoint:
    """One broker's client address and the one channel to it."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.channel = channel
        self._unary: dict[str, Any] = {}

    async def unary(
        self, method: Method[_Request, _Response], request: _Request, timeout: float
    ) -> _Response:
        """One try.

        Raises:
            grpc.aio.AioRpcError: it failed.
        """
        call = self._unary.get(method.path)
        if call is None:
            call = self.channel.unary_unary(
                method.path,
                request_serializer=type(request).SerializeToString,
                response_deserializer=method.response.FromString,
            )
            self._unary[method.path] = call
        response: _Response = await call(request, timeout=timeout)
        return response

    def stream(
        self, method: Method[_Request, _Response], request: _Request
    ) -> grpc.aio.UnaryStreamCall[_Request, _Response]:
        """A call that is answered by a stream; one try."""
        call: Any = self.channel.unary_stream(
            method.path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=method.response.FromString,
        )
        stream: grpc.aio.UnaryStreamCall[_Request, _Response] = call(request)
        return stream

    def publish_stream(self) -> grpc.aio.StreamStreamCall[bytes, bus_pb2.PublishStreamResponse]:
        call: Any = self.channel.stream_stream(
            "/holdfast.v1.EventBus/PublishStream",
            request_serializer=None,
            response_deserializer=bus_pb2.PublishStreamResponse.FromString,
        )
        stream: grpc.aio.StreamStreamCall[bytes, bus_pb2.PublishStreamResponse] = call()
        return stream

    def replay(
        self, request: bus_pb2.ReplayRequest
    ) -> grpc.aio.UnaryStreamCall[bus_pb2.ReplayRequest, ReplayMessage]:
        call = self.channel.unary_stream(
            "/holdfast.v1.EventBus/Replay",
            request_serializer=bus_pb2.ReplayRequest.SerializeToString,
            response_deserializer=parse_replay,
        )
        return call(request)

    def subscribe(
        self,
    ) -> grpc.aio.StreamStreamCall[bus_pb2.SubscribeRequest, bus_pb2.SubscribeResponse]:
        call: Any = self.channel.stream_stream(
            "/holdfast.v1.EventBus/Subscribe",
            request_serializer=bus_pb2.SubscribeRequest.SerializeToString,
            response_deserializer=bus_pb2.SubscribeResponse.FromString,
        )
        stream: grpc.aio.StreamStreamCall[bus_pb2.SubscribeRequest, bus_pb2.SubscribeResponse] = call()
        return stream

    def __repr__(self) -> str:
        return f"Endpoint({self.address})"


@dataclass(slots=True)
class Tries:
    """What happened on the way to an answer.

    Attributes:
        uncertain: an earlier try may have taken effect although it failed.
    """

    uncertain: bool = False


def parse_endpoints(endpoints: str | Sequence[str]) -> list[str]:
    """``"a:1,b:2"`` or ``["a:1", "b:2"]``.

    Raises:
        InvalidArgumentError: none, or one that is not host:port.
    """
    parts = endpoints.split(",") if isinstance(endpoints, str) else list(endpoints)
    found = list(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if not found:
        raise InvalidArgumentError("connect() needs at least one host:port", metadata={"field": "endpoints"})
    for address in found:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise InvalidArgumentError(f"{address!r} is not host:port", metadata={"field": "endpoints"})
    return found


class Connection:
    """Channels to the brokers of one cluster, and who leads them.

    Any broker takes any call and forwards it; the leader itself is only faster.
    """

    def __init__(
        self, endpoints: str | Sequence[str], options: ClientOptions, effects: Effects = REAL
    ) -> None:
        self.effects = effects
        self._seeds = parse_endpoints(endpoints)
        self._options = options
        self._endpoints: dict[str, Endpoint] = {}
        #: When the search for a leader began that has not found one yet.
        self._leaderless_since: float | None = None
        self._looks = SharedLook(self._look_for_newer)
        self._preferred: Endpoint | None = None
        self._term = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def term(self) -> int:
        """The highest term a broker has named."""
        return self._term

    @property
    def endpoints(self) -> list[Endpoint]:
        return list(self._endpoints.values())

    def backoff(self) -> Backoff:
        """Delays for one sequence of tries."""
        return Backoff(jitter=self.effects.jitter)

    async def start(self) -> None:
        """Find a first broker.

        Raises:
            UnavailableError: none answered within ``connect_timeout``.
        """
        # Clients with the same list spread over its brokers.
        seeds = list(self._seeds)
        self.effects.shuffle(seeds)
        for address in seeds:
            self._endpoint(address)
        try:
            began = asyncio.get_running_loop().time()
            await self._first(self.endpoints, lambda _: True, self._options.connect_timeout, began)
        except DeadlineExceededError as error:
            await self.close()
            where = ", ".join(self._seeds)
            raise UnavailableError(
                f"no broker answers at {where}: {error.metadata.get('last', 'no answer')}"
            ) from None

    async def close(self) -> None:
        self._closed = True
        await self._looks.close()
        endpoints, self._endpoints = self._endpoints, {}
        await asyncio.gather(*[endpoint.channel.close(None) for endpoint in endpoints.values()])

    # -- calls -----------------------------------------------------------------

    async def call(
        self,
        method: Method[_Request, _Response],
        request: _Request,
        timeout: float | None = None,
        tries: Tries | None = None,
    ) -> _Response:
        """A unary call, tried again on other brokers until it is answered or ``timeout`` seconds are over.

        Only for calls that may be repeated; ``tries`` tells whether one was.

        Raises:
            HoldfastError: the broker's answer, or the last failure.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._options.timeout if timeout is None else timeout)
        backoff = self.backoff()
        while True:
            try:
                return await self.attempt(method, request, deadline - loop.time(), tries)
            except HoldfastError as error:
                delay = backoff.delay(error.retry_after_ms)
                if not error.retriable or loop.time() + delay >= deadline:
                    raise
            await asyncio.sleep(delay)

    async def attempt(
        self,
        method: Method[_Request, _Response],
        request: _Request,
        timeout: float,
        tries: Tries | None = None,
    ) -> _Response:
        """One try of a unary call, of at most ``timeout`` seconds; the next one may go to another broker.

        Raises:
            HoldfastError: the broker's answer, or what became of the connection.
        """
        endpoint = self.any()
        try:
            return await endpoint.unary(method, request, max(min(timeout, _TRY_SECONDS), 0.001))
        except grpc.aio.AioRpcError as failure:
            error = from_rpc(failure, endpoint.address)
            if tries is not None and (is_uncertain(error) or not said_by_broker(failure)):
                tries.uncertain = True
        except grpc.aio.UsageError as failure:
            raise ClosedError("the client has been closed") from failure
        self.failed(endpoint, error)
        raise error

    def any(self) -> Endpoint:
        """A broker believed to answer: the one that last did, else any.

        Raises:
            ClosedError: the client has been closed.
        """
        if self._closed or not self._endpoints:
            raise ClosedError("the client is not connected")
        if self._preferred is None:
            self._preferred = next(iter(self._endpoints.values()))
        return self._preferred

    def failed(self, endpoint: Endpoint, error: HoldfastError) -> None:
        """A call to this broker failed: turn to the leader it named, or to the next one."""
        hint = error.metadata.get("leader_address") or error.metadata.get("leader", "")
        if isinstance(error, NoLeaderError) and hint in self._endpoints:
            self._preferred = self._endpoints[hint]
        elif self._preferred is endpoint and _blames_broker(error):
            self._preferred = self.after(endpoint)

    def after(self, endpoint: Endpoint) -> Endpoint:
        """The next broker of the list, in turn."""
        endpoints = self.endpoints
        if not endpoints:
            raise ClosedError("the client has been closed")
        at = endpoints.index(endpoint) if endpoint in endpoints else -1
        return endpoints[(at + 1) % len(endpoints)]

    # -- the leader ----------------------------------------------------------------

    async def leader(self, timeout: float) -> Endpoint:
        """The leader; after a while without one, a broker that may know of one and forwards.

        Raises:
            NoLeaderError: nobody answers, or nobody knows of one.
        """
        endpoints = self.endpoints
        if not endpoints:
            raise ClosedError("the client is not connected")
        insist = min(_INSIST_SECONDS, timeout)
        if self._leaderless_since is None:
            self._leaderless_since = asyncio.get_running_loop().time()
        since = self._leaderless_since
        try:
            leader = await self._first(
                endpoints, lambda status: self._leads(status) or self._unreachable(status), insist, since
            )
        except DeadlineExceededError:
            # The leader may not be reachable from here, behind a proxy for instance.
            try:
                leader = await self._first(
                    self.endpoints,
                    lambda status: bool(status.leader_id) and status.term >= self._term,
                    timeout,
                    since,
                )
            except DeadlineExceededError as error:
                raise NoLeaderError(error.message) from None
        self._leaderless_since = None
        return leader

    async def newer_leader(self, than: int) -> bool:
        """Whether a broker has been elected in a term after this one.

        One look at each broker serves all who ask at about the same time.
        """
        return await self._looks.shared(than)

    async def _look_for_newer(self, than: int) -> bool:
        async def newer(endpoint: Endpoint) -> bool:
            try:
                status = await endpoint.unary(GET_STATUS, cluster_pb2.GetStatusRequest(), _PROBE_SECONDS)
            except (grpc.aio.AioRpcError, grpc.aio.UsageError):
                return False
            self._learn(status)
            return status.role == cluster_pb2.ROLE_LEADER and status.term > than

        looks = [asyncio.ensure_future(newer(endpoint)) for endpoint in self.endpoints]
        try:
            for look in asyncio.as_completed(looks):
                if await look:
                    return True
            return False
        finally:
            await _cancel(looks)

    def _leads(self, status: cluster_pb2.ClusterStatus) -> bool:
        return status.role == cluster_pb2.ROLE_LEADER and status.term >= self._term

    def _unreachable(self, status: cluster_pb2.ClusterStatus) -> bool:
        """Whether this broker follows a leader that is not to be looked for: then it has to forward."""
        if self._options.discover or not status.leader_id or status.term < self._term:
            return False
        return status.leader_address not in self._endpoints

    async def _first(
        self,
        endpoints: Sequence[Endpoint],
        wanted: Callable[[cluster_pb2.ClusterStatus], bool],
        timeout: float,
        since: float,
    ) -> Endpoint:
        """The first broker whose status is as wanted; all are asked over and over, at the same time.

        Args:
            since: when the wait began, of which this may be a part.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        found: asyncio.Future[Endpoint] = loop.create_future()
        last = ["no answer"]
        polls: list[asyncio.Task[None]] = []

        async def poll(endpoint: Endpoint) -> None:
            while not found.done():
                try:
                    status = await endpoint.unary(
                        GET_STATUS, cluster_pb2.GetStatusRequest(), max(0.01, min(_PROBE_SECONDS, timeout))
                    )
                except grpc.aio.AioRpcError as failure:
                    last[0] = from_rpc(failure, endpoint.address).message
                except grpc.aio.UsageError:
                    return  # closed meanwhile
                else:
                    for learned in self._learn(status):
                        begin(learned)
                    if wanted(status) and not found.done():
                        found.set_result(endpoint)
                pause = min(max(_ASK_SECONDS[0], _ASK_SHARE * (loop.time() - since)), _ASK_SECONDS[1])
                await asyncio.sleep(pause * (0.5 + self.effects.jitter() / 2))

        def begin(endpoint: Endpoint) -> None:
            task = loop.create_task(poll(endpoint))
            task.add_done_callback(ended)
            polls.append(task)

        def ended(task: asyncio.Task[None]) -> None:
            # A fault of ours must not look like a cluster without a leader.
            failure = None if task.cancelled() else task.exception()
            if failure is not None and not found.done():
                found.set_exception(failure)

        for endpoint in endpoints:
            begin(endpoint)
        try:
            async with asyncio.timeout_at(deadline):
                return await found
        except TimeoutError:
            raise DeadlineExceededError(
                f"no leader found within {timeout:g} s: {last[0]}", metadata={"last": last[0]}
            ) from None
        finally:
            await _cancel(polls)

    def _learn(self, status: cluster_pb2.ClusterStatus) -> list[Endpoint]:
        """Addresses of brokers not known yet."""
        self._term = max(self._term, status.term)
        if not self._options.discover or self._closed:
            return []
        addresses = [member.client_address for member in status.members] + [status.leader_address]
        return [
            self._endpoint(address) for address in addresses if address and address not in self._endpoints
        ]

    def _endpoint(self, address: str) -> Endpoint:
        endpoint = self._endpoints.get(address)
        if endpoint is None:
            channel = self.effects.channel(address, self._options.credentials)
            endpoint = self._endpoints[address] = Endpoint(address, channel)
        return endpoint


def _blames_broker(error: HoldfastError) -> bool:
    """Whether another broker may do better."""
    return error.retriable and not isinstance(error, OverloadedError | StorageFullError)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await settle(tasks)


async def settle(tasks: Sequence[Awaitable[Any]]) -> None:
    """Wait for cancelled tasks, whatever became of them."""
    await asyncio.gather(*tasks, return_exceptions=True)
