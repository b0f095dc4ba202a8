"""Dead letters listed, redriven and discarded, against an engine without consensus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
import pytest
from rpc_fakes import FakeEngine, make_engine

from holdfast import headers as names
from holdfast.cluster.commands import encode_op
from holdfast.cluster.delivery import dead_letters
from holdfast.cluster.delivery.dead_letters import Death, Plain
from holdfast.cluster.delivery.redrive import KEEP_MS
from holdfast.errors import (
    HoldfastError,
    InvalidArgumentError,
    NoLeaderError,
    OutcomeUnknownError,
    RedriveLoopError,
    UnknownPartitionError,
    UnknownTopicError,
)
from holdfast.records import decode_batch
from holdfast.rpc.egress import Egress
from holdfast.rpc.events import DeadLettersTaken
from holdfast.rpc.services import dead_letter_steps
from holdfast.rpc.services import dead_letters as service_module
from holdfast.rpc.services.dead_letter_steps import Pace, Time
from holdfast.rpc.services.dead_letters import DeadLetterService
from holdfast.rpc.services.topic_cache import TopicCache
from holdfast.storage import groups, partitions, topics
from holdfast.v1 import bus_pb2, groups_pb2, log_pb2

T0 = 1_700_000_000_000_000
DEATH = Death(
    group="billing",
    topic="orders",
    partition=0,
    offset=0,
    append_time_us=T0,
    attempts=3,
    first_failed_us=T0 + 5,
    errors=((T0 + 9, "db down"),),
)


class Context:
    def peer(self) -> str:
        return "test"


class Virtual(Time):
    """Passes as it is slept away; ``before`` is done at the next sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.before: list[Any] = []

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        if self.before:
            self.before.pop(0)()
        await asyncio.sleep(0)


class Node:
    """The service; topics "orders" and "dead", of two partitions each."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.events: list[DeadLettersTaken] = []
        self.time = Virtual()
        self.cache = TopicCache(engine.store, engine.bridge)
        self.service = DeadLetterService(
            engine.store,
            engine.bridge,
            self.cache,
            Egress(1 << 20, 1 << 20, 10),
            self.events.append,  # type: ignore[arg-type]
            self.time,
        )

    async def start(self) -> Node:
        await self.create("orders")
        await self.create("dead")
        return self

    async def create(self, name: str, partitions_: int = 2) -> None:
        await self.do(create_topic=log_pb2.CreateTopicOp(name=name, partitions=partitions_))

    async def do(self, batches: Iterable[bytes] = (), **op: Any) -> log_pb2.OpResult:
        result, _ = await self.engine.bridge.submit(encode_op(log_pb2.Op(**op), list(batches)), 5)
        return result

    async def die(self, *letters: tuple[int, Plain], topic: str = "dead") -> None:
        """Records become dead letters, each by itself."""
        for partition, record in letters:
            append, batches = dead_letters.append_op(self.row(topic).id, [(partition, record)])
            await self.do(batches, append=append)

    async def define(self, group: str = "billing", topic: str = "orders") -> int:
        """A group that gives up to "dead"; its generation."""
        definition = bus_pb2.GroupDefinition(topics=[topic], dead_letter_topic="dead")
        definition.retry.max_attempts = 3
        put = log_pb2.PutGroupOp(group=group, definition=definition)
        return (await self.do(put_group=put)).group.generation

    def row(self, name: str) -> topics.TopicRow:
        with self.engine.store.read() as reader:
            row = topics.find(reader, name)
        assert row is not None
        return row

    def records(self, topic: str) -> list[list[Plain]]:
        """By partition."""
        row = self.row(topic)
        found: list[list[Plain]] = []
        with self.engine.store.read() as reader:
            for partition in range(row.partitions):
                found.append([])
                for index in partitions.index_scan(reader, row.id, partition, 0):
                    batch = decode_batch(partitions.read_batch(reader, index))
                    found[-1] += [dead_letters.column(batch, at) for at in range(batch.count)]
        return found

    def values(self, topic: str) -> list[bytes]:
        return [record.value for partition in self.records(topic) for record in partition]

    async def list(self, **request: Any) -> list[groups_pb2.DeadLetter]:
        message = groups_pb2.ListDeadLettersRequest(topic=request.pop("topic", "dead"), **request)
        return [
            letter
            async for page in self.service.list_letters(message, Context())  # type: ignore[arg-type]
            for letter in page.letters
        ]

    async def listed(self, **request: Any) -> list[bytes]:
        return [letter.record.value for letter in await self.list(**request)]

    async def redrive(self, **request: Any) -> list[groups_pb2.RedriveProgress]:
        message = groups_pb2.RedriveRequest(topic=request.pop("topic", "dead"), **request)
        return await copies(self.service.redrive(message, Context()))  # type: ignore[arg-type]

    async def discard(self, **request: Any) -> list[groups_pb2.DiscardProgress]:
        message = groups_pb2.DiscardRequest(topic=request.pop("topic", "dead"), **request)
        return await copies(self.service.discard(message, Context()))  # type: ignore[arg-type]


async def copies(stream: AsyncIterator[Any]) -> list[Any]:
    found = []
    async for message in stream:
        kept = type(message)()
        kept.CopyFrom(message)
        found.append(kept)
    return found


def letter(
    value: bytes, key: bytes = b"", headers: tuple[tuple[str, bytes], ...] = (), **death: Any
) -> Plain:
    return dead_letters.make(Plain(key, value, 7, headers), msgspec.structs.replace(DEATH, **death))


def chosen(**fields: Any) -> groups_pb2.DeadLetterFilter:
    return groups_pb2.DeadLetterFilter(**fields)


@pytest.fixture
async def node() -> Any:
    made = await Node(make_engine()).start()
    yield made
    made.engine.bridge.close()


# -- listing -----------------------------------------------------------------------


async def test_what_is_listed(node: Node) -> None:
    await node.die((1, letter(b"v", b"k", (("h", b"x"), ("traceparent", b"00-1")), partition=1, offset=42)))
    (found,) = await node.list()
    assert (found.topic, found.partition, found.offset) == ("dead", 1, 0)
    assert (found.group, found.origin_topic, found.origin_partition) == ("billing", "orders", 1)
    assert (found.origin_offset, found.origin_append_us) == (42, T0)
    assert (found.attempts, found.first_failed_us, found.redrives) == (3, T0 + 5, 0)
    assert [(error.time_us, error.error) for error in found.errors] == [(T0 + 9, "db down")]
    assert found.dead_us > 0
    assert (found.record.key, found.record.value, found.record.timestamp_us) == (b"k", b"v", 7)
    assert [(h.name, h.value) for h in found.record.headers] == [("h", b"x"), ("traceparent", b"00-1")]
    (found,) = await node.list(brief=True)
    assert (found.record.key, found.record.value, found.group) == (b"", b"", "billing")


async def test_filters(node: Node) -> None:
    await node.die(
        (0, letter(b"1", key=b"a")),
        (0, letter(b"2", group="ledger")),
        (1, letter(b"3", topic="flights")),
        (1, letter(b"4", errors=((1, "ValueError: tail"), (2, "timeout")))),
    )
    assert await node.listed() == [b"1", b"2", b"3", b"4"]
    assert await node.listed(limit=3) == [b"1", b"2", b"3"]
    assert await node.listed(filter=chosen(group="ledger")) == [b"2"]
    assert await node.listed(filter=chosen(origin_topic="flights")) == [b"3"]
    assert await node.listed(filter=chosen(error_contains="Value")) == [b"4"]
    assert await node.listed(filter=chosen(key=b"a")) == [b"1"]
    assert await node.listed(filter=chosen(partition=0)) == [b"1", b"2"]
    assert await node.listed(filter=chosen(partition=1, offsets=[1, 7])) == [b"4"]
    second, third = [found.dead_us for found in await node.list()][1:3]
    assert await node.listed(filter=chosen(from_us=second)) == [b"2", b"3", b"4"]
    assert await node.listed(filter=chosen(to_us=third)) == [b"1", b"2"]
    assert await node.listed(filter=chosen(from_us=second, to_us=third)) == [b"2"]
    assert await node.listed(filter=chosen(group="billing", error_contains="timeout")) == [b"4"]


async def test_a_long_list_comes_in_pages(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "_PAGE_RECORDS", 2)
    await node.die(*[(n % 2, letter(b"%d" % n)) for n in range(9)])
    await node.discard(filter=chosen(partition=0, offsets=[0, 1, 3]))
    message = groups_pb2.ListDeadLettersRequest(topic="dead")
    pages = [page async for page in node.service.list_letters(message, Context())]  # type: ignore[arg-type]
    assert [[x.record.value for x in page.letters] for page in pages] == [
        [b"4"],
        [b"8"],
        [b"1", b"3"],
        [b"5", b"7"],
    ]


async def test_records_that_are_no_dead_letters_are_listed_as_such(node: Node) -> None:
    await node.die((0, Plain(b"", b"stray", 7)))
    (found,) = await node.list()
    assert (found.group, found.origin_topic, found.record.value) == ("", "", b"stray")
    (done,) = await node.redrive()
    assert (done.matched, done.redriven, done.refused, done.last_error.reason) == (1, 0, 1, "UNKNOWN_TOPIC")
    assert await node.listed() == [b"stray"]


BAD: list[tuple[dict[str, Any], type[HoldfastError], str]] = [
    ({"topic": ""}, InvalidArgumentError, "topic"),
    ({"topic": "none"}, UnknownTopicError, "topic"),
    ({"filter": chosen(offsets=[1])}, InvalidArgumentError, "filter.partition"),
    ({"filter": chosen(from_us=5, to_us=5)}, InvalidArgumentError, "filter.to_us"),
    ({"filter": chosen(partition=2)}, UnknownPartitionError, "filter.partition"),
    ({"filter": chosen(partition=0, offsets=range(10_001))}, InvalidArgumentError, "filter.offsets"),
]


@pytest.mark.parametrize(("request_", "error", "field"), BAD)
async def test_bad_input(
    node: Node, request_: dict[str, Any], error: type[HoldfastError], field: str
) -> None:
    for call in (node.list, node.redrive, node.discard):
        with pytest.raises(error) as caught:
            await call(**request_)
        assert caught.value.metadata["field"] == field


async def test_bad_redrives(node: Node) -> None:
    await node.die((0, letter(b"v")))
    with pytest.raises(InvalidArgumentError) as caught:
        await node.redrive(per_second=100_001)
    assert caught.value.metadata["field"] == "per_second"
    with pytest.raises(UnknownTopicError) as unknown:
        await node.redrive(to="none")
    assert unknown.value.metadata["field"] == "to"
    with pytest.raises(RedriveLoopError):
        await node.redrive(to="dead", force=True)
    assert await node.listed() == [b"v"]


# -- redriving ---------------------------------------------------------------------


async def test_redriven_records_go_where_they_came_from_and_off_the_list(node: Node) -> None:
    await node.define()
    await node.die(
        (0, letter(b"1", headers=(("h", b"x"),), partition=1, offset=5)),
        (1, letter(b"2", group="other", partition=7)),
    )
    progress = await node.redrive()
    assert [(p.matched, p.redriven, p.refused, p.done) for p in progress] == [
        (1, 1, 0, False),
        (2, 2, 0, False),
        (2, 2, 0, True),
    ]
    assert await node.listed() == []
    by_partition = node.records("orders")
    assert [[record.value for record in found] for found in by_partition] == [[], [b"1", b"2"]]
    first, second = by_partition[1]
    assert first.timestamp_us == 7
    assert first.headers[0] == ("h", b"x")
    assert dict(first.headers[1:]) == {
        names.REDRIVE_GROUP: b"billing",
        names.REDRIVE_TOPIC: b"orders",
        names.REDRIVE_PARTITION: b"1",
        names.REDRIVE_OFFSET: b"5",
        names.REDRIVE_APPEND_US: str(T0).encode(),
        names.REDRIVE_COUNT: b"1",
    }
    assert dict(second.headers)[names.REDRIVE_GROUP] == b"other"
    assert (await node.redrive())[-1].matched == 0
    assert node.events == [DeadLettersTaken("dead", "redriven", 1)] * 2


async def test_a_filter_a_limit_and_another_topic(node: Node) -> None:
    await node.create("mended", 1)
    await node.die(*[(0, letter(b"%d" % n, group="ab"[n % 2])) for n in range(8)])
    done = (await node.redrive(filter=chosen(group="a"), limit=3, to="mended"))[-1]
    assert (done.matched, done.redriven) == (3, 3)
    assert node.values("mended") == [b"0", b"2", b"4"]
    assert all(names.REDRIVE_GROUP not in dict(record.headers) for record in node.records("mended")[0])
    assert await node.listed() == [b"1", b"3", b"5", b"6", b"7"]
    with node.engine.store.read() as reader:
        assert groups.committed(reader, "_dead/dead", node.row("dead").id, 0) == 1


async def test_a_dry_run_does_nothing(node: Node) -> None:
    await node.die(*[(0, letter(b"%d" % n)) for n in range(12)], (1, letter(b"gone", topic="gone")))
    before = node.engine.index
    (done,) = await node.redrive(dry_run=True, limit=11)
    assert (done.matched, done.redriven, done.refused, done.done) == (11, 0, 0, True)
    assert [found.offset for found in done.sample] == list(range(10))
    assert not done.sample[0].record.value
    (done,) = await node.redrive(dry_run=True)
    assert (done.matched, done.refused, done.last_error.reason) == (13, 1, "UNKNOWN_TOPIC")
    (gone,) = await node.discard(dry_run=True)
    assert (gone.matched, gone.discarded, len(gone.sample)) == (13, 0, 10)
    assert node.engine.index == before
    assert len(await node.listed()) == 13


async def test_the_rate_holds(node: Node) -> None:
    await node.die(*[(0, letter(b"%d" % n)) for n in range(30)])
    progress = await node.redrive(per_second=20)
    assert [p.redriven for p in progress[:3]] == [2, 4, 6], "in small steps, for it is slow"
    # The first step goes at once, so that the last begins after the time of 28 records.
    assert node.time.seconds == pytest.approx(28 / 20)
    assert node.values("orders") == [b"%d" % n for n in range(30)]


def test_pace() -> None:
    pace = Pace(100)
    assert pace.wait(10, 5.0) == 0
    assert pace.wait(10, 5.0) == pytest.approx(0.1)
    assert pace.wait(50, 5.05) == pytest.approx(0.15)
    assert pace.wait(1, 9.0) == 0, "what was not used is not saved up"
    assert pace.wait(1, 9.0) == pytest.approx(0.01)


async def test_a_topic_that_is_gone_keeps_its_letters(node: Node) -> None:
    await node.die((0, letter(b"1")), (0, letter(b"2", topic="gone")), (0, letter(b"3")))
    done = (await node.redrive())[-1]
    assert (done.matched, done.redriven, done.refused) == (3, 2, 1)
    assert done.last_error.reason == "UNKNOWN_TOPIC"
    assert done.last_error.metadata["target"] == "gone"
    assert await node.listed() == [b"2"]
    await node.create("gone")
    assert (await node.redrive())[-1].redriven == 1
    assert await node.listed() == []


async def test_a_topic_that_goes_in_the_middle_keeps_its_letters(node: Node) -> None:
    """Between the look at it and the entry: the step is halved until what is at fault stands alone."""
    await node.create("other")
    await node.die(*[(0, letter(b"%d" % n, topic="other" if n == 2 else "orders")) for n in range(5)])
    engine = node.engine
    propose = engine.propose

    def in_between(op: bytes, token: object, deadline: float) -> None:
        engine.propose = propose  # type: ignore[method-assign]
        delete = log_pb2.Op(delete_topic=log_pb2.DeleteTopicOp(name="other"))
        future = asyncio.get_running_loop().create_future()
        propose(encode_op(delete), future, deadline)
        propose(op, token, deadline)

    engine.propose = in_between  # type: ignore[method-assign]
    done = (await node.redrive())[-1]
    assert (done.matched, done.redriven, done.refused) == (5, 4, 1)
    assert sorted(node.values("orders")) == [b"0", b"1", b"3", b"4"]
    assert await node.listed() == [b"2"]


async def test_the_loop_guard(node: Node) -> None:
    generation = await node.define()
    again, often = ((names.REDRIVE_COUNT, b"1"),), ((names.REDRIVE_COUNT, b"3"),)
    await node.die(
        (0, letter(b"again", headers=again, generation=generation)),
        (0, letter(b"often", headers=often, generation=1)),
    )
    done = (await node.redrive())[-1]
    assert (done.refused, done.last_error.reason) == (2, "REDRIVE_LOOP")
    assert done.last_error.metadata["redrives"] == "3"
    assert await node.listed() == [b"again", b"often"]
    await node.create("aside")
    assert (await node.redrive(to="aside", dry_run=True))[-1].refused == 1, (
        "who would bring it back from there?"
    )
    # Somebody has changed the group, or restarted its members.
    definition = bus_pb2.GroupDefinition(topics=["orders"], dead_letter_topic="dead")
    definition.retry.max_attempts = 5
    changed = await node.do(put_group=log_pb2.PutGroupOp(group="billing", definition=definition))
    assert changed.group.generation > generation
    done = (await node.redrive())[-1]
    assert (done.redriven, done.refused) == (1, 1)
    done = (await node.redrive(force=True))[-1]
    assert (done.redriven, done.refused) == (1, 0)
    counts = [dict(r.headers)[names.REDRIVE_COUNT] for found in node.records("orders") for r in found]
    assert counts == [b"2", b"4"]


async def test_a_group_that_reads_the_dead_letter_topic_cannot_send_it_round(node: Node) -> None:
    await node.die((0, letter(b"v", topic="dead")))
    done = (await node.redrive(force=True))[-1]
    assert (done.refused, done.last_error.reason) == (1, "REDRIVE_LOOP")
    assert len(node.values("dead")) == 1


async def test_what_another_redrive_has_done_is_not_done_twice(node: Node) -> None:
    await node.die(*[(0, letter(b"%d" % n)) for n in range(6)])
    engine = node.engine
    propose = engine.propose

    def in_between(op: bytes, token: object, deadline: float) -> None:
        engine.propose = propose  # type: ignore[method-assign]
        row = node.row("dead")
        other = log_pb2.Op()
        other.transact.transaction_id = b"o" * 16
        other.transact.keep_ms = KEEP_MS
        settle = other.transact.consume.add(group="_dead/dead")
        settle.flows.add(topic_id=row.id, partition=0, base=1, runs=[0, 2])
        propose(encode_op(other), asyncio.get_running_loop().create_future(), deadline)
        propose(op, token, deadline)

    engine.propose = in_between  # type: ignore[method-assign]
    done = (await node.redrive())[-1]
    assert (done.matched, done.redriven, done.refused) == (6, 4, 0)
    assert node.values("orders") == [b"0", b"3", b"4", b"5"]
    assert await node.listed() == []


async def test_the_same_redrive_twice_at_once_does_it_once(node: Node) -> None:
    await node.die(*[(0, letter(b"%d" % n)) for n in range(6)])
    node.engine.hold = True
    both = [asyncio.create_task(node.redrive()) for _ in range(2)]
    while node.engine.held < 2:
        await asyncio.sleep(0)
    node.engine.hold = False
    node.engine.release()
    counts = sorted([(await each)[-1].redriven for each in both])
    assert counts == [0, 6]
    assert node.values("orders") == [b"%d" % n for n in range(6)]


@pytest.mark.parametrize("done", [False, True])
async def test_a_step_whose_outcome_is_unknown_is_tried_again(node: Node, done: bool) -> None:
    """Whether it was done or not, its records are published once."""
    await node.die((0, letter(b"v")))
    engine = node.engine
    propose = engine.propose
    tries = []

    def lose(op: bytes, token: Any, deadline: float) -> None:
        tries.append(op)
        if len(tries) > 2:
            propose(op, token, deadline)
            return
        if done:
            propose(op, asyncio.get_running_loop().create_future(), deadline)
        engine.fail = OutcomeUnknownError("who knows") if len(tries) == 1 else NoLeaderError("nobody")
        propose(op, token, deadline)
        engine.fail = None

    engine.propose = lose  # type: ignore[method-assign]
    last = (await node.redrive())[-1]
    assert (last.redriven, last.refused) == (1, 0)
    assert len(tries) == 3
    assert tries[0] == tries[1] == tries[2]
    assert node.values("orders") == [b"v"]
    assert await node.listed() == []


async def test_a_cluster_that_does_not_come_back_ends_the_call(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letter_steps, "_STEP_SECONDS", 0.0)
    await node.die((0, letter(b"v")))
    engine = node.engine
    propose = engine.propose

    def refuse(op: bytes, token: Any, deadline: float) -> None:
        engine.fail = NoLeaderError("nobody")
        propose(op, token, deadline)
        engine.fail = None

    engine.propose = refuse  # type: ignore[method-assign]
    with pytest.raises(NoLeaderError):
        await node.redrive()
    engine.propose = propose  # type: ignore[method-assign]
    assert await node.listed() == [b"v"]


async def test_letters_that_come_during_a_redrive_wait_for_the_next(node: Node) -> None:
    await node.die((0, letter(b"1")))
    append, batches = dead_letters.append_op(node.row("dead").id, [(0, letter(b"2"))])
    op = encode_op(log_pb2.Op(append=append), batches)
    node.time.before.append(lambda: node.engine.propose(op, asyncio.get_running_loop().create_future(), 0.0))
    assert (await node.redrive())[-1].redriven == 1
    assert await node.listed() == [b"2"]


# -- discarding --------------------------------------------------------------------


async def test_discarded_letters_are_off_the_list_and_in_the_topic(node: Node) -> None:
    await node.die(*[(n % 2, letter(b"%d" % n, group="ab"[n > 3])) for n in range(6)])
    progress = await node.discard(filter=chosen(group="a"), limit=3)
    assert (progress[-1].matched, progress[-1].discarded, progress[-1].done) == (3, 3, True)
    assert await node.listed() == [b"4", b"3", b"5"]
    progress = await node.discard()
    assert progress[-1].discarded == 3
    assert await node.listed() == []
    assert len(node.values("dead")) == 6
    assert not node.values("orders")
    assert sum(event.records for event in node.events if event.how == "discarded") == 6


async def test_trimmed_letters_do_not_hold_the_list(node: Node) -> None:
    await node.die(*[(0, letter(b"%d" % n)) for n in range(5)])
    trim = log_pb2.TrimOp(topic_id=node.row("dead").id, partition=0, before_offset=2)
    await node.do(trim=trim)
    assert await node.listed() == [b"2", b"3", b"4"]
    await node.discard(filter=chosen(partition=0, offsets=[2, 3]))
    with node.engine.store.read() as reader:
        assert groups.committed(reader, "_dead/dead", node.row("dead").id, 0) == 4
    assert await node.listed() == [b"4"]
