"""Publishing over gRPC to brokers that fail in every way they can."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import holdfast
from holdfast.errors import (
    ClosedError,
    DeadlineExceededError,
    HoldfastError,
    InvalidArgumentError,
    OverloadedError,
    RecordTooLargeError,
    UnavailableError,
    UnknownTopicError,
)

from .fake_bus import FakeCluster
from .model_broker import POISON

FAULTS = ("", "cut", "lost", "end", "overloaded", "move", "unknown, stored", "unknown, not stored")


def stored_once_and_in_order(cluster: FakeCluster, topic: str, expected: list[bytes]) -> None:
    logs = cluster.values(topic)
    assert sorted(int(value) for log in logs for value in log) == sorted(map(int, expected))
    for log in logs:
        numbers = list(map(int, log))
        assert numbers == sorted(numbers)


@settings(max_examples=25, deadline=None)
@given(
    faults=st.lists(st.sampled_from(FAULTS), max_size=12),
    count=st.integers(1, 200),
    batch_bytes=st.sampled_from([100, 1000, 1 << 18]),
    compression=st.sampled_from(["none", "zstd"]),
)
def test_every_record_once_and_in_order(
    faults: list[str], count: int, batch_bytes: int, compression: str
) -> None:
    async def run() -> None:
        async with FakeCluster(2) as cluster:
            cluster.faults.extend(faults)
            async with holdfast.connect(
                cluster.endpoints, batch_bytes=batch_bytes, compression=compression
            ) as bus:
                await bus.create_topic("t", partitions=3)
                values = [b"%d" % number for number in range(count)]
                keys = [f"k{number % 5}" if number % 3 else None for number in range(count)]
                futures = []
                for number, (value, key) in enumerate(zip(values, keys, strict=True)):
                    futures.append(bus.publish("t", value, key))
                    if number % 37 == 36:
                        await asyncio.sleep(0)
                acks = await asyncio.gather(*futures)
                stored_once_and_in_order(cluster, "t", values)
                for value, ack in zip(values, acks, strict=True):
                    assert cluster.values("t")[ack.partition][ack.offset] == value

    asyncio.run(run())


async def test_many_and_send_survive_too() -> None:
    async with FakeCluster(2) as cluster, holdfast.connect(cluster.endpoints, batch_bytes=500) as bus:
        await bus.create_topic("t", partitions=2)
        cluster.faults.extend(["lost", "", "move", "cut", "unknown, stored"] * 3)
        values = [b"%d" % number for number in range(500)]
        summary = await bus.publish_many("t", values[:300], ["k"] * 300)
        assert summary.count == 300 == sum(ack.count for ack in summary.acks)
        for value in values[300:]:
            bus.send("t", value, "k")
        await bus.flush()
        stored_once_and_in_order(cluster, "t", values)


async def test_a_silent_leader_that_was_replaced_is_left() -> None:
    async with FakeCluster(2) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("t")
        cluster.faults.append("silent")
        ack = await bus.publish("t", b"1", timeout=5)
        assert ack == holdfast.Ack("t", 0, 0)
        assert cluster.leader == 1


async def test_a_broker_that_dies_is_left_and_found_again() -> None:
    async with FakeCluster(2) as cluster, holdfast.connect(cluster.endpoints[0]) as bus:
        await bus.create_topic("t")
        await bus.publish("t", b"0")
        await cluster.nodes[0].stop()
        cluster.move_leader()
        await bus.publish("t", b"1")
        await cluster.nodes[0].start()
        await cluster.nodes[1].stop()
        cluster.move_leader()
        await bus.publish("t", b"2")
        assert cluster.values("t") == [[b"0", b"1", b"2"]]


async def test_no_broker_at_all() -> None:
    async with FakeCluster(1) as cluster:
        address = cluster.endpoints[0]
    with pytest.raises(UnavailableError, match=address):
        await holdfast.connect(address, connect_timeout=0.2).start()


async def test_the_delivery_timeout_ends_with_a_reason() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints, delivery_timeout=1.5) as bus:
        await bus.create_topic("t")
        await bus.publish("t", b"0")
        cluster.faults.extend(["overloaded"] * 1000)
        with pytest.raises(DeadlineExceededError, match="full"):
            await bus.publish("t", b"1")
        cluster.faults.clear()
        await bus.publish("t", b"2")
        assert cluster.values("t") == [[b"0", b"2"]]


async def test_a_short_timeout_ends_the_waiting_only() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("t")
        cluster.faults.extend(["overloaded"] * 5)
        with pytest.raises(DeadlineExceededError, match="may yet be stored"):
            await bus.publish("t", b"0", timeout=0.001)
        await bus.flush()
        assert cluster.values("t") == [[b"0"]]


async def test_an_unknown_topic() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        results = await asyncio.gather(
            bus.publish("no", b"1"), bus.publish_many("no", [b"1"]), return_exceptions=True
        )
        assert [type(result) for result in results] == [UnknownTopicError] * 2
        bus.send("no", b"1")
        with pytest.raises(UnknownTopicError):
            await bus.flush()
        await bus.create_topic("no")
        await bus.publish("no", b"1")


async def test_only_the_refused_record_fails() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("t", partitions=2)
        values = [b"%d" % number for number in range(40)]
        values[17] = POISON
        results = await asyncio.gather(*[bus.publish("t", value) for value in values], return_exceptions=True)
        assert [index for index, result in enumerate(results) if isinstance(result, HoldfastError)] == [17]
        assert isinstance(results[17], RecordTooLargeError)
        stored_once_and_in_order(cluster, "t", [value for value in values if value != POISON])


async def test_a_topic_that_was_forgotten_and_is_the_same() -> None:
    """Sequences of before must not be used again: the broker would take new records for repeats."""
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("t")
        for number in range(4):
            assert (await bus.publish("t", b"%d" % number)).offset == number
            await bus.create_topic("t", if_not_exists=True)
        cluster.faults.append("unknown topic")
        with pytest.raises(UnknownTopicError):
            await bus.publish("t", b"lost")
        assert (await bus.publish("t", b"4")).offset == 4
        assert cluster.values("t") == [[b"0", b"1", b"2", b"3", b"4"]]


def send_too_much(bus: holdfast.Client) -> None:
    for _ in range(100):
        bus.send("t", bytes(100))


async def test_the_buffer_is_bounded() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints, max_buffered_bytes=2000) as bus:
        await bus.create_topic("t")
        futures = [bus.publish("t", bytes(100)) for _ in range(100)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        refused = [result for result in results if isinstance(result, OverloadedError)]
        assert len(refused) == 100 - len(cluster.values("t")[0]) > 0
        with pytest.raises(OverloadedError):
            send_too_much(bus)
        await bus.drain()
        bus.send("t", b"")
        await bus.flush()
        summary = await bus.publish_many("t", [bytes(100)] * 100)
        assert summary.count == 100


@pytest.mark.parametrize(("size", "count", "full"), [(100, 60_000, 4096), (1024, 9_000, (1 << 20) // 1088)])
async def test_many_records_make_whole_batches(size: int, count: int, full: int) -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("t")
        summary = await bus.publish_many("t", [bytes(size)] * count)
        counts = [ack.count for ack in summary.acks]
        assert counts[:-1] == [full] * (count // full)
        assert sum(counts) == count


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("t", "text"), {}),
        (("t", None), {}),
        (("", b"x"), {}),
        (("t", b"x", 5), {}),
        (("t", b"x", "\ud800"), {}),
        (("t", b"x"), {"headers": {1: b"x"}}),
        (("t", b"x"), {"headers": {"a": 1}}),
        (("t", b"x"), {"headers": "ab"}),
        (("t", b"x"), {"timestamp": "now"}),
        (("t", b"x"), {"timestamp": 1 << 64}),
    ],
)
async def test_wrong_arguments(arguments: tuple[object, ...], options: dict[str, object]) -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        with pytest.raises(InvalidArgumentError):
            await bus.publish(*arguments, **options)  # type: ignore[arg-type]


async def test_close_sends_what_waits() -> None:
    async with FakeCluster(1) as cluster:
        async with holdfast.connect(cluster.endpoints) as bus:
            await bus.create_topic("t")
            future = bus.publish("t", b"1")
            bus.send("t", b"2")
        assert (await future).offset == 0
        assert cluster.values("t") == [[b"1", b"2"]]
        with pytest.raises(ClosedError):
            bus.publish("t", b"3")
        with pytest.raises(ClosedError):
            await bus.topics()


async def test_leaving_with_an_error_does_not_wait() -> None:
    async with FakeCluster(1) as cluster:
        bus = await holdfast.connect(cluster.endpoints).start()
        await bus.create_topic("t")
        cluster.faults.extend(["overloaded"] * 1000)
        future = bus.publish("t", b"1")
        await bus.__aexit__(ZeroDivisionError, ZeroDivisionError(), None)
        with pytest.raises(ClosedError):
            await future


async def test_a_call_over_many_partitions_is_handed_over_in_large_pieces() -> None:
    """What is handed over first leaves first: in small pieces it would leave as tiny batches."""
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("many", partitions=256)
        count = 8_000  # 1.7 MiB, as the SDK counts
        keys = [b"%d" % number for number in range(count)]
        summary = await bus.publish_many("many", [bytes(150)] * count, keys)
        assert summary.count == sum(ack.count for ack in summary.acks) == count
        assert len(summary.acks) == len({ack.partition for ack in summary.acks}) == 256
