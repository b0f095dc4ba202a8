"""kill-all."""

from __future__ import annotations

import asyncio

from holdfast.chaos.drills.scene import Drill, Scene


class KillAll(Drill):
    name = "kill-all"
    summary = "kill -9 of all brokers at once; they are started again"
    needs = frozenset({"kill"})

    async def run(self, scene: Scene) -> None:
        target = scene.target
        for _ in range(2):
            with scene.fault("kill", ",".join(target.nodes), "all at once, kill -9"):
                await asyncio.gather(*[target.kill(node) for node in target.nodes])
                # Longer than the impatient publisher waits: there are unknown outcomes.
                await scene.settle(0.7)
                await asyncio.gather(*[target.start(node) for node in target.nodes])
                await scene.until_acked()
            await scene.settle(1.0)
