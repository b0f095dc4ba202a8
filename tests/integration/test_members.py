"""Members of defined groups, from the SDK through gRPC to the log and back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import holdfast
from holdfast.client.events import Lost
from holdfast.client.groups import GroupDefinition, Retry
from holdfast.client.types import Record
from holdfast.errors import (
    FencedError,
    GroupConflictError,
    InvalidArgumentError,
    UnknownGroupError,
    UnknownTopicError,
)
from holdfast.v1 import bus_pb2

from .delivery_kit import PATIENCE, leader_of, single, three


def client(node: object) -> holdfast.Client:
    return holdfast.connect(node.broker.client_address)  # type: ignore[attr-defined]


async def fill(bus: holdfast.Client, count: int, keys: int = 4, partitions: int = 2) -> None:
    await bus.create_topic("orders", partitions=partitions)
    for i in range(count):
        bus.send("orders", b"%d" % i, key=b"k%d" % (i % keys))
    await bus.flush()


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
async def test_everything_is_handled_once_and_settled(tmp_path: Path, ordering: str) -> None:
    async with single(tmp_path) as node, client(node) as bus:
        await fill(bus, 500)
        definition = GroupDefinition(topics=["orders"], ordering=ordering)  # type: ignore[arg-type]
        seen: list[Record] = []
        async with asyncio.timeout(PATIENCE), bus.join("billing", definition, max_in_flight=64) as member:
            async for record in member:
                seen.append(record)
                record.ack()
                if len(seen) == 500:
                    break
            await member.settled()
        assert Counter(record.value for record in seen) == Counter(b"%d" % i for i in range(500))
        if ordering != "none":
            lanes: dict[object, list[int]] = defaultdict(list)
            for record in seen:
                lanes[record.partition if ordering == "partition" else record.key].append(record.offset)
            assert all(offsets == sorted(offsets) for offsets in lanes.values())
        group = await bus.group("billing")
        assert sum(part.floor for part in group.partitions) == 500
        async with asyncio.timeout(1.0):  # at once: nobody waits for one who said goodbye
            while (await bus.group("billing")).members:
                await asyncio.sleep(0.01)


async def test_a_failed_record_comes_again_with_its_attempt_and_then_dies(tmp_path: Path) -> None:
    async with single(tmp_path) as node, client(node) as bus:
        await fill(bus, 20)
        await bus.create_topic("orders.dead")
        definition = GroupDefinition(
            topics=["orders"],
            ordering="key",
            retry=Retry(attempts=3, initial=0.05, maximum=0.05),
            dead_letter="orders.dead",
        )
        attempts: list[int] = []
        done: set[bytes] = set()
        async with asyncio.timeout(PATIENCE), bus.join("billing", definition) as member:
            async for record in member:
                if record.value == b"5":
                    attempts.append(record.attempt)
                    record.nack(error="no price")
                else:
                    done.add(record.value)
                    record.ack()
                if len(attempts) == 3 and len(done) == 19:
                    break
            await member.settled()
        assert attempts == [1, 2, 3]
        async with asyncio.timeout(PATIENCE):
            dead = [record async for record in bus.replay("orders.dead")]
        assert [record.value for record in dead] == [b"5"]
        assert dead[0].header("holdfast-dead-attempts") == b"3"
        assert b"no price" in (dead[0].header("holdfast-dead-errors") or b"")
        group = await bus.group("billing")
        assert sum(part.floor for part in group.partitions) == 20
        assert await bus.retries("billing") == []


async def test_two_members_share_a_partition_by_key(tmp_path: Path) -> None:
    async with single(tmp_path) as node, client(node) as bus:
        await fill(bus, 400, keys=8, partitions=1)
        definition = GroupDefinition(topics=["orders"], ordering="key")
        running: set[bytes | None] = set()
        order: dict[bytes | None, list[int]] = defaultdict(list)
        by: Counter[str] = Counter()
        left = 400
        over = asyncio.Event()

        async def work(name: str) -> None:
            nonlocal left
            async with bus.join("billing", definition, max_in_flight=4, name=name) as member:

                async def handle(record: Record) -> None:
                    nonlocal left
                    assert record.key not in running
                    running.add(record.key)
                    order[record.key].append(record.offset)
                    await asyncio.sleep(0)
                    running.discard(record.key)
                    by[name] += 1
                    record.ack()
                    left -= 1
                    if not left:
                        over.set()

                async def pull() -> None:
                    async for record in member:
                        await handle(record)

                pullers = [asyncio.create_task(pull()) for _ in range(4)]
                await over.wait()
                await member.settled()
                for puller in pullers:
                    puller.cancel()

        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(work("a"), work("b"))
        assert all(offsets == sorted(offsets) for offsets in order.values())
        assert sum(len(offsets) for offsets in order.values()) == 400
        assert min(by.values()) > 0, by


async def test_acks_and_retries_outlive_the_leader(tmp_path: Path) -> None:
    async with three(tmp_path) as nodes:
        leader = await leader_of(nodes)
        others = [node for node in nodes if node is not leader]
        async with holdfast.connect([node.broker.client_address for node in others]) as bus:
            await fill(bus, 100, partitions=1)
            definition = GroupDefinition(
                topics=["orders"], ordering="key", retry=Retry(initial=0.5, maximum=0.5, jitter=0.0)
            )
            handled: Counter[bytes] = Counter()
            attempts: dict[bytes, int] = {}
            async with (
                asyncio.timeout(3 * PATIENCE),
                bus.join("billing", definition, max_in_flight=16) as member,
            ):
                async for record in member:
                    handled[record.value] += 1
                    attempts[record.value] = record.attempt
                    if record.value == b"7" and record.attempt == 1:
                        record.nack(error="later")
                        await member.settled()
                        await leader.close()
                    else:
                        record.ack()
                    if len(handled) == 100 and attempts[b"7"] == 2:
                        break
                await member.settled()
                offsets = member.committed
            assert attempts[b"7"] == 2
            assert handled[b"7"] == 2
            group = await bus.group("billing")
            assert sum(part.floor for part in group.partitions) == 100, (offsets, group)


async def test_what_is_not_there_or_otherwise_is_said(tmp_path: Path) -> None:
    async with single(tmp_path) as node, client(node) as bus:
        await bus.create_topic("orders")
        with pytest.raises(UnknownGroupError):
            await bus.join("nobody").take(1)
        with pytest.raises(UnknownTopicError):
            await bus.join("billing", GroupDefinition(topics=["nothing"])).take(1)
        first = bus.join("shipping", GroupDefinition(topics=["orders"], ordering="key"))
        async with asyncio.timeout(PATIENCE):
            while not first.assignment:
                await asyncio.sleep(0.01)
        with pytest.raises(GroupConflictError) as caught:
            await bus.join("shipping", GroupDefinition(topics=["orders"], ordering="none")).take(1)
        assert caught.value.metadata["field"] == "ordering"
        with pytest.raises(holdfast.HoldfastError, match="is defined"):
            await bus.subscribe("orders", group="shipping").take(1)
        await first.close()


async def test_a_delay_too_long_is_said_where_it_is_asked_for(tmp_path: Path) -> None:
    """And to nobody else: brokers end the stream of a member that asks for it."""
    async with single(tmp_path) as node, client(node) as bus:
        await fill(bus, 1, partitions=1)
        week = 7 * 86_400.0
        async with (
            asyncio.timeout(PATIENCE),
            bus.join("billing", GroupDefinition(topics=["orders"])) as member,
        ):
            (record,) = await member.take(1)
            for field, ask in (("delay", record.nack), ("delay", record.park), ("seconds", record.extend)):
                for wrong in (week + 1, float("inf"), float("nan")):
                    with pytest.raises(InvalidArgumentError) as caught:
                        ask(wrong)
                    assert caught.value.metadata == {"field": field}
            record.extend(week)
            record.nack(-1.0)
            (again,) = await member.take(1)
            assert again.attempt == 2
            again.park(week)
            await member.settled()
        assert [it.parked for it in await bus.retries("billing")] == [True]


async def test_of_two_members_with_one_id_the_newer_stays(tmp_path: Path) -> None:
    async with single(tmp_path) as node, client(node) as bus:
        await fill(bus, 10)
        definition = GroupDefinition(topics=["orders"])
        lost: list[object] = []
        old = bus.join("billing", definition, member_id="worker-1", on_event=lost.append)
        async with asyncio.timeout(PATIENCE):
            (record,) = await old.take(1)
            new = bus.join("billing", definition, member_id="worker-1")
            again = await new.take(1)
            assert again[0].value == record.value
            with pytest.raises(FencedError):
                await _until_it_ends(old)
        assert not any(isinstance(event, Lost) for event in lost)
        await new.close()


async def _until_it_ends(member: holdfast.Membership) -> None:
    while await member.take(100):
        pass


async def test_what_a_member_had_begun_when_it_vanished_is_charged(tmp_path: Path) -> None:
    async with single(tmp_path) as node, client(node) as bus:
        await fill(bus, 2, keys=1, partitions=1)
        definition = GroupDefinition(topics=["orders"], ordering="key")
        first = bus.join("billing", definition)
        async with asyncio.timeout(PATIENCE):
            (begun,) = await first.take(10)  # the other one of its key waits
            second = bus.join("billing", definition)
            while not second.assignment:
                await asyncio.sleep(0.01)
            vanished = asyncio.get_running_loop().time()
            await first.abandon()
            (again,) = await second.take(10)
        assert (again.offset, again.attempt) == (begun.offset, 2)
        # It might have been back: nobody else was given its record until its time was over.
        assert asyncio.get_running_loop().time() - vanished > 1.0
        again.ack()
        await second.close()


async def test_what_is_given_back_comes_before_what_was_behind_it(tmp_path: Path) -> None:
    async with single(tmp_path) as node, client(node) as bus:
        await bus.create_topic("orders")
        for i in range(30):
            await bus.publish("orders", b"%d" % i)
        member = bus.join("billing", GroupDefinition(topics=["orders"]), max_in_flight=30)
        seen: list[int] = []
        async with asyncio.timeout(PATIENCE):
            first = await member.take(5)
            for record in first:
                record.release()
            while len(seen) < 30:
                for record in await member.take(5):
                    seen.append(record.offset)
                    record.ack()
        assert seen == list(range(30))
        await member.close()


async def test_a_stream_that_ends_without_a_leave_is_broken(tmp_path: Path) -> None:
    """So a killed process looks that a follower passed on, or whose connection was closed for it."""
    async with single(tmp_path) as node, client(node) as bus:
        await fill(bus, 1, partitions=1)
        definition = bus_pb2.GroupDefinition(topics=["orders"], ordering=bus_pb2.ORDERING_KEY)
        hello = bus_pb2.SubscribeStart(
            group="billing", protocol=2, member_id="m", definition=definition, concurrency=1, credits=10
        )
        async with asyncio.timeout(PATIENCE):
            call = node.bus.Subscribe()
            await call.write(bus_pb2.SubscribeRequest(start=hello))
            while (await call.read()).WhichOneof("kind") != "delivery":
                pass
            second = bus.join("billing")
            while not second.assignment:
                await asyncio.sleep(0.01)
            await call.done_writing()
            (again,) = await second.take(10)
        assert again.attempt == 2
        again.ack()
        await second.close()


async def test_what_a_killed_process_had_begun_is_charged(tmp_path: Path) -> None:
    async with single(tmp_path) as node, client(node) as bus:
        await fill(bus, 2, keys=1, partitions=1)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _CONSUMER, node.broker.client_address, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readline() == b"begun 0\n"
            second = bus.join("billing")
            while not second.assignment:
                await asyncio.sleep(0.01)
            process.kill()
            await process.wait()
            (again,) = await second.take(10)
        assert (again.offset, again.attempt) == (0, 2)
        again.ack()
        await second.close()


_CONSUMER = """
import asyncio, sys, holdfast

async def main():
    async with holdfast.connect(sys.argv[1]) as bus:
        member = bus.join("billing", holdfast.GroupDefinition(topics=["orders"], ordering="key"))
        (record,) = await member.take(10)
        print("begun", record.offset, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_without_a_loop(tmp_path: Path) -> None:
    async with single(tmp_path) as node:
        attempts = await asyncio.to_thread(_consume_in_a_thread, node.broker.client_address)
    assert attempts == [(b"one", 1), (b"one", 2), (b"two", 1)]


def _consume_in_a_thread(address: str) -> list[tuple[bytes, int]]:
    attempts = []
    with holdfast.connect_sync(address) as bus:
        bus.create_topic("orders")
        bus.publish("orders", b"one")
        bus.publish("orders", b"two")
        definition = GroupDefinition(topics=["orders"], retry=Retry(initial=0.01))
        with bus.join("billing", definition) as member:
            for record in member:
                attempts.append((record.value, record.attempt))
                if record.attempt == 1 and record.value == b"one":
                    record.nack(error="not yet")
                else:
                    record.ack()
                if record.value == b"two":
                    break
            member.settled()
    return attempts
