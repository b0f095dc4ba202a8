"""Redis Streams: a primary and two replicas. A reference, not a peer: it has no majority, no election."""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path

import redis
import redis.exceptions

from benchmarks.peers import system
from benchmarks.peers.processes import Process, free_ports, until
from benchmarks.peers.redis_client import Client

INSTALL = "apt-get install redis-server"
_NODES = 3
_PRIMARY = 0

_SETTINGS = """\
bind 127.0.0.1
port {port}
dir {directory}
protected-mode no
save ""
appendonly yes
appendfsync always
# A stream that keeps everything would only be written once more.
auto-aof-rewrite-percentage 0
# A burst must not throw a replica out, or make it copy the whole data set again.
client-output-buffer-limit replica 0 0 0
repl-backlog-size 256mb
repl-diskless-sync-delay 0
"""


class Cluster(system.Cluster):
    """``redis-server`` with ``appendonly yes``, ``appendfsync always``, no snapshots, two replicas.

    ``WAIT 1`` after each pipeline batch: with the primary, two of three hold the records. WAIT promises that
    the replica has them, not that it has fsynced them; but a replica with ``appendfsync always`` calls
    fdatasync before it answers (seen in a trace of its system calls), so the row counts as fsynced. What it
    does not have is an election that would respect that.
    """

    name = "redis"
    title = "Redis Streams, appendfsync always, WAIT 1"
    durability = "fsynced by the primary and one of two replicas"
    fsynced = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._processes: list[Process] = []
        self._ports: list[int] = []

    @classmethod
    def missing(cls) -> str | None:
        return None if _server() else f"redis-server: {INSTALL}"

    @classmethod
    def version(cls) -> str:
        clients = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("redis", "hiredis"))
        server = _server()
        if server is None:
            return f"redis-server missing, {clients}"
        output = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"v=(\S+)", output)
        return f"redis-server {found.group(1) if found else '?'}, {clients}"

    async def start(self) -> None:
        self._ports = free_ports(_NODES)
        for node, port in enumerate(self._ports):
            data = self.directory / f"n{node}"
            data.mkdir()
            settings = _SETTINGS.format(port=port, directory=data)
            if node != _PRIMARY:
                settings += f"replicaof 127.0.0.1 {self._ports[_PRIMARY]}\n"
            (self.directory / f"n{node}.conf").write_text(settings)
        self._processes = [self._process(node) for node in range(_NODES)]
        await until(self._in_sync, 60, "Redis: the replicas are not in sync", self._processes)

    async def stop(self) -> None:
        await asyncio.gather(*[process.end() for process in self._processes])

    def addresses(self) -> list[str]:
        """The primary first."""
        return [f"127.0.0.1:{port}" for port in self._ports]

    def pids(self) -> list[list[int]]:
        return [process.pids() for process in self._processes]

    async def leader_of(self, topic: str) -> int:
        """The primary, which stays the primary."""
        return _PRIMARY

    def kill(self, node: int) -> None:
        self._processes[node].kill()

    async def restart(self, node: int) -> None:
        self._processes[node] = self._process(node)
        await until(self._in_sync, 60, f"Redis: n{node} is not in sync", [self._processes[node]])

    def _process(self, node: int) -> Process:
        server = _server()
        if server is None:
            raise RuntimeError(self.missing())
        return Process([server, str(self.directory / f"n{node}.conf")], self.directory / f"n{node}.log")

    async def _in_sync(self) -> bool:
        """Every replica that lives has its link, and what the primary has written so far."""
        return await asyncio.to_thread(self._replicas_in_sync)

    def _replicas_in_sync(self) -> bool:
        replicas = [node for node in range(_NODES) if node != _PRIMARY and self._processes[node].running]
        try:
            with redis.Redis(port=self._ports[_PRIMARY]) as primary:
                state = primary.info("replication")
        except redis.exceptions.ConnectionError:  # not listening yet, or loading its data
            return False
        linked = [state.get(f"slave{index}", {}) for index in range(len(replicas))]
        return all(
            replica.get("state") == "online" and replica["offset"] >= state["master_repl_offset"]
            for replica in linked
        )


def _server() -> str | None:
    return shutil.which("redis-server")


CLUSTERS: dict[str, type[system.Cluster]] = {"redis": Cluster}
CLIENTS: dict[str, type[system.Client]] = {"redis": Client}
