"""A cluster of real broker processes on this machine, to be killed and restarted.

Used by the demo, the benchmarks, the drills and the integration tests. Ends
only processes it started; ports are picked free and kept across restarts.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from holdfast.chaos.keeper import Keeper
from holdfast.errors import DeadlineExceededError, InternalError
from holdfast.v1 import cluster_pb2

#: Linux gives outgoing connections ports from 32768 on.
_PORTS = range(15_000, 32_000)
_STATUS = "/holdfast.v1.Cluster/GetStatus"
_DIGEST = "/holdfast.v1.Cluster/GetDigest"


class BrokerProcess:
    """One broker: `holdfast serve` with its settings in the environment."""

    def __init__(
        self,
        node_id: str,
        data_dir: Path,
        client: str,
        peer: str,
        env: Mapping[str, str],
        changed: Callable[[], None],
    ) -> None:
        self.node_id = node_id
        self.data_dir = data_dir
        self.client_address = client
        self.peer_address = peer
        self.log_path = data_dir.with_suffix(".log")
        #: The settings, of the next start on.
        self.env = dict(env)
        #: Goes before the command line, such as ``ip netns exec NAME``; must end by running it in its place.
        self.prefix: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        #: Called when a process has been started or has ended.
        self._changed = changed

    @property
    def pid(self) -> int:
        """Process id; raises when the broker is not running."""
        if self._process is None:
            raise InternalError(f"broker {self.node_id} has not been started")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        if self.running:
            return
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "holdfast.cli", "serve"],
                env=inherited | self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for us to handle
            )
        self._changed()

    def kill(self) -> None:
        """SIGKILL, as a crash of the process."""
        self._signal(signal.SIGKILL)
        self._wait(10.0)

    def stop(self, timeout: float = 15.0) -> int:
        """SIGTERM and wait; the exit code."""
        self._signal(signal.SIGTERM)
        return self._wait(timeout)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def log_tail(self, lines: int = 20) -> str:
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def rss_anon_bytes(self) -> int:
        """The process's own memory, without the map's pages (Linux)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise InternalError("this system does not report RssAnon")

    def written_bytes(self) -> int:
        """Bytes this run of the process caused to be written to disk (Linux)."""
        for line in Path(f"/proc/{self.pid}/io").read_text().splitlines():
            if line.startswith("write_bytes:"):
                return int(line.split()[1])
        raise InternalError("this system does not report written bytes")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _wait(self, timeout: float) -> int:
        if self._process is None:
            return 0
        try:
            status = self._process.wait(timeout)
            self._changed()
            return status
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10.0)
            raise InternalError(
                f"broker {self.node_id} did not stop within {timeout:.0f} s:\n{self.log_tail()}"
            ) from None


class LocalCluster:
    """``size`` brokers under ``directory``; a context manager that ends them all.

    They end with this process too, even when it is killed.
    """

    def __init__(
        self,
        directory: Path,
        size: int = 3,
        *,
        settings: Mapping[str, str] | None = None,
        cluster_id: str = "local",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        ports = free_ports(2 * size)
        members = ",".join(
            f"n{i + 1}=127.0.0.1:{ports[2 * i]}/127.0.0.1:{ports[2 * i + 1]}" for i in range(size)
        )
        self._keeper = Keeper()
        self._keeping = threading.Lock()
        self.brokers: dict[str, BrokerProcess] = {}
        for i in range(size):
            node_id = f"n{i + 1}"
            client, peer = (f"127.0.0.1:{port}" for port in ports[2 * i : 2 * i + 2])
            env = {
                "HOLDFAST_NODE_ID": node_id,
                "HOLDFAST_CLUSTER_ID": cluster_id,
                "HOLDFAST_LISTEN": client,
                "HOLDFAST_DATA_DIR": str(directory / node_id),
                **(settings or {}),
            }
            if size > 1:
                env |= {"HOLDFAST_PEER_LISTEN": peer, "HOLDFAST_MEMBERS": members}
            self.brokers[node_id] = BrokerProcess(node_id, directory / node_id, client, peer, env, self._keep)

    @property
    def endpoints(self) -> list[str]:
        return [broker.client_address for broker in self.brokers.values()]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill_all()

    def start(self, timeout: float = 30.0) -> str:
        """Start what is not running and wait for a leader; its node id."""
        for broker in self.brokers.values():
            broker.start()
        return self.wait_leader(timeout)

    def kill_all(self) -> None:
        try:
            for broker in self.brokers.values():
                broker.resume()
                broker.kill()
        finally:
            with self._keeping:
                self._keeper.close()

    def _keep(self) -> None:
        # Drills start and kill several brokers at once, each in a thread.
        with self._keeping:
            self._keeper.keep([broker.pid for broker in self.brokers.values() if broker.running])

    def wait_leader(self, timeout: float = 30.0, *, other_than: str | None = None) -> str:
        """The node id that a majority of the running brokers calls its leader.

        Raises:
            DeadlineExceededError: none within ``timeout`` seconds.
            InternalError: no broker runs.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not any(broker.running for broker in self.brokers.values()):
                raise InternalError("no broker runs that could lead")
            named: dict[str, int] = {}
            for broker in self.brokers.values():
                leader = self._leader_of(broker) if broker.running else None
                if leader and leader != other_than:
                    named[leader] = named.get(leader, 0) + 1
            for leader, count in named.items():
                if count > len(self.brokers) // 2:
                    return leader
            time.sleep(0.02)
        logs = "\n".join(f"--- {b.node_id}\n{b.log_tail()}" for b in self.brokers.values())
        raise DeadlineExceededError(f"no leader within {timeout:.0f} s\n{logs}")

    def wait_serving(self, node_id: str, timeout: float = 30.0) -> None:
        """Wait until one broker answers and knows a leader.

        Raises:
            DeadlineExceededError: it does not within ``timeout`` seconds.
            InternalError: it has ended.
        """
        broker = self.brokers[node_id]
        deadline = time.monotonic() + timeout
        while not self._leader_of(broker):
            if not broker.running:
                raise InternalError(f"{node_id} does not run\n{broker.log_tail()}")
            if time.monotonic() > deadline:
                raise DeadlineExceededError(f"{node_id} does not serve\n{broker.log_tail()}")
            time.sleep(0.02)

    def status(self, node_id: str, timeout: float = 2.0) -> cluster_pb2.ClusterStatus:
        """GetStatus of one broker; raises grpc.RpcError."""
        with grpc.insecure_channel(self.brokers[node_id].client_address) as channel:
            call = channel.unary_unary(
                _STATUS,
                request_serializer=cluster_pb2.GetStatusRequest.SerializeToString,
                response_deserializer=cluster_pb2.ClusterStatus.FromString,
            )
            status: cluster_pb2.ClusterStatus = call(
                cluster_pb2.GetStatusRequest(), timeout=timeout, wait_for_ready=True
            )
            return status

    def digest(self, node_id: str, min_applied_index: int, timeout: float = 20.0) -> bytes:
        """All partitions' digests of one broker, once it has applied ``min_applied_index``."""
        with grpc.insecure_channel(self.brokers[node_id].client_address) as channel:
            call = channel.unary_unary(
                _DIGEST,
                request_serializer=cluster_pb2.GetDigestRequest.SerializeToString,
                response_deserializer=cluster_pb2.GetDigestResponse.FromString,
            )
            answer = call(cluster_pb2.GetDigestRequest(min_applied_index=min_applied_index), timeout=timeout)
        return b"".join(p.SerializeToString(deterministic=True) for p in answer.partitions)

    def _leader_of(self, broker: BrokerProcess) -> str | None:
        try:
            return self.status(broker.node_id, timeout=1.0).leader_id or None
        except grpc.RpcError:
            return None  # not serving yet; the caller's deadline bounds the wait


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now.

    From below the range the system gives to outgoing connections: a port of
    that range could be taken by one while its broker is down.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise InternalError(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}")


def is_free(port: int) -> bool:
    """True when nobody listens on this port of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
