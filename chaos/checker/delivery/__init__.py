"""Delivery of defined groups: handlers, retries, dead letters, transactions, membership, lag.

What the events mean, and to which side they err, says ``delivery_events``;
what each promise means, the function that judges it.
"""

from __future__ import annotations

from holdfast.chaos.checker.delivery import (
    at_rest,
    dead_letters,
    handed,
    lag,
    membership,
    order,
    pauses,
    retries,
    transactions,
)
from holdfast.chaos.checker.delivery.course import groups
from holdfast.chaos.checker.delivery.sessions import conditions
from holdfast.chaos.checker.promises import Findings
from holdfast.chaos.checker.view import View


def check(view: View, findings: Findings) -> None:
    """Every promise of delivery, in n log n of the events."""
    known = conditions(view)
    found = groups(view, late=known.late_s if known is not None else 0.0)
    fates = transactions.Fates(view)
    for group in found:
        handed.check(view, group, findings)
        order.check(view, group, findings)
        retries.check(group, known, findings)
        at_rest.check(view, group, fates.did_nothing, known, findings)
        pauses.check(group, known, findings)
    dead_letters.check(view, found, findings)
    transactions.check(view, found, fates, findings)
    membership.check(view, found, findings)
    lag.check(view, findings)
