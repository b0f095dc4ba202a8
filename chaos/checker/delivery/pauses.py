"""*pause-silent*: delivery that stands still at a bound says so.

A consumer that is given nothing cannot tell a pause from the end of the log;
it has to be told which record holds it up.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator

from holdfast.chaos.checker.delivery.course import Flow, Group
from holdfast.chaos.checker.delivery.order import possibly_settled
from holdfast.chaos.checker.delivery.retries import least_delay
from holdfast.chaos.checker.delivery.sessions import Session
from holdfast.chaos.checker.delivery_events import Conditions
from holdfast.chaos.checker.groups import Covered
from holdfast.chaos.checker.promises import Findings

#: Seconds within which a member has to be told.
PATIENCE = 5.0


def check(group: Group, conditions: Conditions | None, findings: Findings) -> None:
    """Every partition by itself; a history without an end is judged up to its last event."""
    for flow in group.flows:
        last = max([*(handed.at for handed in flow.handed), *(told.at for told in flow.told)], default=0.0)
        ended = conditions.ended if conditions is not None else last
        for begin, end, why, offset in _stands(flow, ended):
            _judge(flow, begin, end, why, offset, findings)


def _stands(flow: Flow, ended: float) -> Iterator[tuple[float, float, str, int]]:
    """When delivery has certainly stood still at a bound: from, until, at which, for which record."""
    if flow.group.semantics != "at_most_once":  # there nothing that was handed out is unsettled
        yield from _full(flow, ended)
    if flow.group.ordering == "partition":
        yield from _parked(flow, ended)


def _full(flow: Flow, ended: float) -> Iterator[tuple[float, float, str, int]]:
    """The bound of records between the first unsettled one and the last one handed out."""
    turns: list[tuple[float, int, int]] = [(handed.came, 1, handed.offset) for handed in flow.handed]
    for story in flow.stories.values():
        since = possibly_settled(flow, story)
        if since is not None:
            turns.append((since, 0, story.offset))
    turns.sort()
    settled = Covered(flow.start)
    top, since_full = flow.start, math.inf
    for at, kind, offset in turns:
        if kind:
            top = max(top, offset + 1)
        else:
            settled.add(offset, offset + 1)
        full = top - settled.prefix >= flow.group.max_unacked
        if full and since_full == math.inf:
            since_full = at
        elif not full and since_full < math.inf:
            yield since_full, at, "max_unacked", settled.prefix
            since_full = math.inf
    if since_full < math.inf:
        yield since_full, ended, "max_unacked", settled.prefix


def _parked(flow: Flow, ended: float) -> Iterator[tuple[float, float, str, int]]:
    """A parked record, with all before it settled, holds up what is handled in order."""
    for story in flow.stories.values():
        for told in story.told:
            if told.outcome != "park" or told.confirmed is None:
                continue
            over = [at for at in story.restored if at > told.at]
            over += [handed.came for handed in story.handed if handed.came > told.at]
            over += [discard.started for discard in flow.discards if discard.started > told.at]
            due = told.at + least_delay(flow.group, story, told)
            yield told.confirmed, min([*over, due, ended]), "parked", story.offset


def _judge(flow: Flow, begin: float, end: float, why: str, offset: int, findings: Findings) -> None:
    """Somebody who was there all the time has been told, unless it was for a moment."""
    if end - begin < PATIENCE or offset < flow.log.start:
        return
    there = _there(flow, begin, begin + PATIENCE)
    if not there or any(_told(flow, session, begin + PATIENCE) for session in there):
        return
    findings.add(
        "pause-silent",
        f"{flow.where}: delivery stands still from {begin:.3f} to {end:.3f} ({why}, offset {offset}), and"
        " session"
        f" {there[0].name} was not told",
        begin + PATIENCE,
    )


def _there(flow: Flow, begin: float, end: float) -> list[Session]:
    """Who certainly had a share in this partition all the time."""
    by_name = flow.group.sessions.by_name
    found = list(by_name.values())
    if flow.group.ordering == "partition":
        # Its owner is known by what it was handed.
        last = bisect_right(flow.handed, end, key=lambda handed: handed.came)
        found = [by_name[flow.handed[last - 1].session]] if last else []
    return [
        session
        for session in found
        if session.at <= begin and end < session.lost
        if not any(since <= end and begin <= until for since, until in session.silences)
    ]


def _told(flow: Flow, session: Session, by: float) -> bool:
    """Is the last word that it stands?"""
    said = [pause.paused for pause in flow.pauses if pause.session == session.name and pause.at <= by]
    return bool(said) and said[-1]
