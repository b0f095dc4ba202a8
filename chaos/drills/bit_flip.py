"""bit-flip."""

from __future__ import annotations

import asyncio
import time

from holdfast.chaos.checker.history import Outcome, Publish, Read
from holdfast.chaos.drills.disks import DiskDrill
from holdfast.chaos.drills.scene import Scene
from holdfast.errors import DeadlineExceededError, InternalError

#: A record of that age lies on a page that is not being written any more.
_SETTLED_SECONDS = 1.0
_REPAIR_SECONDS = 15.0


class BitFlip(DiskDrill):
    name = "bit-flip"
    summary = (
        "a bit of a stored batch flips on one disk: detected, never served, repaired from another replica"
    )

    async def run(self, scene: Scene) -> None:
        await scene.settle(_SETTLED_SECONDS)
        target = scene.target
        for node in target.nodes:
            # What a broker has only written ahead is committed when it starts.
            await target.stop(node)
            await target.start(node)
            await target.until_serving(node)
        await scene.settle(_SETTLED_SECONDS)
        leader = await target.leader()
        followers = await target.followers()
        # While it runs, in the leader's and a follower's; and while it is down.
        for node, running in ((leader, True), (followers[0], True), (followers[1], False)):
            how = "while it runs" if running else "while it is down"
            with scene.fault("bit-flip", node, f"in a stored batch, {how}"):
                if not running:
                    await target.stop(node)
                told = _told(scene, node)
                record = await self._flip(scene, node)
                await target.start(node)
                await target.until_serving(node)
                scene.say(f"{node} serves")
                await self._until_served(scene, node, record)
                found, repaired = (now - was for now, was in zip(_told(scene, node), told, strict=True))
                scene.require(found > 0, "damage-is-told", f"{node} does not say that it found damage")
                scene.require(repaired > 0, "damage-is-repaired", f"{node} does not say that it repaired it")
                stored = await self._holds(node, record.value.encode())
                scene.require(stored, "damage-is-repaired", f"{node} has no whole copy of the record again")
            await scene.settle(0.3)

    async def _flip(self, scene: Scene, node: str) -> Publish:
        """Flip one bit of an acknowledged record's value, wherever the node's disk holds it."""
        disk, before = self.disks[node], scene.now() - _SETTLED_SECONDS
        path = self._data_file(node)
        acked = [
            e
            for e in scene.history.events
            if isinstance(e, Publish) and e.outcome is Outcome.OK and e.ended is not None and e.ended < before
        ]
        while acked:
            record = acked.pop(scene.load.random.randrange(len(acked)))
            value = record.value.encode()
            places = await asyncio.to_thread(disk.search, path, value)
            for place in places:
                # Pages are copied when they change: what is found may be a page of the past as well.
                byte = scene.load.random.randrange(len(value))
                bit = scene.load.random.randrange(8)
                await asyncio.to_thread(disk.flip, path, place + byte, bit)
                scene.say(f"{node}: bit {bit} of byte {byte} of {value[:24]!r}… at {place}")
            if places and not await asyncio.to_thread(disk.search, path, value):
                return record
        raise InternalError(f"{node} stores none of the acknowledged records in the clear")

    async def _holds(self, node: str, value: bytes) -> bool:
        """Whether the node's disk holds it, committed or written ahead."""
        for file in ("data.mdb", "ahead.wal"):
            if await asyncio.to_thread(self.disks[node].search, self._data_file(node, file), value):
                return True
        return False

    def _data_file(self, node: str, name: str = "data.mdb") -> str:
        """Where a file of the node's environment is on its disk."""
        (current,) = self.disks[node].point.glob("env-*")
        return f"{current.name}/{name}"

    async def _until_served(self, scene: Scene, node: str, record: Publish) -> None:
        """Read it from this node until it comes as it was published; anything else must be an error."""
        assert record.partition is not None
        assert record.offset is not None
        deadline = time.monotonic() + _REPAIR_SECONDS
        refused = 0
        while True:
            read = await scene.load.read(
                node, record.partition, record.offset, linearizable=False, client="examiner"
            )
            wrong = _wrong(read, record)
            scene.require(not wrong, "damage-is-not-served", f"{node} serves {wrong}")
            if wrong or read.outcome is Outcome.OK:
                scene.say(f"{node} serves the record as it was ({refused} reads refused before)")
                return
            refused += 1
            if time.monotonic() > deadline:
                raise DeadlineExceededError(f"{node} does not repair what a bit flip damaged: {read.error}")
            await asyncio.sleep(0.05)


def _told(scene: Scene, node: str) -> tuple[int, int]:
    """How often the node's log says that it found damage, and that it repaired some."""
    log = scene.target.log_tail(node, 1 << 20)
    return log.count("damage found: "), log.count("repaired ")


def _wrong(read: Read, record: Publish) -> str:
    """What a read that began at the record's offset has that is not as published; empty: nothing."""
    first = next(iter(read.records), None)
    if first is not None and first != (record.offset, record.value):
        return f"{first!r} for {(record.offset, record.value)!r}"
    if first is None and read.outcome is Outcome.OK:
        return f"nothing for {(record.offset, record.value)!r}"
    return ""
