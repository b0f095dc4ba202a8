"""clock-skew."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import holdfast
from holdfast.chaos.drills.scene import Drill, Scene, Target
from holdfast.chaos.drills.target import LocalTarget

_PLACES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
)
_AHEAD, _BEHIND, _DRIFTING, _TRUE = "+300s", "-300s", "+0 x1.5", "+0"
#: How often a broker looks for a new clock (by whole seconds of the true one), and a margin.
_NOTICED_SECONDS = 2.2
#: Longer than any broker takes to notice, on a machine that has too much to do.
_PATIENCE_SECONDS = 15.0
_TOPIC = "kept-for-an-hour"
_HOUR_MS = 3_600_000
#: Stamps this far apart were given by clocks that were changed.
_MINUTES_US = 200_000_000


class ClockSkew(Drill):
    name = "clock-skew"
    summary = (
        "clocks minutes ahead, behind and drifting; stamps never go back, nothing expires before its time"
    )
    needs = frozenset({"local", "kill"})
    settings = {"HOLDFAST_MAINTENANCE_INTERVAL_MS": "500"}

    def __init__(self) -> None:
        self._clocks = Path()

    def unable(self, target: Target) -> str:
        why = super().unable(target)
        if not why and library() is None:
            why = "libfaketime is missing (Debian: apt-get install faketime)"
        return why

    @asynccontextmanager
    async def around(self, target: Target) -> AsyncIterator[None]:
        assert isinstance(target, LocalTarget)
        self._clocks = target.directory / "clocks"
        self._clocks.mkdir(parents=True)
        for node in target.nodes:
            self._set(node, _TRUE)
            # Only what the wall shows is changed: no broker may measure a time by it.
            target.broker(node).env |= {
                "LD_PRELOAD": str(library()),
                "FAKETIME_TIMESTAMP_FILE": str(self._clocks / node),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                # On, it makes waits on the monotonic clock last for ever with a current libc.
                "FAKETIME_FORCE_MONOTONIC_FIX": "0",
                "DONT_FAKE_MONOTONIC": "1",
            }
        yield

    async def run(self, scene: Scene) -> None:
        target = scene.target
        leader = await target.leader()
        one, other = (node for node in target.nodes if node != leader)
        bus = await scene.load.connect()
        await bus.create_topic(_TOPIC, partitions=2, retention_ms=_HOUR_MS)
        published = await self._publish(bus, 0)

        with scene.fault("clock", leader, "the leader, five minutes ahead", recovers=False):
            self._set(leader, _AHEAD)
            self._set(one, _DRIFTING)
            published += await self._until_ahead(bus, published)
            await scene.until_acked()
        # Whoever follows must not stamp less than what is in the log, minutes ahead of its own clock.
        with scene.fault("kill", leader, "the one that is ahead, kill -9"):
            await target.kill(leader)
            self._set(leader, _BEHIND)
            await scene.until_acked()
            successor = await target.leader(other_than=leader)
            published += await self._publish(bus, published)
            await target.start(leader)
        await target.until_serving(leader)
        with scene.fault("clock", successor, "the leader, five minutes behind", recovers=False):
            self._set(successor, _BEHIND)
            await scene.settle(_NOTICED_SECONDS)
            published += await self._publish(bus, published)
            await scene.until_acked()
        after = await asyncio.to_thread(target.status, successor)
        scene.require(
            after is not None and after.leader_id == successor,
            "clock-deposes-nobody",
            f"{successor} led until its clock was put back; then {after.leader_id if after else 'nobody'}",
        )
        for node in (leader, successor, one, other):
            self._set(node, _TRUE)
        await scene.settle(_NOTICED_SECONDS)
        published += await self._publish(bus, published)
        await self._check(scene, bus, published)

    def _set(self, node: str, clock: str) -> None:
        new = self._clocks / f"{node}.new"
        new.write_text(clock + "\n")
        os.replace(new, self._clocks / node)

    @staticmethod
    async def _publish(bus: holdfast.Client, number: int, count: int = 50) -> int:
        await asyncio.gather(*(bus.publish(_TOPIC, b"%d" % (number + i)) for i in range(count)))
        return count

    @classmethod
    async def _until_ahead(cls, bus: holdfast.Client, number: int) -> int:
        """Publish until a record is stamped minutes ahead; gives how many it took."""
        published = 0
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            published += await cls._publish(bus, number + published)
            last = max([record.append_time_us async for record in bus.replay(_TOPIC)])
            if last - time.time() * 1e6 > _MINUTES_US:
                break
            await asyncio.sleep(0.2)
        return published

    @staticmethod
    async def _check(scene: Scene, bus: holdfast.Client, published: int) -> None:
        """Stamps never go back; nothing younger than its retention has been let go."""
        spread = 0
        for topic in (_TOPIC, scene.load.plan.topic):
            found: list[bytes] = []
            stamps: dict[int, tuple[int, int]] = {}
            first = 0
            async for record in bus.replay(topic, linearizable=True):
                found.append(record.value)
                offset, stamp = stamps.get(record.partition, (-1, 0))
                scene.require(
                    record.append_time_us >= stamp,
                    "append-time-never-goes-back",
                    f"{topic}/{record.partition}: {stamp} at {offset}, {record.append_time_us} "
                    f"at {record.offset}",
                )
                stamps[record.partition] = (record.offset, record.append_time_us)
                first = min(first or record.append_time_us, record.append_time_us)
                spread = max(spread, record.append_time_us - first)
            if topic == _TOPIC:
                scene.require(
                    sorted(found) == sorted(b"%d" % number for number in range(published)),
                    "retention-keeps-what-is-young",
                    f"{published} records of the last minutes; of an hour's retention there are {len(found)}",
                )
        # Otherwise no clock was changed, and nothing has been shown.
        scene.require(spread > _MINUTES_US, "clocks-were-changed", f"stamps are {spread / 1e6:.1f} s apart")


def library() -> Path | None:
    """The preload library that changes a process's clock; None: not here."""
    return next((Path(place) for place in _PLACES if Path(place).exists()), None)
