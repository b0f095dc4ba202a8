"""The SDK against real brokers, leaders killed included."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import holdfast
import holdfast.testing
from holdfast.chaos.processes import LocalCluster
from holdfast.errors import (
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicExistsError,
    UnknownTopicError,
)


async def test_publish_replay_consume() -> None:
    async with holdfast.testing.embedded() as bus:
        created = await bus.create_topic("orders", partitions=3)
        assert (created.name, created.partitions) == ("orders", 3)
        acks = await asyncio.gather(*[bus.publish("orders", b"%d" % n, key=f"k{n % 5}") for n in range(500)])
        assert len({(ack.partition, ack.offset) for ack in acks}) == 500
        summary = await bus.publish_many("orders", [b"%d" % n for n in range(500, 800)])
        assert summary.count == 300
        for number in range(800, 1000):
            bus.send("orders", b"%d" % number, key="k", headers={"n": str(number)})
        await bus.flush()

        by_place = {(r.partition, r.offset): r async for r in bus.replay("orders")}
        assert sorted(int(record.value) for record in by_place.values()) == list(range(1000))
        for number, ack in enumerate(acks):
            record = by_place[ack.partition, ack.offset]
            assert (record.value, record.key) == (b"%d" % number, b"k%d" % (number % 5))
        last = [record for record in by_place.values() if record.headers]
        assert all(record.header("n") == record.value for record in last)
        assert len(last) == 200

        seen = []
        async with bus.subscribe("orders", group="billing", max_in_flight=50) as records:
            async for record in records:
                seen.append(int(record.value))
                record.ack()
                if len(seen) == 1000:
                    break
        assert sorted(seen) == list(range(1000))
        topic = await bus.topic("orders")
        assert sum(part.end_offset for part in topic.partition_info) == 1000
        async with bus.subscribe("orders", group="billing") as records:
            await bus.publish("orders", b"new")
            (record,) = await records.take(10)
            assert record.value == b"new"


async def test_places_and_times() -> None:
    async with holdfast.testing.embedded() as bus:
        await bus.create_topic("t", partitions=2)
        day = datetime(2013, 7, 4, tzinfo=UTC)
        hours = [day + timedelta(hours=n) for n in range(48)]
        await bus.publish_many(
            "t", [b"%d" % n for n in range(48)], [f"k{n}" for n in range(48)], timestamps=hours
        )
        some = [int(r.value) async for r in bus.replay("t", start=day, end=day + timedelta(days=1))]
        assert sorted(some) == list(range(24))
        ends = {part.partition: part.end_offset for part in (await bus.topic("t")).partition_info}
        assert [r async for r in bus.replay("t", start="latest")] == []
        assert [r async for r in bus.replay("t", start=ends)] == []
        tail = [r async for r in bus.replay("t", start={0: ends[0] - 1, 1: ends[1] - 1}, linearizable=True)]
        assert len(tail) == 2
        first = [r.offset async for r in bus.replay("t", partitions=[1], start=2, end=5)]
        assert first == [2, 3, 4]
        with pytest.raises(OffsetOutOfRangeError):
            await anext(bus.replay("t", start=1000))


async def test_following_sees_what_comes() -> None:
    async with holdfast.testing.embedded() as bus:
        await bus.create_topic("t", partitions=2)
        await bus.publish("t", b"0")
        caught_up = asyncio.Event()
        values: list[bytes] = []

        async def follow() -> None:
            async for batch in bus.replay_batches("t", follow=True, on_caught_up=caught_up.set):
                values.extend(batch.values)
                if len(values) == 101:
                    return

        reader = asyncio.ensure_future(follow())
        await asyncio.wait_for(caught_up.wait(), 10)
        assert values == [b"0"]
        await bus.publish_many("t", [b"%d" % n for n in range(1, 101)])
        await asyncio.wait_for(reader, 10)
        assert sorted(map(int, values)) == list(range(101))


async def test_topics() -> None:
    async with holdfast.testing.embedded() as bus:
        await bus.create_topic("a", partitions=2, retention_ms=1000)
        with pytest.raises(TopicExistsError):
            await bus.create_topic("a", partitions=2)
        assert (await bus.create_topic("a", partitions=2, if_not_exists=True)).retention_ms == 1000
        updated = await bus.update_topic("a", max_record_bytes=100)
        assert (updated.max_record_bytes, updated.retention_ms) == (100, 0)
        results = await asyncio.gather(
            bus.publish("a", bytes(200)), bus.publish("a", bytes(10)), return_exceptions=True
        )
        assert isinstance(results[0], RecordTooLargeError)
        assert isinstance(results[1], holdfast.Ack)
        assert [topic.name for topic in await bus.topics()] == ["a"]
        await bus.delete_topic("a")
        with pytest.raises(UnknownTopicError):
            await bus.publish("a", b"x")
        # Made anew, with fewer partitions and no memory of this producer.
        await bus.create_topic("a", partitions=1)
        assert await bus.publish("a", b"x") == holdfast.Ack("a", 0, 0)
        status = await bus.status()
        assert (status.role, status.accepting_writes) == ("leader", True)
        assert [
            info.role for info in (await bus.statuses()).values() if isinstance(info, holdfast.ClusterInfo)
        ]
        assert [part.end_offset for part in await bus.digest("a")] == [1]


async def test_one_record_too_many_bytes_does_not_harm_its_neighbours() -> None:
    async with holdfast.testing.embedded() as bus:
        await bus.create_topic("t", partitions=2)
        values = [b"a", bytes(2 << 20), b"b", b"c"]
        results = await asyncio.gather(*[bus.publish("t", value) for value in values], return_exceptions=True)
        assert isinstance(results[1], RecordTooLargeError)
        assert sorted([r.value async for r in bus.replay("t")]) == [b"a", b"b", b"c"]


async def test_trace_context_travels_in_headers() -> None:
    tracer = TracerProvider().get_tracer("test")
    async with holdfast.testing.embedded() as bus:
        await bus.create_topic("t")
        with tracer.start_as_current_span("publishing") as span:
            await bus.publish("t", b"1", headers={"own": b"x"})
            await bus.publish_many("t", [b"2"])
        await bus.publish("t", b"3")
        first, second, third = [record async for record in bus.replay("t")]
        for record in (first, second):
            context = record.trace_context()
            found = trace.get_current_span(context).get_span_context()
            assert found.trace_id == span.get_span_context().trace_id
            assert found.span_id == span.get_span_context().span_id
        assert first.header("own") == b"x"
        assert third.trace_context() is None
        assert third.headers == ()


def test_the_leader_is_killed_under_publishers_and_consumers(tmp_path: Path) -> None:
    """Three processes; everything acknowledged is there once, in order, and delivered."""
    total, per_key = 6000, 20

    async def run(cluster: LocalCluster) -> None:
        async with holdfast.connect(cluster.endpoints) as bus:
            await bus.create_topic("t", partitions=4)
            delivered: set[int] = set()

            async def consume() -> None:
                async with bus.subscribe("t", group="g") as records:
                    async for record in records:
                        delivered.add(int(record.value))
                        record.ack()
                        if len(delivered) == total:
                            return

            consumer = asyncio.ensure_future(consume())
            futures: list[asyncio.Future[holdfast.Ack]] = []
            for number in range(total):
                futures.append(bus.publish("t", b"%d" % number, key=f"k{number % per_key}"))
                if number in (total // 3, 2 * total // 3):
                    leader = await asyncio.to_thread(cluster.wait_leader)
                    cluster.brokers[leader].kill()
                    await futures[-1]
                    await asyncio.to_thread(cluster.start)
                elif number % 100 == 0:
                    await futures[-1]
            acks = await asyncio.gather(*futures)
            assert len(set(acks)) == total
            await asyncio.wait_for(consumer, 60)
            assert delivered == set(range(total))
            order: dict[bytes | None, list[int]] = {}
            async for record in bus.replay("t", linearizable=True):
                order.setdefault(record.key, []).append(int(record.value))
            assert sum(map(len, order.values())) == total
            assert all(numbers == sorted(numbers) for numbers in order.values())

    with LocalCluster(tmp_path) as cluster:
        asyncio.run(run(cluster))


def test_without_an_event_loop() -> None:
    async def run() -> None:
        async with holdfast.testing.embedded_broker() as address:
            await asyncio.to_thread(use, address)

    def use(address: str) -> None:
        with holdfast.connect_sync(address) as bus:
            bus.create_topic("t", partitions=2)
            assert bus.publish("t", b"0", key="k").offset == 0
            assert bus.publish_many("t", [b"%d" % n for n in range(1, 100)]).count == 99
            for number in range(100, 5000):
                bus.send("t", b"%d" % number)
            bus.flush()
            assert sorted(int(record.value) for record in bus.replay("t")) == list(range(5000))
            assert sum(len(batch) for batch in bus.replay_batches("t", partitions=[0, 1])) == 5000
            assert next(iter(bus.replay("t"))).offset == 0
            seen = 0
            with bus.subscribe("t", group="g") as records:
                for record in records:
                    record.ack()
                    seen += 1
                    if seen == 5000:
                        break
                assert sum(records.committed().values()) == 5000
            bus.send("missing", b"x")
            with pytest.raises(UnknownTopicError):
                bus.flush()
            with pytest.raises(UnknownTopicError):
                bus.topic("no")
            assert bus.status().role == "leader"
        with pytest.raises(holdfast.errors.ClosedError):
            bus.topics()

    asyncio.run(run())
