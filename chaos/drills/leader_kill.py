"""leader-kill."""

from __future__ import annotations

from holdfast.chaos.drills.scene import Drill, Scene


class LeaderKill(Drill):
    name = "leader-kill"
    summary = "kill -9 of the leader under load, twice; it is started again and catches up"
    needs = frozenset({"kill"})

    async def run(self, scene: Scene) -> None:
        for _ in range(2):
            leader = await scene.target.leader()
            with scene.fault("kill", leader, "the leader, kill -9"):
                await scene.target.kill(leader)
                await scene.until_acked()
                await scene.settle(1.0)
                await scene.target.start(leader)
                await scene.target.until_serving(leader)
            await scene.settle(1.0)
