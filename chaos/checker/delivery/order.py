"""Lanes: what is handled one at a time and in order, the partition or the key, is.

Judged by when records came to clients, for that is the brokers' doing: a client
that was frozen may begin with one long after it was taken from it.
"""

from __future__ import annotations

import math
from collections import defaultdict

from holdfast.chaos.checker.delivery.course import Flow, Group, Story
from holdfast.chaos.checker.delivery.partition_order import check as check_partition
from holdfast.chaos.checker.delivery_events import Handed
from holdfast.chaos.checker.promises import Findings
from holdfast.chaos.checker.view import View

Lane = tuple[str, str | int]


def check(view: View, group: Group, findings: Findings) -> None:
    """Every partition of the group by itself."""
    for flow in group.flows:
        if group.semantics == "at_most_once":
            continue  # nothing is in flight: it was settled before
        _overlap(view, flow, findings)
        if group.ordering == "key":
            _KeyOrder(view, flow, findings).judge()
        elif group.ordering == "partition":
            check_partition(flow, findings)


def _lane(view: View, flow: Flow, handed: Handed) -> Lane:
    """What the record may not be handled beside: its partition, its key, or itself."""
    if flow.group.ordering == "partition":
        return "partition", ""
    if flow.group.ordering == "key":
        publish = view.by_value.get(handed.value)
        key = publish.key if publish is not None else handed.key
        if key is not None:
            return "key", key
    return "offset", handed.offset


def _overlap(view: View, flow: Flow, findings: Findings) -> None:
    """*key-overlap*: while a handler has a record, no other is given one of the same key, nor the same one.

    From when it came until its client says what became of it, or may have lost
    it: a late effect of the first would land on top of the second's. With
    ``ordering=partition`` a member holds many records of its partition, and
    *partition-order* says that no other member holds one beside it.
    """
    deep = flow.group.ordering == "partition"
    # Lane -> client -> until when, and what it has; of a key's lane all are one client.
    lanes: dict[Lane, dict[str, tuple[float, Handed]]] = defaultdict(dict)
    for handed in flow.handed:
        if flow.group.doubtful(handed):
            continue
        holders = lanes[_lane(view, flow, handed)]
        for client, (until, first) in list(holders.items()):
            if until <= handed.came:
                del holders[client]
            elif not deep or client != handed.client:
                _tell_overlap(flow, first, handed, until, findings)
                del holders[client]
        done = flow.stories[handed.offset].done(handed)
        until = flow.group.sessions.held_until(handed, done, lane_moves=deep)
        mine = handed.client if deep else ""
        if mine not in holders or holders[mine][0] < until:
            holders[mine] = until, handed


def _tell_overlap(flow: Flow, first: Handed, second: Handed, until: float, findings: Findings) -> None:
    deep = flow.group.ordering == "partition"
    same = "again" if first.offset == second.offset else f"beside offset {first.offset}"
    key = f" of key {second.key!r}" if second.key is not None and flow.group.ordering == "key" else ""
    has = f"until {until:.3f}" if until < math.inf else "still"
    findings.add(
        "partition-order" if deep else "key-overlap",
        f"{flow.where}: offset {second.offset}{key} came to session {second.session} at {second.came:.3f}"
        f" {same},"
        f" which session {first.session} has had since {first.came:.3f}, {has}",
        second.at,
    )


class _KeyLane:
    """The records of one key, in order.

    Attributes:
        head: index of the first that is not settled, as far as anybody was told.
    """

    __slots__ = ("head", "last", "offsets", "reign")

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.head = 0
        self.reign = -1
        self.last = -1


class _KeyOrder:
    """*key-order*: of a key, the first record that is not settled is handed out, and no other.

    A failing record holds up its key and nothing else: what comes after it in
    its key would be handled in the wrong order. Within one leader's reign a key
    never goes back, either: after a redelivery it goes on from there.
    """

    def __init__(self, view: View, flow: Flow, findings: Findings) -> None:
        self._view = view
        self._flow = flow
        self._findings = findings
        self._lanes: dict[str, _KeyLane] = defaultdict(_KeyLane)
        self._settled: set[int] = set()
        for offset in range(flow.start, flow.log.end):
            key = flow.key(view, offset)
            if key is not None:
                self._lanes[key].offsets.append(offset)

    def judge(self) -> None:
        flow = self._flow
        # (when, 0 for what settles and 1 for what is handed out, offset, what)
        turns: list[tuple[float, int, int, Handed | None]] = []
        for story in flow.stories.values():
            since = possibly_settled(flow, story)
            if since is not None:
                turns.append((since, 0, story.offset, None))
        turns += [
            (handed.came, 1, handed.offset, handed)
            for handed in flow.handed
            if handed.offset >= flow.start and not flow.group.doubtful(handed)
        ]
        turns.sort(key=lambda turn: turn[:3])
        for _, _, offset, handed in turns:
            if handed is None:
                self._settled.add(offset)
            else:
                self._handed(handed)

    def _handed(self, handed: Handed) -> None:
        key = self._flow.key(self._view, handed.offset)
        if key is None:
            return
        lane = self._lanes[key]
        what = f"{self._flow.where}: offset {handed.offset} of key {key!r} came to session {handed.session}"
        offsets = lane.offsets
        while lane.head < len(offsets) and offsets[lane.head] in self._settled:
            lane.head += 1
        first = offsets[lane.head] if lane.head < len(offsets) else handed.offset
        if first < handed.offset:
            story = self._flow.stories.get(first)
            why = _state(story, handed.came)
            self._findings.add(
                "key-order", f"{what} at {handed.came:.3f}; offset {first} comes first, and {why}", handed.at
            )
            self._settled.add(first)  # told once
        reign = self._flow.group.session(handed).reign
        if lane.reign == reign and handed.offset < lane.last:
            self._findings.add(
                "key-order",
                f"{what} at {handed.came:.3f}, after offset {lane.last} under one leader",
                handed.at,
            )
        lane.reign, lane.last = reign, handed.offset


def possibly_settled(flow: Flow, story: Story) -> float | None:
    """From when on the record may be settled, whoever was told so; None: never."""
    group = flow.group
    times = [told.at for told in story.told if told.outcome == "ack"]
    times += [one.started for one in story.consumed]
    times += [
        discard.started
        for discard in flow.discards
        if discard.offset is None or discard.offset == story.offset
    ]
    if group.dead_letters:
        times += [told.at for told in story.told if told.outcome == "reject"]
        times += [
            told.at
            for told in story.told
            if told.outcome == "nack" and story.attempt_by(told.at) >= group.least_attempts
        ]
        # It may have died of the loss of its member, which nobody is told: the last had it.
        times += [handed.came for handed in story.handed if handed.attempt >= group.least_attempts]
    if story.dead and story.handed:
        times.append(story.handed[-1].came)
    return min(times, default=None)


def _state(story: Story | None, at: float) -> str:
    """What is known of a record that should have come first."""
    if story is None or not any(handed.came < at for handed in story.handed):
        return "was not handed out yet"
    said = [told.outcome for told in story.told if told.at < at]
    return f"was last told to be {_SAID[said[-1]]}" if said else "is in another's hands"


_SAID = {
    "ack": "acknowledged",
    "nack": "failed",
    "park": "parked",
    "reject": "rejected",
    "release": "given back",
}
