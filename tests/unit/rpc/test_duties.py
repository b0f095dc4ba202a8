"""Retention and expiry are proposed by the leader."""

from __future__ import annotations

from rpc_fakes import FakeEngine, Served, make_engine

from holdfast.cluster.commands import encode_op
from holdfast.records import encode_batch
from holdfast.rpc.duties import LeaderDuties
from holdfast.storage import marks
from holdfast.storage.port import Table
from holdfast.v1 import bus_pb2, log_pb2, records_pb2, topics_pb2


class Clock:
    def __init__(self) -> None:
        self.us = 0

    def monotonic(self) -> float:
        return 0.0

    def wall_us(self) -> int:
        return self.us


def duties(engine: FakeEngine, clock: Clock) -> LeaderDuties:
    return LeaderDuties(engine.store, engine.bridge, clock, interval_s=3600, producer_idle_s=100)


async def test_old_records_are_trimmed_and_idle_producers_forgotten() -> None:
    engine = make_engine()
    clock = Clock()
    async with Served(engine) as served:
        await served.topics.CreateTopic(
            topics_pb2.CreateTopicRequest(
                name="t", partitions=1, limits=topics_pb2.TopicLimits(retention_ms=1000)
            )
        )
        batch = bus_pb2.PartitionBatch(batch=encode_batch([b"x"]))
        request = bus_pb2.PublishRequest(topic="t", batches=[batch], producer_id=3)
        await served.bus.Publish(request)
        clock.us = engine.time_us
        assert await duties(engine, clock).run_once() == 1  # looks at producers, forgets none
        assert (await served.bus.Publish(request)).acks[0].duplicate
        clock.us = engine.time_us + 2_000_000
        assert await duties(engine, clock).run_once() == 2
        topic = await served.topics.GetTopic(topics_pb2.GetTopicRequest(name="t"))
        assert topic.partition_info[0].start_offset == topic.partition_info[0].end_offset == 1


async def test_what_groups_keep_of_a_deleted_topic_is_swept() -> None:
    engine = make_engine()
    definition = bus_pb2.GroupDefinition(topics=["t"])
    flow = log_pb2.FlowSettle(topic_id=1, retries=[log_pb2.RetryItem(cause=log_pb2.RETRY_CAUSE_PARK)])
    append = log_pb2.AppendOp(topic_id=1)
    append.batches.add(count=1, length=1)
    for op, blob in (
        (log_pb2.Op(create_topic=log_pb2.CreateTopicOp(name="t", partitions=1)), b""),
        (log_pb2.Op(append=append), b"x"),
        (log_pb2.Op(put_group=log_pb2.PutGroupOp(group="g", definition=definition)), b""),
        (log_pb2.Op(settle=log_pb2.SettleOp(group="g", flows=[flow])), b""),
    ):
        await engine.bridge.submit(encode_op(op, [blob]), 5.0)
    leader = duties(engine, Clock())
    index = engine.index
    assert await leader.run_once() == 0
    assert engine.index == index  # nothing is proposed for nothing
    await engine.bridge.submit(encode_op(log_pb2.Op(delete_topic=log_pb2.DeleteTopicOp(name="t"))), 5.0)
    with engine.store.read() as reader:
        assert (reader.count(Table.FLOWS), reader.count(Table.RETRIES)) == (1, 1)
    assert await leader.run_once() == 1
    with engine.store.read() as reader:
        assert (reader.count(Table.FLOWS), reader.count(Table.RETRIES)) == (0, 0)
    assert await leader.run_once() == 0


async def test_idempotency_keys_whose_time_is_over_are_forgotten() -> None:
    engine = make_engine()
    clock = Clock()
    async with Served(engine) as served:
        limits = topics_pb2.TopicLimits(idempotency_ttl_ms=1000)
        await served.topics.CreateTopic(topics_pb2.CreateTopicRequest(name="t", partitions=1, limits=limits))
        for call in range(7):  # more than one round forgets: 16 operations of 256
            await served.bus.Publish(
                bus_pb2.PublishRequest(
                    topic="t",
                    records=[records_pb2.Record(value=b"v")] * 700,
                    idempotency_keys=[b"%d/%d" % (call, number) for number in range(700)],
                )
            )
        clock.us = engine.time_us
        assert await duties(engine, clock).run_once() == 0
        with engine.store.read() as reader:
            assert marks.count(reader) == 4900
        clock.us = engine.time_us = engine.time_us + 1_000_000
        assert await duties(engine, clock).run_once() == 20
        with engine.store.read() as reader:
            assert marks.count(reader) == 0
        assert await duties(engine, clock).run_once() == 0


async def test_followers_do_nothing() -> None:
    engine = make_engine()
    engine.bridge._progress = engine.progress().__class__(1, 1, 1, "follower", "n2")  # type: ignore[arg-type]
    assert await duties(engine, Clock()).run_once() == 0
    assert engine.index == 1
