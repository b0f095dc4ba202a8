"""The brokers of ``docker-compose.yml`` under a project of their own: for the compose test and for drills."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc

from holdfast.chaos.processes import free_ports
from holdfast.errors import DeadlineExceededError, HoldfastError
from holdfast.v1 import cluster_pb2, cluster_pb2_grpc

ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 120.0


class Compose:
    """Three containers, by service name; ``endpoints`` are reachable from here.

    Args:
        command: how Compose is called, see ``find_compose``.
        project: the name the containers go by.
        override: a further compose file, laid over ``docker-compose.yml``.
    """

    def __init__(
        self,
        command: list[str],
        project: str,
        *,
        override: Path | None = None,
        ports: Sequence[int] | None = None,
    ) -> None:
        ports = ports or free_ports(3)
        files = [ROOT / "docker-compose.yml", *([override] if override is not None else [])]
        self._command = [*command, "-p", project]
        for file in files:
            self._command += ["-f", str(file)]
        self._env = os.environ | {f"N{i}_PORT": str(port) for i, port in enumerate(ports, 1)}
        self.endpoints: Mapping[str, str] = {f"n{i}": f"127.0.0.1:{port}" for i, port in enumerate(ports, 1)}

    def run(self, *arguments: str, quiet: bool = True) -> str:
        """One compose command; its standard output.

        Raises:
            HoldfastError: it failed; what it printed is in the message.
        """
        done = subprocess.run(
            [*self._command, *arguments], env=self._env, capture_output=quiet, text=True, check=False
        )
        if done.returncode:
            raise HoldfastError(
                f"compose {' '.join(arguments)} failed:\n{done.stdout or ''}{done.stderr or ''}"
            )
        return done.stdout or ""

    def status(self, service: str, timeout: float = 1.0) -> cluster_pb2.ClusterStatus | None:
        """What a broker says of itself; None while it does not answer."""
        with grpc.insecure_channel(self.endpoints[service]) as channel:
            try:
                answer: cluster_pb2.ClusterStatus = cluster_pb2_grpc.ClusterStub(channel).GetStatus(
                    cluster_pb2.GetStatusRequest(), timeout=timeout
                )
            except grpc.RpcError:
                return None
            return answer

    def digests(self, service: str, topic: str, min_index: int) -> dict[tuple[str, int], tuple[int, bytes]]:
        """(topic, partition) -> (end offset, digest), once ``min_index`` has been applied."""
        with grpc.insecure_channel(self.endpoints[service]) as channel:
            answer = cluster_pb2_grpc.ClusterStub(channel).GetDigest(
                cluster_pb2.GetDigestRequest(topic=topic, min_applied_index=min_index), timeout=60.0
            )
        return {(p.topic, p.partition): (p.end_offset, p.digest) for p in answer.partitions}

    def wait_leader(self, services: set[str], timeout: float = _START_SECONDS) -> str:
        """The leader that all of ``services`` name.

        Raises:
            DeadlineExceededError: they do not agree in time; the logs' ends are in the message.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            answers = [self.status(service) for service in sorted(services)]
            named = {answer.leader_id for answer in answers if answer is not None}
            if len(named) == 1 and None not in answers and (leader := named.pop()):
                return leader
            time.sleep(0.1)
        raise DeadlineExceededError(f"no leader in {timeout:.0f} s\n{self.run('logs', '--tail', '15')}")


def find_compose() -> list[str] | None:
    """How to call Compose here: v2's plugin or v1's program; None without either or without an engine."""
    docker = shutil.which("docker")
    if docker is None or _fails(docker, "info"):
        return None
    if not _fails(docker, "compose", "version"):
        return [docker, "compose"]
    program = shutil.which("docker-compose")
    return [program] if program is not None else None


def _fails(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0
