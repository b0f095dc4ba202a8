"""An engine without consensus: applies to the real state machine at once."""

from __future__ import annotations

import asyncio
from collections import deque

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from holdfast.cluster import commands
from holdfast.cluster.ports import EventSink
from holdfast.cluster.results import Completed, EngineStatus, Progress, Role
from holdfast.cluster.state.machine import StateMachine
from holdfast.errors import HoldfastError
from holdfast.rpc import server
from holdfast.rpc.admission import Admission
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.clock import SystemClock
from holdfast.rpc.services import bus, cluster, group_lag, group_retries, groups, topics
from holdfast.rpc.services.bus_publish import PublishService
from holdfast.rpc.services.publish_request import PublishEncoder
from holdfast.rpc.services.topic_cache import TopicCache
from holdfast.rpc.settings import Address, Limits, make
from holdfast.rpc.topology import Topology
from holdfast.storage import journal
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.memory_store import MemoryStore
from holdfast.v1 import bus_pb2_grpc, cluster_pb2_grpc, groups_pb2_grpc, topics_pb2_grpc

START = Progress(1, 1, 1, Role.LEADER, "n1", visible_index=1)


class FakeEngine:
    """``hold`` keeps proposals until ``release``; ``refuse`` is raised by propose;
    ``fail`` answers the next ones."""

    def __init__(self, bridge: EngineBridge, store: MemoryStore | None = None) -> None:
        self.bridge = bridge
        self.store = store or MemoryStore()
        self.machine = StateMachine()
        self.index = 1
        self.hold = False
        self.refuse: HoldfastError | None = None
        self.fail: HoldfastError | None = None
        self.time_us = 1_000_000
        self.barriers = 0
        self._held: deque[tuple[bytes, object]] = deque()

    @property
    def held(self) -> int:
        return len(self._held)

    def propose(self, op: bytes, token: object, deadline: float) -> None:
        if self.refuse is not None:
            raise self.refuse
        self._held.append((op, token))
        if not self.hold:
            self.release()

    def read_barrier(self, token: object, deadline: float) -> None:
        self.barriers += 1
        self.bridge.deliver(
            (Completed(token, None, self.fail, 0 if self.fail else self.index),), self.progress()
        )

    def repair(self, damage: DamagedRowError, token: object | None = None, deadline: float = 0.0) -> None:
        if token is not None:
            self.bridge.deliver((Completed(token, None, damage, 0),), self.progress())

    def release(self, count: int | None = None) -> None:
        completed = []
        touched: set[tuple[int, int]] = set()
        groups: set[str] = set()
        while self._held and count != len(completed):
            op, token = self._held.popleft()
            if self.fail is not None:
                completed.append(Completed(token, None, self.fail, 0))
                continue
            self.index += 1
            self.time_us += 1
            entry = commands.encode_entry(self.time_us, [op])
            journal.append(self.store.writer(), self.index, 1, 0, entry)
            applied = self.machine.apply(self.store.writer(), self.index, entry)
            self.store.commit()
            touched |= applied.touched
            groups |= applied.groups_changed
            completed.append(Completed(token, applied.results[0], None, self.index))
        self.bridge.deliver(completed, self.progress(frozenset(touched), frozenset(groups)))

    def progress(
        self, touched: frozenset[tuple[int, int]] = frozenset(), groups: frozenset[str] = frozenset()
    ) -> Progress:
        index = self.index
        return Progress(index, index, 1, Role.LEADER, "n1", touched, index, index, groups)

    def status(self) -> EngineStatus:
        i = self.index
        return EngineStatus("n1", Role.LEADER, 1, "n1", i, i, i, 2, i, i, (), True, len(self._held))


def make_engine() -> FakeEngine:
    """A fake engine and its bridge, on the running loop."""
    bridge = EngineBridge(asyncio.get_running_loop(), SystemClock(), START)
    engine = FakeEngine(bridge)
    bridge.attach(engine)
    return engine


class Served:
    """The services over a fake engine on a real gRPC port."""

    def __init__(
        self, engine: FakeEngine, limits: Limits | None = None, emit: EventSink | None = None
    ) -> None:
        self.engine = engine
        self.limits = limits or Limits()
        self.emit = emit
        self.admission = Admission(self.limits.max_inflight_calls, self.limits.max_inflight_bytes)

    async def __aenter__(self) -> Served:
        engine, limits = self.engine, self.limits
        cache = TopicCache(engine.store, engine.bridge)
        publish = PublishService(
            engine.bridge, cache, PublishEncoder(limits, SystemClock()), self.admission, limits, self.emit
        )
        self.topology = Topology(make())
        self.server = server.create()
        self.server.add_generic_rpc_handlers(
            (
                bus.handlers(publish, None, None),
                topics.TopicsService(engine.store, engine.bridge, cache).handlers(10),
                groups.GroupsService(
                    engine.store, engine.bridge, cache, SystemClock(), limits.max_record_bytes
                ).handlers(10),
                group_retries.GroupRetriesService(engine.store, engine.bridge, SystemClock()).handlers(10),
                group_lag.GroupLagService(engine.store, engine.bridge, SystemClock()).handlers(10),
                cluster.ClusterService(
                    engine.store, engine.bridge, engine, cache, self.topology, "1"
                ).handlers(10),
            )
        )
        address = server.bind(self.server, Address("127.0.0.1", 0))
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(str(address))
        self.bus = bus_pb2_grpc.EventBusStub(self.channel)
        self.topics = topics_pb2_grpc.TopicsStub(self.channel)
        self.groups = groups_pb2_grpc.GroupsStub(self.channel)
        self.cluster = cluster_pb2_grpc.ClusterStub(self.channel)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.channel.close()
        await self.server.stop(None)
        self.engine.bridge.close()

    async def raw(self, method: str, request: bytes) -> bytes:
        """A unary call of bytes, for what a client library would never send."""
        answer: bytes = await self.channel.unary_unary(method)(request, timeout=10)
        return answer


def error_of(caught: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Code, reason and facts of a failed call."""
    status = rpc_status.from_call(caught)
    info = error_details_pb2.ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    assert info.domain == "holdfast"
    return caught.code(), info.reason, dict(info.metadata)
