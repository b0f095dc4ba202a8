"""Publish and PublishStream over gRPC, against an engine without consensus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from rpc_fakes import Served, error_of, make_engine

from holdfast.errors import NoLeaderError, OverloadedError
from holdfast.records import decode_batch, encode_batch, partition_for
from holdfast.rpc.settings import Limits
from holdfast.storage import partitions, topics
from holdfast.v1 import bus_pb2, records_pb2, topics_pb2

PUBLISH = "/holdfast.v1.EventBus/Publish"


def batch_request(partition: int = 0, topic: str = "t", **more: int) -> bus_pb2.PublishRequest:
    batch = encode_batch([b"x", b"y"], timestamps_us=7)
    return bus_pb2.PublishRequest(
        topic=topic, batches=[bus_pb2.PartitionBatch(partition=partition, batch=batch)], **more
    )


def record(key: bytes = b"", value: bytes = b"v", time_us: int = 0) -> records_pb2.Record:
    return records_pb2.Record(key=key, value=value, timestamp_us=time_us)


async def with_topic(served: Served, partitions_: int = 4) -> None:
    await served.topics.CreateTopic(topics_pb2.CreateTopicRequest(name="t", partitions=partitions_))


async def test_batches_are_stored_untouched() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        request = batch_request(3)
        answer = await served.bus.Publish(request)
        assert [(a.partition, a.base_offset, a.count, a.duplicate) for a in answer.acks] == [(3, 0, 2, False)]
        assert not answer.positions
        with served.engine.store.read() as reader:
            row = topics.find(reader, "t")
            assert row is not None
            index = partitions.index_at(reader, row.id, 3, 0)
            assert index is not None
            assert partitions.read_batch(reader, index) == request.batches[0].batch


async def test_plain_records_are_partitioned_and_stamped() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        records = [record(b"a", b"1", 5), record(b"", b"2"), record(b"b", b"3"), record(b"a", b"4")]
        records[0].headers.add(name="h", value=b"w")
        answer = await served.bus.Publish(bus_pb2.PublishRequest(topic="t", records=records))
        where = [p.partition for p in answer.positions]
        assert (where[0], where[2], where[3]) == (partition_for(b"a", 4), partition_for(b"b", 4), where[0])
        assert answer.positions[3].offset > answer.positions[0].offset
        assert sum(a.count for a in answer.acks) == 4
        with served.engine.store.read() as reader:
            row = topics.find(reader, "t")
            assert row is not None
            index = partitions.index_at(reader, row.id, where[0], 0)
            assert index is not None
            decoded = decode_batch(partitions.read_batch(reader, index))
        assert decoded.values[0] == b"1"
        assert decoded.timestamps_us[0] == 5
        assert all(time_us > 0 for time_us in decoded.timestamps_us)
        assert list(decoded.headers[0]) == [("h", b"w")]


async def test_records_without_key_take_turns_over_partitions() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        request = bus_pb2.PublishRequest(topic="t", records=[record(), record()])
        seen = []
        for _ in range(4):
            answer = await served.bus.Publish(request)
            assert len(answer.acks) == 1
            seen.append(answer.acks[0].partition)
        assert sorted(seen) == [0, 1, 2, 3]


async def test_idempotent_records_need_their_partition() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        request = bus_pb2.PublishRequest(topic="t", records=[record()], producer_id=9)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.bus.Publish(request)
        assert error_of(caught.value)[2]["field"] == "partition"
        request.partition = 2
        assert not (await served.bus.Publish(request)).acks[0].duplicate
        assert (await served.bus.Publish(request)).acks[0].duplicate


def corrupt() -> bus_pb2.PublishRequest:
    request = batch_request()
    batch = records_pb2.RecordBatch.FromString(request.batches[0].batch)
    batch.crc32c ^= 1
    request.batches[0].batch = batch.SerializeToString()
    return request


def lying() -> bus_pb2.PublishRequest:
    request = batch_request()
    batch = records_pb2.RecordBatch.FromString(request.batches[0].batch)
    batch.count = 3
    request.batches[0].batch = batch.SerializeToString()
    return request


def twice() -> bus_pb2.PublishRequest:
    request = batch_request()
    request.batches.add().CopyFrom(request.batches[0])
    return request


def both() -> bus_pb2.PublishRequest:
    request = batch_request()
    request.records.add(value=b"x")
    return request


INVALID = grpc.StatusCode.INVALID_ARGUMENT
BAD = [
    (batch_request(topic="none"), grpc.StatusCode.NOT_FOUND, "UNKNOWN_TOPIC"),
    (batch_request(topic=""), INVALID, "INVALID_ARGUMENT"),
    (batch_request(4), grpc.StatusCode.NOT_FOUND, "UNKNOWN_PARTITION"),
    (bus_pb2.PublishRequest(topic="t"), INVALID, "INVALID_ARGUMENT"),
    (
        bus_pb2.PublishRequest(topic="t", records=[record()], partition=9),
        grpc.StatusCode.NOT_FOUND,
        "UNKNOWN_PARTITION",
    ),
    (
        bus_pb2.PublishRequest(topic="t", batches=[bus_pb2.PartitionBatch(batch=b"\xff\xff")]),
        INVALID,
        "MALFORMED_BATCH",
    ),
    (bus_pb2.PublishRequest(topic="t", batches=[bus_pb2.PartitionBatch()]), INVALID, "MALFORMED_BATCH"),
    (corrupt(), grpc.StatusCode.DATA_LOSS, "CORRUPT_BATCH"),
    (lying(), INVALID, "MALFORMED_BATCH"),
    (twice(), INVALID, "INVALID_ARGUMENT"),
    (both(), INVALID, "INVALID_ARGUMENT"),
    (batch_request(producer_id=1 << 63), INVALID, "INVALID_ARGUMENT"),
    (
        bus_pb2.PublishRequest(topic="t", records=[record(value=bytes((1 << 20) + 1))]),
        INVALID,
        "RECORD_TOO_LARGE",
    ),
    (bus_pb2.PublishRequest(topic="t", records=[record(key=bytes(5000))]), INVALID, "RECORD_TOO_LARGE"),
    (batch_request(producer_id=5, producer_epoch=0), None, ""),
]


@pytest.mark.parametrize("number", range(len(BAD)))
async def test_bad_requests_have_clear_errors(number: int) -> None:
    request, code, reason = BAD[number]
    async with Served(make_engine()) as served:
        await with_topic(served)
        if code is not None:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.bus.Publish(request)
            assert error_of(caught.value)[:2] == (code, reason)
        assert (await served.bus.Publish(batch_request())).acks[0].base_offset == 0
        assert served.admission.calls == served.admission.bytes == 0


async def test_bytes_that_are_no_request() -> None:
    async with Served(make_engine()) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.raw(PUBLISH, b"\xff\xff\xff")
        assert error_of(caught.value)[:2] == (INVALID, "INVALID_ARGUMENT")


async def test_engine_errors_keep_their_facts() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        served.engine.fail = NoLeaderError("moved", metadata={"leader": "n2"})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.bus.Publish(batch_request())
        assert error_of(caught.value) == (grpc.StatusCode.UNAVAILABLE, "NO_LEADER", {"leader": "n2"})


async def test_a_full_node_refuses_unary_calls() -> None:
    async with Served(make_engine(), Limits(max_inflight_calls=2)) as served:
        await with_topic(served)
        served.engine.hold = True
        calls = [asyncio.ensure_future(served.bus.Publish(batch_request())) for _ in range(5)]
        done: set[asyncio.Future[object]] = set()
        while len(done) < 3:
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            done, _ = await asyncio.wait(done)
            done = {call for call in calls if call.done()}
        for call in done:
            error = call.exception()
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error_of(error)[1] == "OVERLOADED"
        served.engine.hold = False
        served.engine.release()
        answers = [await call for call in calls if call not in done]
        assert sorted(a.acks[0].base_offset for a in answers) == [0, 2]


async def test_stream_answers_in_order_and_survives_errors() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)

        async def requests() -> AsyncIterator[bus_pb2.PublishRequest]:
            for i in range(20):
                yield batch_request(topic="none" if i == 7 else "t", request_id=i)

        results = [r async for message in served.bus.PublishStream(requests()) for r in message.results]
        assert [r.request_id for r in results] == list(range(20))
        assert results[7].error.reason == "UNKNOWN_TOPIC"
        offsets = [r.response.acks[0].base_offset for r in results if not r.HasField("error")]
        assert offsets == list(range(0, 38, 2))
        assert served.admission.calls == 0


async def test_stream_takes_malformed_messages_as_failed_requests() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        call = served.channel.stream_stream("/holdfast.v1.EventBus/PublishStream")(
            iter([b"\xff\xff", batch_request(request_id=1).SerializeToString()])
        )
        raw = [message async for message in call]
        results = [r for m in raw for r in bus_pb2.PublishStreamResponse.FromString(m).results]
        assert results[0].error.reason == "INVALID_ARGUMENT"
        assert results[1].response.acks[0].base_offset == 0


async def test_ready_results_travel_together() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        served.engine.hold = True
        call = served.bus.PublishStream()
        for i in range(10):
            await call.write(batch_request(request_id=i))
        while served.engine.held < 10:
            await asyncio.sleep(0)
        served.engine.release()
        message = await call.read()
        assert [r.request_id for r in message.results] == list(range(10))
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_stream_in_flight_is_bounded() -> None:
    async with Served(make_engine(), Limits(stream_inflight_requests=3)) as served:
        await with_topic(served)
        served.engine.hold = True
        call = served.bus.PublishStream()
        for i in range(8):
            await call.write(batch_request(request_id=i))
        while served.engine.held < 3:
            await asyncio.sleep(0)
        # A unary call overtakes: what it shows is that the stream was not read on.
        with pytest.raises(grpc.aio.AioRpcError):
            await served.bus.Publish(batch_request(topic="none"))
        assert served.engine.held == 3
        served.engine.hold = False
        served.engine.release()
        got: list[int] = []
        while len(got) < 8:
            got += [r.request_id for r in (await call.read()).results]
        assert got == list(range(8))
        call.cancel()


async def test_stream_waits_while_the_engine_is_full() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        served.engine.refuse = OverloadedError("full")
        call = served.bus.PublishStream()
        await call.write(batch_request(request_id=1))
        while served.admission.calls == 0:
            await asyncio.sleep(0)
        served.engine.refuse = None
        message = await call.read()
        assert message.results[0].response.acks[0].base_offset == 0
        call.cancel()


async def test_an_abandoned_stream_gives_back_what_it_held() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        served.engine.hold = True
        call = served.bus.PublishStream()
        for i in range(4):
            await call.write(batch_request(request_id=i))
        while served.engine.held < 4:
            await asyncio.sleep(0)
        call.cancel()
        while served.admission.calls:
            await asyncio.sleep(0.001)
        assert served.admission.bytes == 0
        served.engine.hold = False
        served.engine.release()  # they commit all the same
        assert (await served.bus.Publish(batch_request())).acks[0].base_offset == 8
