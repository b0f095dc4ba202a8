"""One broker is ended and comes back, with its data or without, while the load goes on."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import dataclass

import grpc

from holdfast.chaos.processes import LocalCluster
from holdfast.chaos.soak.probe import environment_of
from holdfast.errors import DeadlineExceededError

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Return:
    """How a broker came back.

    Attributes:
        by: ``log`` or ``snapshot``, as its data directory tells.
        wiped: its data had been removed.
        behind: entries it lacked when it was started.
        catch_up_s: from the start of its process until it had applied what the
            leader had committed one look before.
    """

    node: str
    at: float
    away_s: float
    wiped: bool
    by: str
    behind: int
    catch_up_s: float

    def __str__(self) -> str:
        return (
            f"{self.node} back after {self.away_s:.0f} s {'with an empty disk' if self.wiped else 'away'}: "
            f"{self.behind} entries behind, caught up by {self.by} in {self.catch_up_s * 1e3:.0f} ms"
        )


async def away_and_back(
    cluster: LocalCluster, node: str, away_s: float, *, wipe: bool, at: float, timeout: float = 120.0
) -> Return:
    """kill -9, wait, perhaps remove the data, start, and wait until it has caught up.

    Raises:
        DeadlineExceededError: it does not catch up within ``timeout`` seconds.
    """
    broker = cluster.brokers[node]
    known = await asyncio.to_thread(_applied, cluster, node)
    reached = 0 if wipe or known is None else known
    await asyncio.to_thread(broker.kill)
    before = "" if wipe else str(environment_of(broker))
    await asyncio.sleep(away_s)
    if wipe:
        await asyncio.to_thread(shutil.rmtree, broker.data_dir)
    committed = await asyncio.to_thread(_committed, cluster, node)
    started = time.monotonic()
    broker.start()
    behind = committed - reached
    while True:
        applied = await asyncio.to_thread(_applied, cluster, node)
        if applied is not None and applied >= committed:
            break
        if time.monotonic() - started > timeout:
            raise DeadlineExceededError(f"{node} does not catch up\n{broker.log_tail()}")
        committed = max(committed, await asyncio.to_thread(_committed, cluster, node))
        await asyncio.sleep(_POLL_S)
    took = time.monotonic() - started
    after = environment_of(broker)
    # A fresh directory begins with environment 1; each snapshot makes another one.
    by_log = after.name == "env-000001" if wipe else str(after) == before
    return Return(node, at, away_s, wipe, "log" if by_log else "snapshot", behind, took)


def _applied(cluster: LocalCluster, node: str) -> int | None:
    try:
        return cluster.status(node, timeout=0.5).applied_index
    except grpc.RpcError:
        return None  # not serving yet


def _committed(cluster: LocalCluster, besides: str) -> int:
    """The commit index, as the others know it."""
    known = 0
    for node in cluster.brokers:
        if node != besides:
            try:
                known = max(known, cluster.status(node, timeout=1.0).commit_index)
            except grpc.RpcError:
                continue  # one answer is enough
    return known
