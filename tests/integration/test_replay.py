"""Replay over gRPC against a real broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from holdfast.cluster.commands import encode_op
from holdfast.records import Compression, decode_batch, encode_batch
from holdfast.storage import journal, partitions
from holdfast.storage.identity import open_store
from holdfast.storage.port import Table
from holdfast.v1 import bus_pb2, log_pb2, topics_pb2

from .delivery_kit import PATIENCE, Node, error_of, leader_of, records_of, single, three

BATCHES = bus_pb2.FORMAT_BATCHES


def at(offset: int) -> bus_pb2.Position:
    return bus_pb2.Position(offset=offset)


def time(time_us: int) -> bus_pb2.Position:
    return bus_pb2.Position(time_us=time_us)


def each(offsets: dict[int, int]) -> bus_pb2.Position:
    return bus_pb2.Position(offsets=bus_pb2.PartitionOffsets(offsets=offsets))


EARLIEST = bus_pb2.Position(earliest=True)
LATEST = bus_pb2.Position(latest=True)


async def filled(node: Node, batches: int = 4, size: int = 5) -> None:
    """Partition 0 of "t": record at offset n has value n and time 1000 * n."""
    await node.create()
    for number in range(batches):
        offsets = range(number * size, (number + 1) * size)
        ack = await node.publish([str(o).encode() for o in offsets], times=[1000 * o for o in offsets])
        assert ack.base_offset == offsets[0]


async def offsets(node: Node, **request: object) -> list[int]:
    return [record.offset for record in records_of(await node.replay(**request))]


async def refusal(node: Node, **request: object) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.replay(**request)
    return error_of(caught.value)


async def test_offset_windows(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await filled(node)
        assert await offsets(node) == list(range(20))
        assert await offsets(node, start=EARLIEST, end=LATEST) == list(range(20))
        assert await offsets(node, start=at(7)) == list(range(7, 20))
        assert await offsets(node, start=at(7), end=at(12)) == list(range(7, 12))
        assert await offsets(node, start=each({0: 3}), end=each({0: 4})) == [3]
        assert await offsets(node, start=at(20)) == []
        assert await offsets(node, start=LATEST) == []
        assert await offsets(node, end=EARLIEST) == []
        assert await offsets(node, start=at(6), linearizable=True) == list(range(6, 20))
        messages = await node.replay(start=at(20))
        assert len(messages) == 1
        assert messages[0].caught_up
        assert [(p.next_offset, p.log_end_offset) for p in messages[0].progress] == [(20, 20)]


async def test_records_carry_everything(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create()
        batch = encode_batch(
            [b"v0", b"v1"], [b"", b"k"], [5, 6], [None, [("h", b"x"), ("h", b"y")]], Compression.ZSTD
        )
        request = bus_pb2.PublishRequest(
            topic="t", batches=[bus_pb2.PartitionBatch(partition=0, batch=batch)]
        )
        ack = (await node.bus.Publish(request, timeout=PATIENCE)).acks[0]
        first, second = records_of(await node.replay())
        assert (first.key, first.value, first.timestamp_us, first.offset) == (b"", b"v0", 5, 0)
        assert (second.key, second.value, second.timestamp_us, second.offset) == (b"k", b"v1", 6, 1)
        assert (second.topic, second.partition) == ("t", 0)
        assert second.append_time_us == ack.append_time_us > 0
        assert [(h.name, h.value) for h in second.headers] == [("h", b"x"), ("h", b"y")]
        stored = (await node.replay(format=BATCHES))[0].batches[0]
        assert stored.batch == batch
        assert stored.append_time_us == ack.append_time_us


async def test_batches_are_untouched_and_windowed(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await filled(node)
        messages = await node.replay(start=at(7), end=at(12), format=BATCHES)
        got = [b for m in messages for b in m.batches]
        assert [(b.base_offset, b.first_offset, b.last_offset) for b in got] == [(5, 7, 9), (10, 10, 11)]
        assert [(b.topic, b.partition) for b in got] == [("t", 0)] * 2
        values = [str(o).encode() for o in range(5, 10)]
        assert got[0].batch == encode_batch(values, timestamps_us=[1000 * o for o in range(5, 10)])
        assert decode_batch(got[1].batch).values[0] == b"10"


async def test_windows_by_record_time_hold_exactly_what_lies_in_them(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create()
        batches = [[50, 10, 30], [5, 6, 7], [40, 41, 42], [20, 90, 25], [100, 101, 102]]
        for times in batches:
            await node.publish([str(t).encode() for t in times], times=times)
        every = [t for times in batches for t in times]
        for low, high in ((20, 43), (0, 200), (43, 50), (91, 100), (6, 7), (200, 300)):
            got = records_of(await node.replay(start=time(low), end=time(high)))
            assert [r.timestamp_us for r in got] == [t for t in every if low <= t < high]
        got = records_of(await node.replay(end=time(20)))
        assert [r.timestamp_us for r in got] == [10, 5, 6, 7]
        sent = await node.replay(start=time(20), end=time(43), format=BATCHES)
        bases = [b.base_offset for m in sent for b in m.batches]
        assert bases == [0, 6, 9]  # 3 and 12 hold nothing of the window
        assert sent[-1].progress[0].next_offset == 15


async def test_windows_by_append_time(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create()
        appended = []
        for number in range(4):
            ack = await node.publish([b"%d" % number, b"x"], times=1)
            appended.append(ack.append_time_us)
        append = bus_pb2.TIME_BASIS_APPEND
        for low, high in ((1, 3), (0, 4), (2, 2)):
            end = time(appended[high]) if high < 4 else time(appended[-1] + 1)
            got = await offsets(node, start=time(appended[low]), end=end, time_basis=append)
            expected = [offset for offset in range(8) if appended[low] <= appended[offset // 2] < end.time_us]
            assert got == expected
        assert await offsets(node, start=time(appended[-1] + 10**9), time_basis=append) == []


async def test_many_partitions_keep_order_and_progress(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create(partitions=3)
        for partition in range(3):
            for number in range(partition + 1):
                await node.publish([b"%d" % number] * 4, partition=partition)
        messages = await node.replay(max_message_bytes=1)
        records = records_of(messages)
        for partition in range(3):
            mine = [r.offset for r in records if r.partition == partition]
            assert mine == list(range(4 * (partition + 1)))
        assert all([p.partition for p in m.progress] == [0, 1, 2] for m in messages)
        assert [p.next_offset for p in messages[-1].progress] == [4, 8, 12]
        assert [m.caught_up for m in messages] == [False] * (len(messages) - 1) + [True]
        some = await node.replay(partitions=[2], start=each({2: 10}))
        assert [(r.partition, r.offset) for r in records_of(some)] == [(2, 10), (2, 11)]


@pytest.mark.parametrize("form", [bus_pb2.FORMAT_RECORDS, bus_pb2.FORMAT_BATCHES])
async def test_a_broken_replay_resumes_without_gap_or_repeat(tmp_path: Path, form: int) -> None:
    async with single(tmp_path) as node:
        await node.create(partitions=2)
        for number in range(12):
            await node.publish([b"x" * 50] * 7, partition=number % 2, compression=Compression.ZSTD)
        seen: list[tuple[int, int]] = []
        progress: dict[int, int] = {0: 0, 1: 0}
        for _ in range(200):
            call = node.bus.Replay(
                bus_pb2.ReplayRequest(topic="t", start=each(progress), format=form, max_message_bytes=150)
            )
            message = await call.read()
            call.cancel()
            seen += [(r.partition, r.offset) for r in message.records]
            for batch in message.batches:
                seen += [(batch.partition, o) for o in range(batch.first_offset, batch.last_offset + 1)]
            progress = {p.partition: p.next_offset for p in message.progress}
            if message.caught_up:
                break
        assert sorted(seen) == [(p, o) for p in range(2) for o in range(42)]
        for partition in range(2):
            assert [o for p, o in seen if p == partition] == list(range(42))


async def test_following_delivers_what_comes_later(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create(partitions=2)
        await node.publish([b"old"])
        call = node.bus.Replay(bus_pb2.ReplayRequest(topic="t", start=LATEST, follow=True))
        async with asyncio.timeout(PATIENCE):
            first = await call.read()
            assert first.caught_up
            assert not first.records
            for number in range(5):
                await node.publish([b"%d" % number], partition=number % 2)
                message = await call.read()
                assert [(r.partition, r.value) for r in message.records] == [(number % 2, b"%d" % number)]
                assert message.caught_up
        call.cancel()


async def test_following_ends_at_an_end_offset_or_append_time(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create()
        request = bus_pb2.ReplayRequest(topic="t", end=at(3), follow=True)
        messages = aiter(node.bus.Replay(request, timeout=PATIENCE))
        assert not (await anext(messages)).records
        await node.publish([b"a", b"b"])
        ack = await node.publish([b"c", b"d"])
        assert [r.offset async for m in messages for r in m.records] == [0, 1, 2]
        end = ack.append_time_us + 1
        request = bus_pb2.ReplayRequest(
            topic="t", start=at(4), end=time(end), follow=True, time_basis=bus_pb2.TIME_BASIS_APPEND
        )
        messages = aiter(node.bus.Replay(request, timeout=PATIENCE))
        await anext(messages)
        ack = await node.publish([b"e"])
        assert ack.append_time_us >= end
        assert [m async for m in messages if m.records] == []


async def test_an_acked_record_is_visible_to_a_reader_that_starts_later(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create()
        for number in range(30):
            await node.publish([b"x"])
            assert len(await offsets(node, start=at(number))) == 1


async def test_deadline_and_cancellation_are_clean(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create()
        call = node.bus.Replay(bus_pb2.ReplayRequest(topic="t", follow=True), timeout=0.3)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [m async for m in call]
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        follower = node.bus.Replay(bus_pb2.ReplayRequest(topic="t", follow=True))
        await follower.read()
        follower.cancel()
        bridge = node.broker.bridge
        async with asyncio.timeout(PATIENCE):
            while bridge._watchers or bridge._watches:
                await asyncio.sleep(0.01)


async def test_bad_requests_are_named(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await filled(node)
        out = grpc.StatusCode.OUT_OF_RANGE
        code, reason, facts = await refusal(node, start=at(21))
        assert (code, reason) == (out, "OFFSET_OUT_OF_RANGE")
        assert (facts["start_offset"], facts["end_offset"], facts["partition"]) == ("0", "20", "0")
        assert (await refusal(node, start=at(-1)))[0] == out
        assert (await refusal(node, end=at(21)))[0] == out
        assert (await refusal(node, start=each({0: 99})))[0] == out
        assert (await refusal(node, topic="nope"))[1] == "UNKNOWN_TOPIC"
        assert (await refusal(node, topic=""))[1] == "INVALID_ARGUMENT"
        assert (await refusal(node, partitions=[1]))[1] == "UNKNOWN_PARTITION"
        assert (await refusal(node, start=each({3: 0})))[1] == "UNKNOWN_PARTITION"
        for field, request in {
            "partitions": {"partitions": [0, 0]},
            "max_message_bytes": {"max_message_bytes": 5 << 20},
            "end": {"start": at(9), "end": at(8)},
            "start": {"start": bus_pb2.Position()},
            "format": {"format": 9},
            "time_basis": {"time_basis": 9},
        }.items():
            code, reason, facts = await refusal(node, **request)
            assert (reason, facts["field"]) == ("INVALID_ARGUMENT", field)
        code, reason, facts = await refusal(node, start=time(9), end=time(8))
        assert (reason, facts["field"]) == ("INVALID_ARGUMENT", "end")
        assert await offsets(node, start=at(19)) == [19]


async def test_a_deleted_topic_ends_its_followers(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create()
        call = node.bus.Replay(bus_pb2.ReplayRequest(topic="t", follow=True), timeout=PATIENCE)
        await call.read()
        await node.topics.DeleteTopic(topics_pb2.DeleteTopicRequest(name="t"), timeout=PATIENCE)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert error_of(caught.value)[1] == "UNKNOWN_TOPIC"


async def test_a_damaged_batch_is_never_served(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await filled(node)
    store = open_store(tmp_path / "data", "holdfast", "n1", 1 << 30)
    with store.read() as reader:
        row = partitions.index_at(reader, 1, 0, 10)
        assert row is not None
        value = bytearray(reader.get(Table.JOURNAL, journal.row_key(row.log_index)) or b"")
    value[row.position + row.length - 2] ^= 1
    store.writer().put(Table.JOURNAL, journal.row_key(row.log_index), bytes(value))
    store.commit()
    store.close()
    async with single(tmp_path) as node:
        for form in (bus_pb2.FORMAT_RECORDS, BATCHES):
            assert await offsets(node, end=at(10)) == list(range(10))
            call = node.bus.Replay(bus_pb2.ReplayRequest(topic="t", format=form), timeout=PATIENCE)
            # What lies before it is served, once.
            assert (await call.read()).progress[0].next_offset == 10
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            code, _, facts = error_of(caught.value)
            assert code == grpc.StatusCode.DATA_LOSS
            assert (facts["topic"], facts["partition"], facts["offset"]) == ("t", "0", "10")
        assert await offsets(node, start=at(15)) == list(range(15, 20))


async def test_retention_moves_the_start_and_never_tears_a_silent_gap(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await filled(node)
        call = node.bus.Replay(
            bus_pb2.ReplayRequest(topic="t", follow=True, format=BATCHES, max_message_bytes=1)
        )
        assert (await call.read()).progress[0].next_offset == 5
        trim = log_pb2.Op(trim=log_pb2.TrimOp(topic_id=1, partition=0, before_offset=12))
        await node.broker.bridge.submit(encode_op(trim), PATIENCE)
        assert await offsets(node) == list(range(10, 20))
        assert await offsets(node, start=EARLIEST, end=at(11)) == [10]
        code, reason, facts = await refusal(node, start=at(9))
        assert (reason, facts["start_offset"], facts["end_offset"]) == ("OFFSET_OUT_OF_RANGE", "10", "20")
        assert (await refusal(node, start=EARLIEST, end=at(3)))[0] == code
        assert await offsets(node, start=time(0), end=time(12_000)) == [10, 11]
        call.cancel()


async def test_a_restart_hides_nothing(tmp_path: Path) -> None:
    for start in range(0, 9, 3):
        async with single(tmp_path) as node:
            if start == 0:
                await node.create()
            assert await offsets(node) == list(range(start))
            await node.publish([b"a", b"b", b"c"])


async def test_reads_go_on_without_a_majority(tmp_path: Path) -> None:
    async with three(tmp_path) as nodes:
        leader = await leader_of(nodes)
        await filled(leader)
        reader, *others = [node for node in nodes if node is not leader]
        assert await offsets(reader, linearizable=True) == list(range(20))
        for node in (leader, *others):
            await node.broker.stop()
        assert await offsets(reader, start=at(3)) == list(range(3, 20))
        call = reader.bus.Replay(bus_pb2.ReplayRequest(topic="t", linearizable=True), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert error_of(caught.value)[0] in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        )
