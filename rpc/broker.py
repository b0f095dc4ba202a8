"""The composition root: settings → store → engine → services → server.

``Broker`` can be embedded (``async with Broker(settings)``), several of them in
one process; ``run`` is a broker process.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from holdfast.cluster.engine import Engine
from holdfast.cluster.ports import Clock, EventSink
from holdfast.cluster.results import Progress, Role
from holdfast.cluster.state.machine import StateMachine
from holdfast.errors import HoldfastError, UnavailableError
from holdfast.rpc import server as grpc_server
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.clock import SystemClock
from holdfast.rpc.engine_thread import EngineLike, EngineThread
from holdfast.rpc.health import HealthReporter
from holdfast.rpc.node_services import NodeServices
from holdfast.rpc.peer.tcp import TcpTransport
from holdfast.rpc.services import bus, cluster, groups, topics
from holdfast.rpc.settings import Address, Settings
from holdfast.rpc.topology import Topology
from holdfast.rpc.wiring import engine_settings
from holdfast.storage.identity import open_store
from holdfast.storage.lmdb_store import DEFAULT_MAP_SIZE
from holdfast.storage.port import Store

if TYPE_CHECKING:
    from holdfast.rpc.telemetry.export import Telemetry

logger = logging.getLogger(__name__)

#: How long a stopping broker waits: for publishes in flight, for streams to end, for the engine.
_DRAIN_S = 5.0
_STREAMS_S = 1.0
_ENGINE_S = 10.0

_START = Progress(0, 0, 0, Role.FOLLOWER, None)


class Broker:
    """One node.

    Args:
        settings: as ``settings.load`` gives them.
        on_failure: called on the loop, once, when the engine has failed; the
            broker then refuses everything and is to be stopped.
        clock: time; None: the machine's.

    Raises (by ``start``):
        PortInUseError: a port is taken.
        DataDirectoryError: the data directory is in use, or another's.
        ConfigurationError: an address cannot be bound.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_failure: Callable[[BaseException], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.topology = Topology(settings)
        self.failed: BaseException | None = None
        self._on_failure = on_failure
        self._clock: Clock = clock or SystemClock()
        self._client_address: Address | None = None
        self._peer_address: Address | None = None
        self._store: Store | None = None
        self._transport: TcpTransport | None = None
        self._bridge: EngineBridge | None = None
        self._engine: EngineLike | None = None
        self._thread: EngineThread | None = None
        self._server: grpc.aio.Server | None = None
        self._health: HealthReporter | None = None
        self._services: NodeServices | None = None
        self._telemetry: Telemetry | None = None
        self._stopped = False

    # -- what others may look at ---------------------------------------------

    @property
    def client_address(self) -> str:
        """host:port where clients are served."""
        if self._client_address is None:
            raise UnavailableError("the broker has not been started")
        return str(self._client_address)

    @property
    def peer_address(self) -> str | None:
        """host:port where other brokers connect; None for a single node."""
        return None if self._peer_address is None else str(self._peer_address)

    @property
    def bridge(self) -> EngineBridge:
        if self._bridge is None:
            raise UnavailableError("the broker has not been started")
        return self._bridge

    @property
    def engine(self) -> EngineLike:
        if self._engine is None:
            raise UnavailableError("the broker has not been started")
        return self._engine

    @property
    def store(self) -> Store:
        if self._store is None:
            raise UnavailableError("the broker has not been started")
        return self._store

    # -- life ------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the data, join the cluster and serve. Returns before a leader is known: see ``wait_ready``."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def wait_ready(self, timeout: float = 10.0) -> None:
        """Return when a leader is known, so that calls succeed.

        Raises:
            UnavailableError: not within ``timeout`` seconds.
        """
        bridge = self.bridge
        known: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def look(progress: Progress) -> None:
            if progress.leader_id is not None and not known.done():
                known.set_result(None)

        unlisten = bridge.listen(look)
        look(bridge.progress)
        try:
            async with asyncio.timeout(timeout):
                await known
        except TimeoutError:
            raise UnavailableError(
                f"no leader within {timeout:g} s; are a majority of the brokers running?"
            ) from None
        finally:
            unlisten()

    async def stop(self) -> None:
        """Refuse new calls, finish those in flight, end streams, stop the engine, close the data."""
        if self._stopped:
            return
        self._stopped = True
        if self._health is not None:
            await self._health.close()
        services = self._services
        if services is not None:
            await services.duties.close()
            await services.scrubbing.close()
            services.publish.close()
            if self.failed is None and not await services.admission.drain(_DRAIN_S):
                logger.warning("stopping with %d publishes unanswered", services.admission.calls)
            await services.subscribe.close()
            await services.leader.close()
        if self._bridge is not None:
            self._bridge.close()
        if self._server is not None:
            await self._server.stop(_STREAMS_S)
        ended = True
        if self._thread is not None:
            ended = await self._thread.stop(_ENGINE_S)
        if self._telemetry is not None:
            await asyncio.to_thread(self._telemetry.close)
        if not ended:
            # Closing the store under a running engine would crash the process.
            logger.error("the engine did not stop within %g s; its data is left open", _ENGINE_S)
            return
        if self._transport is not None:
            self._transport.close()
        if self._store is not None:
            # Waits for threads that remove what a snapshot has replaced.
            await asyncio.to_thread(self._store.close)

    # -- parts -----------------------------------------------------------------

    async def _start(self) -> None:
        settings = self.settings
        loop = asyncio.get_running_loop()
        events = self._start_telemetry()
        self._server = server = grpc_server.create()
        # Bound, but not served before ``start``: a taken port is found before the data is opened.
        self._client_address = grpc_server.bind(server, settings.client_listen_address)
        self._store = store = await asyncio.to_thread(
            open_store,
            settings.data_path,
            cluster_id=settings.cluster_id,
            node_id=settings.node_id,
            quota_bytes=settings.quota_bytes,
            # Above the quota, with room for what lies free between the pages in use.
            map_size=max(DEFAULT_MAP_SIZE, 2 * settings.quota_bytes),
        )
        if not settings.members and not settings.advertise:
            self.topology.set_own_client_address(str(_dialable(self._client_address)))
        self._transport = transport = self._make_transport()
        self._bridge = bridge = EngineBridge(loop, self._clock, _START)

        def make() -> EngineLike:
            return Engine(
                settings=engine_settings(settings),
                node_id=settings.node_id,
                members=self.topology.node_ids,
                store=store,
                transport=transport,
                clock=self._clock,
                rng=random.Random(secrets.randbits(64)),
                machine=StateMachine(events=events),
                sink=bridge,
                events=events,
            )

        self._thread = EngineThread(
            f"holdfast-engine-{settings.node_id}", make, store, self._on_engine_failed
        )
        self._engine = engine = await self._thread.start()
        bridge.attach(engine)
        await self._serve(server, store, bridge, engine, events)

    def _make_transport(self) -> TcpTransport:
        settings = self.settings
        single = len(self.topology.node_ids) == 1
        transport = TcpTransport(
            node_id=settings.node_id,
            cluster_id=settings.cluster_id,
            boot_id=secrets.randbits(63) or 1,
            listen=None if single else _pair(settings.peer_listen_address),
            peers={
                node_id: _pair(Address.parse(member.peer, f"members.{node_id}.peer"))
                for node_id, member in settings.members.items()
                if node_id != settings.node_id
            },
            client_address=self.topology.client_address(settings.node_id) or "",
            clock=self._clock,
        )
        transport.start()
        if transport.address is not None:
            self._peer_address = Address(*transport.address[:2])
            self.topology.set_own_peer_address(
                self.topology.peer_address(settings.node_id) or str(self._peer_address)
            )
        return transport

    async def _serve(
        self,
        server: grpc.aio.Server,
        store: Store,
        bridge: EngineBridge,
        engine: EngineLike,
        events: EventSink | None,
    ) -> None:
        self._services = services = NodeServices(
            self.settings,
            self.topology,
            store,
            bridge,
            engine,
            self._clock,
            version("holdfast"),
            events=events,
        )
        self._health = HealthReporter(bridge, (bus.SERVICE, groups.SERVICE))
        server.add_generic_rpc_handlers(services.handlers)
        if self._telemetry is not None:
            # Imported here: OpenTelemetry takes longer to import than all the rest.
            from holdfast.rpc.lag_gauges import LagGauges  # noqa: PLC0415
            from holdfast.rpc.telemetry_source import GaugeSource  # noqa: PLC0415

            self._telemetry.observe(
                GaugeSource(
                    store,
                    engine.status,
                    services.admission,
                    LagGauges(
                        store,
                        lambda: bridge.progress.role is Role.LEADER,
                        self._clock,
                        services.subscribe.in_flight,
                    ),
                )
            )
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, server)
        reflection.enable_server_reflection(
            (
                bus.SERVICE,
                topics.SERVICE,
                groups.SERVICE,
                cluster.SERVICE,
                "grpc.health.v1.Health",
                reflection.SERVICE_NAME,
            ),
            server,
        )
        services.duties.start()
        services.scrubbing.start()
        await server.start()

    def _start_telemetry(self) -> EventSink | None:
        settings = self.settings
        if not settings.telemetry.enabled:
            return None
        # Imported here: OpenTelemetry takes longer to import than all the rest.
        from holdfast.rpc.telemetry import export  # noqa: PLC0415

        self._telemetry = export.start(
            settings.telemetry,
            node_id=settings.node_id,
            cluster_id=settings.cluster_id,
            version=version("holdfast"),
        )
        return None if self._telemetry is None else self._telemetry.sink

    def _on_engine_failed(self, error: BaseException) -> None:
        if self.failed is not None:
            return
        self.failed = error
        logger.critical("the engine has failed; this node serves no more: %s", error)
        if self._bridge is not None:
            reason = error.message if isinstance(error, HoldfastError) else "see the broker's log"
            self._bridge.close(UnavailableError(f"this node has failed ({reason}); use another one"))
        if self._on_failure is not None:
            self._on_failure(error)


def run(settings: Settings) -> None:
    """A broker process: blocks until SIGTERM or SIGINT, then stops in good order.

    Raises:
        HoldfastError: as ``Broker.start``.
        SystemExit: status 1, when the engine has failed.
    """
    from holdfast.rpc import process  # noqa: PLC0415  (it imports this module)

    process.run(settings)


def _pair(address: Address) -> tuple[str, int]:
    return address.host, address.port


def _dialable(address: Address) -> Address:
    """All interfaces is where to listen, not where to call."""
    return Address("127.0.0.1", address.port) if address.host in ("0.0.0.0", "::") else address
