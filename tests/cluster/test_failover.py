"""Real broker processes under kill -9: nothing acknowledged is lost, nothing comes twice."""

import asyncio
import shutil
from pathlib import Path

import pytest

import holdfast
from holdfast.chaos.processes import LocalCluster

Place = tuple[int, int]


async def publish_through(
    cluster: LocalCluster, bus: holdfast.Client, count: int, kill_at: dict[int, str]
) -> dict[Place, bytes]:
    """Publish numbered records, killing the leader (or a follower) at the given numbers."""
    futures = []
    for number in range(count):
        if number in kill_at:
            # Whatever is in flight stays in flight across the kill.
            leader = await asyncio.to_thread(cluster.wait_leader)
            for broker in cluster.brokers.values():
                broker.start()
            victim = (
                leader if kill_at[number] == "leader" else next(n for n in cluster.brokers if n != leader)
            )
            cluster.brokers[victim].kill()
        futures.append(bus.publish("orders", b"%d" % number, key=b"key-%d" % (number % 17), timeout=60))
        if number % 50 == 0:
            await asyncio.sleep(0)
    acks = await asyncio.gather(*futures)
    return {(ack.partition, ack.offset): b"%d" % number for number, ack in enumerate(acks)}


async def check_everywhere(cluster: LocalCluster, acked: dict[Place, bytes]) -> None:
    for broker in cluster.brokers.values():
        async with holdfast.connect([broker.client_address]) as reader:
            seen = {
                (r.partition, r.offset): r.value async for r in reader.replay("orders", linearizable=True)
            }
        assert seen == acked, f"{broker.node_id} differs"


@pytest.mark.timeout(180)
async def test_leader_and_follower_are_killed_under_load(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        async with holdfast.connect(cluster.endpoints) as bus:
            await bus.create_topic("orders", partitions=4)
            kills = {3000: "leader", 8000: "follower", 13000: "leader"}
            acked = await publish_through(cluster, bus, 18000, kills)
            assert len(acked) == 18000
            await asyncio.to_thread(cluster.start)
            await check_everywhere(cluster, acked)
        index = max(cluster.status(n).commit_index for n in cluster.brokers)
        assert len({cluster.digest(n, index) for n in cluster.brokers}) == 1


@pytest.mark.timeout(180)
async def test_all_brokers_at_once_lose_nothing(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        async with holdfast.connect(cluster.endpoints) as bus:
            await bus.create_topic("orders", partitions=2)
            acked = await publish_through(cluster, bus, 3000, {})
        for broker in cluster.brokers.values():
            broker.kill()
        await asyncio.to_thread(cluster.start)
        await check_everywhere(cluster, acked)


@pytest.mark.timeout(180)
async def test_a_follower_whose_disk_was_wiped_catches_up(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        async with holdfast.connect(cluster.endpoints) as bus:
            await bus.create_topic("orders", partitions=2)
            acked = await publish_through(cluster, bus, 3000, {})
            leader = cluster.wait_leader()
            wiped = cluster.brokers[next(n for n in cluster.brokers if n != leader)]
            wiped.kill()
            shutil.rmtree(wiped.data_dir)
            await asyncio.to_thread(cluster.start)
            await check_everywhere(cluster, acked)
