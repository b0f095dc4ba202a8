"""full-disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar

import grpc

from holdfast.chaos.checker.history import Outcome, Publish
from holdfast.chaos.drills.disks import DiskDrill
from holdfast.chaos.drills.scene import Scene
from holdfast.client.failures import from_rpc
from holdfast.errors import DeadlineExceededError
from holdfast.v1 import bus_pb2, bus_pb2_grpc, records_pb2

_MIB = 1 << 20
#: A quota of 256 MiB makes the reserve, below which appends are refused, 32 MiB.
_QUOTA = 256 * _MIB
#: Room left on a disk that is nearly full: less than the reserve.
_LITTLE = 8 * _MIB
#: What brokers answer then.
_REFUSAL = "STORAGE_FULL"


class FullDisk(DiskDrill):
    name = "full-disk"
    summary = (
        "no room on the leader's disk: another leads; on two disks: refused; with room again: all goes on"
    )
    settings: ClassVar[Mapping[str, str]] = {"HOLDFAST_QUOTA_BYTES": str(_QUOTA)}

    async def run(self, scene: Scene) -> None:
        target = scene.target
        leader = await target.leader()
        with scene.fault("full-disk", leader, "the leader: nearly, then to the last byte"):
            self._leave(leader, _LITTLE)
            successor = await target.leader(other_than=leader)
            scene.say(f"{successor} leads instead")
            await scene.until_acked()
            self._leave(leader, 0)
            await scene.settle(1.0)
            await scene.until_acked()
            scene.require(target.running(leader), "outlives-full-disk", f"{leader} ended on a full disk")
            self.disks[leader].limit(None)
        await scene.settle(0.5)

        chosen = [await target.leader(), (await target.followers())[0]]
        # Nothing is acknowledged until there is room: how long that takes is the drill's choice.
        with scene.fault("full-disks", ",".join(chosen), "a majority", recovers=False):
            for node in chosen:
                self._leave(node, _LITTLE)
            await _until(lambda: _refusing(scene), "a majority of full disks does not stop publishes")
            for node in chosen:
                self._leave(node, 0)
            # A leader elected just now takes what comes before its followers say that they are full.
            await _until(lambda: _refused(scene), "publishes are not refused", timeout=15.0)
            for _ in range(2):
                answer = await _ask(scene)
                scene.require(answer == _REFUSAL, "full-disk-is-said", f"a publish is answered {answer}")
                await scene.settle(0.3)
            for node in chosen:
                scene.require(target.running(node), "outlives-full-disk", f"{node} ended on a full disk")
                self.disks[node].limit(None)
        with scene.fault("room-again", ",".join(chosen)):
            await scene.until_acked()
        await scene.settle(0.5)

    def _leave(self, node: str, room: int) -> None:
        """Make the disk so small that ``room`` bytes are left."""
        disk = self.disks[node]
        disk.limit(disk.used_bytes() + room)


async def _refusing(scene: Scene) -> bool:
    """The leader says that it takes no writes, and publishers are told so."""
    for node in scene.target.nodes:
        status = await asyncio.to_thread(scene.target.status, node)
        if status is not None and status.leader_id == node:
            return not status.accepting_writes
    return False


async def _refused(scene: Scene) -> bool:
    return await _ask(scene) == _REFUSAL


async def _ask(scene: Scene) -> str:
    """Publish one record by a bare call that is not tried again: why it was refused, or ``ok``."""
    number = len(scene.history.events)
    note = Publish(
        client="bare",
        producer="bare",
        sequence=number,
        topic=scene.load.plan.topic,
        value=f"bare:{number}",
        started=scene.now(),
        idempotent=False,
    )
    scene.history.add(note)
    request = bus_pb2.PublishRequest(
        topic=note.topic, records=[records_pb2.Record(value=note.value.encode())]
    )
    leader = await scene.target.leader()
    async with grpc.aio.insecure_channel(scene.target.endpoints[leader]) as channel:
        try:
            answer = await bus_pb2_grpc.EventBusStub(channel).Publish(request, timeout=3.0)
        except grpc.aio.AioRpcError as refusal:
            error = from_rpc(refusal, leader)
            note.ended, note.error = scene.now(), str(error)
            if error.reason == _REFUSAL:
                note.outcome = Outcome.FAIL
            return error.reason
    note.ended, note.outcome = scene.now(), Outcome.OK
    note.partition, note.offset = answer.positions[0].partition, answer.positions[0].offset
    return "ok"


async def _until(condition: Callable[[], Awaitable[bool]], otherwise: str, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not await condition():
        if time.monotonic() > deadline:
            raise DeadlineExceededError(otherwise)
        await asyncio.sleep(0.05)
