"""Clients that misbehave on the wire: they get an error or wait, and others are served as before."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc
import pytest

from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.v1 import bus_pb2, bus_pb2_grpc, records_pb2

from .brokers import error_of, publish_request, single

MIB = 1 << 20


async def test_a_message_over_the_limit_is_not_called_retriable_when_measured(tmp_path: Path) -> None:
    async with single(tmp_path, telemetry={"enabled": True}) as (_, client):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.channel.unary_unary("/holdfast.v1.EventBus/Publish")(bytes(63 * MIB), timeout=30)
        assert error_of(caught.value)[:2] == ("INVALID_ARGUMENT", "RECORD_TOO_LARGE")
        await client.check()


async def test_positions_of_an_old_duplicate_are_not_made_up(tmp_path: Path) -> None:
    async with single(tmp_path) as (_, client):
        records = [records_pb2.Record(value=b"a"), records_pb2.Record(value=b"b")]
        for sequence in range(0, 40, 2):
            last = bus_pb2.PublishRequest(
                topic="t", records=records, partition=0, producer_id=7, base_sequence=sequence
            )
            await client.bus.Publish(last, timeout=10)
        again = await client.bus.Publish(last, timeout=10)
        assert again.acks[0].duplicate
        assert [p.offset for p in again.positions] == [38, 39]
        last.base_sequence = 0
        old = await client.bus.Publish(last, timeout=10)
        assert old.acks[0].duplicate
        assert [p.offset for p in old.positions] == [-1, -1]
        assert len(await client.replay()) == 40


async def test_a_subscription_message_of_absurd_size(tmp_path: Path) -> None:
    async with single(tmp_path) as (_, client):
        await client.publish(b"first")
        call = client.bus.Subscribe()
        start = bus_pb2.SubscribeStart(group="g", topics=["t"], credits=1)
        await call.write(bus_pb2.SubscribeRequest(start=start))
        ranges = [bus_pb2.AckRange(topic="t", first_offset=i, last_offset=i) for i in range(900_000)]
        await call.write(bus_pb2.SubscribeRequest(ack=bus_pb2.Ack(ranges=ranges)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert error_of(caught.value)[:2] == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
        await client.check()


async def test_readers_that_read_nothing_do_not_hold_up_others(tmp_path: Path) -> None:
    async with single(tmp_path) as (_, client):
        await client.publish(b"first")
        await client.create_topic("big")
        block = publish_request([random.Random(1).randbytes(MIB - 100)], "big")
        for _ in range(24):
            await client.bus.Publish(block, timeout=10)
        channel = grpc.aio.insecure_channel(
            client.address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
        )
        stub = bus_pb2_grpc.EventBusStub(channel)
        request = bus_pb2.ReplayRequest(topic="big", format=bus_pb2.FORMAT_BATCHES, follow=True)
        calls = [stub.Replay(request) for _ in range(100)]
        await asyncio.gather(*(call.initial_metadata() for call in calls[:4]))
        assert len(await client.replay("big")) == 24
        await client.check()
        await channel.close()


async def test_more_following_readers_than_the_store_has_slots(tmp_path: Path) -> None:
    """A reader that waits holds no read transaction."""
    async with single(tmp_path) as (_, client):
        await client.publish(b"first")
        count = min(600, DeliverySettings().max_replays - 1)
        request = bus_pb2.ReplayRequest(topic="t", follow=True)
        calls = [client.bus.Replay(request) for _ in range(count)]
        for call in calls:
            message = await asyncio.wait_for(call.read(), 30)
            assert isinstance(message, bus_pb2.ReplayResponse)
        await client.check()
        for call in calls:
            call.cancel()
