"""Subscribe over gRPC against real brokers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from holdfast.cluster.commands import encode_op
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.rpc.services import subscribe as subscribe_module
from holdfast.v1 import bus_pb2, groups_pb2, groups_pb2_grpc, log_pb2, topics_pb2

from .delivery_kit import PATIENCE, Member, Node, error_of, leader_of, single, three

BATCHES = bus_pb2.FORMAT_BATCHES
LATEST = bus_pb2.Position(latest=True)


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Delivery settings of brokers started after the call."""

    def use(**values: Any) -> None:
        monkeypatch.setattr(subscribe_module, "DeliverySettings", lambda: DeliverySettings(**values))

    return use


async def values(node: Node, count: int, partition: int = 0, topic: str = "t") -> None:
    await node.publish([b"%d" % n for n in range(count)], partition, topic)


async def failure(member: Member) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """What the call fails with, sooner or later."""
    async with asyncio.timeout(PATIENCE):
        try:
            while await member.call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return error_of(error)
    raise AssertionError("the call ended without an error")


@pytest.mark.parametrize("form", [bus_pb2.FORMAT_RECORDS, BATCHES])
async def test_records_are_delivered_and_acks_survive_a_reconnect(tmp_path: Path, form: int) -> None:
    async with single(tmp_path) as node:
        await node.create()
        await values(node, 10)
        async with Member(node, format=form) as member:
            assignment = await member.next("assignment")
            assert [(p.topic, p.partition, p.start_offset) for p in assignment.partitions] == [("t", 0, 0)]
            assert await member.until_delivered(10) == [(0, n) for n in range(10)]
            await member.ack(5, 6)
            await member.ack(0, 2)
            await member.until_committed(3)
            await member.ack(0, 2)  # again is harmless
            await member.ack(3)
            await member.until_committed(4)
        async with Member(node, format=form) as member:
            assignment = await member.next("assignment")
            assert assignment.partitions[0].start_offset == 4
            assert await member.until_delivered(6) == [(0, n) for n in range(4, 10)]
            await member.ack(4, 9)
            await member.until_committed(10)


async def test_new_records_are_pushed(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create()
        async with Member(node) as member:
            await member.next("assignment")
            for number in range(5):
                await node.publish([b"%d" % number])
                await member.until_delivered(number + 1)
            assert member.values[0, 3] == b"3"


@pytest.mark.parametrize("form", [bus_pb2.FORMAT_RECORDS, BATCHES])
async def test_never_more_than_the_credits_granted(tmp_path: Path, form: int) -> None:
    async with single(tmp_path) as node:
        await node.create(partitions=2)
        for partition in (0, 1, 0, 1):
            await values(node, 6, partition)
        async with Member(node, format=form, credits=0) as member:
            await member.next("assignment")
            total = 0
            for granted in (1, 4, 7, 2, 10):
                await member.grant(granted)
                total += granted
                assert len(await member.until_delivered(total)) == total
            # An ack's answer comes after anything that was sent too much.
            first = next(o for p, o in member.delivered if p == 0)
            await member.ack(first)
            await member.until_committed(first + 1)
            assert len(member.delivered) == 24
            for partition in (0, 1):
                assert [o for p, o in member.delivered if p == partition] == list(range(12))


async def test_at_the_bound_of_unacked_records_a_partition_pauses(tmp_path: Path, bounds: Any) -> None:
    bounds(max_unacked=10)
    async with single(tmp_path) as node:
        await node.create(partitions=2)
        for partition in (0, 1):
            for _ in range(3):
                await values(node, 8, partition)
        async with Member(node) as member:
            await member.until_delivered(20)
            assert sorted(member.delivered) == [(p, o) for p in (0, 1) for o in range(10)]
            await member.ack(1, 9)  # the prefix does not move: record 0 is missing
            await member.ack(0, 4, partition=1)
            await member.until_committed(5, partition=1)
            await member.until_delivered(25)
            assert [o for p, o in member.delivered if p == 1] == list(range(15))
            assert [o for p, o in member.delivered if p == 0] == list(range(10))
            await member.ack(0)
            await member.until_delivered(35)
            assert [o for p, o in member.delivered if p == 0] == list(range(20))


async def test_acks_of_what_was_not_delivered_are_refused(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create()
        await node.create("other")
        await values(node, 4)
        async with Member(node, credits=2) as member:
            await member.until_delivered(2)
            for first, last, topic, partition, reason in (
                (0, 2, "t", 0, "NOT_DELIVERED"),
                (9, 9, "t", 0, "NOT_DELIVERED"),
                (-1, 0, "t", 0, "NOT_DELIVERED"),
                (0, 0, "t", 7, "NOT_DELIVERED"),
                (0, 0, "other", 0, "NOT_DELIVERED"),
                (0, 0, "nope", 0, "NOT_DELIVERED"),
                (1, 0, "t", 0, "INVALID_ARGUMENT"),
            ):
                await member.ack(first, last, partition, topic)
                refused = await member.next("ack_refused")
                assert refused.error.reason == reason
                assert (refused.range.topic, refused.range.partition) == (topic, partition)
                assert (refused.range.first_offset, refused.range.last_offset) == (first, last)
            await member.ack(0, 1)
            await member.until_committed(2)


async def test_members_share_partitions_and_moves_are_fenced(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create(partitions=4)
        for partition in range(4):
            await values(node, 3, partition)
        async with Member(node) as first:
            before = await first.next("assignment")
            assert len(before.partitions) == 4
            await first.until_delivered(12)
            for partition in range(4):
                await first.ack(0, partition=partition)
                await first.ack(2, partition=partition)
                await first.until_committed(1, partition)
            async with Member(node) as second:
                theirs = await second.next("assignment")
                mine = await first.next("assignment")
                assert mine.generation == theirs.generation > before.generation
                kept = {p.partition for p in mine.partitions}
                moved = {p.partition for p in theirs.partitions}
                assert (len(kept), len(moved), kept | moved) == (2, 2, {0, 1, 2, 3})
                assert all(p.start_offset == 1 for p in theirs.partitions)
                # Record 1 was not acknowledged; 2 was, and is not delivered again.
                assert sorted(await second.until_delivered(2)) == [(p, 1) for p in sorted(moved)]
                lost = min(moved)
                await first.ack(1, partition=lost)
                assert (await first.next("ack_refused")).error.reason == "FENCED"
                await second.ack(1, partition=lost)
                await second.until_committed(3, lost)
                await first.ack(1, partition=min(kept))
                await first.until_committed(3, min(kept))
            back = await first.next("assignment")
            assert {p.partition: p.start_offset for p in back.partitions}[lost] == 3


async def test_a_topic_per_member(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create("a")
        await node.create("b")
        await node.publish([b"in a"], topic="a")
        await node.publish([b"in b"], topic="b")
        async with Member(node, topics=["a"]) as one, Member(node, topics=["a", "b"]) as two:
            await one.until_delivered(1)
            await two.until_delivered(1)
            assert list(one.values.values()) == [b"in a"]
            assert list(two.values.values()) == [b"in b"]


async def test_the_initial_position_is_kept_even_when_nothing_is_acked(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create()
        await values(node, 5)
        async with Member(node, initial=LATEST) as member:
            assert (await member.next("assignment")).partitions[0].start_offset == 5
            await node.publish([b"new"])
            assert await member.until_delivered(1) == [(0, 5)]
        # The next session's "latest" would skip the record that was not acked.
        async with Member(node, initial=LATEST) as member:
            assert await member.until_delivered(1) == [(0, 5)]
        await node.publish([b"early", b"x"], times=[4_000, 5_000])
        start = bus_pb2.Position(time_us=5_000)
        async with Member(node, group="timed", initial=start) as member:
            assert await member.until_delivered(1) == [(0, 7)]


async def test_finishing_commits_what_was_acked(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create()
        await values(node, 4)
        member = Member(node)
        async with member:
            await member.until_delivered(4)
            await member.ack(0, 2)
            await member.call.done_writing()
            await member.until_committed(3)
            assert await member.call.read() is grpc.aio.EOF
            assert await member.call.code() == grpc.StatusCode.OK
        async with Member(node) as member:
            assert (await member.next("assignment")).partitions[0].start_offset == 3


async def test_bad_subscriptions_are_refused(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create()
        for reason, arguments in (
            ("UNKNOWN_TOPIC", {"topics": ["nope"]}),
            ("INVALID_ARGUMENT", {"topics": []}),
            ("INVALID_ARGUMENT", {"topics": ["t", "t"]}),
            ("INVALID_ARGUMENT", {"group": ""}),
            ("INVALID_ARGUMENT", {"group": "no spaces"}),
            ("INVALID_ARGUMENT", {"initial": bus_pb2.Position(offset=3)}),
            ("INVALID_ARGUMENT", {"format": 7}),
            ("LIMIT_EXCEEDED", {"credits": 1 << 30}),
        ):
            async with Member(node, **arguments) as member:
                assert (await failure(member))[1] == reason, arguments
        async with Member(node) as member:
            await member.call.write(bus_pb2.SubscribeRequest())
            assert (await failure(member))[1] == "INVALID_ARGUMENT"
        async with Member(node, credits=9_999_999) as member:
            await member.grant(2)
            assert (await failure(member))[1] == "LIMIT_EXCEEDED"
        call = node.bus.Subscribe()
        await call.write(bus_pb2.SubscribeRequest(credit=bus_pb2.Credit(records=1)))
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        raw = node.channel.stream_stream("/holdfast.v1.EventBus/Subscribe")()
        await raw.write(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw.read()
        assert error_of(caught.value)[1] == "INVALID_ARGUMENT"
        async with Member(node) as member:
            await member.next("assignment")


async def test_members_groups_and_sessions_are_bounded(tmp_path: Path, bounds: Any) -> None:
    bounds(max_members_per_group=1, max_groups=2, max_sessions=3)
    async with single(tmp_path) as node:
        await node.create()
        async with Member(node) as one, Member(node, group="h") as two:
            await one.next("assignment")
            await two.next("assignment")
            async with Member(node) as late:
                assert (await failure(late))[1] == "LIMIT_EXCEEDED"
            async with Member(node, group="i") as late:
                assert (await failure(late))[1] == "LIMIT_EXCEEDED"


async def test_a_deleted_topic_ends_the_sessions_that_read_it(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create()
        async with Member(node) as member:
            await member.next("assignment")
            await node.topics.DeleteTopic(topics_pb2.DeleteTopicRequest(name="t"), timeout=PATIENCE)
            assert (await failure(member))[1] == "UNKNOWN_TOPIC"


async def test_lag_counts_what_is_not_committed(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create(partitions=2)
        await values(node, 5, 1)
        async with Member(node) as member:
            await member.until_delivered(5)
            await member.ack(0, 1, partition=1)
            await member.until_committed(2, 1)
        await node.broker.bridge.settle(PATIENCE)
        answer = await groups_pb2_grpc.GroupsStub(node.channel).GetLag(
            groups_pb2.GetLagRequest(group="g"), timeout=10
        )
        lags = [(g.topic, g.partition, g.floor, g.end, g.records) for g in answer.lags]
        assert lags == [("t", 0, 0, 0, 0), ("t", 1, 2, 5, 3)]


async def test_a_follower_pipes_to_the_leader(tmp_path: Path) -> None:
    async with three(tmp_path) as nodes:
        leader = await leader_of(nodes)
        follower = next(node for node in nodes if node is not leader)
        await leader.create()
        await values(follower, 6)
        async with Member(follower) as member:
            await member.next("assignment")
            await member.until_delivered(6)
            await member.ack(0, 3)
            await member.until_committed(4)
            await member.ack(17)
            assert (await member.next("ack_refused")).error.reason == "NOT_DELIVERED"
            await member.call.done_writing()
            assert await member.call.read() is grpc.aio.EOF
        async with Member(follower, topics=["nope"]) as member:
            assert (await failure(member))[1] == "UNKNOWN_TOPIC"
        # What was published through a follower is there to be read at once.
        for number in range(10):
            await follower.publish([b"%d" % number])
            messages = await follower.replay(start=bus_pb2.Position(offset=6 + number))
            assert [r.value for m in messages for r in m.records] == [b"%d" % number]
        # And, when asked for, what was published through any node.
        await leader.publish([b"last"])
        messages = await follower.replay(linearizable=True)
        assert [r.value for m in messages for r in m.records][-1] == b"last"


async def test_a_change_of_leader_redelivers_what_was_not_acked(tmp_path: Path) -> None:
    async with three(tmp_path) as nodes:
        leader = await leader_of(nodes)
        others = [node for node in nodes if node is not leader]
        await leader.create()
        await values(leader, 8)
        async with Member(leader) as direct, Member(others[0], group="piped") as piped:
            for member in (direct, piped):
                await member.until_delivered(8)
                await member.ack(0, 1)
                await member.ack(4)
                await member.until_committed(2)
            stopping = asyncio.create_task(leader.broker.stop())
            for member in (direct, piped):
                code, reason, _ = await failure(member)
                assert code == grpc.StatusCode.UNAVAILABLE
                assert reason in ("UNAVAILABLE", "NO_LEADER")
            await stopping
        await leader_of(others)
        for group in ("g", "piped"):
            async with Member(others[1], group=group) as member:
                assert (await member.next("assignment")).partitions[0].start_offset == 2
                assert await member.until_delivered(6) == [(0, n) for n in range(2, 8)]


async def test_trimmed_records_are_passed_over(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        await node.create()
        for _ in range(4):
            await values(node, 5)
        async with Member(node, credits=3) as member:
            await member.until_delivered(3)
            trim = log_pb2.Op(trim=log_pb2.TrimOp(topic_id=1, partition=0, before_offset=10))
            await node.broker.bridge.submit(encode_op(trim), PATIENCE)
            await member.grant(100)
            assert (await member.until_delivered(13))[3:] == [(0, n) for n in range(10, 20)]
            await member.until_committed(10)
        trim.trim.before_offset = 15
        await node.broker.bridge.submit(encode_op(trim), PATIENCE)
        async with Member(node) as member:
            assert (await member.next("assignment")).partitions[0].start_offset == 15
            assert await member.until_delivered(5) == [(0, n) for n in range(15, 20)]


async def test_a_batch_waits_for_credits_enough_and_not_for_ever(tmp_path: Path, bounds: Any) -> None:
    bounds(credit_linger=0.2)
    async with single(tmp_path) as node:
        await node.create()
        await values(node, 50)
        async with Member(node, format=BATCHES, credits=0) as member:
            await member.next("assignment")
            for _ in range(50):
                await member.grant(1)
            await member.until_delivered(50)
            assert member.deliveries <= 5  # not one per credit
            await values(node, 50)
            await member.grant(20)
            assert len(await member.until_delivered(70)) == 70
