"""power-loss-one."""

from __future__ import annotations

from holdfast.chaos.drills.disks import DiskDrill
from holdfast.chaos.drills.scene import Scene


class PowerLossOne(DiskDrill):
    name = "power-loss-one"
    summary = "the leader's power fails, then a follower's: what they had not fsynced is gone"

    async def run(self, scene: Scene) -> None:
        target = scene.target
        for role in ("leader", "follower"):
            node = await target.leader() if role == "leader" else (await target.followers())[0]
            with scene.fault("power-loss", node, f"the {role}: unsynced writes are lost, then kill -9"):
                await self.power_off(scene, [node])
                await scene.until_acked()
                await scene.settle(0.7)
                await self.power_on(scene, [node])
                await target.until_serving(node)
            await scene.settle(0.7)
