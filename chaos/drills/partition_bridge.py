"""partition-bridge."""

from __future__ import annotations

import asyncio

from holdfast.chaos.drills.on_network import NetworkDrill, term_of
from holdfast.chaos.drills.scene import Scene

_CUT_SECONDS = 2.0


class PartitionBridge(NetworkDrill):
    name = "partition-bridge"
    summary = "two nodes do not see each other, both see the third: whoever led goes on leading"

    async def run(self, scene: Scene) -> None:
        leader = await scene.target.leader()
        one, other = (node for node in scene.target.nodes if node != leader)
        # The follower that hears nothing must not depose a leader that the third one hears.
        await self._break(scene, leader, leader, one)
        await self._break(scene, leader, one, other)

    async def _break(self, scene: Scene, leader: str, a: str, b: str) -> None:
        target = scene.target
        term = await asyncio.to_thread(term_of, target, leader)
        with scene.fault("bridge", f"{a},{b}", "silent between them, the third sees both") as fault:
            await self.cut(scene, fault, (a, b))
            await scene.until_acked()
            await scene.settle(_CUT_SECONDS)
            await scene.until_acked()
            now_leading = await target.leader()
            await self.heal_all()
        await target.until_serving(b)
        await scene.settle(0.5)
        after = await asyncio.to_thread(term_of, target, leader)
        scene.require(
            now_leading == leader and after == term,
            "bridge-keeps-leader",
            f"{leader} led in term {term}; then {now_leading}, in term {after}",
        )
