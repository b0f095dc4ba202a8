"""Members of defined groups on the real services, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from holdfast.chaos.sim.services import ClientProcess
from holdfast.client.client import Client
from holdfast.client.events import Assigned, SubscriptionEvent
from holdfast.client.groups import GroupDefinition
from holdfast.client.membership import Membership

from .test_services import OPTIONS, Stage


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.front.close()
    assert made.front.loops.errors == []


async def fill(bus: Client, count: int) -> None:
    """One batch of one partition."""
    await bus.create_topic("t", partitions=1)
    for number in range(count):
        bus.send("t", b"%d" % number)
    await bus.flush()


def test_at_most_once_needs_no_credits_for_what_is_settled(stage: Stage) -> None:
    async def work(process: ClientProcess) -> list[bytes]:
        async with process.client(OPTIONS) as bus:
            await fill(bus, 5)
            definition = GroupDefinition(topics=["t"], ordering="none", semantics="at_most_once")
            seen = []
            async with bus.join("g", definition, max_in_flight=1) as member:
                while len(seen) < 5:
                    for record in await member.take(1):
                        seen.append(record.value)
                        record.ack()
            return seen

    program = stage.program()
    assert stage.run(work(program), program) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_member_that_pauses_while_a_batch_waits_for_credits_costs_nothing(stage: Stage) -> None:
    async def work(process: ClientProcess) -> int:
        async with process.client(OPTIONS) as bus:
            await fill(bus, 10)
            members: list[Membership] = []

            def on_event(event: SubscriptionEvent) -> None:
                if isinstance(event, Assigned):
                    members[0].pause()

            definition = GroupDefinition(topics=["t"], ordering="partition")
            members.append(bus.join("g", definition, max_in_flight=3, on_event=on_event))
            await asyncio.sleep(2.0)
            members[0].resume()
            return len(await members[0].take(3))

    program = stage.program()
    assert stage.run(work(program), program) == 3
