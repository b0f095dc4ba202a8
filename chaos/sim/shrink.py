"""A failing plan made small: fewer faults that still break the same promise.

Delta debugging (Zeller and Hildebrandt 2002): drop ever smaller parts of the
schedule as long as the failure stays.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.chaos.sim.plan import Plan


def shrink(plan: Plan, fails: Callable[[Plan], bool], *, runs: int = 200) -> Plan:
    """The smallest plan found in at most ``runs`` runs; ``fails`` says whether a plan breaks the promise."""
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
