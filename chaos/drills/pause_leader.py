"""pause-leader."""

from __future__ import annotations

import asyncio

from holdfast.chaos.checker.history import Outcome
from holdfast.chaos.drills.scene import Drill, Scene

#: Several election timeouts: the lease is long over, another leads.
_PAUSE_SECONDS = 2.5


class PauseLeader(Drill):
    name = "pause-leader"
    summary = (
        "SIGSTOP of the leader beyond its lease; awake again it serves nothing stale and acks nothing alone"
    )
    needs = frozenset({"pause"})

    async def run(self, scene: Scene) -> None:
        target, load = scene.target, scene.load
        leader = await target.leader()
        # Talks to the paused broker only: what it acknowledges when it wakes up has to be in the log.
        stuck = await load.add_publisher(f"stuck-{leader}", 40.0, patience=_PAUSE_SECONDS * 2, node=leader)
        await scene.settle(0.3)
        with scene.fault("pause", leader, "the leader, SIGSTOP"):
            await target.pause(leader)
            await scene.until_acked()
            successor = await target.leader(other_than=leader)
            scene.say(f"{successor} leads")
            await scene.settle(_PAUSE_SECONDS)
            # These wait in the paused broker's sockets and are the first it sees: it believes that it leads.
            reads = [
                asyncio.create_task(load.read(leader, partition, client="sleeper-reader", timeout=5.0))
                for partition in range(load.plan.partitions)
            ]
            await scene.settle(0.1)
            await target.resume(leader)
            served = await asyncio.gather(*reads)
        scene.require(
            any(read.outcome is Outcome.OK for read in served),
            "paused-node-serves-again",
            f"no linearizable read of {leader} succeeded: {[read.error for read in served]}",
        )
        await target.until_serving(leader)
        await scene.settle(1.0)
        await stuck.stop(10.0)
        # And once more without anybody stuck there: leadership has moved.
        with scene.fault("pause", successor, "its successor, SIGSTOP"):
            await target.pause(successor)
            await scene.until_acked()
            await scene.settle(0.5)
            await target.resume(successor)
        await target.until_serving(successor)
        await scene.settle(0.5)
