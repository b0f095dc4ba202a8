"""A cluster that speaks the wire contract and fails on demand; its brokers share one model of the log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import grpc
from google.rpc import error_details_pb2, status_pb2

from holdfast.errors import (
    HoldfastError,
    InternalError,
    NoLeaderError,
    OffsetOutOfRangeError,
    OutcomeUnknownError,
    OverloadedError,
    UnknownTopicError,
)
from holdfast.records import decode_batch
from holdfast.v1 import bus_pb2, cluster_pb2, errors_pb2, records_pb2, topics_pb2

from .model_broker import ModelBroker, to_result

Context = grpc.aio.ServicerContext[Any, Any]


async def fail(context: Context, error: HoldfastError) -> None:
    """End a call as brokers do."""
    status = status_pb2.Status(code=grpc.StatusCode[error.code].value[0], message=error.message)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.reason, domain="holdfast", metadata=error.metadata)
    )
    if error.retriable:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(error.retry_after_ms)
        status.details.add().Pack(retry)
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(grpc.StatusCode[error.code], error.message, details)


class FakeCluster:
    """Brokers on free ports. ``async with FakeCluster(2) as cluster``.

    Attributes:
        faults: what becomes of the next publish requests, one each; "" is well.
        replay_faults, subscribe_faults: after how many messages the next such
            streams break; None is never.
    """

    def __init__(self, nodes: int = 1, message_batches: int = 2) -> None:
        self.topics: dict[str, ModelBroker] = {}
        self.leader = 0
        self.term = 1
        self.faults: deque[str] = deque()
        self.call_faults: deque[HoldfastError] = deque()
        self.replay_faults: deque[int | None] = deque()
        self.subscribe_faults: deque[int | None] = deque()
        self.replays: list[bus_pb2.ReplayRequest] = []
        self.committed: dict[tuple[str, int], int] = {}
        self.requests = 0
        #: Of all topics.
        self.idempotency_ttl_ms = 3_600_000
        #: Unary publishes: how many records each had; how many are under way, and were at most.
        self.calls: list[int] = []
        self.under_way = 0
        self.most_under_way = 0
        self.corrupt_next_replay = False
        #: Subscriptions get whole batches, credit allowing, and not record by record.
        self.whole_batches = False
        self.message_batches = message_batches
        self.nodes = [FakeNode(self, number) for number in range(nodes)]

    async def __aenter__(self) -> Self:
        for node in self.nodes:
            await node.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*[node.stop() for node in self.nodes])

    @property
    def endpoints(self) -> list[str]:
        return [node.address for node in self.nodes]

    def move_leader(self) -> None:
        self.leader = (self.leader + 1) % len(self.nodes)
        self.term += 1

    def values(self, topic: str) -> list[list[bytes]]:
        return self.topics[topic].logs

    def broker(self, topic: str) -> ModelBroker:
        found = self.topics.get(topic)
        if found is None:
            raise UnknownTopicError(f"no topic {topic}")
        return found


class FakeNode:
    """One broker."""

    def __init__(self, cluster: FakeCluster, number: int) -> None:
        self._cluster = cluster
        self._number = number
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers(
            [
                _service(
                    "EventBus", streams={"PublishStream": (self._publish_stream, bus_pb2.PublishRequest)}
                ),
                _service("EventBus", calls={"Publish": (self._publish, bus_pb2.PublishRequest)}),
                _service("EventBus", streams={"Subscribe": (self._subscribe, bus_pb2.SubscribeRequest)}),
                _service("EventBus", downloads={"Replay": (self._replay, bus_pb2.ReplayRequest)}),
                _service("Cluster", calls={"GetStatus": (self._status, cluster_pb2.GetStatusRequest)}),
                _service(
                    "Topics",
                    calls={
                        "CreateTopic": (self._create_topic, topics_pb2.CreateTopicRequest),
                        "GetTopic": (self._get_topic, topics_pb2.GetTopicRequest),
                    },
                ),
            ]
        )
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        await self._server.start()

    async def stop(self) -> None:
        """At once, as if killed."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    # -- calls -------------------------------------------------------------------

    async def _status(
        self, request: cluster_pb2.GetStatusRequest, context: Context
    ) -> cluster_pb2.ClusterStatus:
        cluster = self._cluster
        leads = cluster.leader == self._number
        return cluster_pb2.ClusterStatus(
            node_id=f"n{self._number}",
            role=cluster_pb2.ROLE_LEADER if leads else cluster_pb2.ROLE_FOLLOWER,
            leader_id=f"n{cluster.leader}",
            leader_address=cluster.nodes[cluster.leader].address,
            term=cluster.term,
            members=[
                cluster_pb2.Member(node_id=f"n{number}", client_address=node.address)
                for number, node in enumerate(cluster.nodes)
            ],
        )

    async def _create_topic(
        self, request: topics_pb2.CreateTopicRequest, context: Context
    ) -> topics_pb2.Topic:
        await self._trouble(context)
        self._cluster.topics.setdefault(request.name, ModelBroker(request.partitions or 1))
        return topics_pb2.Topic(name=request.name, partitions=request.partitions or 1)

    async def _get_topic(self, request: topics_pb2.GetTopicRequest, context: Context) -> topics_pb2.Topic:
        await self._trouble(context)
        broker = self._cluster.topics.get(request.name)
        if broker is None:
            await fail(context, UnknownTopicError(f"no topic {request.name}"))
            raise AssertionError
        limits = topics_pb2.TopicLimits(idempotency_ttl_ms=self._cluster.idempotency_ttl_ms)
        return topics_pb2.Topic(name=request.name, partitions=len(broker.logs), limits=limits)

    async def _known(self, topic: str, context: Context) -> ModelBroker:
        if topic not in self._cluster.topics:
            await fail(context, UnknownTopicError(f"no topic {topic}"))
        return self._cluster.topics[topic]

    async def _trouble(self, context: Context) -> None:
        if self._cluster.call_faults:
            await fail(context, self._cluster.call_faults.popleft())

    # -- publishing ---------------------------------------------------------------

    async def _publish(self, request: bus_pb2.PublishRequest, context: Context) -> bus_pb2.PublishResponse:
        """A unary publish, which here means: with idempotency keys."""
        cluster = self._cluster
        cluster.calls.append(len(request.records))
        cluster.under_way += 1
        cluster.most_under_way = max(cluster.most_under_way, cluster.under_way)
        try:
            await asyncio.sleep(0)
            fault = cluster.faults.popleft() if cluster.faults else ""
            refusals: dict[str, HoldfastError] = {
                "overloaded": OverloadedError("full", retry_after_ms=1),
                "move": NoLeaderError("moved", retry_after_ms=1),
                "unknown, not stored": OutcomeUnknownError("who knows", retry_after_ms=1),
                "unknown topic": UnknownTopicError("not known here"),
            }
            if fault == "silent":
                await asyncio.Event().wait()
            if fault == "move":
                cluster.move_leader()
            if fault in refusals:
                await fail(context, refusals[fault])
            if fault == "cut":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            try:
                response = cluster.broker(request.topic).publish_keyed(request)
            except HoldfastError as refused:
                await fail(context, refused)
            if fault == "lost":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "lost")
            if fault == "unknown, stored":
                await fail(context, OutcomeUnknownError("who knows", retry_after_ms=1))
            if fault == "internal, stored":
                await fail(context, InternalError("oh"))
            return response
        finally:
            cluster.under_way -= 1

    async def _publish_stream(
        self, requests: AsyncIterator[bus_pb2.PublishRequest], context: Context
    ) -> AsyncIterator[bus_pb2.PublishStreamResponse]:
        cluster = self._cluster
        async for request in requests:
            cluster.requests += 1
            fault = cluster.faults.popleft() if cluster.faults else ""
            if fault == "cut":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            if fault == "silent":
                cluster.move_leader()
                await asyncio.Event().wait()
            error: HoldfastError | None = None
            response: bus_pb2.PublishResponse | None = None
            if fault == "overloaded":
                error = OverloadedError("full", retry_after_ms=1)
            elif fault == "unknown topic":
                error = UnknownTopicError("not known here")
            elif fault == "move":
                cluster.move_leader()
                error = NoLeaderError("moved", retry_after_ms=1)
            elif fault == "unknown, not stored":
                error = OutcomeUnknownError("who knows", retry_after_ms=1)
            else:
                try:
                    response = cluster.broker(request.topic).publish(request)
                except HoldfastError as refused:
                    error = refused
            if fault == "lost":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "lost")
            if fault == "end":
                return
            if fault == "unknown, stored":
                error = OutcomeUnknownError("who knows", retry_after_ms=1)
            yield bus_pb2.PublishStreamResponse(results=[to_result(request.request_id, response, error)])

    # -- reading --------------------------------------------------------------------

    async def _replay(
        self, request: bus_pb2.ReplayRequest, context: Context
    ) -> AsyncIterator[bus_pb2.ReplayResponse]:
        """From the earliest or from offsets, to the end of the log or to offsets."""
        cluster = self._cluster
        cluster.replays.append(request)
        left = cluster.replay_faults.popleft() if cluster.replay_faults else None
        broker = await self._known(request.topic, context)
        numbers = list(request.partitions) or list(range(len(broker.logs)))
        following = {number: request.start.offsets.offsets.get(number, 0) for number in numbers}
        for number, offset in following.items():
            if offset > len(broker.logs[number]):
                facts = {"start_offset": "0", "end_offset": str(len(broker.logs[number]))}
                await fail(context, OffsetOutOfRangeError("past the end", metadata=facts))
        stops = {number: len(broker.logs[number]) for number in numbers}
        if request.end.WhichOneof("position") == "offsets":
            stops.update(request.end.offsets.offsets)
        parts = [
            (number, base, raw, max(base, following[number]), min(base + _count(raw), stops[number]) - 1)
            for number in numbers
            for base, raw in broker.batches[number]
        ]
        parts = [part for part in parts if part[3] <= part[4]]
        step = cluster.message_batches
        for at in range(0, len(parts) + 1, step):
            if left is not None and left <= 0:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            left = None if left is None else left - 1
            response = bus_pb2.ReplayResponse()
            for number, base, raw, first, last in parts[at : at + step]:
                if cluster.corrupt_next_replay:
                    cluster.corrupt_next_replay = False
                    raw = raw[:-1] + bytes([raw[-1] ^ 1])  # noqa: PLW2901
                response.batches.append(_stored(request.topic, number, base, raw, first, last))
                following[number] = last + 1
            response.caught_up = at + step > len(parts)
            for number in numbers:
                response.progress.add(
                    partition=number, next_offset=following[number], log_end_offset=len(broker.logs[number])
                )
            yield response

    async def _subscribe(
        self, requests: AsyncIterator[bus_pb2.SubscribeRequest], context: Context
    ) -> AsyncIterator[bus_pb2.SubscribeResponse]:
        """A group of one: everything from the committed offsets, record by record, under credits."""
        cluster = self._cluster
        left = cluster.subscribe_faults.popleft() if cluster.subscribe_faults else None
        start = (await anext(aiter(requests))).start
        credits = start.credits
        topic = start.topics[0]
        broker = await self._known(topic, context)
        numbers = range(len(broker.logs))
        places = {number: cluster.committed.get((topic, number), 0) for number in numbers}
        acked: dict[int, set[int]] = {number: set() for number in numbers}
        inbox: asyncio.Queue[bus_pb2.SubscribeRequest] = asyncio.Queue()

        async def listen() -> None:
            async for request in requests:
                inbox.put_nowait(request)

        listener = asyncio.create_task(listen())
        try:
            assignment = bus_pb2.Assignment(generation=cluster.term)
            for number in numbers:
                assignment.partitions.add(topic=topic, partition=number, start_offset=places[number])
            yield bus_pb2.SubscribeResponse(assignment=assignment)
            while True:
                for number in numbers:
                    while credits > 0 and places[number] < len(broker.logs[number]):
                        if left is not None and left <= 0:
                            await fail(context, NoLeaderError("moved", retry_after_ms=1))
                        left = None if left is None else left - 1
                        offset = places[number]
                        base, raw = max(b for b in broker.batches[number] if b[0] <= offset)
                        last = (
                            min(base + _count(raw), offset + credits) - 1 if cluster.whole_batches else offset
                        )
                        credits -= last + 1 - offset
                        places[number] = last + 1
                        stored = _stored(topic, number, base, raw, offset, last)
                        yield bus_pb2.SubscribeResponse(delivery=bus_pb2.Delivery(batches=[stored]))
                request = await inbox.get()
                credits += request.credit.records
                for span in request.ack.ranges:
                    number = span.partition
                    if span.last_offset >= places[number]:
                        refusal = bus_pb2.AckRefused(
                            range=span, error=errors_pb2.Error(reason="NOT_DELIVERED", message="no")
                        )
                        yield bus_pb2.SubscribeResponse(ack_refused=refusal)
                        continue
                    acked[number].update(range(span.first_offset, span.last_offset + 1))
                    durable = cluster.committed.get((topic, number), 0)
                    while durable in acked[number]:
                        durable += 1
                    cluster.committed[(topic, number)] = durable
                    committed = bus_pb2.Committed()
                    committed.offsets.add(topic=topic, partition=number, offset=durable)
                    yield bus_pb2.SubscribeResponse(committed=committed)
        finally:
            listener.cancel()


def _count(raw: bytes) -> int:
    return decode_batch(raw).count


def _stored(
    topic: str, partition: int, base: int, raw: bytes, first: int, last: int
) -> records_pb2.StoredBatch:
    return records_pb2.StoredBatch(
        topic=topic,
        partition=partition,
        base_offset=base,
        append_time_us=1,
        first_offset=first,
        last_offset=last,
        batch=raw,
    )


def _service(
    name: str,
    *,
    calls: dict[str, tuple[Any, Any]] | None = None,
    streams: dict[str, tuple[Any, Any]] | None = None,
    downloads: dict[str, tuple[Any, Any]] | None = None,
) -> Any:
    handlers: dict[str, Any] = {}
    kinds = (
        (calls, grpc.unary_unary_rpc_method_handler),
        (streams, grpc.stream_stream_rpc_method_handler),
        (downloads, grpc.unary_stream_rpc_method_handler),
    )
    for methods, kind in kinds:
        for method, (handler, request) in (methods or {}).items():
            handlers[method] = kind(
                handler,
                request_deserializer=request.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
    return grpc.method_handlers_generic_handler(f"holdfast.v1.{name}", handlers)
