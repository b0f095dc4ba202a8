"""The cluster a drill breaks when it runs on this machine: three broker processes."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc

from holdfast.chaos.processes import BrokerProcess, LocalCluster
from holdfast.errors import HoldfastError
from holdfast.v1 import cluster_pb2


class LocalTarget:
    """Broker processes; see ``scene.Target``. What it offers beyond that is for ``Drill.around``."""

    kind = "local"
    discover = True

    def __init__(self, directory: Path, size: int = 3, settings: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.cluster = LocalCluster(directory, size, settings=settings, cluster_id="drill")
        self.nodes: Sequence[str] = list(self.cluster.brokers)
        self._paused: set[str] = set()
        found = {"kill", "pause", "wipe", "data-dir", "processes", "local"}
        if os.geteuid() == 0:
            found.add("root")
        self.capabilities = frozenset(found)

    @property
    def endpoints(self) -> Mapping[str, str]:
        return {node: broker.client_address for node, broker in self.cluster.brokers.items()}

    # -- before the start: for Drill.around ---------------------------------------

    def broker(self, node: str) -> BrokerProcess:
        """The process itself; its ``env`` and ``prefix`` hold from the next start on."""
        return self.cluster.brokers[node]

    def place(self, node: str, data_dir: Path) -> None:
        """Where the broker keeps its data, from the next start on."""
        broker = self.broker(node)
        broker.data_dir = data_dir
        broker.env["HOLDFAST_DATA_DIR"] = str(data_dir)

    def address(self, addresses: Mapping[str, tuple[str, str]]) -> None:
        """Other addresses for all brokers: (client, peer) host:port by node, from the next start on.

        Where a broker sees the others elsewhere than they listen (behind a
        proxy), set ``broker(node).env["HOLDFAST_MEMBERS"]`` afterwards.
        """
        members = ",".join(f"{node}={client}/{peer}" for node, (client, peer) in addresses.items())
        for node, (client, peer) in addresses.items():
            broker = self.broker(node)
            broker.client_address, broker.peer_address = client, peer
            broker.env |= {
                "HOLDFAST_LISTEN": client,
                "HOLDFAST_PEER_LISTEN": peer,
                "HOLDFAST_MEMBERS": members,
            }

    # -- processes ------------------------------------------------------------------

    async def start(self, node: str) -> None:
        await asyncio.to_thread(self.broker(node).start)

    async def stop(self, node: str) -> None:
        await asyncio.to_thread(self.broker(node).stop)

    async def kill(self, node: str) -> None:
        self._paused.discard(node)
        await asyncio.to_thread(self.broker(node).kill)

    async def pause(self, node: str) -> None:
        self._paused.add(node)
        self.broker(node).pause()

    async def resume(self, node: str) -> None:
        self._paused.discard(node)
        self.broker(node).resume()

    async def wipe(self, node: str) -> None:
        broker = self.broker(node)
        if broker.running:
            raise HoldfastError(f"{node} runs: its data directory cannot be wiped")
        await asyncio.to_thread(empty, broker.data_dir)

    async def heal(self) -> None:
        for node in self.nodes:
            if node in self._paused:
                await self.resume(node)
            await self.start(node)

    async def end(self) -> None:
        """Kill all brokers: the run is over."""
        await asyncio.to_thread(self.cluster.kill_all)

    # -- looking ------------------------------------------------------------------

    def running(self, node: str) -> bool:
        return self.broker(node).running

    def pid(self, node: str) -> int:
        broker = self.broker(node)
        return broker.pid if broker.running else 0

    def data_dir(self, node: str) -> Path:
        return self.broker(node).data_dir

    def memory(self, node: str) -> int:
        return self.broker(node).rss_anon_bytes()

    def log_tail(self, node: str, lines: int = 20) -> str:
        return self.broker(node).log_tail(lines)

    def status(self, node: str, timeout: float = 1.0) -> cluster_pb2.ClusterStatus | None:
        try:
            return self.cluster.status(node, timeout)
        except grpc.RpcError:
            return None

    async def leader(self, timeout: float = 30.0, *, other_than: str | None = None) -> str:
        return await asyncio.to_thread(self._leader, timeout, other_than)

    def _leader(self, timeout: float, other_than: str | None) -> str:
        return self.cluster.wait_leader(timeout, other_than=other_than)

    async def followers(self) -> list[str]:
        leader = await self.leader()
        return [node for node in self.nodes if node != leader]

    async def until_serving(self, node: str, timeout: float = 30.0) -> None:
        await asyncio.to_thread(self.cluster.wait_serving, node, timeout)


def empty(directory: Path) -> None:
    """Remove what is in a directory; the directory itself may be a mount."""
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
