"""The leader's network goes silent: how long until a client's record is acknowledged again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import holdfast
from benchmarks.growth.brokers import even
from benchmarks.growth.findings import Finding, at_most, not_measured
from benchmarks.growth.scale import Scale
from holdfast.chaos.net.netns import NamespaceNet, lacking
from holdfast.chaos.net.port import CLIENTS
from holdfast.chaos.processes import LocalCluster

_WHAT = "silent partition of the leader, to the first new ack"
_MOST = 1.5
_TOPIC = "silent"
_TIMEOUT = 20.0
#: The healed broker has heard the others again, and nothing is under way.
_SETTLE_SECONDS = 0.5

Tell = Callable[[str], None]


async def findings(directory: Path, scale: Scale, tell: Tell) -> list[Finding]:
    """One row. Raises RuntimeError, HoldfastError."""
    why = lacking()
    if why:
        tell(f"silent: SKIPPED: {why}")
        return [not_measured(_WHAT, f"≤ {_MOST:g} s", f"skipped: {why}")]
    with _placed(directory) as (cluster, net):
        rounds = _Rounds(cluster, net, tell)
        async with holdfast.connect(cluster.endpoints) as bus:
            await bus.create_topic(_TOPIC, partitions=1)
            for number in range(scale.cuts):
                await rounds.one(bus, number)
            await rounds.read_back(bus)
    return [at_most(_WHAT, _MOST, rounds.seconds, rounds.cutting)]


@contextmanager
def _placed(directory: Path) -> Iterator[tuple[LocalCluster, NamespaceNet]]:
    """Brokers in their namespaces, running. Raises HoldfastError."""
    cluster = LocalCluster(directory)
    with closing(NamespaceNet(list(cluster.brokers))) as net:
        for node, place in net.places.items():
            broker = cluster.brokers[node]
            broker.prefix = list(place.prefix)
            broker.client_address = place.endpoint
            broker.peer_address = place.env["HOLDFAST_PEER_LISTEN"]
            broker.env.update(place.env)
        with cluster:
            yield cluster, net


class _Rounds:
    def __init__(self, cluster: LocalCluster, net: NamespaceNet, tell: Tell) -> None:
        self._cluster = cluster
        self._net = net
        self._tell = tell
        self._acked: dict[int, bytes] = {}
        self.seconds: list[float] = []
        #: How long setting the rules took, of each.
        self.cutting: list[float] = []

    async def one(self, bus: holdfast.Client, number: int) -> None:
        """Cut, publish, heal. Raises RuntimeError when the old leader still leads, HoldfastError."""
        await self._publish(bus, b"before-%d" % number)
        leader = await asyncio.to_thread(self._cluster.wait_leader)
        began = time.perf_counter()
        await asyncio.to_thread(self._cut, leader)
        cut = time.perf_counter()
        await self._publish(bus, b"after-%d" % number)
        acked = time.perf_counter()
        successor = await asyncio.to_thread(self._cluster.wait_leader, other_than=leader)
        self.cutting.append(cut - began)
        self.seconds.append(acked - began)
        self._tell(f"silent: {leader} cut off, {successor} leads: {acked - began:.2f} s")
        await asyncio.to_thread(self._net.heal_all)
        await asyncio.to_thread(self._cluster.wait_serving, leader)
        await even(self._cluster)
        await asyncio.sleep(_SETTLE_SECONDS)

    def _cut(self, leader: str) -> None:
        """From the client first: it hears nothing of what the cluster decides meanwhile."""
        for other in (CLIENTS, *(node for node in self._cluster.brokers if node != leader)):
            self._net.cut(leader, other)

    async def _publish(self, bus: holdfast.Client, value: bytes) -> None:
        ack = await bus.publish(_TOPIC, value, timeout=_TIMEOUT)
        if ack.offset in self._acked:
            raise RuntimeError(f"{self._acked[ack.offset]!r} and {value!r} were both put at {ack.offset}")
        self._acked[ack.offset] = value

    async def read_back(self, bus: holdfast.Client) -> None:
        """Raises RuntimeError unless the topic holds what was acknowledged and nothing else."""
        found = {record.offset: record.value async for record in bus.replay(_TOPIC, linearizable=True)}
        if found != self._acked:
            raise RuntimeError(f"the topic holds {found}, acknowledged was {self._acked}")
