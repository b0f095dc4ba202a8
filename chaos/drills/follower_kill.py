"""follower-kill."""

from __future__ import annotations

from holdfast.chaos.drills.scene import Drill, Scene


class FollowerKill(Drill):
    name = "follower-kill"
    summary = "kill -9 of each follower in turn; publishers hardly notice, the follower catches up"
    needs = frozenset({"kill"})

    async def run(self, scene: Scene) -> None:
        for follower in await scene.target.followers():
            with scene.fault("kill", follower, "a follower, kill -9"):
                await scene.target.kill(follower)
                await scene.until_acked()
                await scene.settle(1.0)
                await scene.target.start(follower)
                await scene.target.until_serving(follower)
            await scene.settle(0.5)
