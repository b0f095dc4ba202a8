"""failed-fsync."""

from __future__ import annotations

import asyncio
import time

from holdfast.chaos.drills.disks import DiskDrill
from holdfast.chaos.drills.scene import Scene
from holdfast.errors import DeadlineExceededError

_END_SECONDS = 15.0
_MESSAGE = "end the process and start again"


class FailedFsync(DiskDrill):
    name = "failed-fsync"
    summary = (
        "fsync fails with EIO on a follower, then on the leader: the broker ends rather than trust its disk"
    )

    async def run(self, scene: Scene) -> None:
        target = scene.target
        for role in ("follower", "leader"):
            node = await target.leader() if role == "leader" else (await target.followers())[0]
            disk = self.disks[node]
            with scene.fault("failed-fsync", node, f"the {role}: fsync returns EIO"):
                disk.fail_fsync()
                await _until_ended(scene, node)
                log = target.log_tail(node, 60)
                scene.require(_MESSAGE in log, "says-why", f"{node} ended without saying why:\n{log}")
                await scene.until_acked()
                await scene.settle(0.5)
                if role == "leader":
                    # What the failed fsync was for never reached this disk.
                    await self.power_off(scene, [node])
                    await self.power_on(scene, [node])
                else:
                    disk.fail_fsync(False)
                    await target.start(node)
                await target.until_serving(node)
            await scene.settle(0.7)


async def _until_ended(scene: Scene, node: str) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while scene.target.running(node):
        if time.monotonic() > deadline:
            raise DeadlineExceededError(f"{node} goes on after a failed fsync\n{scene.target.log_tail(node)}")
        await asyncio.sleep(0.02)
