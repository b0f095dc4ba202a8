"""NATS JetStream: three servers, streams of three replicas on disk."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.peers import system
from benchmarks.peers.nats_client import Client, stream_name
from benchmarks.peers.processes import Process, free_ports, until

INSTALL = "go install github.com/nats-io/nats-server/v2@v2.15.2"
_NODES = 3


class Cluster(system.Cluster):
    """``nats-server`` with the settings it has by default: ``sync_interval`` of two minutes.

    A stream of three replicas acknowledges when a majority has the record in its log. Without
    ``sync_interval: always`` that log is in the page cache. Clients connect to the server that leads the
    stream, which saves one hop.
    """

    name = "nats"
    title = "NATS JetStream R3"
    durability = "in the page cache of a majority, fsync every 2 min"
    fsynced = False
    #: The oldest server that can run this row, and its JetStream settings besides the directory.
    needs = (2, 9)
    settings = ""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._processes: list[Process] = []
        self._clients: list[int] = []
        self._monitors: list[int] = []

    @classmethod
    def missing(cls) -> str | None:
        found = _newest_server()
        if found is None:
            return f"nats-server: {INSTALL}"
        if found[1][:2] < cls.needs:
            return f"nats-server {'.'.join(map(str, cls.needs))} or later: {INSTALL}"
        return None

    @classmethod
    def version(cls) -> str:
        found = _newest_server()
        server = ".".join(map(str, found[1])) if found else "missing"
        clients = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("nats-py", "natsrpy"))
        return f"nats-server {server}, {clients}"

    async def start(self) -> None:
        ports = free_ports(3 * _NODES)
        self._clients, self._monitors, routes = (
            ports[:_NODES],
            ports[_NODES : 2 * _NODES],
            ports[2 * _NODES :],
        )
        all_routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
        for node in range(_NODES):
            (self.directory / f"n{node}.conf").write_text(
                f"server_name: n{node}\n"
                f'listen: "127.0.0.1:{self._clients[node]}"\n'
                f'http: "127.0.0.1:{self._monitors[node]}"\n'
                f'jetstream {{ store_dir: "{self.directory}/n{node}", {self.settings} }}\n'
                f'cluster {{ name: peers, listen: "127.0.0.1:{routes[node]}", routes: [{all_routes}] }}\n'
            )
        self._processes = [self._process(node) for node in range(_NODES)]
        await until(self._has_leader, 60, "NATS: no leader of the metadata", self._processes)

    async def stop(self) -> None:
        await asyncio.gather(*[process.end() for process in self._processes])

    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self._clients]

    def pids(self) -> list[list[int]]:
        return [process.pids() for process in self._processes]

    async def leader_of(self, topic: str) -> int:
        """Raises RuntimeError when no live server knows a leader of the stream."""
        for node, process in enumerate(self._processes):
            if not process.running:
                continue
            found = await self._ask(node, "jsz?streams=true")
            for account in found.get("account_details", []):
                for stream in account.get("stream_detail", []):
                    leader = stream.get("cluster", {}).get("leader")
                    if stream["name"] == stream_name(topic) and leader:
                        return int(leader.removeprefix("n"))
        raise RuntimeError(f"NATS: nobody leads {topic}")

    def kill(self, node: int) -> None:
        self._processes[node].kill()

    async def restart(self, node: int) -> None:
        self._processes[node] = self._process(node)

        async def in_sync() -> bool:
            return (await self._ask(node, "healthz")).get("status") == "ok"

        await until(in_sync, 60, f"NATS: n{node} is not in sync", [self._processes[node]])

    def _process(self, node: int) -> Process:
        found = _newest_server()
        if found is None:
            raise RuntimeError(self.missing())
        command = [found[0], "--config", str(self.directory / f"n{node}.conf")]
        return Process(command, self.directory / f"n{node}.log", cwd=self.directory)

    async def _has_leader(self) -> bool:
        """All servers see each other and one leader, and say that they are healthy."""
        for node in range(_NODES):
            meta = (await self._ask(node, "jsz")).get("meta_cluster", {})
            if not meta.get("leader") or meta.get("cluster_size") != _NODES:
                return False
            if (await self._ask(node, "healthz")).get("status") != "ok":
                return False
        return True

    async def _ask(self, node: int, what: str) -> dict[str, Any]:
        """A monitoring answer of one server; empty when it does not answer (yet)."""

        def get() -> dict[str, Any]:
            url = f"http://127.0.0.1:{self._monitors[node]}/{what}"
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:
                    found: dict[str, Any] = json.load(answer)
                    return found
            except OSError:  # not listening yet, or "unhealthy" as an HTTP error
                return {}

        return await asyncio.to_thread(get)


class FsyncCluster(Cluster):
    """The same with ``sync_interval: always``: a server fsyncs its log before it says it has a record."""

    name = "nats-fsync"
    title = "NATS JetStream R3, sync_interval: always"
    durability = "fsynced on a majority"
    fsynced = True
    needs = (2, 10)
    settings = "sync_interval: always"


def _newest_server() -> tuple[str, tuple[int, ...]] | None:
    """The newest nats-server in PATH, where ``go install`` puts it, and where Debian does; its version."""
    candidates = [
        shutil.which("nats-server"),
        "/usr/sbin/nats-server",
        str(_go_path() / "bin" / "nats-server"),
    ]
    found = []
    for candidate in candidates:
        if candidate and Path(candidate).exists():
            output = subprocess.run([candidate, "-v"], capture_output=True, text=True, check=True).stdout
            if version := re.search(r"v?(\d+)\.(\d+)\.(\d+)", output):
                found.append((candidate, tuple(map(int, version.groups()))))
    return max(found, key=lambda server: server[1], default=None)


def _go_path() -> Path:
    if shutil.which("go"):
        output = subprocess.run(["go", "env", "GOPATH"], capture_output=True, text=True, check=True).stdout
        return Path(output.strip())
    return Path.home() / "go"


CLUSTERS: dict[str, type[system.Cluster]] = {"nats": Cluster, "nats-fsync": FsyncCluster}
CLIENTS: dict[str, type[system.Client]] = {"nats": Client, "nats-fsync": Client}
