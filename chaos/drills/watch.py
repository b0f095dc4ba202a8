"""Who leads, as the brokers themselves say; asked all the time, for the history and the report."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import grpc

from holdfast.chaos.checker.history import History, Leader
from holdfast.client.options import CHANNEL_OPTIONS
from holdfast.v1 import cluster_pb2, cluster_pb2_grpc

_INTERVAL_SECONDS = 0.1
_PATIENCE_SECONDS = 0.5


class Watch:
    """Notes a ``Leader`` whenever a node is seen leading a term for the first time.

    Attributes:
        seen: (time, node, term) of every look at a node that said it leads: the bands of the report.
    """

    def __init__(self, endpoints: Mapping[str, str], history: History, now: Callable[[], float]) -> None:
        self.seen: list[tuple[float, str, int]] = []
        self._endpoints = endpoints
        self._history = history
        self._now = now
        self._known: set[tuple[str, int]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.get_running_loop().create_task(self._look(node, address))
            for node, address in self._endpoints.items()
        ]

    async def stop(self) -> None:
        """Raises what a look failed with unexpectedly."""
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        self._tasks.clear()

    async def _look(self, node: str, address: str) -> None:
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            stub = cluster_pb2_grpc.ClusterStub(channel)
            while True:
                try:
                    status = await stub.GetStatus(cluster_pb2.GetStatusRequest(), timeout=_PATIENCE_SECONDS)
                except grpc.aio.AioRpcError:
                    status = None  # down, paused or cut off: that is what drills are about
                if status is not None and status.role == cluster_pb2.ROLE_LEADER:
                    self._leads(node, status.term)
                await asyncio.sleep(_INTERVAL_SECONDS)

    def _leads(self, node: str, term: int) -> None:
        at = self._now()
        self.seen.append((at, node, term))
        if (node, term) not in self._known:
            self._known.add((node, term))
            self._history.add(Leader(node=node, term=term, at=at))
