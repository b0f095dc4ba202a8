"""rolling-restart."""

from __future__ import annotations

from holdfast.chaos.drills.scene import Drill, Scene


class RollingRestart(Drill):
    name = "rolling-restart"
    summary = "SIGTERM of one broker after the other, as an upgrade does it"
    needs = frozenset({"kill"})

    async def run(self, scene: Scene) -> None:
        for node in scene.target.nodes:
            with scene.fault("restart", node, "SIGTERM, then started again"):
                await scene.target.stop(node)
                await scene.target.start(node)
                await scene.target.until_serving(node)
                await scene.until_acked()
            await scene.settle(0.5)
