"""Transactions of a history: what all calls under one id asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from holdfast.chaos.checker.delivery_events import Consumption, Produced, Transacted
from holdfast.chaos.checker.outcome import HistoryError, Outcome


class Transaction(msgspec.Struct):
    """One transaction, however often it was called.

    Attributes:
        outcome: ok when any call was; failed when every one was.
        started: of the first call.
        ended: of the first that was ok.
    """

    id: str
    client: str
    started: float
    consumed: list[Consumption]
    published: list[Produced]
    ended: float | None = None
    outcome: Outcome = Outcome.UNKNOWN

    @property
    def producer(self) -> str:
        """Under which its records are told apart from those of clients' producers."""
        return f"transaction {self.id}"


def merge(events: Iterable[Transacted]) -> dict[str, Transaction]:
    """By id, in the order begun.

    Raises:
        HistoryError: two calls under one id publish different records.
    """
    found: dict[str, Transaction] = {}
    failed: dict[str, bool] = {}
    for event in sorted(events, key=lambda event: event.started):
        one = found.get(event.transaction)
        if one is None:
            one = found[event.transaction] = Transaction(
                event.transaction, event.client, event.started, event.consumed, event.published
            )
        elif [p.value for p in one.published] != [p.value for p in event.published]:
            raise HistoryError(f"transaction {event.transaction!r} publishes now this, now that")
        failed[one.id] = failed.get(one.id, True) and event.outcome is Outcome.FAIL
        if event.outcome is Outcome.OK and one.outcome is not Outcome.OK:
            one.outcome, one.ended = Outcome.OK, event.ended
            one.consumed, one.published = event.consumed, event.published
    for one in found.values():
        if failed[one.id]:
            one.outcome = Outcome.FAIL
    return found
