"""Replay through connections that break: no gap, no repeat, nothing damaged."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import holdfast
from holdfast.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    OffsetOutOfRangeError,
    UnavailableError,
    UnknownTopicError,
)

from .fake_bus import FakeCluster


async def fill(bus: holdfast.Client, count: int, **options: int) -> None:
    await bus.create_topic("t", partitions=2)
    for first in range(0, count, 10):
        numbers = range(first, min(first + 10, count))
        await bus.publish_many(
            "t", [b"%d" % n for n in numbers], [f"k{n % 4}" for n in numbers], timestamps=[*numbers]
        )


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.one_of(st.none(), st.integers(0, 4)), max_size=5),
    message_batches=st.integers(1, 4),
    corrupt=st.booleans(),
)
def test_no_gap_and_no_repeat(cuts: list[int | None], message_batches: int, corrupt: bool) -> None:
    async def run() -> None:
        async with (
            FakeCluster(2, message_batches) as cluster,
            holdfast.connect(cluster.endpoints) as bus,
        ):
            await fill(bus, 100)
            cluster.replay_faults.extend(cuts)
            cluster.corrupt_next_replay = corrupt
            seen: dict[int, list[int]] = {0: [], 1: []}
            async for record in bus.replay("t"):
                assert record.value == cluster.values("t")[record.partition][record.offset]
                assert record.timestamp_us == int(record.value)
                seen[record.partition].append(record.offset)
            for number, offsets in seen.items():
                assert offsets == list(range(len(cluster.values("t")[number])))

    asyncio.run(run())


async def test_the_end_is_that_of_the_call_even_after_a_break() -> None:
    async with FakeCluster(2, 1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await fill(bus, 60)
        cluster.replay_faults.extend([3])
        seen = []
        async for record in bus.replay("t"):
            if not seen:
                await bus.publish_many("t", [b"late"] * 50)
            seen.append(record.value)
        assert sorted(map(int, seen)) == list(range(60))
        assert len(cluster.replays) == 2


async def test_following_goes_on_after_a_break() -> None:
    async with FakeCluster(2, 1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await fill(bus, 40)
        seen = []
        async for record in bus.replay("t", follow=True):
            seen.append(int(record.value))
            if len(seen) == 40:
                await bus.publish("t", b"40")
            if len(seen) == 41:
                break
        assert sorted(seen) == list(range(41))
        assert len(cluster.replays) > 1  # this broker ends every stream: the client comes back


async def test_times_are_exact_to_the_record() -> None:
    """Brokers may serve whole batches: what lies outside the window is left out here."""
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await fill(bus, 100)
        start = datetime(1970, 1, 1, microsecond=13, tzinfo=UTC)
        end = datetime(1970, 1, 1, microsecond=57, tzinfo=UTC)
        numbers = [int(record.value) async for record in bus.replay("t", start=start, end=end)]
        assert sorted(numbers) == list(range(13, 57))
        batches = [batch async for batch in bus.replay_batches("t", start=start, end=end)]
        assert sorted(time for batch in batches for time in batch.timestamps_us) == list(range(13, 57))
        for batch in batches:
            for offset, value in zip(batch.offsets, batch.values, strict=True):
                assert cluster.values("t")[batch.partition][offset] == value


async def test_a_replica_that_lags_is_waited_for_and_a_wrong_offset_is_not() -> None:
    async with FakeCluster(1, 1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await fill(bus, 40)
        with pytest.raises(OffsetOutOfRangeError) as refused:
            await anext(bus.replay("t", start={0: 1000}))
        assert refused.value.metadata["start_offset"] == "0"

        log = cluster.topics["t"].logs[0]
        hidden: list[bytes] = []
        records = bus.replay("t", partitions=[0])
        cluster.replay_faults.append(1)
        await anext(records)
        hidden, log[:] = log[5:], log[:5]
        rest = asyncio.ensure_future(collect(records))
        while len(cluster.replays) < 3:
            await asyncio.sleep(0.001)
        log.extend(hidden)
        assert len(await rest) == len(log) - 1


async def collect(records: object) -> list[holdfast.Record]:
    return [record async for record in records]  # type: ignore[attr-defined]


async def test_columns_and_records_agree() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("t")
        futures = [
            bus.publish("t", b"a", "k", headers={"h": "v"}, timestamp=5),
            bus.publish("t", b"b", timestamp=6),
        ]
        await asyncio.gather(*futures)
        (batch,) = [batch async for batch in bus.replay_batches("t")]
        assert batch.keys == [b"k", None]
        assert batch.values == [b"a", b"b"]
        assert batch.headers == [(("h", b"v"),), ()]
        assert batch.timestamps_us == [5, 6]
        assert len(batch) == 2
        assert "t[0]@0..1" in repr(batch)
        first, second = batch
        assert (first.key, first.value, first.header("h"), first.header("x")) == (b"k", b"a", b"v", None)
        assert (second.key, second.headers) == (None, ())
        assert first.timestamp == datetime(1970, 1, 1, microsecond=5, tzinfo=UTC)
        assert "@0" in repr(first)
        with pytest.raises(FailedPreconditionError):
            first.ack()


async def test_no_broker_left() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await fill(bus, 10)
        await cluster.nodes[0].stop()
        with pytest.raises(UnavailableError):
            await anext(bus.replay("t", timeout=0.2))


@pytest.mark.parametrize(
    "options",
    [
        {"start": "first"},
        {"start": -1},
        {"start": {0: -1}},
        {"start": datetime(2020, 1, 1)},
        {"end": 1.5},
        {"partitions": [-1]},
        {"time_basis": "wall"},
    ],
)
async def test_wrong_places(options: dict[str, object]) -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        with pytest.raises(InvalidArgumentError):
            await anext(bus.replay("t", **options))  # type: ignore[arg-type]


async def test_an_unknown_topic() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        with pytest.raises(UnknownTopicError):
            await anext(bus.replay("no"))
