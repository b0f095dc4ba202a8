"""slow-disk."""

from __future__ import annotations

from holdfast.chaos.drills.disks import DiskDrill
from holdfast.chaos.drills.scene import Scene

_FSYNC_SECONDS = 0.5
#: A slow minority must not keep publishers waiting for longer.
_PATIENCE = 3.0


class SlowDisk(DiskDrill):
    name = "slow-disk"
    summary = "every fsync of a follower, then of the leader takes half a second; the majority goes on"

    async def run(self, scene: Scene) -> None:
        target = scene.target
        for role in ("follower", "leader"):
            node = await target.leader() if role == "leader" else (await target.followers())[0]
            disk = self.disks[node]
            with scene.fault("slow-disk", node, f"the {role}: fsync takes {_FSYNC_SECONDS:g} s"):
                disk.slow(_FSYNC_SECONDS)
                for _ in range(5):
                    begun = scene.now()
                    acked = await scene.until_acked()
                    scene.require(
                        acked - begun < _PATIENCE,
                        "goes-on",
                        f"with a slow disk on {node} an ack took {acked - begun:.1f} s",
                    )
                    await scene.settle(0.5)
                disk.slow(0.0)
            await target.until_serving(node)
            await scene.settle(0.7)
