"""wiped-node."""

from __future__ import annotations

from holdfast.chaos.drills.scene import Drill, Scene


class WipedNode(Drill):
    name = "wiped-node"
    summary = "a follower loses its disk, then the leader does; each catches up under load"
    needs = frozenset({"kill", "wipe"})

    async def run(self, scene: Scene) -> None:
        # One after the other: with two empty disks of three the majority's memory would be gone.
        await self._wipe(scene, (await scene.target.followers())[0], "a follower loses its disk")
        await self._wipe(scene, await scene.target.leader(), "the leader loses its disk")

    async def _wipe(self, scene: Scene, node: str, what: str) -> None:
        target = scene.target
        with scene.fault("wipe", node, what):
            await target.kill(node)
            await target.wipe(node)
            await scene.until_acked()
            await scene.settle(0.5)
            index = await scene.commit_index()
            await target.start(node)
            await target.until_serving(node)
            await scene.until_applied(node, index)
            await scene.until_voting(node)
        await scene.settle(0.5)
