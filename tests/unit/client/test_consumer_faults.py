"""Consuming through broken connections: everything at least once, nothing acknowledged comes again."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import holdfast
from holdfast.errors import ClosedError, InvalidArgumentError, UnavailableError, UnknownTopicError

from .fake_bus import FakeCluster


async def fill(bus: holdfast.Client, count: int, partitions: int = 2) -> None:
    await bus.create_topic("t", partitions=partitions)
    numbers = range(count)
    await bus.publish_many("t", [b"%d" % n for n in numbers], [f"k{n % 7}" for n in numbers])


@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.one_of(st.none(), st.integers(0, 30)), max_size=4),
    max_in_flight=st.integers(1, 50),
)
def test_every_record_and_none_twice_when_acked_at_once(cuts: list[int | None], max_in_flight: int) -> None:
    async def run() -> None:
        async with FakeCluster(2) as cluster, holdfast.connect(cluster.endpoints) as bus:
            await fill(bus, 60)
            cluster.subscribe_faults.extend(cuts)
            seen: Counter[int] = Counter()
            async with bus.subscribe("t", group="g", max_in_flight=max_in_flight) as subscription:
                async for record in subscription:
                    seen[int(record.value)] += 1
                    record.ack()
                    if len(seen) == 60:
                        break
                offsets = await subscription.committed()
            assert sorted(seen) == list(range(60))
            assert max(seen.values()) == 1
            assert offsets == {("t", n): len(log) for n, log in enumerate(cluster.values("t"))}

    asyncio.run(run())


async def test_what_was_not_acked_comes_again_after_a_break() -> None:
    events: list[holdfast.SubscriptionEvent] = []
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await fill(bus, 20, partitions=1)
        cluster.subscribe_faults.extend([10])
        held: list[holdfast.Record] = []
        again: list[int] = []
        subscription = bus.subscribe("t", group="g", on_event=events.append)
        async for record in subscription:
            if any(isinstance(event, holdfast.Disconnected) for event in events):
                again.append(record.offset)
                record.ack()
                if record.offset == 19:
                    break
            elif record.offset % 2:
                record.ack()
            else:
                held.append(record)
        lost = {record.offset for record in held}
        assert lost <= set(again)
        assert not {offset for offset in again if offset < 10 and offset % 2}  # acknowledged before
        assert await subscription.committed() == {("t", 0): 20}
        await subscription.close()
    kinds = [type(event) for event in events]
    assert kinds[0] is holdfast.Assigned
    assert holdfast.Committed in kinds


async def test_credits_bound_what_is_under_way() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await fill(bus, 50, partitions=1)
        subscription = bus.subscribe("t", group="g", max_in_flight=5)
        taken = []
        while len(taken) < 5:
            taken += await subscription.take(100)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(subscription.take(1), 0.05)
        for record in reversed(taken):
            record.ack()
        assert [record.offset for record in await subscription.take(1)] == [5]
        await subscription.close()
        assert cluster.committed[("t", 0)] == 5


async def test_acks_in_any_order_commit_the_prefix() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await fill(bus, 10, partitions=1)
        async with bus.subscribe("t", group="g") as subscription:
            records = []
            while len(records) < 10:
                records += await subscription.take(10)
            for offset in (3, 1, 0, 7, 8):
                records[offset].ack()
            assert await subscription.committed() == {("t", 0): 2}
            await records[2].ack()
            await records[2].ack()
            assert await subscription.committed() == {("t", 0): 4}
        assert cluster.committed[("t", 0)] == 4


async def test_who_breaks_off_goes_on_where_it_was() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await fill(bus, 30, partitions=1)
        cluster.whole_batches = True
        seen = []
        async with bus.subscribe("t", group="g") as subscription:
            for _ in range(3):
                async for record in subscription:
                    seen.append(record.offset)
                    if len(seen) % 5 == 0:
                        break
            seen += [record.offset for record in await subscription.take(10)]
            seen += [record.offset for record in await subscription.take(10)]
        assert seen == list(range(30))


async def test_auto_ack() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await fill(bus, 10, partitions=1)
        async with bus.subscribe("t", group="g", auto_ack=True) as subscription:
            async for record in subscription:
                if record.offset == 7:
                    break
        assert cluster.committed[("t", 0)] == 7


async def test_a_refused_ack_is_an_event() -> None:
    events: list[holdfast.SubscriptionEvent] = []
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await fill(bus, 3, partitions=1)
        subscription = bus.subscribe("t", group="g", on_event=events.append)
        (first, *_) = await subscription.take(1)
        # As if the broker had lost track: the client believes this one was delivered.
        subscription._partitions[("t", 0)].deliver(100, 100)
        subscription.ack(first._replace(offset=100))
        while not any(isinstance(event, holdfast.AckRefused) for event in events):
            await asyncio.sleep(0.001)
        refused = next(event for event in events if isinstance(event, holdfast.AckRefused))
        assert (refused.first_offset, refused.error.reason) == (100, "NOT_DELIVERED")
        assert len(await subscription.take(2)) == 2
        await subscription.abandon()


async def test_it_ends_when_closed_and_fails_when_it_cannot_be() -> None:
    async with FakeCluster(1) as cluster, holdfast.connect(cluster.endpoints) as bus:
        await fill(bus, 3, partitions=1)
        subscription = bus.subscribe("t", group="g")
        reader = asyncio.ensure_future(read(subscription))
        while not cluster.committed:
            await asyncio.sleep(0.001)
        await subscription.close()
        assert await reader == 3
        with pytest.raises(UnknownTopicError):
            await anext(aiter(bus.subscribe("no", group="g")))
        with pytest.raises(InvalidArgumentError):
            bus.subscribe("t", group="g", max_in_flight=0)
        await cluster.nodes[0].stop()
        with pytest.raises(UnavailableError):
            await anext(aiter(bus.subscribe("t", group="g", give_up_after=0.1)))


async def read(subscription: holdfast.Subscription) -> int:
    count = 0
    async for record in subscription:
        await record.ack()
        count += 1
    return count


async def test_closing_the_client_closes_subscriptions() -> None:
    async with FakeCluster(1) as cluster:
        async with holdfast.connect(cluster.endpoints) as bus:
            await fill(bus, 3, partitions=1)
            subscription = bus.subscribe("t", group="g")
            for record in await subscription.take(3):
                record.ack()
        assert await subscription.take(1) == []
        assert cluster.committed[("t", 0)] > 0
        with pytest.raises(ClosedError):
            bus.subscribe("t", group="g")
