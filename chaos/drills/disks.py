"""What disk drills have in common: each broker's data lies on a forgetful disk of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager
from typing import ClassVar

from holdfast.chaos.disk import Disk, missing
from holdfast.chaos.disk.disk import Cut
from holdfast.chaos.drills.load import LoadPlan
from holdfast.chaos.drills.scene import Drill, Scene, Target


class DiskDrill(Drill):
    """Mounts a disk under every broker's data directory for as long as the drill lasts.

    Attributes:
        disks: by node.
    """

    needs = frozenset({"local", "data-dir", "kill"})
    # Every read and write of three brokers goes through a file system in Python.
    plan: ClassVar[LoadPlan] = LoadPlan(single_rate=40.0, burst_rate=80.0)

    def __init__(self) -> None:
        self.disks: dict[str, Disk] = {}

    def unable(self, target: Target) -> str:
        return super().unable(target) or missing() or ""

    @asynccontextmanager
    async def around(self, target: Target) -> AsyncIterator[None]:
        with ExitStack() as mounted:
            for node in target.nodes:
                point = target.data_dir(node)
                self.disks[node] = mounted.enter_context(Disk(point, point.with_suffix(".disk")))
            yield

    async def heal(self, scene: Scene) -> None:
        for node, disk in self.disks.items():
            if disk.state()["dead"]:
                await scene.target.kill(node)
                disk.power_on()
            disk.slow(0.0)
            disk.fail_fsync(False)
            disk.limit(None)

    async def power_off(self, scene: Scene, nodes: Iterable[str]) -> None:
        """Cut the power of several nodes at once: their disks first, as both go at one moment."""
        chosen = list(nodes)
        seeds = [scene.load.random.getrandbits(32) for _ in chosen]
        cuts: list[Cut] = await asyncio.gather(
            *(asyncio.to_thread(self.disks[node].cut, seed) for node, seed in zip(chosen, seeds, strict=True))
        )
        for node, cut, seed in zip(chosen, cuts, seeds, strict=True):
            scene.say(
                f"{node}: {cut.pages_dropped} pages and up to {cut.directory_steps} directory steps lost "
                f"(kept with chance {cut.keep:.2f}, seed {seed})"
            )
        await asyncio.gather(*(scene.target.kill(node) for node in chosen))

    async def power_on(self, scene: Scene, nodes: Iterable[str]) -> None:
        """Mount what survived and start the brokers on it; they need not serve yet."""
        for node in nodes:
            await asyncio.to_thread(self.disks[node].power_on)
            await scene.target.start(node)
