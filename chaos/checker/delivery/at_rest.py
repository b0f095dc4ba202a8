"""What the brokers hold of a group in the end, against what was told while it ran."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator

from holdfast.chaos.checker.delivery.course import Flow, Group, Story
from holdfast.chaos.checker.delivery_events import Conditions, FlowAtRest, RetryAtRest
from holdfast.chaos.checker.promises import Findings
from holdfast.chaos.checker.view import View

PARKED_FOR_GOOD = 3


class Settled:
    """What one node counts as settled."""

    def __init__(self, rest: FlowAtRest) -> None:
        self._floor = rest.floor
        self._firsts = [first for first, _ in rest.settled]
        self._ends = [end for _, end in rest.settled]

    def __contains__(self, offset: int) -> bool:
        if offset < self._floor:
            return True
        place = bisect_right(self._firsts, offset) - 1
        return place >= 0 and offset < self._ends[place]

    def within(self, first: int, end: int) -> Iterator[int]:
        """The settled offsets of a range."""
        yield from range(first, min(self._floor, end))
        for begin, stop in zip(self._firsts, self._ends, strict=True):
            yield from range(max(begin, first, self._floor), min(stop, end))


def check(
    view: View, group: Group, did_nothing: set[str], conditions: Conditions | None, findings: Findings
) -> None:
    """Every partition that is known at rest.

    Args:
        did_nothing: ids of transactions that certainly had no effect.
    """
    served = conditions is not None and group.name in conditions.served
    patience_us = int(conditions.patience_s * 1e6) if conditions is not None else 0
    for flow in group.flows:
        if not flow.rest:
            continue
        rest = flow.rest[0]
        settled = Settled(rest)
        if group.semantics != "at_most_once":
            _unasked(view, flow, settled, rest, did_nothing, findings)
        waiting = {retry.offset: retry for retry in rest.retries}
        _rows(flow, settled, waiting, findings)
        if served:
            _left(view, flow, settled, rest, waiting, patience_us, findings)
    if served:
        _unopened(view, group, findings)


def readable(view: View, group: Group) -> bool:
    """Are all dead letters of the group there to be read?"""
    for topic in group.dead_letters:
        logs = [log for (name, _), log in view.logs.items() if name == topic and log.known]
        if not logs or topic in view.cut or any(log.start for log in logs):
            return False
    return True


def _unasked(
    view: View,
    flow: Flow,
    settled: Settled,
    rest: FlowAtRest,
    did_nothing: set[str],
    findings: Findings,
) -> None:
    """*handed-lost*, first half: what is settled was settled by somebody.

    It was acknowledged, used by a transaction, discarded, or is a dead letter;
    else the group has passed over it, and nobody will ever handle it. One that
    failed before and is in neither place breaks *dead-and-alive*.
    """
    start = flow.start
    end = flow.log.end if flow.log.known else math.inf
    letters = readable(view, flow.group)
    reasons: set[int] = set()
    for acked in flow.acked:
        reasons.update(range(acked.first, acked.last + 1))
    for discard in flow.discards:
        reasons.update(flow.stories if discard.offset is None else (discard.offset,))
    for offset in settled.within(start, int(min(end, _top(rest)))):
        if offset in reasons or (flow.log.known and flow.log.at(offset) is None):
            continue
        story = flow.stories.get(offset)
        if story is None:
            findings.add(
                "handed-lost", f"{flow.where}: offset {offset} is settled, and nobody was ever handed it"
            )
            continue
        # What was handed out later had not been settled by an earlier ack.
        since = max((h.came for h in story.handed if not flow.group.doubtful(h)), default=-math.inf)
        if story.dead or any(told.outcome == "ack" and told.at >= since for told in story.told):
            continue
        if any(one.id not in did_nothing for one in story.consumed):
            continue
        failures = sum(told.outcome in ("nack", "reject") for told in story.told)
        if not flow.group.dead_letters or not (failures or story.handed):
            findings.add(
                "handed-lost", f"{flow.where}: offset {offset} is settled, and nobody has acknowledged it"
            )
        elif letters:
            # Where dead letters are trimmed or not shown, it may have been one.
            findings.add(
                "dead-and-alive" if failures else "handed-lost",
                f"{flow.where}: offset {offset} failed {failures} times and is settled; nobody has"
                " acknowledged it, and it is no dead letter",
            )


def _top(rest: FlowAtRest) -> int:
    return max([rest.floor, *(end for _, end in rest.settled)])


def _rows(flow: Flow, settled: Settled, waiting: dict[int, RetryAtRest], findings: Findings) -> None:
    """*retry-forgotten* and *attempts-regress*, as rows: a failure is kept until its record is settled."""
    for story in flow.stories.values():
        if story.offset < flow.log.start or story.offset in settled:
            continue
        kept = [
            told
            for told in story.told
            if told.confirmed is not None and told.outcome in ("nack", "park", "reject")
        ]
        if not kept:
            continue
        row = waiting.get(story.offset)
        failures = sum(told.outcome != "park" for told in kept)
        if row is None:
            findings.add(
                "retry-forgotten",
                f"{flow.where}: offset {story.offset} is not settled, and its confirmed {kept[-1].outcome}"
                f" of {kept[-1].at:.3f} is not remembered",
            )
        elif row.attempts < failures:
            findings.add(
                "attempts-regress",
                f"{flow.where}: offset {story.offset} failed {failures} times for certain,"
                f" and {row.attempts} attempts are remembered",
            )


def _left(
    view: View,
    flow: Flow,
    settled: Settled,
    rest: FlowAtRest,
    waiting: dict[int, RetryAtRest],
    patience_us: int,
    findings: Findings,
) -> None:
    """*handed-lost*, second half, and *retry-forgotten*: members that take all there is leave nothing.

    But for what waits or is parked, what a handler still has, and what has to
    come after those.
    """
    ordering = flow.group.ordering
    held: dict[str | None, int] = {}  # lane -> the first offset that holds it up
    bound = rest.floor + flow.group.least_unacked
    full = len(waiting) >= min(d.max_retrying for d in flow.group.definitions)
    for offset in range(max(flow.start, rest.floor), min(flow.log.end, bound)):
        if offset in settled or flow.log.at(offset) is None:
            continue
        lane = flow.key(view, offset) if ordering == "key" else ""
        laned = ordering == "partition" or (ordering == "key" and lane is not None)
        row = waiting.get(offset)
        story = flow.stories.get(offset)
        if (laned and lane in held) or (story is not None and _in_hands(flow, story)):
            held.setdefault(lane, offset)
            continue
        if row is not None:
            held.setdefault(lane, offset)
            if row.state != PARKED_FOR_GOOD and row.due_us < rest.stamp_us - patience_us:
                late = (rest.stamp_us - row.due_us) / 1e6
                findings.add(
                    "retry-forgotten",
                    f"{flow.where}: offset {offset} has been due for {late:.1f} s, and nobody is handed it",
                )
            continue
        if full:
            continue
        held.setdefault(lane, offset)
        was = (
            "was handed out and given back" if story is not None and story.handed else "was never handed out"
        )
        findings.add(
            "handed-lost", f"{flow.where}: offset {offset} is not settled, waits for nothing, and {was}"
        )


def _in_hands(flow: Flow, story: Story) -> bool:
    """Is there a handler that has not said yet what became of it?"""
    if not story.handed:
        return False
    last = story.handed[-1]
    return flow.group.session(last).over == math.inf and story.done(last) == math.inf


def _unopened(view: View, group: Group, findings: Findings) -> None:
    """*handed-lost*, of partitions in which the group never even began."""
    known = {(flow.topic, flow.partition) for flow in group.flows}
    for (topic, partition), log in view.logs.items():
        if topic not in group.topics or topic in view.cut or (topic, partition) in known:
            continue
        if group.from_start and log.end > log.start:
            findings.add(
                "handed-lost",
                f"group {group.name} reads {topic}, and has never begun with partition {partition}",
            )
