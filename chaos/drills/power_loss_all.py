"""power-loss-all."""

from __future__ import annotations

from holdfast.chaos.drills.disks import DiskDrill
from holdfast.chaos.drills.scene import Scene


class PowerLossAll(DiskDrill):
    name = "power-loss-all"
    summary = "the power of all brokers fails at one moment, twice: what none had fsynced is gone everywhere"

    async def run(self, scene: Scene) -> None:
        nodes = list(scene.target.nodes)
        for _ in range(2):
            with scene.fault("power-loss", ",".join(nodes), "all at once: unsynced writes are lost, kill -9"):
                await self.power_off(scene, nodes)
                await self.power_on(scene, nodes)
                await scene.until_acked()
            for node in nodes:
                await scene.target.until_serving(node)
            await scene.settle(1.0)
