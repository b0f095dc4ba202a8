"""partition-majority."""

from __future__ import annotations

import asyncio

from holdfast.chaos.checker.history import Outcome, Publish
from holdfast.chaos.drills.on_network import NetworkDrill
from holdfast.chaos.drills.scene import Scene

_CUT_SECONDS = 2.5


class PartitionMajority(NetworkDrill):
    name = "partition-majority"
    summary = "the leader is cut off silently from both others, not from clients; it acks and serves nothing"

    async def run(self, scene: Scene) -> None:
        target, load = scene.target, scene.load
        leader = await target.leader()
        others = [node for node in target.nodes if node != leader]
        # Talks to the lonely leader only: whatever that acknowledges has to be in the log.
        stuck = await load.add_publisher(f"stuck-{leader}", 40.0, patience=_CUT_SECONDS * 3, node=leader)
        await scene.settle(0.3)
        with scene.fault("partition", leader, "the leader, silently, from both others") as fault:
            await self.cut(scene, fault, *((leader, other) for other in others))
            made = fault.at
            ended: list[str] = []
            reading = asyncio.create_task(self._read(scene, leader, made, ended))
            await scene.until_acked(made)
            successor = await target.leader(other_than=leader)
            scene.say(f"{successor} leads after {scene.now() - fault.at:.2f} s")
            await scene.settle(_CUT_SECONDS)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            before = scene.now()
            await self.heal_all()
        scene.require(
            bool(ended), "cut-off-leader-answers", f"no read of {leader} ended while it was cut off"
        )
        acked = [
            op
            for op in scene.history.events
            if isinstance(op, Publish)
            and op.producer == stuck.name
            and op.outcome is Outcome.OK
            and op.started > made
            and (op.ended or 0.0) < before
        ]
        scene.require(
            not acked,
            "minority-acks-nothing",
            f"{leader}, cut off, acknowledged {len(acked)} records, such as {acked[:1]}",
        )
        await target.until_serving(leader)
        await scene.settle(1.0)
        await stuck.stop(15.0)

    async def _read(self, scene: Scene, leader: str, made: float, ended: list[str]) -> None:
        """Linearizable reads of the one that is alone: none may be answered."""
        while True:
            for partition in range(scene.load.plan.partitions):
                read = await scene.load.read(leader, partition, timeout=0.5, client="lonely-reader")
                ended.append(read.error)
                scene.require(
                    read.outcome is not Outcome.OK or read.started < made,
                    "minority-serves-nothing-linearizable",
                    f"{leader}, cut off, answered a linearizable read with {len(read.records or ())} records",
                )
