"""What became of the records of a group, partition by partition and record by record.

A seek begins a partition anew: what was handed out before it and what comes
after are two flows here, and what came while it was under way belongs to
neither. A topic or group that was deleted is judged up to then, without what
was found at rest.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import Protocol, TypeVar

from holdfast.chaos.checker.delivery.sessions import SLACK, Reigns, Session, Sessions
from holdfast.chaos.checker.delivery_events import (
    DeadLetter,
    FlowAtRest,
    GroupDefined,
    GroupDeleted,
    Handed,
    Joined,
    PauseTold,
    Redriven,
    Reshaped,
    Restored,
    SessionOver,
    Silent,
    Sought,
    Told,
)
from holdfast.chaos.checker.history import Acked, Outcome
from holdfast.chaos.checker.transacted import Transaction
from holdfast.chaos.checker.view import Log, View


class _OfGroup(Protocol):
    group: str


_E = TypeVar("_E", bound=_OfGroup)


class Story:
    """One record in one group.

    Attributes:
        handed: by when it came.
        told: by when it was said; what was refused is in ``refused``.
        consumed: by transactions, not certainly failed.
        used: by which clients in transactions, however these ended, and when.
        dead: its dead letters; the first is its own, others are those of its redriven copies.
        restored: when somebody may have ended its wait.
    """

    __slots__ = ("consumed", "dead", "handed", "offset", "refused", "restored", "told", "used")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.handed: list[Handed] = []
        self.told: list[Told] = []
        self.refused: list[Told] = []
        self.consumed: list[Transaction] = []
        self.used: list[tuple[str, float]] = []
        self.dead: list[DeadLetter] = []
        self.restored: list[float] = []

    def answer(self, handed: Handed) -> float:
        """When its client was done with what it was handed; infinite: never."""
        said = (told.at for told in (*self.told, *self.refused) if told.client == handed.client)
        return min((at for at in said if at >= handed.at), default=math.inf)

    def attempt_by(self, at: float) -> int:
        """The highest number of an attempt that had begun by then."""
        return max((handed.attempt for handed in self.handed if handed.at <= at), default=1)

    def done(self, handed: Handed) -> float:
        """The same, or when a transaction that settles it was begun."""
        begun = [at for client, at in self.used if client == handed.client and at >= handed.at]
        return min([self.answer(handed), *begun])


class Flow:
    """One group in one partition, between two seeks.

    Attributes:
        base: where the group begins; None: not known.
        sought: there are other flows of it, for its position was set by hand.
        cut: the log of now is that of another topic, or the group is gone: nothing of the end is judged.
        rest: by node; nothing when it is not known to belong to this flow.
        told: by when it was said, without what was refused.
    """

    def __init__(self, group: Group, topic: str, partition: int, log: Log, *, cut: bool) -> None:
        self.group = group
        self.topic = topic
        self.partition = partition
        self.where = f"group {group.name} at {topic}/{partition}"
        self.log = log
        self.cut = cut
        self.base: int | None = 0 if group.from_start else None
        self.sought = False
        self.stories: dict[int, Story] = {}
        self.handed: list[Handed] = []
        self.told: list[Told] = []
        self.pauses: list[PauseTold] = []
        self.discards: list[Restored] = []
        self.rest: list[FlowAtRest] = []
        # Ranges that members of the protocol without leases have acknowledged.
        self.acked: list[Acked] = []

    def story(self, offset: int) -> Story:
        found = self.stories.get(offset)
        if found is None:
            found = self.stories[offset] = Story(offset)
        return found

    @cached_property
    def remembered(self) -> dict[int, int]:
        """Attempts that the first of the nodes keeps at rest, by offset."""
        return {row.offset: row.attempts for rest in self.rest[:1] for row in rest.retries}

    @cached_property
    def start(self) -> int:
        """The first offset that is asked for: where the group began, or retention has arrived.

        Asked for once all events are in.
        """
        base = self.base
        if base is None:
            base = min((handed.offset for handed in self.handed), default=self.log.end)
        return max(base, self.log.start)

    def key(self, view: View, offset: int) -> str | None:
        """The key of a record of the log at rest."""
        value = self.log.at(offset)
        publish = view.by_value.get(value) if value is not None else None
        return publish.key if publish is not None else None


class Group:
    """One defined group.

    Attributes:
        attempts: the most its definitions allow; 0: no end.
        least_attempts: after so many a record may have been given up; infinite: never.
        dead_letters: topics for what is given up.
        flows: by topic, partition and number of the seek before.
    """

    def __init__(self, name: str, definitions: list[GroupDefined], sessions: Sessions) -> None:
        self.name = name
        self.definitions = definitions
        first = definitions[0]
        self.semantics, self.ordering = first.semantics, first.ordering
        self.from_start = all(d.start == "earliest" for d in definitions)
        bounds = [d.max_attempts for d in definitions]
        self.attempts = max(bounds) if all(bounds) else 0
        self.least_attempts: float = min((bound for bound in bounds if bound), default=math.inf)
        self.dead_letters = {d.dead_letter for d in definitions if d.dead_letter}
        self.topics = {topic for d in definitions for topic in d.topics}
        self.max_unacked = max(d.max_unacked for d in definitions)
        self.least_unacked = min(d.max_unacked for d in definitions)
        self.max_retrying = max(d.max_retrying for d in definitions)
        self.sessions = sessions
        self.shapes: list[Reshaped] = []
        self.flows: list[Flow] = []

    def session(self, event: Handed | Told) -> Session:
        return self.sessions.by_name[event.session]

    def doubtful(self, handed: Handed) -> bool:
        """May it have been handed out by a leader that led no more, or to a member that was none?"""
        return self.session(handed).doubtful(handed.came)


def groups(view: View, late: float) -> list[Group]:
    """Every defined group with what became of its records."""
    defined: dict[str, list[GroupDefined]] = defaultdict(list)
    for event in view.of(GroupDefined):
        defined[event.group].append(event)
    if not defined:
        return []
    reigns = Reigns(view, late)
    found = {name: Group(name, events, _sessions(events)) for name, events in defined.items()}
    joins = _by_group(view.of(Joined))
    for name, group in found.items():
        for joined in joins.get(name, ()):
            group.sessions.joined(joined)
    _Sorter(view, found).sort()
    ends, silent = _by_group(view.of(SessionOver)), _by_group(view.of(Silent))
    for name, group in found.items():
        group.sessions.close(reigns, joins.get(name, []), ends.get(name, []), silent.get(name, []))
    for shape in view.of(Reshaped):
        if shape.group in found:
            found[shape.group].shapes.append(shape)
    return list(found.values())


def _sessions(definitions: list[GroupDefined]) -> Sessions:
    """With the shortest times that any of the definitions grants."""
    lease = min((d.max_lease_ms for d in definitions if d.max_lease_ms), default=0)
    return Sessions(
        rejoin=min(d.rejoin_ms for d in definitions) / 1_000,
        ack_timeout=min(d.ack_timeout_ms for d in definitions) / 1_000,
        handover=min(d.handover_ms for d in definitions) / 1_000,
        max_lease=lease / 1_000 if lease else math.inf,
    )


def _by_group(events: Iterable[_E]) -> dict[str, list[_E]]:
    found: dict[str, list[_E]] = defaultdict(list)
    for event in events:
        found[event.group].append(event)
    return found


class _Epochs:
    """Seeks of one partition: which flow a moment belongs to."""

    def __init__(self, seeks: list[Sought], cut: float) -> None:
        self._cut = cut
        self._seeks = sorted((s for s in seeks if s.outcome is not Outcome.FAIL), key=lambda s: s.started)
        # A moment belongs to the flow after the last seek that had ended, if none was begun since.
        self._begun = [seek.started for seek in self._seeks]
        self._over: list[float] = []
        latest = -math.inf
        for seek in self._seeks:
            known = seek.outcome is Outcome.OK and seek.ended is not None
            ended = seek.ended if known and seek.ended is not None else math.inf
            # One whose outcome is unknown may be done at any time before a later one is begun.
            latest = max(ended + SLACK, latest if latest < math.inf else -math.inf)
            self._over.append(latest)

    def of(self, at: float) -> int | None:
        """The number of the flow; None: of none for certain."""
        if at >= self._cut:
            return None
        number = bisect_right(self._begun, at)
        return number if not number or self._over[number - 1] < at else None

    def last(self) -> int | None:
        """The flow at the end of everything."""
        if self._cut < math.inf or (self._over and self._over[-1] == math.inf):
            return None
        return len(self._begun)

    @property
    def any(self) -> bool:
        """Was the position ever set by hand?"""
        return bool(self._seeks)

    def base(self, number: int) -> int | None:
        """Where a flow that is not the first begins; None: not known."""
        return self._seeks[number - 1].offset


class _Sorter:
    """Puts events where they belong."""

    def __init__(self, view: View, found: dict[str, Group]) -> None:
        self._view = view
        self._found = found
        self._flows: dict[tuple[str, str, int, int], Flow] = {}
        self._epochs: dict[tuple[str, str, int], _Epochs] = {}
        self._seeks: dict[tuple[str, str, int], list[Sought]] = defaultdict(list)
        for seek in view.of(Sought):
            self._seeks[seek.group, seek.topic, seek.partition].append(seek)
        self._gone: dict[str, float] = {}
        for event in view.of(GroupDeleted):
            if event.outcome is not Outcome.FAIL:
                self._gone[event.group] = min(self._gone.get(event.group, math.inf), event.started)

    def _flow(self, group: str, topic: str, partition: int, at: float) -> Flow | None:
        """The flow that an event belongs to; None: to none that is judged."""
        if group not in self._found:
            return None
        number = self._of(group, topic, partition).of(at)
        return None if number is None else self._numbered(group, topic, partition, number)

    def _of(self, group: str, topic: str, partition: int) -> _Epochs:
        place = group, topic, partition
        found = self._epochs.get(place)
        if found is None:
            cut = min(self._view.cut.get(topic, math.inf), self._gone.get(group, math.inf))
            found = self._epochs[place] = _Epochs(self._seeks.get(place, []), cut)
        return found

    def _numbered(self, group: str, topic: str, partition: int, number: int) -> Flow:
        flow = self._flows.get((group, topic, partition, number))
        if flow is None:
            gone = topic in self._view.cut
            log = Log() if gone else self._view.log((topic, partition))
            flow = Flow(self._found[group], topic, partition, log, cut=gone or group in self._gone)
            epochs = self._of(group, topic, partition)
            flow.sought = epochs.any
            if number:
                flow.base = epochs.base(number)
            self._flows[group, topic, partition, number] = flow
            self._found[group].flows.append(flow)
        return flow

    def sort(self) -> None:
        view = self._view
        for handed in sorted(view.of(Handed), key=lambda handed: handed.came):
            if handed.group in self._found:
                self._found[handed.group].sessions.seen(handed)
                # A handler may begin late; the seek counts from when the record came, and from when it began.
                flow = self._flow(handed.group, handed.topic, handed.partition, handed.came)
                if flow is not None and flow is self._flow(
                    handed.group, handed.topic, handed.partition, handed.at
                ):
                    flow.handed.append(handed)
                    flow.story(handed.offset).handed.append(handed)
        for told in sorted(view.of(Told), key=lambda told: told.at):
            if told.group in self._found:
                self._found[told.group].sessions.seen(told)
                flow = self._flow(told.group, told.topic, told.partition, told.at)
                if flow is not None:
                    if not told.refused:
                        flow.told.append(told)
                    for offset in range(told.offset, told.offset + told.count):
                        story = flow.story(offset)
                        (story.refused if told.refused else story.told).append(told)
        for one in view.transactions.values():
            for place in one.consumed:
                flow = self._flow(place.group, place.topic, place.partition, one.started)
                if flow is not None:
                    story = flow.story(place.offset)
                    story.used.append((one.client, one.started))
                    if one.outcome is not Outcome.FAIL:
                        story.consumed.append(one)
        for pause in sorted(view.of(PauseTold), key=lambda pause: pause.at):
            flow = self._flow(pause.group, pause.topic, pause.partition, pause.at)
            if flow is not None:
                flow.pauses.append(pause)
        for (group, topic, partition), events in view.groups.items():
            for event in events:
                if isinstance(event, Acked):
                    flow = self._flow(group, topic, partition, event.at)
                    if flow is not None:
                        flow.acked.append(event)
        self._sort_ends()

    def _sort_ends(self) -> None:
        """What was found at rest, and what operators did."""
        for event in self._view.of(Restored):
            flow = self._flow(event.group, event.topic, event.partition, event.started)
            if flow is not None and event.outcome is not Outcome.FAIL:
                if event.discard:
                    flow.discards.append(event)
                stories = flow.stories.values() if event.offset is None else [flow.story(event.offset)]
                for story in stories:
                    story.restored.append(event.started)
        for rest in self._view.of(FlowAtRest):
            if rest.group in self._found:
                number = self._of(rest.group, rest.topic, rest.partition).last()
                if number is not None:
                    self._numbered(rest.group, rest.topic, rest.partition, number).rest.append(rest)
        self._sort_letters()

    def _sort_letters(self) -> None:
        lives: dict[tuple[str, str, int, int, int], DeadLetter] = {}
        for letter in sorted(self._view.of(DeadLetter), key=lambda letter: letter.redrives):
            place = letter.group, letter.origin_topic, letter.origin_partition
            lives[*place, letter.origin_offset, letter.redrives] = letter
            self._bury(letter, *place, letter.origin_offset)
        for copy in self._view.of(Redriven):
            origin = copy.origin_topic, copy.origin_partition, copy.origin_offset
            again = lives.get((copy.group, *origin, copy.redrives))
            if again is not None and origin != (copy.topic, copy.partition, copy.offset):
                self._bury(again, copy.group, copy.topic, copy.partition, copy.offset)

    def _bury(self, letter: DeadLetter, group: str, topic: str, partition: int, offset: int) -> None:
        """In which of several flows it died is not known: in each."""
        if group not in self._found:
            return
        number = self._of(group, topic, partition).last()
        if number is not None:
            self._numbered(group, topic, partition, number)
            for earlier in range(number + 1):
                flow = self._flows.get((group, topic, partition, earlier))
                if flow is not None:
                    flow.story(offset).dead.append(letter)
