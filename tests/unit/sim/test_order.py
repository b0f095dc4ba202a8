"""The order of what is due at one moment: drawn, but only what a broker can show."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from holdfast.chaos.sim.cluster import SimCluster
from holdfast.chaos.sim.loop import Loops
from holdfast.chaos.sim.order import TOLD, Moments
from holdfast.chaos.sim.plan import LONGEST, Order, make_plan
from holdfast.chaos.sim.run import run
from holdfast.chaos.sim.services import Front, _Sink
from holdfast.chaos.sim.world import BEGIN, TICKS, World
from holdfast.cluster.results import Progress, Role
from holdfast.cluster.state.machine import StateMachine

SEEDS = range(40)


def moment(seed: int, share: float = 1.0, end: float = TOLD) -> tuple[list[str], list[str]]:
    """What ran of five messages, a fault and an engine that are due together, and what was noted."""
    sim = SimCluster(1, seed=seed, machine=StateMachine, start=False)
    front = Front(sim)
    ran: list[str] = []
    notes: list[str] = []
    for name, lane in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("fault", ""), ("a3", "a"), ("b2", "b")):
        sim.world.at(BEGIN + 1 / TICKS, partial(ran.append, name), lane)
    sim.run_moment = Moments(front, Order(share, 0.0, end), lambda _, what: notes.append(what)).run
    sim.run_for(2 / TICKS)
    front.close()
    return ran, notes


def test_what_is_of_one_lane_stays_in_order_and_passes_others() -> None:
    orders = {tuple(moment(seed)[0]) for seed in SEEDS}
    for order in orders:
        assert sorted(order[:3]) == ["a1", "a2", "b1"], "the fault is passed by nothing"
        assert order[3] == "fault"
        assert order.index("a1") < order.index("a2")
    assert {order[:3] for order in orders} == {("a1", "b1", "a2"), ("a1", "a2", "b1"), ("b1", "a1", "a2")}
    assert {order[4:] for order in orders} == {("a3", "b2"), ("b2", "a3")}


def test_a_moment_is_drawn_for_itself_and_a_share_of_them_is() -> None:
    assert moment(3) == moment(3)
    noted = sum(bool(moment(seed, 0.5)[1]) for seed in SEEDS)
    assert len(SEEDS) // 4 < noted < len(SEEDS) * 3 // 4


def test_orders_are_noted_as_their_end_comes_near() -> None:
    ran, (note,) = moment(3)
    assert moment(3, end=2 * TOLD) == (ran, [])
    lanes = [{"fault": "other"}.get(name, name[0]) for name in ran]
    assert [what for what in note.split(", ") if what in ("a", "b", "other")] == lanes


def test_a_round_of_a_loop_leaves_what_follows_to_the_next() -> None:
    loops = Loops(World(1))
    loop = loops.loop("a")
    seen: list[str] = []

    def first() -> None:
        seen.append("one")
        loop.call_soon(seen.append, "three")

    loop.call_soon(first)
    loop.call_soon(seen.append, "two")
    loops.run_round(loop)
    assert seen == ["one", "two"]
    assert list(loops.active) == [loop]
    loops.run_round(loop)
    assert seen == ["one", "two", "three"]
    assert not loops.active


def test_a_loop_that_stands_still_runs_no_round() -> None:
    loops = Loops(World(1))
    loop = loops.loop("a")
    seen: list[str] = []
    loop.call_soon(seen.append, "one")
    loop.stop_running()
    loops.run_round(loop)
    assert not seen
    loop.resume()
    loops.run_round(loop)
    assert seen == ["one"]


def test_reports_do_not_pass_each_other() -> None:
    class Bridge:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def awaits(self, touched: object) -> bool:
            return bool(touched)

        def deliver(self, completed: object, progress: Progress) -> None:
            loop.call_soon(self.report, completed, progress)

        def report(self, completed: object, progress: Progress) -> None:
            self.seen.append(progress.visible_index)

    front = Front(SimCluster(1, machine=StateMachine, start=False))
    loop = front.loops.loop("n1")
    bridge = Bridge()
    sink = _Sink(bridge, loop, front)  # type: ignore[arg-type]
    progress = Progress(1, 1, 1, Role.LEADER, "n1", visible_index=1)
    front.reports_wait = True
    sink.deliver([], progress)
    front.reports_wait = False
    sink.deliver([], replace(progress, visible_index=2))
    assert not bridge.seen
    front.loops.run_ready()
    assert bridge.seen == [1, 2]
    sink.deliver([], replace(progress, visible_index=3))
    assert bridge.seen == [1, 2, 3]


def test_some_plans_have_an_order_and_what_was_drawn_before_it_does_not_change() -> None:
    plans = [make_plan(seed) for seed in range(400)]
    drawn = [plan for plan in plans if plan.order is not None]
    assert 50 < len(drawn) < 120
    assert {(plan.order.begin, plan.order.end) for plan in drawn if plan.order} == {(0.0, LONGEST)}
    # As docs/simulator.md shows it since before there was an order.
    plan = make_plan(7)
    assert (plan.storm, len(plan.faults)) == (8.781076064776347, 70)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_run_in_a_drawn_order_is_the_same_again(share: float) -> None:
    plan = replace(make_plan(2, kinds=("crash", "isolate"), nodes=3, settings=1), order=Order(share))
    first = run(plan)
    assert first.violations == ()
    assert run(plan).trace == first.trace
    assert run(replace(plan, order=None)).trace != first.trace
