"""slow-network."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from holdfast.chaos.drills.load import LoadPlan
from holdfast.chaos.drills.on_network import NetworkDrill, term_of
from holdfast.chaos.drills.scene import Scene
from holdfast.chaos.net.port import CLIENTS

_DELAY_MS, _JITTER_MS = 50.0, 50.0
#: Little more than the load needs.
_NARROW_BYTES_PER_S = 300_000.0
_SECONDS = 1.5
#: Running processes per processor, on average, above which elections say nothing about links.
_BUSY = 4.0


class SlowNetwork(NetworkDrill):
    name = "slow-network"
    summary = (
        "a follower's links, then the leader's, are 50 to 100 ms slow or narrow; nobody is deposed for it"
    )
    plan = LoadPlan(single_rate=40.0, burst_rate=80.0)
    delays = True

    async def run(self, scene: Scene) -> None:
        leader = await scene.target.leader()
        follower = next(node for node in scene.target.nodes if node != leader)
        if self.net.can_delay:
            detail = f"links {_DELAY_MS:.0f} to {_DELAY_MS + _JITTER_MS:.0f} ms slow each way"
            await self._slow(scene, leader, follower, detail, self._late)
            await self._slow(scene, leader, leader, detail, self._late)
        else:
            scene.say("links cannot be delayed here; they are narrowed")
        detail = f"links of {_NARROW_BYTES_PER_S / 1e3:.0f} kB/s"
        await self._slow(scene, leader, follower, detail, self._narrow)
        await self._slow(scene, leader, leader, detail, self._narrow)

    async def _slow(
        self, scene: Scene, leader: str, node: str, detail: str, worsen: Callable[[str, str], None]
    ) -> None:
        target = scene.target
        term = await asyncio.to_thread(term_of, target, leader)
        with scene.fault("slow-links", node, detail):
            for other in (*target.nodes, CLIENTS):
                if other != node:
                    await asyncio.to_thread(worsen, node, other)
            await scene.until_acked()
            await scene.settle(_SECONDS)
            await scene.until_acked()
            await self.heal_all()
        after = await asyncio.to_thread(term_of, target, leader)
        found = f"{leader} led in term {term}; with {detail} of {node} it came to term {after}"
        if after != term and os.getloadavg()[0] > _BUSY * (os.cpu_count() or 1):
            # A machine that leaves brokers waiting for their turn deposes leaders on its own.
            scene.say(f"not judged, this machine is too busy: {found}")
        else:
            scene.require(after == term, "slow-link-deposes-nobody", found)

    def _late(self, a: str, b: str) -> None:
        self.net.delay(a, b, _DELAY_MS, _JITTER_MS)

    def _narrow(self, a: str, b: str) -> None:
        self.net.bandwidth(a, b, _NARROW_BYTES_PER_S)
