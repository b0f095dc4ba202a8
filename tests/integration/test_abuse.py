"""Clients that misbehave on the wire: they get an error or wait, and others are served as before."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

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
        ranges = [bus_pb2.AckRange(topic="t" * 2000, first_offset=i, last_offset=i) for i in range(5_000)]
        absurd = bus_pb2.SubscribeRequest(ack=bus_pb2.Ack(ranges=ranges))
        call = client.bus.Subscribe()
        start = bus_pb2.SubscribeStart(group="g", topics=["t"], credits=1)
        await call.write(bus_pb2.SubscribeRequest(start=start))
        await call.write(absurd)
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
        begun = [asyncio.ensure_future(call.initial_metadata()) for call in calls]
        await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
        assert len(await client.replay("big")) == 24
        await client.check()
        await channel.close()
        await asyncio.gather(*begun, return_exceptions=True)


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


class Raw(bytes):
    """A request that says when it is gone."""

    gone: ClassVar[int] = 0

    def __del__(self) -> None:
        Raw.gone += 1


class KnottedContext:
    """As gRPC's: it keeps the exception that ended the call, whose traceback keeps it."""

    def __init__(self) -> None:
        self.ended: BaseException | None = None

    def time_remaining(self) -> float:
        return 10.0

    def invocation_metadata(self) -> None:
        return None

    async def abort(self, *_: object) -> None:
        self.ended = grpc.aio.AbortError("aborted")
        raise self.ended


async def as_stream(items: Iterator[bytes]) -> AsyncIterator[bytes]:
    for item in items:
        yield item
        del item


@pytest.mark.parametrize("telemetry", [False, True])
async def test_a_refused_request_is_let_go_of_at_once(telemetry: bool, tmp_path: Path) -> None:
    """A flood of bad requests must not wait in memory for the cycle collector."""
    async with single(tmp_path, telemetry={"enabled": telemetry}) as (broker, client):
        await client.publish(b"first", producer_id=1)
        assert broker._services is not None
        service = broker._services.publish
        publish = service.publish_observed if telemetry else service.publish
        bad = [
            publish_request([b"x"], "nope"),
            publish_request([b"x"], producer_id=1, base_sequence=5),
            bus_pb2.PublishRequest(topic="t"),
        ]
        gc.disable()
        try:
            for request in bad:
                Raw.gone = 0
                context: Any = KnottedContext()
                with pytest.raises(grpc.aio.AbortError):
                    await publish(Raw(request.SerializeToString()), context)
                assert Raw.gone == 1
            Raw.gone = 0
            raws = (Raw(request.SerializeToString()) for request in bad)
            stream = service.publish_stream(as_stream(raws), KnottedContext())  # type: ignore[arg-type]
            assert len([message async for message in stream]) >= 1
            assert Raw.gone == len(bad)
        finally:
            gc.enable()
        await client.check()
