"""Plans as text, and how they are made small."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.chaos.sim.plan import SETTINGS, Fault, Order, Plan, make_plan
from holdfast.chaos.sim.planfile import from_line, read_plans, to_line
from holdfast.chaos.sim.shrink import shrink
from holdfast.chaos.sim.timeline import Timeline

GOOD = Plan(7, 3, 1, 6.5, (Fault(0.31, "crash", "leader", "n2", 0.05, 0.4),))


def test_a_plan_comes_back_as_it_was() -> None:
    for seed in range(300):
        plan = make_plan(seed)
        assert from_line(to_line(plan)) == plan


def test_the_form_stays_readable() -> None:
    line = '{"seed":7,"nodes":3,"settings":1,"storm":6.5,"faults":[[0.31,"crash","leader","n2",0.05,0.4]]}'
    assert to_line(GOOD) == line
    assert from_line(line) == GOOD


def test_a_line_may_have_an_order() -> None:
    drawn = replace(GOOD, order=Order(0.5, 1.25, 2.5))
    assert to_line(drawn) == to_line(GOOD)[:-1] + ',"order":[0.5,1.25,2.5,3]}'
    assert from_line(to_line(drawn)) == drawn
    assert str(drawn).splitlines()[1] == "  order drawn from 1.2500 s to 2.5000 s (0.50 of the moments)"


def test_a_line_may_have_guests() -> None:
    invited = replace(GOOD, guests=("keyed",))
    assert to_line(invited) == to_line(GOOD)[:-1] + ',"guests":["keyed"]}'
    assert from_line(to_line(invited)) == invited
    assert str(invited).splitlines()[1] == "  with keyed"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("]}", '],"guests":["nobody"]}', "no guests 'nobody'"),
        ('"crash"', '"meteor"', "no fault of kind 'meteor'"),
        ('"leader"', '"n4"', "no node 'n4'"),
        ('"n2"', '"leader"', "no node 'leader'|or no node 'leader'"),
        ('"settings":1', f'"settings":{len(SETTINGS)}', "no settings"),
        ('"settings":1', '"settings":-1', "no settings"),
        ('"nodes":3', '"nodes":0', "0 nodes"),
        ('"storm":6.5,', "", "storm"),
        ('"seed":7', '"seed":7,"more":1', "more"),
        ("}", "", "not a plan"),
        ("]}", '],"order":[0.0,0.0,1.0,3]}', "no order"),
        ("]}", '],"order":[1.5,0.0,1.0,3]}', "no order"),
        ("]}", '],"order":[0.5,1.0,1.0,3]}', "no order"),
        ("]}", '],"order":[0.5,0.0,1e9,3]}', "no order"),
        ("]}", '],"order":[0.5,0.0,1.0,-1]}', "no order"),
        ("]}", '],"order":[0.5]}', "order"),
    ],
)
def test_what_is_no_plan_is_refused(before: str, after: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_line(to_line(GOOD).replace(before, after))


def test_a_file_holds_plans_comments_and_empty_lines() -> None:
    assert read_plans(f"# why\n{to_line(GOOD)}\n\n{to_line(GOOD)}") == [GOOD, GOOD]
    with pytest.raises(ValueError, match="line 3: not a plan"):
        read_plans(f"# why\n{to_line(GOOD)}\nnonsense")


# -- shrinking -------------------------------------------------------------------------


def plan_of(count: int) -> Plan:
    faults = (Fault(float(number), "crash", "n1", "n2", 0.1, 0.5) for number in range(count))
    return Plan(1, 3, 0, 9.0, tuple(faults))


@pytest.mark.parametrize("needed", [set(), {0}, {49}, {3, 4}, {0, 49}, {5, 20, 33}])
def test_only_what_is_needed_is_left(needed: set[int]) -> None:
    def fails(plan: Plan) -> bool:
        return needed <= {int(fault.at) for fault in plan.faults}

    assert {int(fault.at) for fault in shrink(plan_of(50), fails).faults} == needed


def test_an_order_is_left_out_when_it_is_not_needed() -> None:
    assert shrink(replace(plan_of(5), order=Order(1.0)), lambda _: True) == plan_of(0)


def test_the_time_in_which_an_order_is_needed_is_made_short() -> None:
    def fails(plan: Plan) -> bool:
        order = plan.order
        return order is not None and order.begin <= 12.3456 < order.end

    order = shrink(replace(plan_of(5), order=Order(0.6)), fails).order
    assert order is not None
    assert order.share == 0.6
    assert order.begin <= 12.3456 < order.end
    assert order.end - order.begin < 0.03


@pytest.mark.parametrize("order", [None, Order(1.0)])
def test_shrinking_ends(order: Order | None) -> None:
    runs = 0

    def fails(plan: Plan) -> bool:
        nonlocal runs
        runs += 1
        return runs % 7 == 0  # as if by chance

    shrink(replace(plan_of(500), order=order), fails, runs=60)
    assert runs <= 60


# -- timeline ---------------------------------------------------------------------------


def test_a_timeline_has_a_line_for_each_note_from_the_beginning_on() -> None:
    now = 1000.0
    timeline = Timeline(lambda: now)
    timeline.note("start", "n1")
    now = 1001.5
    timeline.note("crash", "n1 for 0.3 s")
    assert timeline.render() == "   0.0000 s  start        n1\n   1.5000 s  crash        n1 for 0.3 s"
    assert timeline.render(last=1) == (
        "(1 earlier lines are left out)\n   1.5000 s  crash        n1 for 0.3 s"
    )
