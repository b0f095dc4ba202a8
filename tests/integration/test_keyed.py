"""Idempotency keys with real brokers: through the SDK, over restarts and over changes of leader."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

import holdfast
import holdfast.testing
from holdfast import Ack
from holdfast.chaos.processes import LocalCluster
from holdfast.errors import FailedPreconditionError, InvalidArgumentError

HOUR_MS = 3_600_000


async def test_a_key_is_stored_once_with_all_that_belongs_to_it() -> None:
    async with holdfast.testing.embedded() as bus:
        made = await bus.create_topic("orders", partitions=3, idempotency_ttl_ms=HOUR_MS)
        assert made.idempotency_ttl_ms == (await bus.topic("orders")).idempotency_ttl_ms == HOUR_MS
        ack = await bus.publish(
            "orders", b"paid", "ada", headers={"h": b"w"}, timestamp=7, idempotency_key="order-17"
        )
        assert not ack.duplicate
        again = await bus.publish("orders", b"paid again", "bob", idempotency_key="order-17")
        assert again == Ack("orders", ack.partition, ack.offset, duplicate=True)
        (record,) = [record async for record in bus.replay("orders")]
        assert (record.key, record.value, record.timestamp_us) == (b"ada", b"paid", 7)
        assert record.header("h") == b"w"


async def test_many_at_once_among_other_records() -> None:
    async with holdfast.testing.embedded() as bus:
        await bus.create_topic("orders", partitions=3, idempotency_ttl_ms=HOUR_MS)
        for _ in range(2):
            acks = await asyncio.gather(
                *[bus.publish("orders", b"%d" % n, f"k{n % 5}", idempotency_key=f"{n}") for n in range(500)],
                *[bus.publish("orders", b"plain", f"k{n % 5}") for n in range(100)],
            )
        assert all(ack.duplicate for ack in acks[:500])
        values = [record.value async for record in bus.replay("orders")]
        assert sorted(values) == sorted([b"%d" % n for n in range(500)] + [b"plain"] * 200)
        by_place = {(r.partition, r.offset): r.value async for r in bus.replay("orders")}
        assert [by_place[ack.partition, ack.offset] for ack in acks[:500]] == [b"%d" % n for n in range(500)]


async def test_a_window_can_be_opened_and_closed() -> None:
    async with holdfast.testing.embedded() as bus:
        await bus.create_topic("t")
        with pytest.raises(FailedPreconditionError, match="idempotency_ttl_ms"):
            await bus.publish("t", b"v", idempotency_key="a")
        for wrong in (-1, 999, 604_800_001):
            with pytest.raises(InvalidArgumentError) as refused:
                await bus.update_topic("t", idempotency_ttl_ms=wrong)
            assert refused.value.metadata["field"] == "limits.idempotency_ttl_ms"
        await bus.update_topic("t", idempotency_ttl_ms=1000)
        assert not (await bus.publish("t", b"v", idempotency_key="a")).duplicate
        await bus.update_topic("t")
        with pytest.raises(FailedPreconditionError):
            await bus.publish("t", b"v", idempotency_key="b")


async def test_a_restart_keeps_them(tmp_path: Path) -> None:
    offsets = []
    for number in range(3):
        async with holdfast.testing.embedded(tmp_path) as bus:
            await bus.create_topic("t", partitions=1, idempotency_ttl_ms=HOUR_MS, if_not_exists=True)
            acks = [await bus.publish("t", b"v", idempotency_key=f"{n}") for n in range(number + 1)]
            assert [ack.duplicate for ack in acks] == [True] * number + [False]
            offsets.append([ack.offset for ack in acks])
    assert offsets == [[0], [0, 1], [0, 1, 2]]


async def test_a_publisher_that_starts_over_while_leaders_are_killed(tmp_path: Path) -> None:
    """Each life begins with what the one before had sent; in the end all of it is there once."""
    with LocalCluster(tmp_path) as cluster:
        async with holdfast.connect(cluster.endpoints, delivery_timeout=60) as bus:
            await bus.create_topic("t", partitions=2, idempotency_ttl_ms=HOUR_MS)

        async def life(first: int) -> None:
            async with holdfast.connect(cluster.endpoints, delivery_timeout=60) as bus:
                for number in range(first, first + 60, 10):
                    await asyncio.gather(
                        *[
                            bus.publish("t", b"%d" % n, f"k{n % 4}", idempotency_key=f"row-{n}")
                            for n in range(number, number + 10)
                        ]
                    )

        for first in (0, 30, 60):
            # A broker that has just begun is no help to a majority before all others have answered it.
            await asyncio.to_thread(_all_joined, cluster)
            living = asyncio.ensure_future(life(first))
            leader = await asyncio.to_thread(cluster.wait_leader)
            cluster.brokers[leader].kill()
            await living
            await asyncio.to_thread(cluster.start)
        async with holdfast.connect(cluster.endpoints, delivery_timeout=60) as bus:
            values = [int(record.value) async for record in bus.replay("t", linearizable=True)]
        assert sorted(values) == list(range(120))


def _all_joined(cluster: LocalCluster) -> None:
    deadline = time.monotonic() + 30
    while any(cluster.status(node_id, timeout=30).joining for node_id in cluster.brokers):
        assert time.monotonic() < deadline, "a broker does not join"
        time.sleep(0.05)
