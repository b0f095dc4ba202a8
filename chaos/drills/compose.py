"""The cluster a drill breaks with ``--target compose``: the three containers of ``docker-compose.yml``.

Each broker's data lies in a directory of this machine, so that it can be wiped
or lie on another file system; a container's network can be reached through
the process id (``nsenter --net --target``).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from holdfast.chaos.compose import Compose, find_compose
from holdfast.chaos.drills.target import empty
from holdfast.chaos.processes import free_ports
from holdfast.errors import DeadlineExceededError, HoldfastError
from holdfast.v1 import cluster_pb2

PROJECT = "holdfast-drill"
_ROOT_TOOLS = ("nsenter", "iptables", "tc")
_built = False


def missing() -> str:
    """Why there can be no containers here; empty: there can."""
    if find_compose() is None:
        return (
            "no Docker engine is reachable here, or Compose is missing. Start one (`docker info` must "
            "work, and `docker compose` or `docker-compose`), then run this again."
        )
    return ""


class ComposeTarget:
    """Containers; see ``scene.Target``."""

    kind = "compose"
    discover = True

    def __init__(
        self,
        directory: Path,
        size: int = 3,
        settings: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.directory = directory
        self.nodes: Sequence[str] = ["n1", "n2", "n3"]
        self._size = size
        self._settings = dict(settings or {})
        self._say = say
        self._ports = free_ports(3)
        self._data = {node: directory / node for node in self.nodes}
        self._ids: dict[str, str] = {}
        self._compose: Compose | None = None
        found = {"kill", "pause", "wipe", "data-dir", "compose"}
        if os.geteuid() == 0:
            found.add("root")
            if sys.platform == "linux" and all(shutil.which(tool) for tool in _ROOT_TOOLS):
                found.add("container-network")
        if size != 3:
            found.clear()
        self.capabilities = frozenset(found)

    @property
    def endpoints(self) -> Mapping[str, str]:
        return {node: f"127.0.0.1:{port}" for node, port in zip(self.nodes, self._ports, strict=True)}

    # -- before the start: for Drill.around -----------------------------------------

    def place(self, node: str, data_dir: Path) -> None:
        """Where the broker keeps its data on this machine; before the first start."""
        self._data[node] = data_dir

    def set(self, name: str, value: str) -> None:
        """One more environment variable of all brokers; before the first start."""
        self._settings[name] = value

    # -- containers -----------------------------------------------------------------

    async def start(self, node: str) -> None:
        await asyncio.to_thread(self._start, node)

    def _start(self, node: str) -> None:
        if self._compose is None:
            self._compose = self._make()
        if node not in self._ids:
            self._compose.run("up", "-d", "--no-build", "--no-deps", node)
            self._ids[node] = self._compose.run("ps", "-q", node).strip()
        elif not self.running(node):
            _docker("start", self._ids[node])

    def _make(self) -> Compose:
        global _built  # noqa: PLW0603  # once a program run: the image is the same for all drills
        command = find_compose()
        if command is None:
            raise HoldfastError(missing())
        override = self.directory / "override.json"
        override.write_text(json.dumps(self.override(), indent=1))
        compose = Compose(command, PROJECT, override=override, ports=self._ports)
        compose.run("down", "--volumes", "--remove-orphans")
        if not _built:
            self._say("building the image")
            compose.run("build")
            _built = True
        for data_dir in self._data.values():
            data_dir.mkdir(parents=True, exist_ok=True)
        return compose

    def override(self) -> dict[str, object]:
        """What is different from ``docker-compose.yml``; JSON is YAML."""
        members = ",".join(
            # Clients are outside, brokers inside: each is told the address that it can reach.
            f"{node}={address}/{node}:7451"
            for node, address in self.endpoints.items()
        )
        services: dict[str, object] = {
            node: {
                # A broker that dies is to stay dead until the drill starts it.
                "restart": "no",
                "user": f"{os.getuid()}:{os.getgid()}",
                "environment": {"HOLDFAST_MEMBERS": members, **self._settings},
                "volumes": [f"{self._data[node]}:/data"],
            }
            for node in self.nodes
        }
        return {"version": "3.8", "services": services}

    async def stop(self, node: str) -> None:
        await asyncio.to_thread(_docker, "stop", "-t", "20", self._ids[node])

    async def kill(self, node: str) -> None:
        await asyncio.to_thread(self._kill, node)

    def _kill(self, node: str) -> None:
        if self.running(node):
            _docker("kill", self._ids[node])
            _docker("wait", self._ids[node])

    async def pause(self, node: str) -> None:
        await asyncio.to_thread(_docker, "pause", self._ids[node])

    async def resume(self, node: str) -> None:
        await asyncio.to_thread(_docker, "unpause", self._ids[node])

    async def wipe(self, node: str) -> None:
        if self.running(node):
            raise HoldfastError(f"{node} runs: its data directory cannot be wiped")
        await asyncio.to_thread(empty, self._data[node])

    async def heal(self) -> None:
        for node in self.nodes:
            if node in self._ids and self._state(node, "Paused") == "true":
                await self.resume(node)
            await self.start(node)

    async def end(self) -> None:
        if self._compose is not None:
            await asyncio.to_thread(self._compose.run, "down", "--volumes", "--remove-orphans", "-t", "1")
            self._ids.clear()
            self._compose = None

    # -- looking ------------------------------------------------------------------

    def _state(self, node: str, field: str) -> str:
        return _docker("inspect", "-f", f"{{{{.State.{field}}}}}", self._ids[node]).strip()

    def running(self, node: str) -> bool:
        return node in self._ids and self._state(node, "Running") == "true"

    def pid(self, node: str) -> int:
        return int(self._state(node, "Pid")) if node in self._ids else 0

    def data_dir(self, node: str) -> Path:
        return self._data[node]

    def memory(self, node: str) -> int:
        for line in Path(f"/proc/{self.pid(node)}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise HoldfastError("this system does not report RssAnon")

    def log_tail(self, node: str, lines: int = 20) -> str:
        if node not in self._ids:
            return ""
        done = subprocess.run(
            ["docker", "logs", "--tail", str(lines), self._ids[node]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        return done.stdout

    def status(self, node: str, timeout: float = 1.0) -> cluster_pb2.ClusterStatus | None:
        return None if self._compose is None else self._compose.status(node, timeout)

    async def leader(self, timeout: float = 60.0, *, other_than: str | None = None) -> str:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            looks = await asyncio.gather(*[asyncio.to_thread(self.status, node) for node in self.nodes])
            named = [look.leader_id for look in looks if look is not None and look.leader_id]
            for leader in set(named) - {other_than}:
                if named.count(leader) > len(self.nodes) // 2:
                    return leader
            await asyncio.sleep(0.05)
        logs = "\n".join(f"--- {node}\n{self.log_tail(node)}" for node in self.nodes)
        raise DeadlineExceededError(f"no leader within {timeout:.0f} s\n{logs}")

    async def followers(self) -> list[str]:
        leader = await self.leader()
        return [node for node in self.nodes if node != leader]

    async def until_serving(self, node: str, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while True:
            look = await asyncio.to_thread(self.status, node)
            if look is not None and look.leader_id:
                return
            if time.monotonic() > deadline:
                raise DeadlineExceededError(f"{node} does not serve\n{self.log_tail(node)}")
            await asyncio.sleep(0.05)


def _docker(*arguments: str) -> str:
    """Raises HoldfastError when the command fails."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HoldfastError(f"docker {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout
