"""*partition-order*: a partition's records are handed out in the order of the log.

The owner is sent many at once and works them off one by one. What fails, or is
given back, is handed out again before anything behind it; what lies behind it
is void, and an acknowledgement of it is refused.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict

from holdfast.chaos.checker.delivery.course import Flow
from holdfast.chaos.checker.delivery_events import Handed, Told
from holdfast.chaos.checker.promises import Findings

_BACK, _OPEN, _SETTLED, _LOOSE = "back", "open", "settled", "loose"


class _Place:
    """Where a record is: with a session, settled by one, or back in the lane."""

    __slots__ = ("session", "state")

    def __init__(self, state: str, session: str) -> None:
        self.state = state
        self.session = session


def check(flow: Flow, findings: Findings) -> None:
    """Turn by turn, in the order of the observer's clock."""
    _Lane(flow, findings).judge()
    _void(flow, findings)


class _Lane:
    def __init__(self, flow: Flow, findings: Findings) -> None:
        self._flow = flow
        self._findings = findings
        self._places: dict[int, _Place] = {}
        self._back: list[int] = []
        self._fresh = flow.start
        self._open: dict[str, set[int]] = defaultdict(set)
        # What clients claimed of a new leader: where they had it from does not matter then.
        place = flow.topic, flow.partition
        self._claimed = {
            spot[2]
            for session in flow.group.sessions.by_name.values()
            for spot in session.held
            if spot[:2] == place
        }

    def judge(self) -> None:
        flow = self._flow
        turns: list[tuple[float, int, int, object]] = []
        for name, session in flow.group.sessions.by_name.items():
            if session.over < math.inf:
                turns.append((session.over, 0, 0, name))
        turns += [(told.at, 1, told.offset, told) for told in flow.told]
        turns += [
            (one.started, 1, story.offset, None) for story in flow.stories.values() for one in story.consumed
        ]
        turns += [
            (discard.started, 1, offset, None)
            for discard in flow.discards
            for offset in (flow.stories if discard.offset is None else (discard.offset,))
        ]
        turns += [
            (handed.came, 2, handed.offset, handed)
            for handed in flow.handed
            if handed.offset >= flow.log.start and not flow.group.doubtful(handed)
        ]
        turns.sort(key=lambda turn: turn[:3])
        for _, _, offset, what in turns:
            if isinstance(what, Handed):
                self._handed(what)
            elif isinstance(what, Told):
                for each in range(what.offset, what.offset + what.count):
                    self._told(each, what)
            elif isinstance(what, str):
                self._over(what)
            else:
                self._move(offset, _SETTLED, "")

    def _handed(self, handed: Handed) -> None:
        flow, offset = self._flow, handed.offset
        what = f"{flow.where}: offset {offset} came to session {handed.session} at {handed.came:.3f}"
        if offset > self._fresh:
            left = next((each for each in range(self._fresh, offset) if self._unseen(each)), None)
            if left is not None:
                self._findings.add("partition-order", f"{what}; offset {left} was left out", handed.at)
        self._fresh = max(self._fresh, offset + 1)
        while self._back and self._state(self._back[0]) != _BACK:
            heapq.heappop(self._back)
        if self._back and self._back[0] < offset:
            first = heapq.heappop(self._back)
            self._findings.add(
                "partition-order",
                f"{what}; offset {first} was given back or failed, and comes first",
                handed.at,
            )
        place = self._places.get(offset)
        if place is not None and place.state == _SETTLED and place.session == handed.session:
            self._findings.add("partition-order", f"{what}, which had acknowledged it", handed.at)
        self._move(offset, _OPEN, handed.session)

    def _unseen(self, offset: int) -> bool:
        return (
            offset not in self._places
            and offset not in self._claimed
            and offset >= self._flow.log.start
            and (not self._flow.log.known or self._flow.log.at(offset) is not None)
        )

    def _state(self, offset: int) -> str:
        place = self._places.get(offset)
        return _LOOSE if place is None or offset < self._flow.log.start else place.state

    def _told(self, offset: int, told: Told) -> None:
        if told.outcome == "ack" or (told.outcome == "reject" and self._flow.group.dead_letters):
            self._move(offset, _SETTLED, told.session)
            return
        if told.confirmed is None and self._flow.group.session(told).lost <= told.at:
            return  # nobody may have heard it: the end of the session says what became of it
        story = self._flow.stories[offset]
        holder = next((h for h in reversed(story.handed) if h.came <= told.at), None)
        if told.confirmed is None and (holder is None or holder.client != told.client):
            return  # of one that had lost it by then
        given_up = (
            told.outcome == "nack"
            and holder is not None
            and (holder.attempt >= self._flow.group.least_attempts)
        )
        self._move(offset, _LOOSE if given_up or story.dead else _BACK, told.session)

    def _over(self, name: str) -> None:
        """What it held is back in the lane, but for what its client's next session took over."""
        session = self._flow.group.sessions.by_name[name]
        following = session.following
        for offset in sorted(self._open.pop(name, ())):
            if following is not None and (self._flow.topic, self._flow.partition, offset) in following.held:
                self._move(offset, _OPEN, following.name)
            else:
                # One that may die of the loss of its member may be a dead letter by now.
                last = self._flow.stories[offset].handed[-1:]
                mortal = any(h.attempt >= self._flow.group.least_attempts for h in last)
                dead = mortal or self._flow.stories[offset].dead
                self._move(offset, _LOOSE if dead else _BACK, name)

    def _move(self, offset: int, state: str, session: str) -> None:
        place = self._places.get(offset)
        if place is None:
            place = self._places[offset] = _Place(state, session)
        elif place.state == _OPEN:
            self._open[place.session].discard(offset)
        place.state, place.session = state, session
        if state == _OPEN:
            self._open[session].add(offset)
        elif state == _BACK:
            heapq.heappush(self._back, offset)


def _void(flow: Flow, findings: Findings) -> None:
    """What was handed out before an earlier record failed is not acknowledged under that lease."""
    # Session -> its confirmed failures, as (told at, offset), in the order told.
    failed: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for told in flow.told:
        if told.outcome == "nack" and told.confirmed is not None:
            failed[told.session].append((told.at, told.offset))
        if told.outcome != "ack" or told.confirmed is None or told.session not in failed:
            continue
        at, first = failed[told.session][-1]
        if not (first < told.offset and at < told.at):
            continue
        handed = [
            h for h in flow.stories[told.offset].handed if h.session == told.session and h.came <= told.at
        ]
        if handed and handed[-1].came <= at:
            findings.add(
                "partition-order",
                f"{flow.where}: session {told.session} had offset {told.offset} from before offset {first}"
                " failed"
                f" at {at:.3f}, and its ack was confirmed",
                told.at,
            )
