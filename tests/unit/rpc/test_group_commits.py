"""Acks become committed offsets, whenever they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from rpc_fakes import FakeEngine, make_engine

from holdfast.cluster.commands import encode_op
from holdfast.cluster.delivery.group import Group
from holdfast.cluster.delivery.members import Member
from holdfast.records import encode_batch
from holdfast.rpc.services.subscribe import SubscribeService
from holdfast.rpc.services.topic_cache import TopicCache
from holdfast.rpc.settings import make
from holdfast.rpc.topology import Topology
from holdfast.storage import groups
from holdfast.v1 import log_pb2

TOPIC = "t"
RECORDS = 8


class Consumer:
    """A member of a group on the leader, which was given some records of one partition."""

    def __init__(self, engine: FakeEngine, cache: TopicCache, topic_id: int, records: int) -> None:
        self.engine = engine
        self.key = (topic_id, 0)
        self.service = SubscribeService(engine.store, engine.bridge, cache, Topology(make()))
        self.group: Group = self.service._coordinate().plain.group("g")
        self.told = asyncio.Event()
        self.member = Member("m", "m", {topic_id: TOPIC}, credits=records, notify=self.notified)
        #: Called once when a commit is told of.
        self.then = lambda: None
        self.group.join(self.member, {topic_id: 1}, lambda _: (0, 0))
        (flow,) = self.member.owned.values()
        self.group.delivered(self.member, flow, records, records)

    def notified(self) -> None:
        then, self.then = self.then, lambda: None
        then()
        self.told.set()

    def ack(self, offset: int) -> None:
        """As the session does with what a client sends."""
        assert self.group.ack(self.member, TOPIC, 0, offset, offset)
        if self.group.commit_due:
            self.service._commit_soon(self.group)

    async def committed(self, offset: int) -> None:
        async with asyncio.timeout(5):
            while True:
                with self.engine.store.read() as reader:
                    if groups.committed(reader, "g", *self.key) == offset:
                        return
                self.told.clear()
                await self.told.wait()


@pytest.fixture
async def consumer() -> AsyncIterator[Consumer]:
    engine = make_engine()
    op = encode_op(log_pb2.Op(create_topic=log_pb2.CreateTopicOp(name=TOPIC, partitions=1)))
    await engine.bridge.submit(op, 5)
    cache = TopicCache(engine.store, engine.bridge)
    topic_id = (await cache.find(TOPIC, 5)).id
    blob = encode_batch([b"v"] * RECORDS)
    append = log_pb2.AppendOp(topic_id=topic_id)
    append.batches.add(count=RECORDS, length=len(blob))
    await engine.bridge.submit(encode_op(log_pb2.Op(append=append), [blob]), 5)
    made = Consumer(engine, cache, topic_id, RECORDS)
    yield made
    await made.service.close()
    engine.bridge.close()


async def test_acks_are_committed_together(consumer: Consumer) -> None:
    before = consumer.engine.index
    for offset in (1, 0, 2):
        consumer.ack(offset)
    await consumer.committed(3)
    assert consumer.engine.index == before + 1


@pytest.mark.parametrize("steps", range(4))
async def test_an_ack_that_comes_as_the_committer_ends_is_committed_too(
    consumer: Consumer, steps: int
) -> None:
    loop = asyncio.get_running_loop()

    def later(left: int) -> None:
        """The ack that is the last for a long time, so many steps of the loop after the commit."""
        if left:
            loop.call_soon(later, left - 1)
        else:
            consumer.ack(1)

    consumer.then = lambda: loop.call_soon(later, steps)
    consumer.ack(0)
    await consumer.committed(2)
