"""Groups are changed while members of them work; the members hear of it by themselves."""

from __future__ import annotations

import asyncio

import pytest

import holdfast
import holdfast.testing
from holdfast.client.groups import GroupDefinition
from holdfast.client.retry import Retry
from holdfast.errors import FailedPreconditionError, GroupConflictError

RETRY = Retry(initial=0.01, maximum=0.01)


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
async def test_members_go_on_where_their_group_was_sent(ordering: str) -> None:
    async with holdfast.testing.embedded() as bus, asyncio.timeout(60):
        await bus.create_topic("t")
        await bus.publish_many("t", [b"%d" % n for n in range(100)], keys=[b"%d" % n for n in range(100)])
        definition = GroupDefinition(topics="t", ordering=ordering)  # type: ignore[arg-type]
        async with bus.join("g", definition) as member:
            for expected in (range(100), range(40, 100), range(100)):
                offsets: list[int] = []
                while len(offsets) < len(expected):
                    for record in await member.take(100):
                        offsets.append(record.offset)
                        record.ack()
                assert sorted(offsets) == list(expected)
                await member.settled()
                # Nothing is under way, so it is the seek alone that makes records come again.
                await bus.seek_group("g", "t", 40 if expected == range(100) else "earliest")


async def test_a_group_is_redefined_under_its_members() -> None:
    async with holdfast.testing.embedded() as bus, asyncio.timeout(60):
        await bus.create_topic("t")
        await bus.create_topic("u")
        await bus.publish("u", b"waits")
        async with bus.join("g", GroupDefinition(topics="t", ordering="key")) as member:
            await bus.publish("t", b"first")
            (record,) = await member.take(1)
            record.ack()
            (seated,) = (await bus.group("g")).members
            assert seated.id == member.member_id
            with pytest.raises(FailedPreconditionError, match="has members"):
                await bus.delete_group("g")
            with pytest.raises(GroupConflictError):
                await bus.put_group("g", GroupDefinition(topics="t"))
            await bus.put_group("g", GroupDefinition(topics=["t", "u"], ordering="key"))
            (record,) = await member.take(1)
            assert (record.topic, record.value) == ("u", b"waits")
            record.ack()
            await member.settled()
        while True:  # it has left; the brokers take it out a moment later
            try:
                await bus.delete_group("g")
                break
            except FailedPreconditionError:
                await asyncio.sleep(0.02)


async def test_what_is_parked_is_listed_and_comes_back_when_it_is_restored() -> None:
    async with holdfast.testing.embedded() as bus, asyncio.timeout(60):
        await bus.create_topic("t")
        await bus.publish_many("t", [b"a", b"b", b"c"], keys=[b"a", b"b", b"c"])
        definition = GroupDefinition(topics="t", ordering="key", retry=RETRY)
        async with bus.join("g", definition) as member:
            records: list[holdfast.Record] = []
            while len(records) < 3:
                records += await member.take(3)
            for record in records:
                if record.value == b"c":
                    record.ack()
                else:
                    record.park(error=f"what is {record.value.decode()}?")
            await member.settled()
            waiting = await bus.retries("g", parked=True)
            assert [(r.offset, r.errors[-1][1]) for r in waiting] == [(0, "what is a?"), (1, "what is b?")]
            assert await bus.restore("g", waiting[:1], discard=True) == 1
            assert await bus.restore("g") == 1
            (record,) = await member.take(1)
            assert record.value == b"b"
            record.ack()
            await member.settled()
        (part,) = (await bus.group("g")).partitions
        assert (part.floor, part.retrying) == (3, 0)
