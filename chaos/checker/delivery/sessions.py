"""Members' streams: when each was one for certain, and how long a record was in its hands.

A leader that has been deposed does not know it yet: what it still hands out is
nobody's lease, and none of it can be settled. So the end of certainty of a
session is that of its leader's reign, of its own stream, or the beginning of a
newer one of the same member, whichever came first.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from itertools import pairwise

from holdfast.chaos.checker.delivery_events import (
    Conditions,
    Handed,
    Joined,
    SessionOver,
    Silent,
    Spot,
    Told,
)
from holdfast.chaos.checker.view import View

#: Seconds by which the clients' moments may lie beside the brokers'.
SLACK = 0.25


class Reigns:
    """Changes of leader, as far as they were seen."""

    def __init__(self, view: View, late: float) -> None:
        self._late = late
        self._at: list[float] = []
        self._nodes: list[str] = []
        term = -1
        for leader in sorted(view.leaders, key=lambda leader: leader.at):
            if leader.term > term:
                term = leader.term
                self._at.append(leader.at)
                self._nodes.append(leader.node)

    def over(self, since: float, node: str) -> float:
        """When a leader that served at ``since`` may have been deposed; infinite: it never was."""
        place = bisect_right(self._at, since)
        if place < len(self._at) and node and node == self._nodes[place]:
            # Seen late: it is this very reign that began then.
            place += self._at[place] - self._late <= since
        return self._at[place] - self._late if place < len(self._at) else math.inf

    def number(self, since: float) -> int:
        """Which reign a moment lies in."""
        return bisect_right(self._at, since)


class Session:
    """One stream of a member.

    Attributes:
        reign: in which it began.
        over: when it may have been over for the brokers; infinite: never.
        orderly: it was ended by its member, with nothing left.
        lost: it is over, or a leader or a newer session has replaced it, from then on.
        silences: (from, until) in which its leases may have ended.
        held: what it took over from the client's session before.
        following: the client's next session.
    """

    __slots__ = (
        "at",
        "client",
        "following",
        "held",
        "lost",
        "member",
        "name",
        "orderly",
        "over",
        "reign",
        "silences",
        "started",
    )

    def __init__(self, client: str, name: str, started: float) -> None:
        self.client = client
        self.name = name
        self.member = ""
        self.started = self.at = started
        self.held: frozenset[Spot] = frozenset()
        self.over = self.lost = math.inf
        self.orderly = False
        self.reign = 0
        self.silences: list[tuple[float, float]] = []
        self.following: Session | None = None

    def doubtful(self, came: float) -> bool:
        """May what came then have been sent by somebody who had no say any more?"""
        if self.lost <= came:
            return True
        return any(begin <= came <= until + SLACK for begin, until in self.silences)


class Sessions:
    """All sessions of one group.

    Attributes:
        losses: when a member may have been charged for what it held, ascending: its stream
            broke, or it was not heard.
    """

    def __init__(self, rejoin: float, ack_timeout: float, handover: float, max_lease: float) -> None:
        """All in seconds; ``max_lease`` infinite: no bound."""
        self._rejoin = rejoin
        self._ack_timeout = ack_timeout
        self._handover = handover
        self._max_lease = max_lease
        self.by_name: dict[str, Session] = {}
        self.losses: list[float] = []

    def joined(self, event: Joined) -> None:
        one = self.by_name[event.session] = Session(event.client, event.session, event.started)
        one.at, one.member, one.held = event.at, event.member, frozenset(event.held)

    def seen(self, event: Handed | Told) -> Session:
        """The session of an event; one whose beginning was not noted begins with its first."""
        one = self.by_name.get(event.session)
        if one is None:
            began = event.came if isinstance(event, Handed) else event.at
            one = self.by_name[event.session] = Session(event.client, event.session, began)
        return one

    def close(
        self, reigns: Reigns, joins: list[Joined], ends: list[SessionOver], silent: list[Silent]
    ) -> None:
        """Once all are known: when each was over, and what followed."""
        nodes = {event.session: event.node for event in joins}
        for end in ends:
            one = self.by_name.get(end.session)
            if one is not None:
                one.over, one.orderly = min(one.over, end.at), end.orderly
                if not end.orderly:
                    self.losses.append(end.at)
        for silence in silent:
            one = self.by_name.get(silence.session)
            if one is not None and silence.until - silence.at > self._ack_timeout - SLACK:
                one.silences.append((silence.at, silence.until))
                self.losses.append(silence.at)
        self._follow()
        self.losses.sort()
        for one in self.by_name.values():
            one.reign = reigns.number(one.started)
            one.lost = min(one.lost, one.over, reigns.over(one.started, nodes.get(one.name, "")))

    def _follow(self) -> None:
        """Of one client the next session takes over; of one member the newer stream stays."""
        last: dict[str, Session] = {}
        seats: dict[str, list[Session]] = defaultdict(list)
        for one in sorted(self.by_name.values(), key=lambda one: one.started):
            before = last.get(one.client)
            if before is not None:
                before.following = one
            last[one.client] = one
            if one.member:
                seats[one.member].append(one)
        for held in seats.values():
            for older, newer in pairwise(held):
                if newer.started < older.over:
                    older.lost = min(older.lost, newer.started)
                    self.losses.append(newer.started)

    @property
    def bounded(self) -> bool:
        """Does a lease end though its member lives?"""
        return self._max_lease < math.inf

    def overdue(self, handed: Handed, done: float) -> bool:
        """May its lease have ended for its length before its client was done?"""
        return done > handed.came + self._max_lease - SLACK

    def charges(self, begin: float, end: float) -> int:
        """How often a record that somebody had then may have been charged for a member's loss.

        A stream may be noticed to have ended long after it did.
        """
        late = self._ack_timeout + 30.0 + self._rejoin
        return bisect_left(self.losses, end) - bisect_right(self.losses, begin - late)

    def held_until(self, handed: Handed, done: float, *, lane_moves: bool) -> float:
        """Until when a record was certainly leased to the client that it was handed to.

        Args:
            done: when the client told what became of it, or used it in a transaction.
            lane_moves: its partition may be given to another member in spite of it.
        """
        one = self.by_name[handed.session]
        spot = (handed.topic, handed.partition, handed.offset)
        bound = handed.came + self._max_lease - SLACK
        if lane_moves:
            bound = min(bound, handed.came + min(self._handover, self._ack_timeout) - SLACK)
        while True:
            for begin, _ in one.silences:
                if begin + self._ack_timeout > handed.came:
                    bound = min(bound, begin + self._ack_timeout - SLACK)
            end = min(one.lost, bound)
            following = one.following
            if done <= end or bound <= one.lost or following is None or spot not in following.held:
                return min(done, end)
            if following.at > end + self._rejoin - SLACK:
                return end
            one = following


def conditions(view: View) -> Conditions | None:
    """What the run allowed for; None: nothing is known of it."""
    found = view.of(Conditions)
    return found[-1] if found else None
