"""slow-consumer."""

from __future__ import annotations

from holdfast.chaos.drills.load import LoadPlan
from holdfast.chaos.drills.scene import Drill, Scene

#: A broker may grow by this much while consumers do not read; what waits for them lies on disk.
_GROWTH_BYTES = 96 << 20
_SILENT_SECONDS = 5.0


class SlowConsumer(Drill):
    name = "slow-consumer"
    summary = "one consumer reads nothing for seconds, one never acknowledges; publishers are not disturbed"
    # Records large enough that what a broker kept in memory for them would show.
    plan = LoadPlan(burst_rate=400.0, value_bytes=2000)

    async def run(self, scene: Scene) -> None:
        load = scene.load
        before = {node: scene.target.memory(node) for node in scene.target.nodes}
        reading = False
        sleeper = await load.add_member("sleeper", "sleepers", reads=lambda: reading, max_in_flight=10_000)
        hoarder = await load.add_member("hoarder", "hoarders", acks=False, max_in_flight=500)
        begun = scene.now()
        with scene.fault("slow-consumer", "sleeper", "reads nothing", recovers=False):
            with scene.fault("no-acks", "hoarder", "acknowledges nothing"):
                await scene.settle(_SILENT_SECONDS)
            slowest = scene.longest_silence(begun)
            after = {node: scene.target.memory(node) for node in scene.target.nodes}
            reading = True
        for node, bytes_before in before.items():
            grown = after[node] - bytes_before
            scene.require(grown < _GROWTH_BYTES, "bounded-memory", f"{node} grew by {grown >> 20} MiB")
        scene.require(
            slowest < 1.0, "publishers-undisturbed", f"nothing was acknowledged for {slowest:.2f} s"
        )
        scene.require(
            hoarder.received <= 500,
            "bounded-delivery",
            f"{hoarder.received} records without an acknowledgement",
        )
        scene.require(
            hoarder.received > 0, "hoarder-served", "the consumer that never acks got nothing at all"
        )
        # The sleeper has to be given everything, from the first record on.
        await scene.until(
            lambda: not load.behind("sleepers", slack=500),
            20.0,
            "the sleeper does not catch up",
            sleeper.name,
        )
