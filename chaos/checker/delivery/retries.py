"""Failures: every one is counted, once, and its record comes again in time."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from itertools import pairwise

from holdfast.chaos.checker.delivery.course import Flow, Group, Story
from holdfast.chaos.checker.delivery.sessions import SLACK
from holdfast.chaos.checker.delivery_events import Conditions, GroupDefined, Handed, Told
from holdfast.chaos.checker.promises import Findings

#: Releases of a record by one session after which one counts as a failure.
RELEASES = 100


def check(group: Group, conditions: Conditions | None, findings: Findings) -> None:
    """Every record of every partition by itself."""
    skew = conditions.skew_s if conditions is not None else 0.0
    lost = _Losses(group)
    for flow in group.flows:
        first = _first_to_wait(flow)
        for story in flow.stories.values():
            trusted = [handed for handed in story.handed if not group.doubtful(handed)]
            _early(flow, story, trusted, skew, findings)
            # In a partition that is handled in order it may have to wait for another.
            if conditions is not None and (group.ordering != "partition" or story.offset == first):
                _forgotten(flow, story, conditions, findings)
            _attempts(flow, story, trusted, findings)
            _over(flow, story, lost, findings)


def _first_to_wait(flow: Flow) -> int | None:
    """The first record that ever had to wait; None: none had to."""
    waits = (s.offset for s in flow.stories.values() if any(_waits(flow.group, told) for told in s.told))
    return min(waits, default=None)


def _early(flow: Flow, story: Story, trusted: list[Handed], skew: float, findings: Findings) -> None:
    """*retry-early*: what failed waits as long as its member asked, or the policy says.

    Counted from when the failure was told: its entry was stamped later. Brokers
    compare with the clock of whoever leads, so the skew of their clocks is
    granted. What is parked for good waits until somebody restores it.
    """
    for told in story.told:
        if told.confirmed is None or not _waits(flow.group, told):
            continue
        after = next((handed for handed in trusted if handed.came > told.at), None)
        if after is None or any(told.at < at <= after.came for at in story.restored):
            continue
        delay = least_delay(flow.group, story, told)
        if after.came < told.at + delay - skew - 0.001:
            due = f"it is due {delay:.3f} s later" if delay < math.inf else "nobody has restored it"
            findings.add(
                "retry-early",
                f"{flow.where}: offset {story.offset} was told to be {_WAS[told.outcome]} at {told.at:.3f}"
                f" and came to session {after.session} at {after.came:.3f}; {due}",
                after.at,
            )


_WAS = {"nack": "failed", "park": "parked", "reject": "rejected"}


def _waits(group: Group, told: Told) -> bool:
    """Does it wait after this? What is rejected, only where there is no topic for dead letters."""
    return told.outcome in ("nack", "park") or (told.outcome == "reject" and not group.dead_letters)


def least_delay(group: Group, story: Story, told: Told) -> float:
    """Seconds it has to wait at least; infinite: until it is restored."""
    if told.outcome == "reject" or (told.outcome == "park" and told.delay_ms is None):
        return math.inf
    if told.delay_ms is not None:
        return told.delay_ms / 1_000
    attempt = story.attempt_by(told.at)
    return min(_backoff_ms(d, attempt, -1) for d in group.definitions) / 1_000


def most_delay(group: Group, story: Story, told: Told) -> float:
    """Seconds it may have to wait; infinite: until it is restored."""
    if told.outcome != "nack" or told.delay_ms is not None:
        return least_delay(group, story, told)
    # Losses that nobody was told of may have been counted besides.
    attempts = story.attempt_by(told.at) + group.sessions.charges(-math.inf, told.at)
    return max(_backoff_ms(d, attempts, 1) for d in group.definitions) / 1_000


def _backoff_ms(definition: GroupDefined, attempts: int, jitter: int) -> float:
    """The policy's pause at one end of its jitter: -1 the shortest, 1 the longest."""
    wait = definition.initial_ms
    for _ in range(attempts - 1):
        longer = wait * definition.multiplier_milli // 1_000
        if wait >= definition.max_ms or longer == wait:
            break
        wait = longer
    wait = min(wait, definition.max_ms)
    return min(wait + jitter * wait * definition.jitter_permille / 1_000, definition.max_ms)


def _forgotten(flow: Flow, story: Story, conditions: Conditions, findings: Findings) -> None:
    """*retry-forgotten*: in calm, what is due is handed out, for there are members that take it."""
    calm_from = conditions.calm_from
    if calm_from is None or flow.group.name not in conditions.served or flow.cut or flow.sought or story.dead:
        return
    for told in story.told:
        if told.confirmed is None or not _waits(flow.group, told):
            continue
        due = told.confirmed + most_delay(flow.group, story, told) + conditions.skew_s
        deadline = max(due, calm_from) + conditions.patience_s
        if deadline >= conditions.ended or story.offset < flow.log.start:
            continue
        later = [handed.came for handed in story.handed if handed.came > told.at]
        later += [one.started for one in story.consumed if one.started > told.at]
        later += [other.at for other in story.told if other.at > told.at]
        later += [discard.started for discard in flow.discards if discard.offset in (None, story.offset)]
        given_up = told.outcome == "nack" and story.attempt_by(told.at) >= flow.group.least_attempts
        if not given_up and not any(at <= deadline for at in later):
            findings.add(
                "retry-forgotten",
                f"{flow.where}: offset {story.offset} failed at {told.at:.3f}, was due at {due:.3f} and not"
                f" handed out by {deadline:.3f}, in calm",
                deadline,
            )


def _attempts(flow: Flow, story: Story, trusted: list[Handed], findings: Findings) -> None:
    """*attempts-regress*: the number of an attempt never falls, and rises by one a failure.

    By no more than what failed or was lost with its member in between, and by no
    less than what was confirmed to have failed.
    """
    given_back = [told.at for told in story.told if told.outcome == "release"]
    for before, after in pairwise(trusted):
        between = [told for told in story.told if before.at <= told.at < after.came]
        failed = [told for told in between if told.outcome in ("nack", "reject")]
        least = before.attempt + sum(told.confirmed is not None for told in failed)
        most = before.attempt + len(failed) + flow.group.sessions.charges(before.came, after.came)
        most += (
            bisect_left(given_back, after.came) // RELEASES - bisect_left(given_back, before.at) // RELEASES
        )
        if flow.group.sessions.bounded:
            most += 1  # its lease may have been over
        if not least <= after.attempt <= most:
            expected = f"{least}" if least == most else f"{least} to {most}"
            findings.add(
                "attempts-regress",
                f"{flow.where}: offset {story.offset} came to session {after.session} as attempt"
                f" {after.attempt}"
                f" after attempt {before.attempt} and {len(failed)} failures; {expected} is right",
                after.at,
            )


class _Losses:
    """Whose end may have been charged to whom.

    A member that dies is charged what its handlers had. The broker may take a
    record beside them for one of those, once: afterwards that one is handed out
    alone, and dies only with a member that had nothing else.

    Attributes:
        idle: ends of members that had no record in a handler, as far as known.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self.idle = 0
        # Session -> when it was over or not heard -> records that handlers had.
        had: dict[str, int] = defaultdict(int)
        for flow in group.flows:
            for story in flow.stories.values():
                for handed in story.handed:
                    if self.open(story, handed):
                        had[handed.session] += 1
        for name, session in group.sessions.by_name.items():
            ended = session.lost < math.inf and not session.orderly
            self.idle += (ended and not had[name]) + len(session.silences)

    def open(self, story: Story, handed: Handed) -> bool:
        """Did its handler have the record when the member was lost, or for too long?"""
        session = self._group.session(handed)
        done = story.done(handed)
        if session.orderly and session.lost == session.over:
            return done > session.over
        ends = [session.lost, *(begin for begin, _ in session.silences if begin >= handed.came)]
        return done > min(ends) - SLACK or self._group.sessions.overdue(handed, done)


def _over(flow: Flow, story: Story, lost: _Losses, findings: Findings) -> None:
    """*attempts-over*: nothing is tried more often than the group allows, nor charged for others' failures.

    Else one message that kills its consumer takes its neighbours with it.
    """
    group = flow.group
    if group.attempts:
        for handed in story.handed:
            if handed.attempt > group.attempts:
                findings.add(
                    "attempts-over",
                    f"{flow.where}: offset {story.offset} came to session {handed.session} as attempt"
                    f" {handed.attempt} of {group.attempts}",
                    handed.at,
                )
    charged = max(
        [
            *(handed.attempt - 1 for handed in story.handed),
            *(letter.attempts for letter in story.dead[:1] if not flow.sought),
            flow.remembered.get(story.offset, 0),
        ],
        default=0,
    )
    if charged <= 1:
        return
    own = sum(lost.open(story, handed) for handed in story.handed)
    failed = sum(told.outcome in ("nack", "reject") for told in story.told)
    released = sum(told.outcome == "release" for told in story.told) // RELEASES
    beside = 1 + len(story.told)
    if charged > own + failed + released + beside + lost.idle:
        findings.add(
            "attempts-over",
            f"{flow.where}: offset {story.offset} was charged {charged} attempts; it failed {failed} times,"
            " and"
            f" {own} times its member was lost while it worked on it",
        )
