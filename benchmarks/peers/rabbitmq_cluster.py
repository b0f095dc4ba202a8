"""Three RabbitMQ nodes on 127.0.0.1, everything they write below one directory."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import re
import secrets
import shutil
import time
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from benchmarks.peers import processes
from benchmarks.peers.processes import Process
from benchmarks.peers.system import Cluster

NODES = 3
#: Where the distributions put the scripts themselves. What is on PATH is a wrapper that changes the user to
#: ``rabbitmq`` when root calls it; that user could not write to the directory that is measured.
SCRIPTS = Path("/usr/lib/rabbitmq/bin")
INSTALL = "apt-get install rabbitmq-server"

#: Flags of the Erlang machine, after those of the distribution, which already switch busy waiting off
#: (``+sbwt none``). Unbound schedulers: by default each node binds its first scheduler to the first core, so
#: three nodes on one machine would queue for that core while the other is idle.
ERLANG = "+stbt u"

_CONFIGURATION = """\
listeners.tcp.local = 127.0.0.1:{amqp}
log.file.level = warning
cluster_formation.peer_discovery_backend = classic_config
{members}
# A restarted node waits for the others so long; they are alive in every workload.
mnesia_table_loading_retry_timeout = 30000
"""


class RabbitCluster(Cluster):
    """What both ways to use RabbitMQ share: the nodes. Settings are the defaults, but for what ``ERLANG``
    says.

    The nodes find one another by the classic configuration file; ``epmd`` (Erlang's port mapper) runs as a
    process of its own, on its own port, and outlives the nodes: ``kill`` ends a node and nothing else.
    """

    plugins: ClassVar[str]
    #: The Python package of the client.
    library: ClassVar[str]

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._nodes: list[Process] = []
        self._epmd: Process | None = None
        ports = processes.free_ports(1 + 3 * NODES)
        self._epmd_port = ports[0]
        self._distribution = ports[1 : 1 + NODES]
        self._amqp = ports[1 + NODES : 1 + 2 * NODES]
        self._stream = ports[1 + 2 * NODES :]

    @classmethod
    def missing(cls) -> str | None:
        if not (SCRIPTS / "rabbitmq-server").exists() or not shutil.which("erl_call"):
            return f"RabbitMQ is not installed: {INSTALL}"
        try:
            importlib.metadata.version(cls.library)
        except importlib.metadata.PackageNotFoundError:
            return f"{cls.library} is not installed: pip install 'holdfast[bench]'"
        return None

    @classmethod
    def version(cls) -> str:
        home = (SCRIPTS / "rabbitmq-server").resolve().parent.parent
        found = re.search(r"rabbitmq_server-(.+)$", home.name)
        server = found.group(1) if found else "of unknown version"
        return f"server {server}, {cls.library} {importlib.metadata.version(cls.library)}"

    # -- starting and ending -----------------------------------------------------------

    async def start(self) -> None:
        home = self.directory / "home"
        home.mkdir(parents=True)
        cookie = home / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        epmd = ["epmd", "-address", "127.0.0.1", "-port", str(self._epmd_port)]
        self._epmd = Process(epmd, self.directory / "epmd.log", env={"HOME": str(home)})
        for node in range(NODES):
            self._configure(node)
        # The first one alone: the others then join it instead of settling who is first.
        self._nodes = [self._launch(0)]
        await self._joined([0])
        self._nodes += [self._launch(node) for node in range(1, NODES)]
        await self._joined(range(NODES))

    async def stop(self) -> None:
        try:
            await asyncio.gather(*(process.end(5) for process in self._nodes))
        finally:
            if self._epmd is not None:
                await self._epmd.end(2)

    def _name(self, node: int) -> str:
        return f"hf{node + 1}@localhost"

    def _of(self, node: int) -> Path:
        return self.directory / f"node{node + 1}"

    def _configure(self, node: int) -> None:
        own = self._of(node)
        own.mkdir(parents=True)
        members = "\n".join(
            f"cluster_formation.classic_config.nodes.{each + 1} = {self._name(each)}" for each in range(NODES)
        )
        text = _CONFIGURATION.format(amqp=self._amqp[node], members=members) + self._settings(node)
        (own / "rabbitmq.conf").write_text(text)
        (own / "enabled_plugins").write_text(f"[{self.plugins}].\n")

    def _settings(self, node: int) -> str:
        """Further lines of rabbitmq.conf."""
        return ""

    def _environment(self, node: int) -> dict[str, str]:
        own = self._of(node)
        return {
            **self._common_environment(),
            "RABBITMQ_NODENAME": self._name(node),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._amqp[node]),
            "RABBITMQ_DIST_PORT": str(self._distribution[node]),
            "RABBITMQ_CONFIG_FILE": str(own / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(own / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(own / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(own / "data"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(own / "feature_flags"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(own / "config"),
            "RABBITMQ_SCHEMA_DIR": str(own / "schema"),
            "RABBITMQ_LOG_BASE": str(own / "log"),
            "RABBITMQ_PID_FILE": str(own / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"-kernel inet_dist_use_interface {{127,0,0,1}} {ERLANG}"
            ),
            "ERL_CRASH_DUMP_SECONDS": "0",
        }

    def _common_environment(self) -> dict[str, str]:
        """What the nodes and the command line need to find one another and nobody else."""
        return {
            "HOME": str(self.directory / "home"),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # No file of an installed service may change the nodes.
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "no-environment-file"),
            "LANG": "C.UTF-8",
        }

    def _launch(self, node: int) -> Process:
        own = self._of(node)
        server = [str(SCRIPTS / "rabbitmq-server")]
        return Process(server, own / "output.log", env=self._environment(node), cwd=own)

    # -- what is alive -----------------------------------------------------------

    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self._client_ports()]

    @abstractmethod
    def _client_ports(self) -> list[int]:
        """The ports that the clients want."""

    def pids(self) -> list[list[int]]:
        return [process.pids() for process in self._nodes]

    def kill(self, node: int) -> None:
        self._nodes[node].kill()

    async def restart(self, node: int) -> None:
        self._nodes[node] = self._launch(node)
        await self._joined(range(NODES))
        await processes.until(self._in_sync, 120, f"{self.name}: node {node} does not catch up", self._nodes)

    @abstractmethod
    async def _in_sync(self) -> bool:
        """Whether every topic has three members that have what the leader has."""

    async def _joined(self, nodes: range | list[int]) -> None:
        """Wait until each of ``nodes`` serves clients and sees the others."""

        async def ready() -> bool:
            for node in nodes:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self._client_ports()[node])
                except OSError:
                    return False
                writer.close()
            wanted = ",".join(f"'{self._name(node)}'" for node in nodes)
            expression = f"lists:sort(rabbit_nodes:all_running()) =:= [{wanted}]."
            return all([await self.evaluate(expression, node) == "true" for node in nodes])

        alive = [self._nodes[node] for node in nodes]
        await processes.until(ready, 120, f"{self.name}: the cluster does not form", alive)

    # -- questions to a node -----------------------------------------------------------

    async def _leader(self, expression: str) -> int:
        """The node whose name an Erlang expression gives. Raises RuntimeError when none has an answer."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for node, process in enumerate(self._nodes):
                answer = await self.evaluate(expression, node) if process.running else ""
                for leader in range(NODES):
                    if answer == self._name(leader):
                        return leader
            await asyncio.sleep(0.05)
        raise RuntimeError(f"{self.name}: nobody leads")

    async def _holds(self, expression: str) -> bool:
        """Whether an Erlang expression is true on a node; some questions only some nodes can answer."""
        for node in range(NODES):
            if await self.evaluate(expression, node) == "true":
                return True
        return False

    async def evaluate(self, expression: str, node: int) -> str:
        """The value of an Erlang expression on ``node``, as printed; "" if the node has none.

        By ``erl_call``, which takes milliseconds; ``rabbitmqctl eval`` does the same and takes a second.
        """
        asking = ["erl_call", "-r", "-n", self._name(node), "-timeout", "20", "-e"]
        process = await asyncio.create_subprocess_exec(
            *asking,
            env={**os.environ, **self._common_environment()},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        printed, _ = await process.communicate(f"{expression}\n".encode())
        found = re.fullmatch(r"\{ok, (.*)\}", printed.decode(errors="replace").strip(), re.DOTALL)
        return found.group(1) if found and process.returncode == 0 else ""
