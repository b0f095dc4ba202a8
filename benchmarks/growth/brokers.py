"""Three brokers and a client, in a directory that is gone afterwards."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

import holdfast
from holdfast.chaos.processes import LocalCluster

_EVEN_SECONDS = 60.0
_START_SECONDS = 120.0
_LOOK_SECONDS = 0.003


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[tuple[LocalCluster, holdfast.Client]]:
    """Raises HoldfastError when they do not start."""
    try:
        with LocalCluster(directory) as cluster:
            async with holdfast.connect(cluster.endpoints) as bus:
                yield cluster, bus
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def even(cluster: LocalCluster) -> None:
    """Wait until every broker has applied what is committed now.

    Raises RuntimeError when one has not within a minute, HoldfastError without a leader.
    """
    await asyncio.to_thread(_even, cluster)


def _even(cluster: LocalCluster) -> None:
    index = cluster.status(cluster.wait_leader()).commit_index
    deadline = time.monotonic() + _EVEN_SECONDS
    for node_id in cluster.brokers:
        _until_applied(cluster, node_id, index, deadline)


def _until_applied(cluster: LocalCluster, node_id: str, index: int, deadline: float) -> None:
    while (applied := _applied(cluster, node_id)) < index:
        if not cluster.brokers[node_id].running or time.monotonic() > deadline:
            raise RuntimeError(f"{node_id} has applied {applied} of {index}")
        time.sleep(0.01)


def _applied(cluster: LocalCluster, node_id: str) -> int:
    try:
        return int(cluster.status(node_id).applied_index)
    except grpc.RpcError:
        return -1  # it did not answer in time; the caller bounds the wait


@dataclass(frozen=True, slots=True)
class Restart:
    """Seconds from just before the process is made."""

    answer: float
    applied: float


async def restart_follower(cluster: LocalCluster, number: int) -> Restart:
    """Kill one follower (``number`` 0 or 1) and start it again.

    Raises RuntimeError when it ends or does not come back, HoldfastError.
    """
    await even(cluster)
    return await asyncio.to_thread(_restart, cluster, number)


def _restart(cluster: LocalCluster, number: int) -> Restart:
    leader = cluster.wait_leader()
    node_id = [node for node in cluster.brokers if node != leader][number]
    broker = cluster.brokers[node_id]
    index = cluster.status(leader).commit_index
    broker.kill()
    started = time.perf_counter()
    deadline = time.monotonic() + _START_SECONDS
    broker.start()
    while not _names_leader(cluster, node_id):
        if not broker.running or time.monotonic() > deadline:
            raise RuntimeError(f"{node_id} did not come back\n{broker.log_tail()}")
        time.sleep(_LOOK_SECONDS)
    answer = time.perf_counter() - started
    _until_applied(cluster, node_id, index, deadline)
    return Restart(answer, time.perf_counter() - started)


def _names_leader(cluster: LocalCluster, node_id: str) -> bool:
    """A gRPC channel that was refused waits a second: none is made before the port is open."""
    host, _, port = cluster.brokers[node_id].client_address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1.0).close()
        return bool(cluster.status(node_id, timeout=1.0).leader_id)
    except (OSError, grpc.RpcError):
        return False  # not serving yet; the caller bounds the wait
