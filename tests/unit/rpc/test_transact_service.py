"""Transact against an engine without consensus."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.rpc import error_details_pb2, status_pb2
from rpc_fakes import FakeEngine, make_engine

from holdfast.cluster.commands import encode_op
from holdfast.cluster.results import Role
from holdfast.cluster.state.limits import StateLimits
from holdfast.errors import FencedError, HoldfastError, LeaseExpiredError, OutcomeUnknownError
from holdfast.records import decode_batch, encode_batch, partition_for
from holdfast.rpc.admission import Admission
from holdfast.rpc.clock import SystemClock
from holdfast.rpc.events import TransactHandled
from holdfast.rpc.services.leader_call import LeaderCall
from holdfast.rpc.services.publish_request import PublishEncoder
from holdfast.rpc.services.topic_cache import TopicCache
from holdfast.rpc.services.transact import TransactService
from holdfast.rpc.settings import Limits, make
from holdfast.rpc.topology import Topology
from holdfast.storage import flows, groups, partitions, topics
from holdfast.storage.flows import FlowRow
from holdfast.v1 import bus_pb2, log_pb2, records_pb2, topics_pb2

GROUP = "g"


class Aborted(Exception):
    """A call ended with this status."""

    def __init__(self, reason: str, facts: dict[str, str]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.facts = facts


class Context:
    """As far as the service looks at it."""

    def __init__(self, timeout: float = 10.0) -> None:
        self.timeout = timeout

    def time_remaining(self) -> float:
        return self.timeout

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    async def abort(self, code: Any, text: str, details: Any) -> None:
        status = status_pb2.Status.FromString(details[0][1])
        info = error_details_pb2.ErrorInfo()
        status.details[0].Unpack(info)
        raise Aborted(info.reason, dict(info.metadata))


@dataclass
class Claim:
    settle: log_pb2.SettleOp
    ends: list[HoldfastError | None] = field(default_factory=list)

    def ended(self, error: HoldfastError | None) -> None:
        self.ends.append(error)


class Sessions:
    """Knows session "s" of group g, slot n for partition n of topic "t"."""

    def __init__(self, topic_id: int) -> None:
        self.topic_id = topic_id
        self.claims: list[Claim] = []
        self.refuse: HoldfastError | None = None

    def claim(self, consumed: bus_pb2.Consumed) -> Claim:
        if self.refuse is not None:
            raise self.refuse
        settle = log_pb2.SettleOp(group=consumed.group)
        for item in consumed.offsets:
            settle.flows.add(topic_id=self.topic_id, partition=item.slot, base=item.base, runs=item.runs)
        self.claims.append(Claim(settle))
        return self.claims[-1]


class Node:
    """The service, topics "t" and "keyed" of four partitions, and group g."""

    def __init__(self, engine: FakeEngine, **limits: int) -> None:
        self.engine = engine
        self.events: list[TransactHandled] = []
        bridge = engine.bridge
        self.cache = TopicCache(engine.store, bridge)
        admission = Admission(100, 100 << 20)
        self.leader = LeaderCall(bridge, Topology(make()))
        self.service = TransactService(
            engine.store,
            bridge,
            self.cache,
            PublishEncoder(Limits(), SystemClock()),
            admission,
            Limits(),
            self.leader,
            StateLimits(**limits),
            self.events.append,  # type: ignore[arg-type]
        )
        self.number = 0
        self.admission = admission

    async def do(self, **op: Any) -> log_pb2.OpResult:
        result, _ = await self.engine.bridge.submit(encode_op(log_pb2.Op(**op)), 5)
        return result

    async def start(self) -> Node:
        for name, ttl in (("t", 0), ("keyed", 60_000)):
            limits = topics_pb2.TopicLimits(idempotency_ttl_ms=ttl)
            await self.do(create_topic=log_pb2.CreateTopicOp(name=name, partitions=4, limits=limits))
        self.topic_id = self.row("t").id
        await self.transact(appends=[plain("t", *[record(b"%d" % n, b"k") for n in range(8)])])
        self.partition = partition_for(b"k", 4)
        offset = log_pb2.GroupOffset(topic_id=self.topic_id, partition=0, offset=0)
        await self.do(commit_offsets=log_pb2.CommitOffsetsOp(group=GROUP, offsets=[offset]))
        return self

    def row(self, name: str) -> topics.TopicRow:
        with self.engine.store.read() as reader:
            row = topics.find(reader, name)
        assert row is not None
        return row

    async def transact(self, **request: Any) -> bus_pb2.TransactResponse:
        if "transaction_id" not in request:
            self.number += 1
            request["transaction_id"] = self.number.to_bytes(16, "big")
        raw = bus_pb2.TransactRequest(**request).SerializeToString()
        return bus_pb2.TransactResponse.FromString(await self.service.transact(raw, Context()))  # type: ignore[arg-type]

    async def refused(self, **request: Any) -> tuple[str, dict[str, str]]:
        before = self.engine.index
        with pytest.raises(Aborted) as caught:
            await self.transact(**request)
        self.proposed = self.engine.index - before
        return caught.value.reason, caught.value.facts

    def values(self, topic: str, partition: int) -> list[bytes]:
        found: list[bytes] = []
        with self.engine.store.read() as reader:
            for row in partitions.index_scan(reader, self.row(topic).id, partition, 0):
                found += decode_batch(partitions.read_batch(reader, row)).values
        return found

    def floor(self, partition: int) -> int:
        with self.engine.store.read() as reader:
            return groups.committed(reader, GROUP, self.topic_id, partition) or 0


def record(value: bytes, key: bytes = b"", time_us: int = 5) -> records_pb2.Record:
    return records_pb2.Record(value=value, key=key, timestamp_us=time_us)


def plain(topic: str, *records: records_pb2.Record, keys: list[bytes] | None = None) -> bus_pb2.TopicRecords:
    return bus_pb2.TopicRecords(topic=topic, records=records, idempotency_keys=keys)


def places(*offsets: int, partition: int, fence: int = 0, topic: str = "t") -> bus_pb2.Consumed:
    consumed = bus_pb2.Consumed(group=GROUP)
    runs: list[int] = []
    at = offsets[0]
    for offset in offsets:
        runs += (offset - at, 1)
        at = offset + 1
    consumed.places.add(topic=topic, partition=partition, fence=fence, base=offsets[0], runs=runs)
    return consumed


def session(*offsets: int, slot: int, name: str = "s") -> bus_pb2.Consumed:
    consumed = bus_pb2.Consumed(group=GROUP, session=name)
    consumed.offsets.add(slot=slot, lease=1, base=offsets[0], runs=[0, len(offsets)])
    return consumed


@pytest.fixture
async def node() -> Any:
    made = await Node(make_engine()).start()
    yield made
    await made.leader.close()
    made.engine.bridge.close()


async def test_records_go_where_a_publish_would_put_them(node: Node) -> None:
    batch = encode_batch([b"x", b"y"], timestamps_us=7)
    answer = await node.transact(
        appends=[
            plain("t", record(b"a", b"k"), record(b"b"), record(b"c", b"k"), record(b"d")),
            bus_pb2.TopicRecords(topic="keyed", batches=[bus_pb2.PartitionBatch(partition=3, batch=batch)]),
        ]
    )
    first, second = answer.appends
    assert [item.topic for item in answer.appends] == ["t", "keyed"]
    keyed = node.partition
    where = [(p.partition, p.offset) for p in first.positions]
    assert where[0] == (keyed, 8)
    assert where[1][0] == where[3][0], "those without a key stay together"
    assert where[2] == (keyed, where[0][1] + 1 + (where[1][0] == keyed))
    assert [(a.partition, a.base_offset, a.count) for a in second.acks] == [(3, 0, 2)]
    assert not second.positions, "whoever made the batch knows"
    assert node.values("keyed", 3) == [b"x", b"y"]
    assert not answer.repeated_call


async def test_consumption_by_place_is_all_or_nothing(node: Node) -> None:
    await node.transact(
        appends=[plain("keyed", record(b"out", b"z"))], consume=[places(0, 1, 3, partition=node.partition)]
    )
    assert node.floor(node.partition) == 2
    assert node.values("keyed", partition_for(b"z", 4)) == [b"out"]
    reason, facts = await node.refused(
        appends=[plain("keyed", record(b"twice", b"z"))], consume=[places(2, 3, partition=node.partition)]
    )
    assert reason == "ALREADY_SETTLED"
    assert facts == {"group": GROUP, "topic": "t", "partition": str(node.partition), "offset": "3"}
    assert node.values("keyed", partition_for(b"z", 4)) == [b"out"]
    assert node.floor(node.partition) == 2
    await node.transact(consume=[places(2, partition=node.partition)])
    assert node.floor(node.partition) == 4
    assert [event.reason for event in node.events] == ["", "", "ALREADY_SETTLED", ""]


async def test_a_repeat_is_given_the_first_answer(node: Node) -> None:
    request: dict[str, Any] = {
        "transaction_id": b"r" * 16,
        "appends": [plain("t", record(b"a"), record(b"b", b"k"), record(b"c"))],
        "consume": [places(0, partition=node.partition)],
    }
    first = await node.transact(**request)
    for _ in range(5):  # round after round records without a key would go elsewhere
        await node.transact(appends=[plain("t", record(b"other"))])
        again = await node.transact(**request)
        assert again.repeated_call
        assert again.appends == first.appends
    stored = [node.values("t", partition) for partition in range(4)]
    assert sum(values.count(b"a") for values in stored) == 1


async def test_owned_partitions_need_their_fence(node: Node) -> None:
    writer = node.engine.store.writer()
    flows.write(writer, GROUP, node.topic_id, node.partition, FlowRow(fence=9, owner="m"))
    node.engine.store.commit()
    reason, facts = await node.refused(consume=[places(0, partition=node.partition)])
    assert (reason, facts["partition"]) == ("FENCED", str(node.partition))
    assert node.proposed == 0
    assert (await node.refused(consume=[places(0, partition=node.partition, fence=8)]))[0] == "FENCED"
    await node.transact(consume=[places(0, partition=node.partition, fence=9)])
    assert node.floor(node.partition) == 1


async def test_a_seek_fences_out_what_was_on_its_way(node: Node) -> None:
    """The flow has no owner, yet its fence moves between the look at it and the entry."""
    writer = node.engine.store.writer()
    flows.write(writer, GROUP, node.topic_id, node.partition, FlowRow(fence=9))
    node.engine.store.commit()
    node.engine.hold = True
    task = asyncio.create_task(node.refused(consume=[places(0, partition=node.partition)]))
    while not node.engine.held:
        await asyncio.sleep(0)
    flows.write(writer, GROUP, node.topic_id, node.partition, FlowRow(fence=10))
    node.engine.release()
    assert (await task)[0] == "FENCED"


async def test_sessions_are_asked_and_told(node: Node) -> None:
    assert (await node.refused(consume=[session(0, slot=node.partition)]))[0] == "NOT_DELIVERED"
    node.service.sessions = sessions = Sessions(node.topic_id)
    await node.transact(appends=[plain("t", record(b"out"))], consume=[session(0, 1, slot=node.partition)])
    assert node.floor(node.partition) == 2
    assert [claim.ends for claim in sessions.claims] == [[None]]
    await node.refused(consume=[session(1, slot=node.partition)])
    (told,) = sessions.claims[1].ends
    assert told is not None
    assert told.reason == "ALREADY_SETTLED"
    node.engine.fail = OutcomeUnknownError("who knows")
    await node.refused(consume=[session(2, slot=node.partition)])
    assert isinstance(sessions.claims[2].ends[0], OutcomeUnknownError)
    node.engine.fail = None
    await node.refused(appends=[plain("t")], consume=[session(2, slot=node.partition)])
    assert sessions.claims[3].ends[0] is not None, "a claim ends also when the records are refused"
    sessions.refuse = LeaseExpiredError("gone")
    assert (await node.refused(consume=[session(2, slot=node.partition)]))[0] == "LEASE_EXPIRED"


async def test_a_caller_that_goes_away_leaves_its_claim_open(node: Node) -> None:
    node.service.sessions = sessions = Sessions(node.topic_id)
    node.engine.hold = True
    task = asyncio.create_task(node.transact(consume=[session(0, slot=node.partition)]))
    while not node.engine.held:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(sessions.claims[0].ends[0], OutcomeUnknownError)
    assert node.admission.calls == 0
    node.engine.release()


async def test_a_session_that_is_gone_is_told_what_was_done(node: Node) -> None:
    """The answer was lost with the leader: its sessions are not known to the next one."""
    node.service.sessions = sessions = Sessions(node.topic_id)
    request: dict[str, Any] = {
        "transaction_id": b"r" * 16,
        "appends": [plain("t", record(b"a"))],
        "consume": [session(0, slot=node.partition)],
    }
    first = await node.transact(**request)
    sessions.refuse = FencedError("somebody else's")
    again = await node.transact(**request)
    assert again.repeated_call
    assert again.appends == first.appends
    request["transaction_id"] = b"s" * 16
    assert (await node.refused(**request))[0] == "FENCED"


async def test_known_keys_are_left_out_and_the_rest_is_done(node: Node) -> None:
    before = await node.transact(
        appends=[plain("keyed", record(b"1", b"a"), record(b"2", b"b"), keys=[b"x1", b"x2"])]
    )
    one, two = before.appends[0].positions
    request: dict[str, Any] = {
        "transaction_id": b"r" * 16,
        "appends": [
            plain("t", record(b"out", b"k")),
            plain("keyed", record(b"3", b"a"), record(b"2", b"b"), record(b"4"), keys=[b"x3", b"x2", b""]),
        ],
        "consume": [places(0, partition=node.partition)],
    }
    answer = await node.transact(**request)
    plain_place, (third, second, fourth) = answer.appends[0].positions[0], answer.appends[1].positions
    assert not plain_place.duplicate
    assert (third.duplicate, second.duplicate, fourth.duplicate) == (False, True, False)
    assert (second.partition, second.offset) == (two.partition, two.offset)
    assert (third.partition, third.offset) > (one.partition, one.offset)
    assert node.floor(node.partition) == 1
    stored = [value for partition in range(4) for value in node.values("keyed", partition)]
    assert sorted(stored) == [b"1", b"2", b"3", b"4"]
    again = await node.transact(**request)
    assert again.repeated_call
    assert again.appends == answer.appends, "also what was a repeat at the first call is one again"


async def test_only_repeats_are_answered_without_an_entry(node: Node) -> None:
    await node.transact(appends=[plain("keyed", record(b"1", b"a"), keys=[b"x1"])])
    before = node.engine.index
    answer = await node.transact(appends=[plain("keyed", record(b"1", b"a"), keys=[b"x1"])])
    assert answer.appends[0].positions[0].duplicate
    assert node.engine.index == before + 1, "the one that was refused"


async def test_bounds(node: Node) -> None:
    node.service._state = StateLimits(max_transaction_bytes=1000, max_batches_per_append=2, max_settle_runs=3)
    reason, facts = await node.refused(appends=[plain("t", record(b"x" * 1001))])
    assert (reason, facts["limit"]) == ("TRANSACTION_TOO_LARGE", "1000")
    assert int(facts["size"]) > 1000
    three = [bus_pb2.PartitionBatch(partition=n, batch=encode_batch([b"v"])) for n in range(3)]
    reason, facts = await node.refused(appends=[bus_pb2.TopicRecords(topic="t", batches=three)])
    assert (reason, facts) == ("TRANSACTION_TOO_LARGE", {"size": "3", "limit": "2"})
    reason, facts = await node.refused(consume=[places(0, 2, 4, 6, partition=node.partition)])
    assert (reason, facts) == ("TRANSACTION_TOO_LARGE", {"size": "4", "limit": "3"})
    assert node.proposed == 0
    await node.transact(consume=[places(0, 2, 4, partition=node.partition)])


async def test_one_of_more_than_a_topic_s_records_is_too_large_as_a_transaction(node: Node) -> None:
    """Not as a request of one publish, whose bound is the same."""
    records = [record(b"x" * (1 << 20 >> 1)) for _ in range(33)]
    reason, facts = await node.refused(appends=[plain("t", *records)])
    assert (reason, facts["limit"]) == ("TRANSACTION_TOO_LARGE", str(16 << 20))


BAD: list[tuple[dict[str, Any], str, str]] = [
    (
        {"transaction_id": b"short", "appends": [plain("t", record(b"v"))]},
        "INVALID_ARGUMENT",
        "transaction_id",
    ),
    ({}, "INVALID_ARGUMENT", "appends"),
    (
        {"appends": [plain("t", record(b"v")), plain("t", record(b"w"))]},
        "INVALID_ARGUMENT",
        "appends",
    ),
    ({"appends": [plain("t")]}, "INVALID_ARGUMENT", "records"),
    ({"appends": [plain("none", record(b"v"))]}, "UNKNOWN_TOPIC", "topic"),
    ({"appends": [plain("t", record(b"v"), keys=[b"k"])]}, "FAILED_PRECONDITION", "idempotency_keys"),
    ({"appends": [plain("keyed", record(b"v"), keys=[b"k", b"l"])]}, "INVALID_ARGUMENT", "idempotency_keys"),
    ({"consume": [bus_pb2.Consumed(group=GROUP)]}, "INVALID_ARGUMENT", "consume.places"),
    ({"consume": [bus_pb2.Consumed(group=GROUP, session="s")]}, "INVALID_ARGUMENT", "consume.offsets"),
    ({"consume": [session(0, slot=1, name="")]}, "INVALID_ARGUMENT", "consume.session"),
    (
        {"consume": [bus_pb2.Consumed(group="_dead/t", places=places(0, partition=0).places)]},
        "INVALID_ARGUMENT",
        "consume.group",
    ),
    ({"consume": [places(0, partition=0, topic="none")]}, "UNKNOWN_TOPIC", "topic"),
]


@pytest.mark.parametrize(("request_", "reason", "field_"), BAD)
async def test_bad_input(node: Node, request_: dict[str, Any], reason: str, field_: str) -> None:
    found, facts = await node.refused(**request_)
    assert (found, facts.get("field")) == (reason, field_)
    assert node.proposed == 0


async def test_what_the_log_alone_can_refuse(node: Node) -> None:
    nobody = places(0, partition=0)
    nobody.group = "nobody"
    for consumed, reason in (
        (nobody, "UNKNOWN_GROUP"),
        (places(99, partition=node.partition), "OFFSET_OUT_OF_RANGE"),
        (places(0, partition=9), "UNKNOWN_TOPIC"),
    ):
        assert (await node.refused(consume=[consumed]))[0] == reason


async def test_a_message_that_does_not_parse(node: Node) -> None:
    with pytest.raises(Aborted) as caught:
        await node.service.transact(b"\xff\xff", Context())  # type: ignore[arg-type]
    assert caught.value.reason == "INVALID_ARGUMENT"


async def test_by_session_only_the_leader_answers(node: Node) -> None:
    progress = node.engine.progress()
    from dataclasses import replace

    node.engine.bridge.report((), replace(progress, role=Role.FOLLOWER, leader_id=None))
    assert (await node.refused(consume=[session(0, slot=0)]))[0] == "NO_LEADER"
    await node.transact(consume=[places(0, partition=node.partition)])
