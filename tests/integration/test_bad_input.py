"""Bad input gets a clear error and costs nothing.

After each: the broker still serves, and nothing acknowledged is gone.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from holdfast.errors import ConfigurationError, DataDirectoryError, PortInUseError
from holdfast.records import encode_batch
from holdfast.rpc.broker import Broker
from holdfast.rpc.settings import load, make
from holdfast.storage.identity import FORMAT_VERSION
from holdfast.storage.port import Table
from holdfast.v1 import bus_pb2, cluster_pb2, records_pb2, topics_pb2

from .brokers import Client, error_of, publish_request, retry_delay_ms, single, three

MIB = 1 << 20
CLUSTER_STATUS = cluster_pb2.GetStatusRequest()


def batches(data: bytes) -> bus_pb2.PublishRequest:
    return bus_pb2.PublishRequest(topic="t", batches=[bus_pb2.PartitionBatch(batch=data)])


def altered(**changes: int) -> bus_pb2.PublishRequest:
    batch = records_pb2.RecordBatch.FromString(encode_batch([b"a", b"b"]))
    for name, value in changes.items():
        setattr(batch, name, value)
    return batches(batch.SerializeToString())


def records(*made: records_pb2.Record, **more: Any) -> bus_pb2.PublishRequest:
    return bus_pb2.PublishRequest(topic="t", records=made, **more)


def headers(count: int, size: int = 1) -> records_pb2.Record:
    return records_pb2.Record(
        value=b"v", headers=[records_pb2.Header(name=f"h{i}", value=bytes(size)) for i in range(count)]
    )


BAD_PUBLISHES: dict[str, tuple[bus_pb2.PublishRequest, str, str]] = {
    "unknown topic": (publish_request([b"x"], "nope"), "NOT_FOUND", "UNKNOWN_TOPIC"),
    "endless topic name": (publish_request([b"x"], "é" * 5000), "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    "no topic": (publish_request([b"x"], ""), "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    "unknown partition": (
        records(records_pb2.Record(value=b"x"), partition=7),
        "NOT_FOUND",
        "UNKNOWN_PARTITION",
    ),
    "nothing": (bus_pb2.PublishRequest(topic="t"), "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    "empty batch": (batches(b""), "INVALID_ARGUMENT", "MALFORMED_BATCH"),
    "malformed batch": (batches(b"\xffnot a batch"), "INVALID_ARGUMENT", "MALFORMED_BATCH"),
    "wrong crc": (altered(crc32c=1), "DATA_LOSS", "CORRUPT_BATCH"),
    "lying count": (altered(count=3), "INVALID_ARGUMENT", "MALFORMED_BATCH"),
    "enormous count": (altered(count=1 << 31), "INVALID_ARGUMENT", "MALFORMED_BATCH"),
    "unknown compression": (altered(compression=9), "INVALID_ARGUMENT", "MALFORMED_BATCH"),
    "huge record": (
        records(records_pb2.Record(value=bytes(MIB + 1))),
        "INVALID_ARGUMENT",
        "RECORD_TOO_LARGE",
    ),
    "huge record in a batch": (
        batches(encode_batch([bytes(MIB + 1)])),
        "INVALID_ARGUMENT",
        "RECORD_TOO_LARGE",
    ),
    "huge batch": (batches(encode_batch([bytes(MIB)] * 20)), "INVALID_ARGUMENT", "RECORD_TOO_LARGE"),
    "compressed bomb": (
        batches(encode_batch([bytes(MIB)] * 60, compression=1)),
        "INVALID_ARGUMENT",
        "RECORD_TOO_LARGE",
    ),
    "huge key": (
        records(records_pb2.Record(key=bytes(4097), value=b"v")),
        "INVALID_ARGUMENT",
        "RECORD_TOO_LARGE",
    ),
    "many headers": (records(headers(65)), "INVALID_ARGUMENT", "RECORD_TOO_LARGE"),
    "huge headers": (records(headers(2, 9000)), "INVALID_ARGUMENT", "RECORD_TOO_LARGE"),
    "sequence gap": (
        publish_request([b"x"], producer_id=1, producer_epoch=2, base_sequence=5),
        "FAILED_PRECONDITION",
        "SEQUENCE_GAP",
    ),
    "stale epoch": (
        publish_request([b"x"], producer_id=1, producer_epoch=1),
        "FAILED_PRECONDITION",
        "PRODUCER_FENCED",
    ),
    "producer id of 64 bits": (
        publish_request([b"x"], producer_id=1 << 63),
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
    ),
}


@pytest.mark.parametrize("what", BAD_PUBLISHES)
async def test_bad_publish(what: str, tmp_path: Path) -> None:
    request, code, reason = BAD_PUBLISHES[what]
    async with single(tmp_path) as (_, client):
        await client.publish(b"first", producer_id=1, producer_epoch=2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.bus.Publish(request, timeout=10)
        assert error_of(caught.value)[:2] == (code, reason)
        assert len(caught.value.details() or "") > 10

        call = client.bus.PublishStream(iter([request, publish_request([b"after"])]), timeout=10)
        results = [result async for message in call for result in message.results]
        client.acked.append(b"after")
        assert [result.error.reason for result in results] == [reason, ""]
        await client.check()


async def test_a_gap_names_the_sequence_that_is_expected(tmp_path: Path) -> None:
    async with single(tmp_path) as (_, client):
        await client.publish(b"0", producer_id=1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.publish(b"5", producer_id=1, base_sequence=5)
        assert error_of(caught.value)[2]["expected"] == "1"
        await client.check()


@pytest.mark.parametrize(
    ("more", "code", "reason"),
    [
        ({"topic": "nope"}, "NOT_FOUND", "UNKNOWN_TOPIC"),
        ({"partitions": [3]}, "NOT_FOUND", "UNKNOWN_PARTITION"),
        ({"start": bus_pb2.Position(offset=99)}, "OUT_OF_RANGE", "OFFSET_OUT_OF_RANGE"),
        ({"start": bus_pb2.Position(offset=-5)}, "OUT_OF_RANGE", "OFFSET_OUT_OF_RANGE"),
    ],
)
async def test_bad_replay(more: dict[str, Any], code: str, reason: str, tmp_path: Path) -> None:
    async with single(tmp_path) as (_, client):
        await client.publish(b"first")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.replay(**more)
        got_code, got_reason, facts = error_of(caught.value)
        assert (got_code, got_reason) == (code, reason)
        if reason == "OFFSET_OUT_OF_RANGE":
            assert (facts["start_offset"], facts["end_offset"]) == ("0", "1")
        await client.check()


async def test_ack_of_what_was_not_delivered(tmp_path: Path) -> None:
    async with single(tmp_path) as (_, client):
        await client.publish(b"first")
        call = client.bus.Subscribe()
        start = bus_pb2.SubscribeStart(group="g", topics=["t"], credits=1)
        await call.write(bus_pb2.SubscribeRequest(start=start))
        ack = bus_pb2.Ack(ranges=[bus_pb2.AckRange(topic="t", partition=0, first_offset=5, last_offset=9)])
        await call.write(bus_pb2.SubscribeRequest(ack=ack))
        kinds: dict[str, bus_pb2.SubscribeResponse] = {}
        while not {"ack_refused", "delivery"} <= set(kinds):
            message = await asyncio.wait_for(call.read(), 10)
            kinds[message.WhichOneof("kind")] = message
        assert kinds["ack_refused"].ack_refused.error.reason == "NOT_DELIVERED"
        call.cancel()
        await client.check()


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("/holdfast.v1.EventBus/Publish", "unary"),
        ("/holdfast.v1.Topics/CreateTopic", "unary"),
        ("/holdfast.v1.Cluster/GetStatus", "unary"),
        ("/holdfast.v1.EventBus/Replay", "server stream"),
        ("/holdfast.v1.EventBus/Subscribe", "stream"),
    ],
)
async def test_messages_that_do_not_parse(method: str, kind: str, tmp_path: Path) -> None:
    async with single(tmp_path) as (_, client):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call_with_garbage(client.channel, method, kind)
        assert error_of(caught.value)[:2] == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
        await client.check()


async def call_with_garbage(channel: grpc.aio.Channel, method: str, kind: str) -> None:
    garbage = b"\xff\xff\xff\xff"
    if kind == "unary":
        await channel.unary_unary(method)(garbage, timeout=10)
        return
    if kind == "stream":
        made = channel.stream_stream(method)(iter([garbage]), timeout=10)
    else:
        made = channel.unary_stream(method)(garbage, timeout=10)
    async for _ in made:
        pass


async def test_unknown_method(tmp_path: Path) -> None:
    async with single(tmp_path) as (_, client):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.channel.unary_unary("/holdfast.v1.EventBus/Nope")(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        await client.check()


async def test_message_over_the_wire_limit(tmp_path: Path) -> None:
    async with single(tmp_path) as (_, client):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.channel.unary_unary("/holdfast.v1.EventBus/Publish")(bytes(63 * MIB), timeout=30)
        assert error_of(caught.value)[:2] == ("INVALID_ARGUMENT", "RECORD_TOO_LARGE")
        async with big_channel(client) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/holdfast.v1.EventBus/Publish")(bytes(65 * MIB), timeout=30)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await client.check()


def big_channel(client: Client) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(client.address, options=[("grpc.max_send_message_length", -1)])


# -- settings, data directories, ports ------------------------------------------


def test_unknown_setting_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text("[limits]\nmax_record_byte = 5\n", encoding="utf-8")
    with pytest.raises(
        ConfigurationError, match=r"limits\.max_record_byte; did you mean limits\.max_record_bytes"
    ):
        load(file, env={})


@pytest.mark.parametrize(
    ("changed", "message"), [({"cluster_id": "other"}, "cluster"), ({"node_id": "n9"}, "node")]
)
async def test_data_directory_of_another(changed: dict[str, str], message: str, tmp_path: Path) -> None:
    async with single(tmp_path) as (_, client):
        await client.publish(b"first")
        acked = client.acked
    with pytest.raises(DataDirectoryError, match=message):
        await Broker(make(listen="127.0.0.1:0", data_dir=tmp_path, **changed)).start()
    async with single(tmp_path) as (_, client):
        client.acked = acked
        await client.check()


async def test_data_directory_of_a_newer_format(tmp_path: Path) -> None:
    async with single(tmp_path) as (broker, client):
        await client.publish(b"first")
        acked = client.acked
    await set_format(tmp_path, FORMAT_VERSION + 1)
    with pytest.raises(DataDirectoryError, match="newer"):
        await Broker(make(listen="127.0.0.1:0", data_dir=tmp_path)).start()
    await set_format(tmp_path, FORMAT_VERSION)
    async with single(tmp_path) as (broker, client):
        client.acked = acked
        await client.check()
        assert broker.failed is None


async def set_format(data_dir: Path, version: int) -> None:
    from holdfast.storage.data_directory import DataDirectory
    from holdfast.storage.lmdb_store import LmdbStore

    directory = DataDirectory(data_dir)
    path = directory.current()
    assert path is not None
    store = LmdbStore(path, quota_bytes=1 << 30, housing=directory)
    store.writer().put(Table.META, b"format", struct.pack(">I", version))
    store.commit()
    store.close()


async def test_data_directory_in_use(tmp_path: Path) -> None:
    async with single(tmp_path) as (_, client):
        with pytest.raises(DataDirectoryError, match="in use"):
            await Broker(make(listen="127.0.0.1:0", data_dir=tmp_path)).start()
        await client.check()


async def test_client_port_in_use(tmp_path: Path) -> None:
    async with single(tmp_path / "a") as (broker, client):
        with pytest.raises(PortInUseError) as caught:
            await Broker(make(listen=broker.client_address, data_dir=tmp_path / "b")).start()
        assert broker.client_address.rpartition(":")[2] in caught.value.message
        await client.check()


async def test_peer_port_in_use(tmp_path: Path) -> None:
    async with three(tmp_path) as (brokers, clients):
        taken = brokers[0].peer_address
        assert taken is not None
        members = "x1=127.0.0.1:1/2,x2=127.0.0.1:3/4,x3=127.0.0.1:5/6"
        with pytest.raises(PortInUseError) as caught:
            await Broker(
                make(
                    node_id="x1",
                    members=members,
                    listen="127.0.0.1:0",
                    peer_listen=taken,
                    data_dir=tmp_path / "x1",
                )
            ).start()
        assert taken.rpartition(":")[2] in caught.value.message
        await clients[0].check()


async def test_address_that_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot listen on"):
        await Broker(make(listen="203.0.113.1:0", data_dir=tmp_path)).start()


# -- a full disk -----------------------------------------------------------------


async def test_full_storage_refuses_publishes_and_nothing_else(tmp_path: Path) -> None:
    async with single(tmp_path, quota_bytes=64 * MIB) as (_, client):
        await client.publish(b"first")
        await client.create_topic("fill")
        large = publish_request([random.Random(1).randbytes(MIB - 100)] * 4, "fill")
        small = publish_request([random.Random(2).randbytes(64 << 10)], "fill")
        written, refusals = 0, []

        async def fill(block: bus_pb2.PublishRequest, records: int) -> bool:
            nonlocal written
            try:
                await client.bus.Publish(block, timeout=10)
            except grpc.aio.AioRpcError as error:
                refusals.append((*error_of(error)[:2], retry_delay_ms(error)))
                return False
            written += records
            return True

        async with asyncio.timeout(60):
            while await fill(large, 4):
                pass
            # What is left is room for smaller ones; then for none.
            while (await client.cluster.GetStatus(CLUSTER_STATUS, timeout=10)).accepting_writes:
                await fill(small, 1)
        assert set(refusals) == {("RESOURCE_EXHAUSTED", "STORAGE_FULL", 1000)}
        assert len(await client.replay("fill")) == written  # reads go on
        assert await client.replay() == client.acked
        await client.topics.DeleteTopic(topics_pb2.DeleteTopicRequest(name="fill"), timeout=10)
        await accepting(client)
        await client.check()  # and writing resumes


async def accepting(client: Client) -> None:
    async with asyncio.timeout(30):
        while not (await client.cluster.GetStatus(CLUSTER_STATUS, timeout=10)).accepting_writes:
            await asyncio.sleep(0.05)


# -- strangers on the ports --------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def strange_bytes(rng: random.Random) -> AsyncIterator[bytes]:
    async def made() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield rng.randbytes(rng.choice((0, 1, 9, 100, 5000, 200_000)))
        yield b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(400)  # TLS
        for _ in range(20):
            length, kind = rng.randrange(1, 300), rng.randrange(12)
            frame = struct.pack(">I", length)[1:] + bytes((kind, rng.randrange(256)))
            yield PREFACE + frame + rng.randbytes(4 + length)
        for _ in range(20):
            body = rng.randbytes(rng.randrange(1, 200))
            yield struct.pack(">II", rng.choice((len(body), 0, 1 << 31)), rng.randrange(1 << 32)) + body

    return made()


async def throw(address: str, seed: int) -> None:
    """Open a connection per piece, send it, and hang up or wait for the other side to."""
    host, _, port = address.rpartition(":")
    rng = random.Random(seed)
    async for piece in strange_bytes(rng):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(piece)
            await writer.drain()
            if rng.random() < 0.3:
                async with asyncio.timeout(0.05):
                    await reader.read(100)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            writer.close()


@pytest.mark.parametrize("seed", range(3))
async def test_random_bytes_on_both_ports(seed: int, tmp_path: Path) -> None:
    async with three(tmp_path) as (brokers, clients):
        client = clients[0]
        await client.publish(b"first")
        for broker in brokers:
            await throw(broker.client_address, seed)
            assert broker.peer_address is not None
            await throw(broker.peer_address, seed + 100)
        assert all(broker.failed is None for broker in brokers)
        await client.check()
