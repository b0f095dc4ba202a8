"""``grpc.health.v1``: SERVING while the engine is alive and a leader is known."""

from __future__ import annotations

import asyncio

from grpc_health.v1 import health, health_pb2

from holdfast.cluster.results import Progress
from holdfast.rpc.bridge import EngineBridge

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthReporter:
    """Keeps the standard health service in step with the engine.

    Args:
        bridge: reports progress, with the leader.
        services: names that share the broker's health, besides "" (the whole).
    """

    def __init__(self, bridge: EngineBridge, services: tuple[str, ...]) -> None:
        self.servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._bridge = bridge
        self._services = ("", *services)
        self._changed = asyncio.Event()
        self._serving: bool | None = None
        self._unlisten = bridge.listen(self._on_progress)
        self._task = asyncio.create_task(self._keep(), name="holdfast-health")
        self._on_progress(bridge.progress)

    def _on_progress(self, progress: Progress) -> None:
        serving = progress.leader_id is not None and not self._bridge.closed
        if serving != self._serving:
            self._serving = serving
            self._changed.set()

    async def _keep(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._set(_SERVING if self._serving else _NOT_SERVING)

    async def _set(self, status: int) -> None:
        for service in self._services:
            await self.servicer.set(service, status)

    async def close(self) -> None:
        """Report NOT_SERVING from now on, whatever the engine says."""
        self._unlisten()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.servicer.enter_graceful_shutdown()
