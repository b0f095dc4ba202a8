"""partition-one-way."""

from __future__ import annotations

from holdfast.chaos.drills.on_network import NetworkDrill
from holdfast.chaos.drills.scene import Scene

_AFTER_SECONDS = 1.0


class PartitionOneWay(NetworkDrill):
    name = "partition-one-way"
    summary = "the leader can speak but not hear, and its successor hear but not speak; each is replaced"

    async def run(self, scene: Scene) -> None:
        leader = await scene.target.leader()
        others = [node for node in scene.target.nodes if node != leader]
        await self._break(
            scene, leader, "speaks to the others, does not hear them", [(other, leader) for other in others]
        )
        leader = await scene.target.leader()
        others = [node for node in scene.target.nodes if node != leader]
        await self._break(
            scene, leader, "hears the others, does not reach them", [(leader, other) for other in others]
        )

    async def _break(self, scene: Scene, leader: str, detail: str, links: list[tuple[str, str]]) -> None:
        target = scene.target
        with scene.fault("one-way", leader, f"the leader {detail}") as fault:
            await self.cut(scene, fault, *links, one_way=True)
            # The old leader still commits what was answered before the cut.
            successor = await target.leader(other_than=leader)
            scene.say(f"{successor} leads after {scene.now() - fault.at:.2f} s")
            await scene.until_acked()
            await scene.settle(_AFTER_SECONDS)
            await self.heal_all()
        await target.until_serving(leader)
        await scene.settle(_AFTER_SECONDS)
