"""Transactions: all of it or nothing, and no record is used up twice."""

from __future__ import annotations

from collections import defaultdict

from holdfast.chaos.checker.delivery.at_rest import Settled
from holdfast.chaos.checker.delivery.course import Flow, Group
from holdfast.chaos.checker.delivery_events import Effect, Spot
from holdfast.chaos.checker.history import Outcome
from holdfast.chaos.checker.promises import Findings
from holdfast.chaos.checker.transacted import Transaction
from holdfast.chaos.checker.view import View


class Fates:
    """What became of every transaction, as the logs at rest show it.

    Attributes:
        done: ids of those that certainly had their effect.
        did_nothing: of those that certainly had none.
        spots: where what they published lies.
    """

    def __init__(self, view: View) -> None:
        self.spots: dict[str, list[Spot]] = defaultdict(list)
        if view.transacted:
            for (topic, partition), log in view.logs.items():
                for offset, value in enumerate(log.values, log.start):
                    if value in view.transacted and (topic, partition, offset) not in view.copies:
                        self.spots[value].append((topic, partition, offset))
        # Of these topics the logs at rest say all that was ever there.
        shown: dict[str, bool] = {}
        for (topic, _), log in view.logs.items():
            shown[topic] = shown.get(topic, True) and log.known and not log.start
        self._shown = {topic for topic, all_there in shown.items() if all_there and topic not in view.cut}
        self.done: set[str] = set()
        self.did_nothing: set[str] = set()
        for one in view.transactions.values():
            there = [bool(self.spots.get(record.value)) for record in one.published]
            gone = [self.missing(record.topic, record.value) for record in one.published]
            if one.outcome is Outcome.OK or any(there):
                self.done.add(one.id)
            elif one.outcome is Outcome.FAIL or (gone and all(gone)):
                self.did_nothing.add(one.id)

    def missing(self, topic: str, value: str) -> bool:
        """Is it certain that the record never came to lie in its topic?"""
        return topic in self._shown and not self.spots.get(value)


def check(view: View, groups: list[Group], fates: Fates, findings: Findings) -> None:
    """Transactions by themselves, then what they used up."""
    for one in view.transactions.values():
        _published(view, one, fates, findings)
    for group in groups:
        for flow in group.flows:
            _twice(flow, fates, findings)
            _unsettled(flow, fates, findings)
    _effects(view, findings)


def _published(view: View, one: Transaction, fates: Fates, findings: Findings) -> None:
    """*fenced-effect*: what was refused left nothing in the log; what was told ok is there, whole.

    One whose outcome is unknown is there as a whole, or not at all. (That what
    failed is there is found where the log is walked: ``View.origin_fault``; that
    a record is there twice is a *duplicate-record*.)
    """
    at = one.ended if one.ended is not None else one.started
    what = f"transaction {one.id} of {one.client}"
    if one.outcome is Outcome.OK:
        for record in one.published:
            spots = fates.spots.get(record.value, [])
            told = (record.topic, record.partition, record.offset)
            if fates.missing(record.topic, record.value):
                findings.add(
                    "fenced-effect",
                    f"{what} was told to be done; {record.value!r} is not in {record.topic}",
                    at,
                )
            elif spots and record.offset is not None and told not in spots:
                findings.add(
                    "fenced-effect",
                    f"{what} was told that {record.value!r} is at {told[0]}/{told[1]} offset {told[2]}; it"
                    " is at"
                    f" {spots[0][0]}/{spots[0][1]} offset {spots[0][2]}",
                    at,
                )
        return
    if one.outcome is Outcome.UNKNOWN and one.id in fates.done:
        for record in one.published:
            if fates.missing(record.topic, record.value):
                first = next(other.value for other in one.published if fates.spots.get(other.value))
                findings.add(
                    "fenced-effect",
                    f"{what} is there in part: {first!r} is in the log, {record.value!r} is not in"
                    f" {record.topic}",
                    at,
                )


def _unsettled(flow: Flow, fates: Fates, findings: Findings) -> None:
    """*fenced-effect*, the other half: what is done has used up what it consumed."""
    for rest in flow.rest[:1]:
        settled = Settled(rest)
        for story in flow.stories.values():
            for one in story.consumed:
                if one.id in fates.done and story.offset not in settled and story.offset >= flow.log.start:
                    findings.add(
                        "fenced-effect",
                        f"{flow.where}: transaction {one.id} is done and consumed offset {story.offset},"
                        " which"
                        f" {rest.node} still counts as open",
                    )


def _twice(flow: Flow, fates: Fates, findings: Findings) -> None:
    """*consumed-twice*: a record of a group is used up by one transaction, and by nothing besides.

    That alone makes it exactly once: whoever worked on it twice has one of its
    results refused.
    """
    for story in flow.stories.values():
        done = [one for one in story.consumed if one.id in fates.done]
        if not done:
            continue
        users = [f"transaction {one.id}" for one in done]
        users += [
            f"the ack of session {told.session}"
            for told in story.told
            if told.outcome == "ack" and told.confirmed is not None
        ]
        if not flow.sought:
            users += [f"the dead letter at {d.topic}/{d.partition} offset {d.offset}" for d in story.dead]
        if len(users) > 1:
            findings.add(
                "consumed-twice",
                f"{flow.where}: offset {story.offset} was used up by {users[0]} and by {users[1]}",
                done[0].started,
            )


def _effects(view: View, findings: Findings) -> None:
    """*effect-twice*: a handler with an inbox commits one effect for a record, however often it is called."""
    first: dict[tuple[str, str], Effect] = {}
    for effect in view.of(Effect):
        other = first.setdefault((effect.consumer, effect.record_key), effect)
        if other is not effect:
            findings.add(
                "effect-twice",
                f"{effect.consumer} has two effects of {effect.record_key}: {other.value!r} at"
                f" {other.at:.3f} and"
                f" {effect.value!r} at {effect.at:.3f}",
                effect.at,
            )
