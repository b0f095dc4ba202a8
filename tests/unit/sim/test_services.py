"""Real services and real clients in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest

from holdfast.chaos.checker.history import Delivered, History, Outcome, Publish, Read
from holdfast.chaos.sim.cluster import SimCluster
from holdfast.chaos.sim.loop import Loops, Spinning
from holdfast.chaos.sim.services import ClientProcess, Front, address_of
from holdfast.chaos.sim.workloads import Workloads
from holdfast.chaos.sim.world import TICKS, World
from holdfast.client.options import ClientOptions
from holdfast.client.types import Ack
from holdfast.cluster.state.machine import StateMachine
from holdfast.errors import DeadlineExceededError, UnavailableError

OPTIONS = ClientOptions(trace_context=False, delivery_timeout=5.0, timeout=3.0, connect_timeout=3.0)


class Stage:
    """A cluster with services; ``run`` runs a client program to its end."""

    def __init__(self, seed: int = 1) -> None:
        self.sim = SimCluster(3, seed=seed, machine=StateMachine)
        self.front = Front(self.sim)
        self.sim.elect()

    def program(self, name: str = "c") -> ClientProcess:
        return self.front.process(name)

    def start(self, node_id: str) -> None:
        self.front.started(self.sim.start(node_id))

    def until(self, task: asyncio.Task[Any], limit: float = 60.0) -> Any:
        assert self.sim.run_until(task.done, limit), task
        return task.result()

    def run(self, work: Coroutine[Any, Any, Any], process: ClientProcess, limit: float = 60.0) -> Any:
        return self.until(process.loop.create_task(work), limit)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.front.close()
    assert made.front.loops.errors == []


def test_timers_run_in_order_and_only_when_due() -> None:
    world = World(1)
    loops = Loops(world)
    loop = loops.loop("a")
    seen: list[str] = []
    loop.call_later(0.2, seen.append, "late")
    loop.call_later(0.1, seen.append, "soon")
    loop.call_later(0.15, seen.append, "never").cancel()
    loop.call_soon(seen.append, "now")
    while (when := world.next_time()) != float("inf") or loops.run_ready():
        loops.run_ready()
        world.now = max(world.now, min(when, world.now + 1))
        world.run_due()
        loops.run_ready()
    assert seen == ["now", "soon", "late"]
    assert 1000.2 <= world.now < 1000.2 + 1 / TICKS


def test_running_in_circles_is_an_error() -> None:
    loops = Loops(World(1))
    loop = loops.loop("a")

    def again() -> None:
        loop.call_soon(again)

    again()
    with pytest.raises(Spinning):
        loops.run_ready()


def test_a_buried_loop_unwinds_its_tasks_and_runs_nothing_more() -> None:
    loops = Loops(World(1))
    loop = loops.loop("a")
    seen: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            seen.append("first")
            try:
                await asyncio.sleep(1)
            finally:
                seen.append("second")

    task = loop.create_task(stubborn())
    loops.run_ready()
    loop.bury()
    assert task.cancelled()
    assert seen == ["first", "second"]
    loop.call_soon(seen.append, "third")
    loops.run_ready()
    assert seen == ["first", "second"]
    assert loops.errors == []


def test_publish_consume_and_replay_through_a_leaders_crash(stage: Stage) -> None:
    values = [b"v%d" % number for number in range(60)]

    async def publish(process: ClientProcess) -> list[int]:
        async with process.client(OPTIONS) as bus:
            await bus.create_topic("t", partitions=1)
            acks = []
            for value in values:
                acks.append((await bus.publish("t", value)).offset)
                await asyncio.sleep(0.05)
            return acks

    async def consume(process: ClientProcess) -> list[bytes]:
        taken: dict[int, bytes] = {}
        async with process.client(OPTIONS) as bus, bus.subscribe("t", "g") as subscription:
            while len(taken) < len(values):
                for record in await subscription.take(100):
                    taken[record.offset] = record.value
                    subscription.ack(record)
            await subscription.committed()
        return [taken[offset] for offset in sorted(taken)]

    async def replay(process: ClientProcess) -> list[bytes]:
        async with process.client(OPTIONS) as bus:
            return [record.value async for record in bus.replay("t", linearizable=True)]

    publisher, consumer, reader = (stage.program(name) for name in ("p", "c", "r"))
    publishing = publisher.loop.create_task(publish(publisher))
    stage.sim.run_for(0.5)
    consuming = consumer.loop.create_task(consume(consumer))
    stage.sim.run_for(0.5)
    leader = stage.sim.leader()
    assert leader is not None
    stage.sim.crash(leader.node_id)
    assert stage.until(publishing) == list(range(60))
    assert stage.until(consuming) == values
    stage.start(leader.node_id)
    assert stage.run(replay(reader), reader) == values


def test_a_publish_with_a_key_is_repeated_at_the_next_leader(stage: Stage) -> None:
    """The first try is in the log when its leader dies, and its answer is lost."""
    process, sim = stage.program(), stage.sim

    async def publish(value: bytes) -> Ack:
        async with process.client(OPTIONS) as bus:
            await bus.create_topic("t", partitions=1, idempotency_ttl_ms=60_000, if_not_exists=True)
            sent.append(value)
            return await bus.publish("t", value, idempotency_key="order-17")

    async def replay() -> list[bytes]:
        async with process.client(OPTIONS) as bus:
            return [record.value async for record in bus.replay("t", linearizable=True)]

    sent: list[bytes] = []
    publishing = process.loop.create_task(publish(b"first"))
    leader = sim.leader()
    assert leader is not None

    def ends() -> list[int]:
        return sorted(node.engine.core.journal.last_index for node in sim.nodes.values() if node.engine)

    assert sim.run_until(lambda: bool(sent))
    before = max(ends())
    assert sim.run_until(lambda: ends()[1] > before), "a majority has it"
    assert not publishing.done()
    stage.front.death = "reset"
    sim.crash(leader.node_id)
    assert stage.until(publishing) == Ack("t", 0, 0, duplicate=True)
    stage.start(leader.node_id)
    assert stage.run(publish(b"second"), process) == Ack("t", 0, 0, duplicate=True)
    assert stage.run(replay(), process) == [b"first"]


def test_records_published_after_all_earlier_ones_expired_are_sent(stage: Stage) -> None:
    """A producer whose records all ran out while there was no leader must wake up for the next one."""

    async def scenario(process: ClientProcess, crash: Callable[[], None], back: Callable[[], None]) -> int:
        async with process.client(OPTIONS) as bus:
            await bus.create_topic("t", partitions=1)
            await bus.publish("t", b"before")
            crash()
            futures = []
            for number in range(20):  # some while it looks for a leader
                futures.append(bus.publish("t", b"lost %d" % number))
                await asyncio.sleep(0.01)
            lost = await asyncio.gather(*futures, return_exceptions=True)
            assert all(isinstance(error, DeadlineExceededError) for error in lost)
            await asyncio.sleep(5)
            back()
            return (await bus.publish("t", b"after")).offset

    process = stage.program()
    world, others = stage.sim.world, stage.sim.ids

    def crash() -> None:
        for node in others:
            world.at(world.now, partial(stage.sim.crash, node))

    def back() -> None:
        for node in others:
            world.at(world.now, partial(stage.start, node))

    assert stage.run(scenario(process, crash, back), process) >= 1


def test_a_cut_link_is_noticed_and_a_refused_one_at_once(stage: Stage) -> None:
    async def status(process: ClientProcess) -> int:
        async with process.client(OPTIONS) as bus:
            await bus.create_topic("t", partitions=1, if_not_exists=True)
            return (await bus.publish("t", b"v")).partition

    process = stage.program()
    leader = stage.sim.leader()
    assert leader is not None
    stage.front.clients.cut("c", address_of(leader.node_id))
    # The others forward nothing of publishing, but take it themselves.
    assert stage.run(status(process), process) == 0
    for node_id in stage.sim.ids:
        stage.front.clients.cut("c", address_of(node_id), "refused")
    with pytest.raises(UnavailableError, match="refused"):
        stage.run(status(process), process)


def _history(seed: int, seconds: float = 6.0) -> tuple[list[bytes], History]:
    stage = Stage(seed)
    history = History()
    workloads = Workloads(stage.front, history)
    workloads.start()
    stage.sim.run_for(seconds / 2)
    leader = stage.sim.leader()
    assert leader is not None
    stage.sim.crash(leader.node_id)
    stage.sim.run_for(seconds / 2)
    stage.start(leader.node_id)
    stage.sim.elect()
    workloads.finish()
    assert stage.sim.run_until(lambda: workloads.finished, 40), workloads
    stage.front.close()
    assert stage.front.loops.errors == []
    return [msgspec.json.encode(event) for event in history.events], history


def test_one_seed_gives_one_history() -> None:
    first, history = _history(5)
    second, _ = _history(5)
    assert first == second
    other, more = _history(6)
    assert other != first
    # Not all clients are in every run.
    events = history.events + more.events
    assert {Publish, Read, Delivered} <= {type(event) for event in events}
    assert any(isinstance(event, Publish) and event.outcome is Outcome.OK for event in history.events)
