"""Idempotency keys in Publish: what is new is stored, what is not is answered, and bad keys are told so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rpc_fakes import START, FakeEngine, Served, error_of, make_engine

from holdfast.cluster import commands
from holdfast.cluster.ports import Clock
from holdfast.cluster.results import Role
from holdfast.cluster.state.machine import StateMachine
from holdfast.errors import NoLeaderError
from holdfast.records import Compression, decode_batch, encode_batch
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.clock import SystemClock
from holdfast.rpc.events import PublishHandled
from holdfast.rpc.services.publish_request import PublishEncoder, parse_publish
from holdfast.rpc.settings import Limits
from holdfast.rpc.telemetry_source import read_gauges
from holdfast.storage import journal, partitions, topics
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Reader
from holdfast.v1 import bus_pb2, log_pb2, records_pb2, topics_pb2

HOUR_MS = 3_600_000
PARTITIONS = 3

Place = tuple[int, int, bool]


async def with_topic(served: Served, ttl_ms: int = HOUR_MS) -> None:
    limits = topics_pb2.TopicLimits(idempotency_ttl_ms=ttl_ms)
    await served.topics.CreateTopic(
        topics_pb2.CreateTopicRequest(name="t", partitions=PARTITIONS, limits=limits)
    )


def plain(keys: str, values: str = "", *, partition: int | None = None) -> bus_pb2.PublishRequest:
    """Records with an idempotency key each, a letter; "-": none."""
    return bus_pb2.PublishRequest(
        topic="t",
        partition=partition,
        records=[records_pb2.Record(value=value.encode()) for value in values or keys],
        idempotency_keys=[b"" if key == "-" else key.encode() for key in keys],
    )


def batched(*parts: tuple[int, str], compression: Compression = Compression.NONE) -> bus_pb2.PublishRequest:
    request = bus_pb2.PublishRequest(topic="t")
    for partition, keys in parts:
        request.batches.add(
            partition=partition,
            batch=encode_batch([key.encode() for key in keys], compression=compression),
            idempotency_keys=[b"" if key == "-" else key.encode() for key in keys],
        )
    return request


def places(answer: bus_pb2.PublishResponse) -> list[Place]:
    return [(place.partition, place.offset, place.duplicate) for place in answer.positions]


def acks(answer: bus_pb2.PublishResponse) -> list[tuple[int, int, int]]:
    return [(ack.partition, ack.base_offset, ack.count) for ack in answer.acks]


def stored(reader: Reader, topic: str = "t") -> list[list[bytes]]:
    """The values of each partition."""
    row = topics.find(reader, topic)
    assert row is not None
    return [
        [
            value
            for batch in partitions.index_scan(reader, row.id, number, 0)
            for value in decode_batch(partitions.read_batch(reader, batch, verify=True)).values
        ]
        for number in range(row.partitions)
    ]


def logs(served: Served) -> list[list[bytes]]:
    with served.engine.store.read() as reader:
        return stored(reader)


async def test_a_repeat_is_answered_with_the_first_place_and_nothing_is_stored() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        first = await served.bus.Publish(plain("ab", partition=1))
        assert (places(first), acks(first)) == ([(1, 0, False), (1, 1, False)], [(1, 0, 2)])
        again = await served.bus.Publish(plain("ba", "xy", partition=2))
        assert (places(again), acks(again)) == ([(1, 1, True), (1, 0, True)], [])
        assert logs(served) == [[], [b"a", b"b"], []]


async def test_a_mixed_request_stores_the_rest_and_answers_in_order() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        await served.bus.Publish(batched((0, "ab"), (2, "c")))
        answer = await served.bus.Publish(plain("xbyacz", partition=1))
        assert places(answer) == [
            (1, 0, False),
            (0, 1, True),
            (1, 1, False),
            (0, 0, True),
            (2, 0, True),
            (1, 2, False),
        ]
        assert acks(answer) == [(1, 0, 3)]
        assert logs(served) == [[b"a", b"b"], [b"x", b"y", b"z"], [b"c"]]


async def test_batches_are_cut_only_where_they_have_to_be() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        await served.bus.Publish(batched((1, "b")))
        request = batched((0, "uv"), (1, "abc"), compression=Compression.ZSTD)
        answer = await served.bus.Publish(request)
        assert places(answer) == [(0, 0, False), (0, 1, False), (1, 1, False), (1, 0, True), (1, 2, False)]
        assert acks(answer) == [(0, 0, 2), (1, 1, 2)]
        assert logs(served) == [[b"u", b"v"], [b"b", b"a", b"c"], []]
        with served.engine.store.read() as reader:
            untouched = partitions.index_at(reader, 1, 0, 0)
            cut = partitions.index_at(reader, 1, 1, 1)
            assert untouched is not None
            assert cut is not None
            assert partitions.read_batch(reader, untouched) == request.batches[0].batch
            envelope = records_pb2.RecordBatch.FromString(partitions.read_batch(reader, cut))
        assert envelope.compression == records_pb2.COMPRESSION_ZSTD


async def test_a_cut_batch_keeps_keys_times_and_headers() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        await served.bus.Publish(plain("b", partition=0))
        batch = encode_batch(
            [b"1", b"2", b"3"], [b"k", b"l", b""], [30, 5, 10], [(("h", b"x"),), None, (("i", b"y"),)]
        )
        part = bus_pb2.PartitionBatch(partition=1, batch=batch, idempotency_keys=[b"a", b"b", b"c"])
        await served.bus.Publish(bus_pb2.PublishRequest(topic="t", batches=[part]))
        with served.engine.store.read() as reader:
            row = partitions.index_at(reader, 1, 1, 0)
            assert row is not None
            assert (row.count, row.min_timestamp_us, row.max_timestamp_us) == (2, 10, 30)
            decoded = decode_batch(partitions.read_batch(reader, row))
        assert (decoded.values, decoded.keys, decoded.timestamps_us) == ([b"1", b"3"], [b"k", b""], [30, 10])
        assert [list(pairs) for pairs in decoded.headers] == [[("h", b"x")], [("i", b"y")]]


async def test_a_key_twice_in_one_request_is_stored_once() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        answer = await served.bus.Publish(plain("aba-", "1234", partition=0))
        assert places(answer) == [(0, 0, False), (0, 1, False), (0, 0, True), (0, 2, False)]
        answer = await served.bus.Publish(batched((1, "xy"), (2, "yx")))
        assert places(answer) == [(1, 0, False), (1, 1, False), (1, 1, True), (1, 0, True)]
        answer = await served.bus.Publish(plain("xx", partition=2))
        assert places(answer) == [(1, 0, True), (1, 0, True)]
        assert logs(served) == [[b"1", b"2", b"4"], [b"x", b"y"], []]


async def test_keys_that_are_all_empty_are_none() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served, ttl_ms=0)
        answer = await served.bus.Publish(plain("--", partition=0))
        assert places(answer) == [(0, 0, False), (0, 1, False)]
        assert acks(await served.bus.Publish(batched((1, "--")))) == [(1, 0, 2)]


async def test_a_large_request_with_keys() -> None:
    """One that would be taken apart by hand without them."""
    async with Served(make_engine()) as served:
        await with_topic(served)
        for repeat in (False, True):
            part = bus_pb2.PartitionBatch(batch=encode_batch([bytes(20_000)]), idempotency_keys=[b"k"])
            answer = await served.bus.Publish(bus_pb2.PublishRequest(topic="t", batches=[part]))
            assert places(answer) == [(0, 0, repeat)]


# -- others at the same time ---------------------------------------------------------------


class Competitor(FakeEngine):
    """Before each operation of ours, somebody else publishes the next of these keys."""

    keys: Sequence[str] = ()
    encoder = PublishEncoder(Limits(), SystemClock())

    def propose(self, op: bytes, token: object, deadline: float) -> None:
        if self.keys:
            key, self.keys = self.keys[0], self.keys[1:]
            row = topics.find(self.store.writer(), "t")
            assert row is not None
            theirs = self.encoder.prepare(parse_publish(batched((2, key)).SerializeToString()), row).keyed
            assert theirs is not None
            self.index += 1
            entry = commands.encode_entry(self.time_us, [theirs.op()])
            journal.append(self.store.writer(), self.index, 1, 0, entry)
            (result,) = self.machine.apply(self.store.writer(), self.index, entry).results
            assert not result.HasField("error"), result
            self.store.commit()
        super().propose(op, token, deadline)


def make_competitor() -> Competitor:
    bridge = EngineBridge(asyncio.get_running_loop(), SystemClock(), START)
    engine = Competitor(bridge)
    bridge.attach(engine)
    return engine


async def test_others_may_get_in_between_a_few_times() -> None:
    engine = make_competitor()
    async with Served(engine) as served:
        await with_topic(served)
        engine.keys = "abc"
        answer = await served.bus.Publish(plain("abcd", "1234", partition=0))
        assert places(answer) == [(2, 0, True), (2, 1, True), (2, 2, True), (0, 0, False)]
        assert logs(served) == [[b"4"], [], [b"a", b"b", b"c"]]


async def test_who_meets_others_again_and_again_is_told_to_try_again() -> None:
    engine = make_competitor()
    async with Served(engine) as served:
        await with_topic(served)
        engine.keys = "abcd"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.bus.Publish(plain("abcde", partition=0))
        assert error_of(caught.value)[1] == "OVERLOADED"
        assert logs(served)[0] == []
        assert places(await served.bus.Publish(plain("abcde", partition=0)))[-1] == (0, 0, False)
        assert served.admission.calls == served.admission.bytes == 0


async def test_a_failure_in_the_second_round_is_the_answer() -> None:
    engine = make_competitor()
    async with Served(engine) as served:
        await with_topic(served)
        await served.bus.Publish(plain("a", partition=0))
        engine.hold = True
        call = asyncio.ensure_future(served.bus.Publish(plain("ab", partition=0)))
        while not engine.held:
            await asyncio.sleep(0)
        engine.release()
        while not engine.held:
            await asyncio.sleep(0)
        engine.fail = NoLeaderError("moved")
        engine.release()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert error_of(caught.value)[1] == "NO_LEADER"


async def test_what_is_under_way_with_keys_is_bounded() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        served.engine.hold = True
        requests = [
            bus_pb2.PublishRequest(
                topic="t",
                records=[records_pb2.Record(value=b"v")] * 1000,
                idempotency_keys=[b"%d/%d" % (call, number) for number in range(1000)],
            )
            for call in range(11)
        ]
        calls = [asyncio.ensure_future(served.bus.Publish(request)) for request in requests]
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = done
        error = refused.exception()
        assert isinstance(error, grpc.aio.AioRpcError)
        assert error_of(error)[1] == "OVERLOADED"
        served.engine.hold = False
        served.engine.release()
        await asyncio.wait(calls)
        again = requests[calls.index(refused)]
        assert not (await served.bus.Publish(again)).positions[0].duplicate
        assert sum(map(len, logs(served))) == 11_000


# -- bad keys ---------------------------------------------------------------------------------


def changed(request: bus_pb2.PublishRequest, **more: object) -> bus_pb2.PublishRequest:
    request.MergeFrom(bus_pb2.PublishRequest(**more))  # type: ignore[arg-type]
    return request


BAD = {
    "too few": (changed(plain("ab"), records=[records_pb2.Record(value=b"c")]), "idempotency_keys"),
    "too many": (changed(plain("ab"), idempotency_keys=[b"c"]), "idempotency_keys"),
    "too long": (
        bus_pb2.PublishRequest(
            topic="t", records=[records_pb2.Record(value=b"v")], idempotency_keys=[b"k" * 257]
        ),
        "idempotency_keys",
    ),
    "too many records": (plain("k" * 1001), "idempotency_keys"),
    "beside batches": (changed(batched((0, "ab")), idempotency_keys=[b"a", b"b"]), "idempotency_keys"),
    "too few in a batch": (
        bus_pb2.PublishRequest(
            topic="t",
            batches=[bus_pb2.PartitionBatch(batch=encode_batch([b"1", b"2"]), idempotency_keys=[b"a"])],
        ),
        "batches.idempotency_keys",
    ),
    "of a producer": (changed(plain("ab", partition=0), producer_id=7), "idempotency_keys"),
    "of a producer, in batches": (changed(batched((0, "a")), producer_id=7), "idempotency_keys"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_keys_name_their_field(case: str) -> None:
    request, field = BAD[case]
    async with Served(make_engine()) as served:
        await with_topic(served)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.bus.Publish(request)
        code, _, facts = error_of(caught.value)
        assert (code, facts["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
        assert logs(served) == [[], [], []]
        assert served.admission.calls == served.admission.bytes == 0


def test_what_stands_in_the_log_for_a_key() -> None:
    """Brokers of all versions have to write the same: XXH3-128 of the topic's id and the key."""
    row = topics.TopicRow(7, "t", 1, 0, 0, 0, 0, HOUR_MS)
    encoder = PublishEncoder(Limits(), SystemClock())
    keyed = encoder.prepare(parse_publish(plain("a-", partition=0).SerializeToString()), row).keyed
    assert keyed is not None
    (part,) = keyed._parts
    assert part.facts.marks.hex() == "4c5bde4cc1bde7e4b555121505083517" + "00" * 16


async def test_the_longest_key() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)
        request = plain("a", partition=0)
        request.idempotency_keys[0] = b"k" * 256
        assert places(await served.bus.Publish(request)) == [(0, 0, False)]


@pytest.mark.parametrize("request_", [plain("a", partition=0), batched((0, "a"))], ids=["plain", "batches"])
async def test_a_topic_without_a_window_says_what_to_do(request_: bus_pb2.PublishRequest) -> None:
    async with Served(make_engine()) as served:
        await with_topic(served, ttl_ms=0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.bus.Publish(request_)
        code, _, facts = error_of(caught.value)
        assert (code, facts["field"]) == (grpc.StatusCode.FAILED_PRECONDITION, "idempotency_keys")
        assert "--idempotency-ttl" in str(caught.value.details())
        assert logs(served) == [[], [], []]


async def test_a_stream_takes_none_and_goes_on() -> None:
    async with Served(make_engine()) as served:
        await with_topic(served)

        async def requests() -> AsyncIterator[bus_pb2.PublishRequest]:
            for request in (plain("a", partition=0), batched((0, "a")), plain("-", partition=0)):
                yield request

        results = [
            result async for answer in served.bus.PublishStream(requests()) for result in answer.results
        ]
        assert [result.error.reason for result in results] == ["INVALID_ARGUMENT", "INVALID_ARGUMENT", ""]
        assert {result.error.metadata["field"] for result in results[:2]} == {"idempotency_keys"}
        assert logs(served) == [[b"-"], [], []]


# -- what is measured -------------------------------------------------------------------------


async def test_repeats_are_counted() -> None:
    seen: list[PublishHandled] = []
    async with Served(make_engine(), emit=seen.append) as served:  # type: ignore[arg-type]
        await with_topic(served)
        await served.bus.Publish(plain("aba", partition=0))
        await served.bus.Publish(plain("ab", partition=0))
        await served.bus.Publish(plain("-", partition=0))
    assert [(event.topic, event.records, event.repeats, event.reason) for event in seen] == [
        ("t", 2, 1, ""),
        ("t", 0, 2, ""),
        ("t", 1, 0, ""),
    ]


async def test_the_leader_tells_how_many_are_known() -> None:
    engine = make_engine()
    async with Served(engine) as served:
        await with_topic(served)
        await served.bus.Publish(plain("abc", partition=0))

        def told(role: Role) -> int:
            status = replace(engine.status(), role=role)
            return read_gauges(engine.store, lambda: status, served.admission, lambda: ()).marks

        assert (told(Role.LEADER), told(Role.FOLLOWER)) == (3, 0)


# -- all of it, against a dictionary ------------------------------------------------------------


class Direct:
    """The encoder, the rounds of the service, and the state machine, without anything in between."""

    def __init__(self, clock: Clock) -> None:
        self.store = MemoryStore()
        self.machine = StateMachine()
        self.encoder = PublishEncoder(Limits(), clock)
        self.index = 1
        create = log_pb2.CreateTopicOp(name="t", partitions=PARTITIONS)
        create.limits.idempotency_ttl_ms = HOUR_MS
        self.apply(commands.encode_op(log_pb2.Op(create_topic=create)))

    def apply(self, op: bytes) -> log_pb2.OpResult:
        self.index += 1
        entry = commands.encode_entry(self.index, [op])
        journal.append(self.store.writer(), self.index, 1, 0, entry)
        (result,) = self.machine.apply(self.store.writer(), self.index, entry).results
        return result

    def publish(self, request: bus_pb2.PublishRequest) -> list[Place]:
        row = topics.find(self.store.writer(), "t")
        assert row is not None
        prepared = self.encoder.prepare(parse_publish(request.SerializeToString()), row)
        keyed = prepared.keyed
        if keyed is None:
            assert not self.apply(prepared.op).HasField("error")
            return []
        rounds = 0
        while keyed.left:
            rounds += 1
            result = self.apply(keyed.op())
            if result.HasField("error"):
                assert result.error.reason == "DUPLICATE_KEYS"
                keyed.repeated(result.marked)
            else:
                keyed.stored(result.append.acks)
        assert rounds <= 2  # nobody else is there
        return places(keyed.response())


PART = st.text("abcdefgh-", min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    requests=st.lists(
        st.one_of(
            PART.map(plain),
            st.dictionaries(st.integers(0, PARTITIONS - 1), PART, min_size=1).map(
                lambda parts: batched(*parts.items())
            ),
        ),
        max_size=12,
    )
)
def test_each_key_has_one_place_and_every_answer_names_it(requests: list[bus_pb2.PublishRequest]) -> None:
    direct = Direct(SystemClock())
    known: dict[bytes, tuple[int, int]] = {}
    count = 0
    for request in requests:
        keys = list(request.idempotency_keys) or [
            k for part in request.batches for k in part.idempotency_keys
        ]
        answer = direct.publish(request)
        logs_now = stored(direct.store.writer())
        if not any(keys):
            count += len(keys)
            continue
        assert len(answer) == len(keys)
        for key, (partition, offset, duplicate) in zip(keys, answer, strict=True):
            if not key:
                assert not duplicate
                assert logs_now[partition][offset] == b"-"
                count += 1
                continue
            assert duplicate == (key in known)
            count += not duplicate
            assert known.setdefault(key, (partition, offset)) == (partition, offset)
            assert logs_now[partition][offset] == key
    assert sum(map(len, stored(direct.store.writer()))) == count
