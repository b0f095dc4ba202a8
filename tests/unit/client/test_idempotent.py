"""Publishing with idempotency keys to brokers that fail in every way they can."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import holdfast
from holdfast import Ack
from holdfast.errors import (
    ClosedError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    OutcomeUnknownError,
    OverloadedError,
    RecordTooLargeError,
    UnknownTopicError,
)

from .fake_bus import FakeCluster
from .model_broker import POISON

FAULTS = (
    "",
    "cut",
    "lost",
    "overloaded",
    "move",
    "unknown, stored",
    "unknown, not stored",
    "internal, stored",
)


async def test_a_repeat_is_answered_with_the_first_place() -> None:
    async with FakeCluster() as cluster, holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("t")
        assert await bus.publish("t", b"1", idempotency_key="a") == Ack("t", 0, 0)
        again = await bus.publish("t", b"2", idempotency_key=b"a")
        assert again == Ack("t", 0, 0, duplicate=True)
        assert (await bus.publish("t", b"3", idempotency_key="b")) == Ack("t", 0, 1)
        assert cluster.values("t") == [[b"1", b"3"]]


async def test_what_is_handed_in_together_travels_together_and_one_call_is_under_way() -> None:
    async with FakeCluster() as cluster, holdfast.connect(cluster.endpoints, batch_bytes=1000) as bus:
        await bus.create_topic("t")
        first = [bus.publish("t", b"%d" % n, idempotency_key=f"{n}") for n in range(5)]
        await asyncio.gather(*first)
        assert cluster.calls == [5]
        more = [bus.publish("t", bytes(100), idempotency_key=f"m{n}") for n in range(100)]
        await asyncio.gather(*more)
        assert max(cluster.calls) <= 10
        assert sum(cluster.calls) == 105
        assert cluster.most_under_way == 1
        assert [ack.result().offset for ack in [*first, *more]] == list(range(105))


@settings(max_examples=25, deadline=None)
@given(
    faults=st.lists(st.sampled_from(FAULTS), max_size=12),
    count=st.integers(1, 60),
    batch_bytes=st.sampled_from([200, 2000]),
    keys=st.integers(1, 80),
)
def test_every_key_once_and_in_order(faults: list[str], count: int, batch_bytes: int, keys: int) -> None:
    async def run() -> None:
        async with FakeCluster(2) as cluster:
            async with holdfast.connect(cluster.endpoints, batch_bytes=batch_bytes) as bus:
                await bus.create_topic("t")
                cluster.faults.extend(faults)
                futures = []
                for number in range(count):
                    futures.append(bus.publish("t", b"%d" % number, idempotency_key=f"k{number % keys}"))
                    if number % 7 == 6:
                        await asyncio.sleep(0)
                acks = await asyncio.gather(*futures)
            assert cluster.values("t") == [[b"%d" % number for number in range(min(count, keys))]]
            assert [ack.offset for ack in acks] == [number % keys for number in range(count)]
            assert all(ack.duplicate for ack in acks[keys:])
            assert cluster.most_under_way == 1

    asyncio.run(run())


async def test_a_record_that_is_refused_fails_alone() -> None:
    async with FakeCluster() as cluster, holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("t")
        values = [b"%d" % n if n != 5 else POISON for n in range(9)]
        acks = await asyncio.gather(
            *[bus.publish("t", value, idempotency_key=f"{n}") for n, value in enumerate(values)],
            return_exceptions=True,
        )
        assert isinstance(acks[5], RecordTooLargeError)
        assert [ack.offset for ack in acks if isinstance(ack, Ack)] == list(range(8))
        assert cluster.values("t") == [[b"0", b"1", b"2", b"3", b"4", b"6", b"7", b"8"]]


@pytest.mark.parametrize("key", ["", "k" * 257, b"k" * 257, 7, "\udc80"])
async def test_bad_keys_name_their_argument(key: Any) -> None:
    async with FakeCluster() as cluster, holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("t")
        with pytest.raises(InvalidArgumentError) as refused:
            bus.publish("t", b"v", idempotency_key=key)
        assert refused.value.metadata["field"] == "idempotency_key"
        assert cluster.calls == []


async def test_a_topic_without_a_window_says_what_to_do() -> None:
    async with FakeCluster() as cluster, holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("t")
        cluster.idempotency_ttl_ms = 0
        with pytest.raises(FailedPreconditionError, match="idempotency_ttl_ms") as refused:
            await bus.publish("t", b"v", idempotency_key="a")
        assert refused.value.metadata["field"] == "idempotency_key"
        assert cluster.calls == []
        cluster.idempotency_ttl_ms = 1000
        assert (await bus.publish("t", b"v", idempotency_key="a")).offset == 0


async def test_an_unknown_topic_and_one_that_comes_later() -> None:
    async with FakeCluster() as cluster, holdfast.connect(cluster.endpoints) as bus:
        with pytest.raises(UnknownTopicError):
            await bus.publish("t", b"v", idempotency_key="a")
        assert bus._keyed is not None
        await bus.flush()
        assert bus._keyed._queues == {}, "topics that are not there take no memory"
        await bus.create_topic("t")
        assert (await bus.publish("t", b"v", idempotency_key="a")).offset == 0
        cluster.faults.append("unknown topic")
        with pytest.raises(UnknownTopicError):
            await bus.publish("t", b"v", idempotency_key="b")
        assert (await bus.publish("t", b"v", idempotency_key="b")).offset == 1


async def test_it_is_not_repeated_when_the_topic_may_have_forgotten_it() -> None:
    async with FakeCluster() as cluster, holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("t")
        cluster.idempotency_ttl_ms = 200
        cluster.faults.extend(["unknown, not stored"] * 1000)
        with pytest.raises(OutcomeUnknownError, match=r"within the 0\.2 s"):
            await bus.publish("t", b"v", idempotency_key="a")
        # As long as nothing can have been stored, the window does not matter.
        cluster.faults.clear()
        cluster.faults.extend(["overloaded"] * 4)
        assert (await bus.publish("t", b"v", idempotency_key="b")).offset == 0


@pytest.mark.parametrize(
    ("fault", "outcome"), [("overloaded", "nothing was stored"), ("lost", "it may be stored or not")]
)
async def test_the_delivery_timeout_ends_with_a_reason(fault: str, outcome: str) -> None:
    async with FakeCluster() as cluster, holdfast.connect(cluster.endpoints, delivery_timeout=0.5) as bus:
        await bus.create_topic("t")
        cluster.faults.extend([fault] * 1000)
        with pytest.raises(DeadlineExceededError, match=outcome):
            await bus.publish("t", b"1", idempotency_key="a")
        cluster.faults.clear()
        assert (await bus.publish("t", b"1", idempotency_key="a")).duplicate == (fault == "lost")


async def test_what_is_late_before_it_could_leave_is_not_sent() -> None:
    async with FakeCluster() as cluster, holdfast.connect(cluster.endpoints, delivery_timeout=0.3) as bus:
        await bus.create_topic("t")
        await bus.publish("t", b"0", idempotency_key="a")
        cluster.faults.append("silent")
        first = bus.publish("t", b"1", idempotency_key="b", timeout=0.6)
        while len(cluster.calls) < 2:
            await asyncio.sleep(0.001)
        second = bus.publish("t", b"2", idempotency_key="c")
        last = bus.publish("t", b"3", idempotency_key="d", timeout=5)
        for future in (first, second):
            with pytest.raises(DeadlineExceededError):
                await future
        assert (await last).offset == 1
        assert cluster.values("t") == [[b"0", b"3"]]
        assert cluster.calls == [1, 1, 1]


async def test_a_short_timeout_ends_the_waiting_only() -> None:
    async with FakeCluster() as cluster, holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("t")
        cluster.faults.extend(["overloaded"] * 5)
        with pytest.raises(DeadlineExceededError, match="may yet be stored"):
            await bus.publish("t", b"0", idempotency_key="a", timeout=0.001)
        await bus.flush()
        assert cluster.values("t") == [[b"0"]]


async def test_what_waits_is_bounded() -> None:
    async with FakeCluster() as cluster, holdfast.connect(cluster.endpoints, max_buffered_bytes=1000) as bus:
        await bus.create_topic("t")
        cluster.faults.extend(["overloaded"] * 5)
        futures = [bus.publish("t", bytes(200), idempotency_key=f"{n}") for n in range(4)]
        with pytest.raises(OverloadedError):
            await futures[3]
        await bus.drain()
        await bus.flush()
        assert [future.result().offset for future in futures[:3]] == [0, 1, 2]
        assert (await bus.publish("t", bytes(200), idempotency_key="3")).offset == 3


async def test_closing_sends_what_waits_and_an_abort_does_not() -> None:
    async with FakeCluster() as cluster:
        async with holdfast.connect(cluster.endpoints) as bus:
            await bus.create_topic("t")
            future = bus.publish("t", b"0", idempotency_key="a")
        assert future.result().offset == 0
        with pytest.raises(ClosedError):
            bus.publish("t", b"0", idempotency_key="a")
        cluster.faults.extend(["overloaded"] * 1000)
        with suppress(ZeroDivisionError):
            async with holdfast.connect(cluster.endpoints) as bus:
                waits = bus.publish("t", b"1", idempotency_key="b")
                await asyncio.sleep(0)
                raise ZeroDivisionError
        with pytest.raises(ClosedError):
            await waits
        assert cluster.values("t") == [[b"0"]]
