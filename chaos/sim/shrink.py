"""A failing plan made small: less of it that still breaks the same promise.

First without the guests. Delta debugging (Zeller and Hildebrandt 2002): drop
ever smaller parts of the schedule as long as the failure stays. Then the time
in which the order of a moment is drawn is made short, from its end and from its
beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from holdfast.chaos.sim.plan import Plan

#: The time in which orders are drawn is known well enough, seconds.
_NARROW_S = 0.01
#: Of all runs, those that are kept for it.
_FOR_ORDER = 0.4


def shrink(plan: Plan, fails: Callable[[Plan], bool], *, runs: int = 200) -> Plan:
    """The smallest plan found in at most ``runs`` runs; ``fails`` says whether a plan breaks the promise."""
    if runs > 0 and plan.guests:
        alone = replace(plan, guests=())
        runs -= 1
        if fails(alone):
            plan = alone
    if runs > 0 and plan.order is not None:
        plain = replace(plan, order=None)
        runs -= 1
        if fails(plain):
            plan = plain
    if plan.order is None:
        return _fewer_faults(plan, fails, runs)
    kept = int(runs * _FOR_ORDER)
    return _narrower(_fewer_faults(plan, fails, runs - kept), fails, kept)


def _fewer_faults(plan: Plan, fails: Callable[[Plan], bool], runs: int) -> Plan:
    parts = 2
    while runs > 0 and plan.faults:
        size = max(1, len(plan.faults) // parts)
        for first in range(0, len(plan.faults), size):
            smaller = plan.without(set(range(first, first + size)))
            runs -= 1
            if fails(smaller):
                plan = smaller
                parts = max(parts - 1, 2)
                break
            if runs <= 0:
                return plan
        else:
            if size == 1:
                return plan
            parts = min(2 * parts, len(plan.faults))
    return plan


def _narrower(plan: Plan, fails: Callable[[Plan], bool], runs: int) -> Plan:
    """Bisect where the order has to be drawn: first the end, then the beginning."""
    order = plan.order
    assert order is not None
    low = order.begin
    while runs > 0 and order.end - low > _NARROW_S:
        runs -= 1
        middle = round((low + order.end) / 2, 4)
        smaller = replace(plan, order=replace(order, end=middle))
        if fails(smaller):
            plan, order = smaller, replace(order, end=middle)
        else:
            low = middle
    high = order.end
    while runs > 0 and high - order.begin > _NARROW_S:
        runs -= 1
        middle = round((order.begin + high) / 2, 4)
        smaller = replace(plan, order=replace(order, begin=middle))
        if fails(smaller):
            plan, order = smaller, replace(order, begin=middle)
        else:
            high = middle
    return plan
