"""Real brokers: a follower comes back, by log or by snapshot, and publishing never stops meanwhile."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import holdfast
from holdfast.chaos.processes import BrokerProcess, LocalCluster
from holdfast.errors import DeadlineExceededError, OverloadedError, StorageFullError

#: Longer than any election: what is looked for is a stop while a follower is fed.
LONGEST_SILENCE_S = 2.0
VALUE = bytes(1000)
FRESH = "env-000001"
MIB = 1 << 20


class Stream:
    """Publishes without a pause until it is told to stop; remembers every ack."""

    def __init__(self, bus: holdfast.Client, topic: str) -> None:
        self.acked: dict[tuple[int, int], bytes] = {}
        self.longest_silence = 0.0
        self._bus = bus
        self._topic = topic
        self._number = 0
        self._last = time.monotonic()
        self._changed = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        self._last = time.monotonic()
        while not stop.is_set():
            values = [b"%d " % (self._number + i) + VALUE for i in range(50)]
            self._number += len(values)
            acks = await asyncio.gather(*[self._bus.publish(self._topic, value) for value in values])
            self.acked |= {(a.partition, a.offset): v for a, v in zip(acks, values, strict=True)}
            now = time.monotonic()
            self.longest_silence = max(self.longest_silence, now - self._last)
            self._last = now
            self._changed.set()

    async def more(self, count: int) -> None:
        """Until ``count`` more have been acknowledged."""
        wanted = len(self.acked) + count
        while len(self.acked) < wanted:
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def streaming(bus: holdfast.Client, topic: str) -> AsyncIterator[Stream]:
    stream, stop = Stream(bus, topic), asyncio.Event()
    async with asyncio.timeout(120):
        task = asyncio.create_task(stream.run(stop))
        try:
            yield stream
        finally:
            stop.set()
            await task


def environment(broker: BrokerProcess) -> str:
    """Its name; a snapshot brings a new one."""
    return (broker.data_dir / "CURRENT").read_text().strip()


async def caught_up(cluster: LocalCluster, node: str, timeout: float = 60.0) -> None:
    """Until the broker has applied what was committed when it was asked."""
    await asyncio.to_thread(cluster.wait_serving, node)
    leader = await asyncio.to_thread(cluster.wait_leader)
    index = (await asyncio.to_thread(cluster.status, leader)).commit_index
    deadline = time.monotonic() + timeout
    while (await asyncio.to_thread(cluster.status, node)).applied_index < index:
        if time.monotonic() > deadline:
            raise DeadlineExceededError(f"{node} does not catch up")
        await asyncio.sleep(0.05)


async def same_everywhere(cluster: LocalCluster, topic: str, acked: dict[tuple[int, int], bytes]) -> None:
    """Replicas agree, and hold what was acknowledged, save what retention let go of."""
    index = max(cluster.status(n).commit_index for n in cluster.brokers)
    digests = set()
    for broker in cluster.brokers.values():
        async with holdfast.connect([broker.client_address], discover=False) as reader:
            # Not the start offset: trimming may go on between two questions.
            found = await reader.digest(topic, min_applied_index=index)
            digests.add(tuple((d.partition, d.end_offset, d.digest) for d in found))
            seen = {(r.partition, r.offset): r.value async for r in reader.replay(topic, linearizable=True)}
        oldest: dict[int, int] = {}
        for partition, offset in seen:
            oldest[partition] = min(offset, oldest.get(partition, offset))
        assert seen == {at: value for at, value in acked.items() if at[1] >= oldest[at[0]]}, broker.node_id
    assert len(digests) == 1


def follower_of(cluster: LocalCluster) -> BrokerProcess:
    leader = cluster.wait_leader()
    return next(b for n, b in cluster.brokers.items() if n != leader)


@pytest.mark.timeout(180)
async def test_a_follower_that_was_away_catches_up_from_the_log_under_load(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        async with holdfast.connect(cluster.endpoints) as bus:
            await bus.create_topic("orders", partitions=2)
            away = follower_of(cluster)
            async with streaming(bus, "orders") as stream:
                await stream.more(500)
                away.kill()
                await stream.more(5000)
                away.start()
                await caught_up(cluster, away.node_id)
                await stream.more(500)
            assert stream.longest_silence < LONGEST_SILENCE_S
        assert environment(away) == FRESH
        await same_everywhere(cluster, "orders", stream.acked)


@pytest.mark.timeout(180)
async def test_a_wiped_follower_catches_up_by_a_snapshot_while_records_come_and_are_trimmed(
    tmp_path: Path,
) -> None:
    settings = {
        "HOLDFAST_QUOTA_BYTES": str(512 * MIB),  # a small quota keeps a short log
        "HOLDFAST_MAINTENANCE_INTERVAL_MS": "100",
    }
    with LocalCluster(tmp_path, settings=settings) as cluster:
        async with holdfast.connect(cluster.endpoints) as bus:
            await bus.create_topic("orders", partitions=2, retention_bytes=2 * MIB)
            wiped = follower_of(cluster)
            async with streaming(bus, "orders") as stream:
                await stream.more(8000)
                wiped.kill()
                shutil.rmtree(wiped.data_dir)
                await stream.more(2000)
                before = await trimmed(bus)
                wiped.start()
                await caught_up(cluster, wiped.node_id)
                await stream.more(4000)
                assert await trimmed(bus) > before, "nothing was trimmed meanwhile"
            assert stream.longest_silence < LONGEST_SILENCE_S
        assert environment(wiped) != FRESH, "it was not fed a snapshot"
        await same_everywhere(cluster, "orders", stream.acked)


@pytest.mark.timeout(180)
async def test_a_follower_that_stays_away_costs_the_leader_no_memory_and_no_quota(tmp_path: Path) -> None:
    """The log kept for it is bounded, in bytes too; then it needs a snapshot. Publishing goes on."""
    quota = 128 * MIB
    settings = {"HOLDFAST_QUOTA_BYTES": str(quota), "HOLDFAST_MAINTENANCE_INTERVAL_MS": "100"}
    with LocalCluster(tmp_path, settings=settings) as cluster:
        async with holdfast.connect(cluster.endpoints) as bus:
            await bus.create_topic("large", partitions=1, retention_bytes=8 * MIB)
            away = follower_of(cluster)
            leader = cluster.brokers[cluster.wait_leader()]
            value = bytes(900_000)
            await asyncio.gather(*[bus.publish("large", value) for _ in range(8)])
            missing_from = cluster.status(leader.node_id).last_log_index
            away.kill()
            memory: list[int] = []
            used: list[int] = []
            for _ in range(40):
                try:
                    await asyncio.gather(*[bus.publish("large", value, timeout=20) for _ in range(8)])
                except (StorageFullError, OverloadedError, DeadlineExceededError) as error:
                    pytest.fail(f"a follower that is away stopped publishing: {error}")
                memory.append(leader.rss_anon_bytes())
                used.append((await asyncio.to_thread(cluster.status, leader.node_id)).data_bytes)
            assert max(used) < quota // 2 + 8 * MIB, "the log kept for the follower is not bounded"
            assert max(memory[20:]) < max(memory[:20]) + 32 * MIB, "memory grows with what is kept"
            assert cluster.status(leader.node_id).first_log_index > missing_from
            away.start()
            await caught_up(cluster, away.node_id)
        assert environment(away) != FRESH, "it was not fed a snapshot"


async def trimmed(bus: holdfast.Client) -> int:
    return sum(p.start_offset for p in (await bus.topic("orders")).partition_info)
