"""Transactions and dead letters through real brokers: any node, the client library."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

import holdfast
from holdfast.cluster.commands import encode_op
from holdfast.cluster.delivery import dead_letters
from holdfast.cluster.delivery.dead_letters import Death, Plain
from holdfast.errors import AlreadySettledError, TransactionRefusedError
from holdfast.rpc.broker import Broker
from holdfast.storage import topics
from holdfast.v1 import bus_pb2, cluster_pb2, log_pb2, records_pb2

from .brokers import Client, error_of, single, three

DEATH = Death(
    group="billing",
    topic="t",
    partition=0,
    offset=0,
    append_time_us=5,
    attempts=3,
    first_failed_us=6,
    errors=((7, "db down"),),
)


async def leader_first(clients: list[Client]) -> list[int]:
    """Numbers of the brokers, the leader's first."""
    status = await clients[0].cluster.GetStatus(cluster_pb2.GetStatusRequest(), timeout=10)
    leader = int(status.leader_id[1]) - 1
    return [leader, *(n for n in range(3) if n != leader)]


def request(number: int, value: bytes, *offsets: int) -> bus_pb2.TransactRequest:
    made = bus_pb2.TransactRequest(transaction_id=number.to_bytes(16, "big"))
    made.appends.add(topic="out", records=[records_pb2.Record(value=value)])
    if offsets:
        consumed = made.consume.add(group="g")
        consumed.places.add(topic="t", base=offsets[0], runs=[0, len(offsets)])
    return made


async def submit(broker: Broker, batches: list[bytes] | tuple[()] = (), **op: Any) -> log_pb2.OpResult:
    result, _ = await broker.bridge.submit(encode_op(log_pb2.Op(**op), batches), 10)
    return result


async def with_group(broker: Broker, client: Client) -> None:
    """Topics t, with five records, and out; group g at the start of t."""
    for n in range(5):
        await client.publish(b"%d" % n)
    await client.create_topic("out")
    definition = bus_pb2.GroupDefinition(topics=["t"], ordering=bus_pb2.ORDERING_NONE)
    await submit(broker, put_group=log_pb2.PutGroupOp(group="g", definition=definition))


async def die(broker: Broker, *values: bytes, topic: str = "dead") -> None:
    """Records that group billing gave up."""
    with broker.store.read() as reader:
        row = topics.find(reader, topic)
    assert row is not None
    for offset, value in enumerate(values):
        death = Death(**{f: getattr(DEATH, f) for f in DEATH.__struct_fields__} | {"offset": offset})
        letter = dead_letters.make(Plain(b"k", value, 7, (("h", b"x"),)), death)
        append, batches = dead_letters.append_op(row.id, [(0, letter)])
        await submit(broker, batches, append=append)


# -- any node ----------------------------------------------------------------------


async def test_through_followers(tmp_path: Path) -> None:
    """A repeat is known at every node, and a record is consumed once, whichever was asked."""
    async with three(tmp_path) as (brokers, clients):
        _, here, there = await leader_first(clients)
        await with_group(brokers[here], clients[here])
        first = await clients[here].bus.Transact(request(1, b"a", 0, 1), timeout=10)
        assert not first.repeated_call
        again = await clients[there].bus.Transact(request(1, b"a", 0, 1), timeout=10)
        assert again.repeated_call
        assert again.appends == first.appends
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await clients[there].bus.Transact(request(2, b"b", 1, 2), timeout=10)
        code, reason, facts = error_of(caught.value)
        assert (code, reason, facts["offset"]) == ("FAILED_PRECONDITION", "ALREADY_SETTLED", "1")
        await clients[there].bus.Transact(request(3, b"c", 2), timeout=10)
        assert await clients[here].replay("out") == [b"a", b"c"]


async def test_a_session_is_asked_for_at_the_leader(tmp_path: Path) -> None:
    async with three(tmp_path) as (brokers, clients):
        leader, here, _ = await leader_first(clients)
        await clients[here].create_topic("out")
        made = request(1, b"a")
        made.consume.add(group="g", session="s").offsets.add(slot=1, base=0, runs=[0, 1])
        told = []

        class Sessions:
            def claim(self, consumed: bus_pb2.Consumed) -> Any:
                told.append(consumed.session)
                raise AlreadySettledError("said by the leader", metadata={"offset": "7"})

        brokers[leader]._services.transact.sessions = Sessions()  # type: ignore[union-attr]
        for number in (here, leader):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await clients[number].bus.Transact(made, timeout=10)
            assert error_of(caught.value) == ("FAILED_PRECONDITION", "ALREADY_SETTLED", {"offset": "7"})
            assert caught.value.details() == "said by the leader"
        assert told == ["s", "s"]


async def test_over_a_change_of_leader(tmp_path: Path) -> None:
    """Transactions go on while the leader is stopped; each is done once, each record is consumed once."""
    async with three(tmp_path) as (brokers, clients):
        leader, here, there = await leader_first(clients)
        await with_group(brokers[here], clients[here])
        endpoints = [clients[here].address, clients[there].address]
        async with holdfast.connect(endpoints) as bus:
            for number in range(40):
                if number == 10:
                    stopping = asyncio.create_task(brokers[leader].stop())
                async with bus.transaction() as tx:
                    tx.publish("out", b"%d" % number)
                if number < 5:
                    await clients[here].bus.Transact(
                        request(100 + number, b"c%d" % number, number), timeout=10
                    )
            await stopping
            values = [record.value async for record in bus.replay("out", linearizable=True)]
        assert [value for value in values if value.isdigit()] == [b"%d" % n for n in range(40)]
        assert sorted(value for value in values if not value.isdigit()) == [b"c%d" % n for n in range(5)]


# -- the client library ------------------------------------------------------------


async def test_records_of_a_subscription_are_consumed(tmp_path: Path) -> None:
    async with single(tmp_path) as (broker, client):
        await client.create_topic("out")
        async with holdfast.connect(broker.client_address) as bus:
            await bus.publish_many("t", [b"%d" % n for n in range(6)])
            async with bus.subscribe("t", group="copy") as subscription:
                for record in await take(subscription, 6):
                    async with bus.transaction() as tx:
                        tx.publish("out", b"copy of " + record.value, key=record.value)
                        tx.consume(record)
                    assert tx.result.acks[0].topic == "out"
                    taken = record
                # Without an ack: the transactions have settled them.
                assert (await subscription.committed())["t", 0] == 6
            with pytest.raises(TransactionRefusedError) as caught:  # noqa: PT012
                async with bus.transaction() as tx:
                    tx.publish("out", b"twice")
                    tx.consume(taken)
            assert caught.value.metadata["refused"] == "ALREADY_SETTLED"
            copies = [record.value async for record in bus.replay("out")]
            assert copies == [b"copy of %d" % n for n in range(6)]


async def take(subscription: holdfast.Subscription, count: int) -> list[holdfast.Record]:
    found: list[holdfast.Record] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found += await subscription.take(count - len(found))
    return found


async def test_the_synchronous_client(tmp_path: Path) -> None:
    async with single(tmp_path) as (broker, client):
        await client.create_topic("out")
        await client.create_topic("dead")
        await client.publish(b"one")
        await die(broker, b"1", b"2", b"3")

        def work() -> None:
            with holdfast.connect_sync(broker.client_address) as bus:
                with bus.subscribe("t", "copy") as subscription:
                    record = next(iter(subscription))
                    with bus.transaction() as tx:
                        tx.publish("out", b"copied")
                        tx.consume(record)
                    assert tx.result.acks[0].offset == 0
                    with pytest.raises(TransactionRefusedError), bus.transaction() as tx:
                        tx.consume(record)
                    with pytest.raises(KeyError), bus.transaction() as tx:  # noqa: PT012
                        tx.publish("out", b"never")
                        raise KeyError
                once = holdfast.GroupDefinition(topics=["t"], semantics="exactly_once")
                with bus.join("ledger", once) as member:
                    record = next(iter(member))
                    with bus.transaction() as tx:
                        tx.consume(record)
                    assert bus.group("ledger").partitions[0].floor == 1
                letters = list(bus.dead_letters("dead"))
                assert [letter.value for letter in letters] == [b"1", b"2", b"3"]
                assert bus.discard_dead_letters("dead", limit=1).discarded == 1
                assert bus.redrive_dead_letters("dead", limit=1).redriven == 1
                assert [letter.value for letter in bus.dead_letters("dead", limit=5)] == [b"3"]
                assert [record.value for record in bus.replay("out")] == [b"copied"]
                assert [record.value for record in bus.replay("t")] == [b"one", b"2"]

        await asyncio.to_thread(work)


# -- dead letters ------------------------------------------------------------------


async def test_dead_letters_through_any_node(tmp_path: Path) -> None:
    async with three(tmp_path) as (brokers, clients):
        _, here, there = await leader_first(clients)
        await clients[here].create_topic("dead")
        await die(brokers[here], *[b"%d" % n for n in range(250)])
        async with holdfast.connect(clients[there].address, discover=False) as bus:
            (first,) = [letter async for letter in bus.dead_letters("dead", limit=1)]
            assert (first.group, first.origin_topic, first.attempts) == ("billing", "t", 3)
            assert (first.key, first.value, first.headers) == (b"k", b"0", (("h", b"x"),))
            assert [text for _, text in first.errors] == ["db down"]
            progress: list[int] = []
            dry = await bus.redrive_dead_letters("dead", dry_run=True)
            assert (dry.matched, dry.redriven, len(dry.sample), dry.done) == (250, 0, 10, True)
            done = await bus.redrive_dead_letters(
                "dead", rate=100_000, limit=240, on_progress=lambda now: progress.append(now.redriven)
            )
            assert (done.redriven, done.refused, done.done) == (240, 0, True)
            assert progress == [100, 200, 240, 240]
        async with holdfast.connect(clients[here].address, discover=False) as bus:
            left = [letter.value async for letter in bus.dead_letters("dead")]
            assert left == [b"%d" % n for n in range(240, 250)]
            chosen = holdfast.DeadLetterFilter(partition=0, offsets=[241, 243])
            assert (await bus.discard_dead_letters("dead", chosen)).discarded == 2
            records = [record async for record in bus.replay("t", linearizable=True)]
            assert [record.value for record in records] == [b"%d" % n for n in range(240)]
            assert records[5].header("holdfast-redrive-group") == b"billing"
            with pytest.raises(holdfast.errors.UnknownTopicError):
                await bus.redrive_dead_letters("none")


# -- members -----------------------------------------------------------------------

ONCE = holdfast.GroupDefinition(topics=["t"], semantics="exactly_once", ordering="key")


async def copy(bus: holdfast.Client, member: holdfast.Membership, until: int, seen: set[bytes]) -> None:
    """Copy what is handed out to "out", one transaction each, until so many different ones were copied."""
    async for record in member:
        try:
            async with bus.transaction() as tx:
                tx.publish("out", record.value, key=record.key)
                tx.consume(record)
        except TransactionRefusedError:
            continue  # somebody else's by now
        seen.add(record.value)
        if len(seen) >= until:
            return


async def test_members_consume_by_their_leases(tmp_path: Path) -> None:
    """Through followers: the stream is piped, the transaction passed on."""
    async with three(tmp_path) as (_, clients):
        _, here, there = await leader_first(clients)
        await clients[here].create_topic("out")
        async with (
            holdfast.connect(clients[here].address, discover=False) as one,
            holdfast.connect(clients[there].address, discover=False) as two,
        ):
            await one.publish_many(
                "t", [b"%d" % n for n in range(60)], keys=[b"%d" % (n % 7) for n in range(60)]
            )
            seen: set[bytes] = set()
            async with one.join("copy", ONCE) as first, two.join("copy", ONCE) as second:
                async with asyncio.timeout(60):
                    copying = [
                        asyncio.create_task(copy(one, first, 60, seen)),
                        asyncio.create_task(copy(two, second, 60, seen)),
                    ]
                    await asyncio.wait(copying, return_when=asyncio.FIRST_COMPLETED)
                for task in copying:
                    task.cancel()
                await asyncio.gather(*copying, return_exceptions=True)
            copies = [record async for record in one.replay("out", linearizable=True)]
            assert sorted(int(record.value) for record in copies) == list(range(60))
            for key in range(7):
                mine = [int(record.value) for record in copies if record.key == b"%d" % key]
                assert mine == sorted(mine), "in order by key"
            group = await one.group("copy")
            assert [part.floor for part in group.partitions] == [60]


async def test_members_over_a_change_of_leader(tmp_path: Path) -> None:
    """Each record is copied once, though its transaction's answer may be lost with the leader."""
    async with three(tmp_path) as (brokers, clients):
        leader, here, there = await leader_first(clients)
        await clients[here].create_topic("out")
        async with holdfast.connect([clients[here].address, clients[there].address]) as bus:
            keys = [b"%d" % (n % 20) for n in range(200)]
            await bus.publish_many("t", [b"%d" % n for n in range(200)], keys=keys)
            seen: set[bytes] = set()
            async with bus.join("copy", ONCE) as member, asyncio.timeout(60):
                copying = [asyncio.create_task(copy(bus, member, 200, seen)) for _ in range(10)]
                while len(seen) < 40:
                    await asyncio.sleep(0.01)
                await brokers[leader].stop()
                await asyncio.wait(copying, return_when=asyncio.FIRST_COMPLETED)
                for task in copying:
                    task.cancel()
                await asyncio.gather(*copying, return_exceptions=True)
            copies = [int(record.value) async for record in bus.replay("out", linearizable=True)]
            assert sorted(copies) == list(range(200))


async def test_from_a_failure_to_a_redrive_and_back(tmp_path: Path) -> None:
    """A record dies twice; the guard holds it until its group's members are others."""
    async with single(tmp_path) as (broker, client):
        await client.create_topic("dead")
        async with holdfast.connect(broker.client_address) as bus:
            retry = holdfast.Retry(attempts=2, initial=0.01, maximum=0.01)
            definition = holdfast.GroupDefinition(
                topics=["t"], ordering="key", retry=retry, dead_letter="dead"
            )
            await bus.publish("t", b"poison", key="k", headers={"h": "x"})

            async def fail(times: int) -> list[holdfast.Record]:
                """What a member was handed that fails so often."""
                seen = []
                async with bus.join("billing", definition) as member, asyncio.timeout(30):
                    async for record in member:
                        seen.append(record)
                        record.nack(error=f"attempt {record.attempt}")
                        if len(seen) == times:
                            break
                    await member.settled()
                    while len([letter async for letter in bus.dead_letters("dead")]) != 1:
                        await asyncio.sleep(0.01)
                    if seen[0].header("holdfast-redrive-count"):
                        stuck = await bus.redrive_dead_letters("dead")
                        assert (stuck.redriven, stuck.refused) == (0, 1)
                        assert isinstance(stuck.last_error, holdfast.errors.RedriveLoopError)
                return seen

            assert [record.attempt for record in await fail(2)] == [1, 2]
            (letter,) = [letter async for letter in bus.dead_letters("dead")]
            assert (letter.group, letter.origin_topic, letter.origin_offset) == ("billing", "t", 0)
            assert (letter.key, letter.value, letter.headers) == (b"k", b"poison", (("h", b"x"),))
            assert letter.attempts == 2
            assert [text for _, text in letter.errors] == ["attempt 1", "attempt 2"]

            assert (await bus.redrive_dead_letters("dead")).redriven == 1
            again = await fail(2)
            assert [record.attempt for record in again] == [1, 2], "it begins anew"
            assert again[0].header("holdfast-redrive-group") == b"billing"
            (letter,) = [letter async for letter in bus.dead_letters("dead")]
            assert (letter.origin_offset, letter.redrives) == (1, 1)

            # Its members have gone: others may do better.
            assert (await bus.redrive_dead_letters("dead")).redriven == 1
            async with bus.join("billing", definition) as member, asyncio.timeout(30):
                record = await anext(aiter(member))
                assert record.header("holdfast-redrive-offset") == b"0", "where it was first"
                record.ack()
                await member.settled()
            assert [letter async for letter in bus.dead_letters("dead")] == []
            assert len([record async for record in bus.replay("dead")]) == 2
