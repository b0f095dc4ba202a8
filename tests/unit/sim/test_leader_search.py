"""How a client looks for a leader while there is none, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.chaos.sim.cluster import SimCluster
from holdfast.chaos.sim.services import ClientProcess, Front
from holdfast.client import connection
from holdfast.client.connection import Endpoint
from holdfast.client.options import ClientOptions
from holdfast.cluster.state.machine import StateMachine

OUTAGE_S = 10.0


def test_a_long_outage_is_no_storm_of_questions_and_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = SimCluster(3, seed=1, machine=StateMachine)
    front = Front(sim)
    sim.elect()
    asked: list[float] = []
    unary = Endpoint.unary

    def counted(self: Endpoint, method, *rest):  # type: ignore[no-untyped-def]
        if method is connection.GET_STATUS:
            asked.append(sim.world.now)
        return unary(self, method, *rest)

    monkeypatch.setattr(Endpoint, "unary", counted)

    async def outage(process: ClientProcess) -> float:
        async with process.client(ClientOptions(trace_context=False, delivery_timeout=60.0)) as bus:
            await bus.create_topic("t")
            sim.network.partition(["n1"], ["n2"], ["n3"])
            await asyncio.sleep(2.0)  # whoever led has noticed
            asked.clear()
            waiting = asyncio.ensure_future(bus.publish("t", b"1"))
            await asyncio.sleep(OUTAGE_S)
            questions = len(asked)
            sim.network.heal_all()
            while sim.leader() is None:
                await asyncio.sleep(0.01)
            elected = sim.world.now
            await waiting
            # Three brokers; quickly at first, then four to eight times a second each.
            assert 3 * 4 * (OUTAGE_S - 1) < questions < 3 * (8 * OUTAGE_S + 15)
            return sim.world.now - elected

    process = front.process("c")
    task = process.loop.create_task(outage(process))
    assert sim.run_until(task.done, 60.0)
    front.close()
    assert task.result() < 0.5
