"""A history sorted by what its events are about, and the logs as they were left."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar, cast

from holdfast.chaos.checker.delivery_events import DeadLetter, GroupDefined, Redriven, Spot, Transacted
from holdfast.chaos.checker.history import (
    Acked,
    Assigned,
    Committed,
    Delivered,
    Event,
    History,
    HistoryError,
    Keyed,
    Leader,
    OffsetRead,
    Outcome,
    Publish,
    Read,
    Replica,
    TopicChange,
)
from holdfast.chaos.checker.transacted import Transaction, merge

_E = TypeVar("_E", bound=Event)

Place = tuple[str, int]  # topic, partition
GroupEvent = Assigned | Delivered | Acked | Committed


class Log:
    """What a partition holds at rest, and what it was seen to hold before that.

    Attributes:
        known: there is a replica to compare with.
        start, end: offsets held at rest; ``end`` is exclusive.
        values: the records from ``start`` on; None: a hole.
    """

    __slots__ = ("_seen", "end", "known", "start", "values")

    def __init__(self, replica: Replica | None = None) -> None:
        self.known = replica is not None
        self.start = 0
        self.end = 0
        self.values: Sequence[str | None] = ()
        # Offsets that no replica holds any more (or of a topic without replicas): the first value seen.
        self._seen: dict[int, str] = {}
        if replica is None:
            return
        self.start = replica.start_offset
        offsets = [offset for offset, _ in replica.records]
        if offsets == list(range(self.start, self.start + len(offsets))):
            self.values = [value for _, value in replica.records]
        else:
            held = dict(replica.records)
            self.start = min(held, default=self.start)
            self.values = [held.get(offset) for offset in range(self.start, max(held, default=-1) + 1)]
        self.end = self.start + len(self.values)

    def at(self, offset: int) -> str | None:
        """The record at an offset; None: not there, or not any more."""
        return self.values[offset - self.start] if self.start <= offset < self.end else None

    def holds(self, offset: int) -> bool:
        """True when the log at rest has a record there."""
        return self.known and self.at(offset) is not None

    def contradiction(self, offset: int, value: str) -> str:
        """Why ``value`` cannot have been seen at ``offset``; empty: it can.

        What was trimmed is remembered from call to call: the first value seen stands.
        """
        if self.known and offset >= self.start:
            held = self.at(offset)
            if held == value:
                return ""
            return f"the log has {held!r} there" if held is not None else "the log has nothing there"
        first = self._seen.setdefault(offset, value)
        return "" if first == value else f"{first!r} was seen there before"

    def same(self, records: list[tuple[int, str]]) -> bool:
        """True when ``records``, without a gap, are certainly what the log holds: the fast way."""
        first = records[0][0]
        if not self.known or first < self.start:
            return False
        begin = first - self.start
        return [value for _, value in records] == self.values[begin : begin + len(records)]


class View:
    """One pass over a history.

    Attributes:
        cut: topics that were deleted, perhaps -> when the first deletion began, seconds.
        settled: the same topics -> when the last deletion had certainly ended; infinite
            when the outcome of one is unknown.
        keeps_all: topics all of whose definitions, as far as known, ask for no retention.
        transactions: by id.
        transacted: the records of transactions by value, as if a producer had published them.
        copies: where records lie that the bus itself has written again: dead letters, redriven ones.
        copied_to: topics that may hold such.

    Raises:
        HistoryError: two publishes have the same value.
    """

    def __init__(self, history: History) -> None:
        self.publishes: list[Publish] = []
        self.keyed: list[Keyed] = []
        self.reads: dict[Place, list[Read]] = defaultdict(list)
        self.groups: dict[tuple[str, str, int], list[GroupEvent]] = defaultdict(list)
        self.offset_reads: dict[tuple[str, str, int], list[OffsetRead]] = defaultdict(list)
        self.replicas: dict[Place, list[Replica]] = defaultdict(list)
        self.changes: list[TopicChange] = []
        self.leaders: list[Leader] = []
        self._others: dict[type, list[Event]] = defaultdict(list)
        for event in history.events:
            if isinstance(event, Publish):
                self.publishes.append(event)
            elif isinstance(event, Keyed):
                self.keyed.append(event)
            elif isinstance(event, Assigned | Delivered | Acked | Committed):
                self.groups[event.group, event.topic, event.partition].append(event)
            elif isinstance(event, Read):
                self.reads[event.topic, event.partition].append(event)
            elif isinstance(event, OffsetRead):
                self.offset_reads[event.group, event.topic, event.partition].append(event)
            elif isinstance(event, Replica):
                self.replicas[event.topic, event.partition].append(event)
            elif isinstance(event, TopicChange):
                self.changes.append(event)
            elif isinstance(event, Leader):
                self.leaders.append(event)
            else:
                self._others[type(event)].append(event)
        self.by_value = {publish.value: publish for publish in self.publishes}
        self.keyed_by_value = {publish.value: publish for publish in self.keyed}
        every: list[Publish | Keyed] = [*self.publishes, *self.keyed]
        if len(self.by_value.keys() | self.keyed_by_value.keys()) != len(every):
            raise HistoryError(f"two publishes have the same value: {_repeated(every)!r}")
        self.transactions: dict[str, Transaction] = merge(self.of(Transacted))
        self.transacted = _records(
            self.transactions.values(), self.by_value.keys() | self.keyed_by_value.keys()
        )
        self.by_value |= self.transacted
        copies: list[DeadLetter | Redriven] = [*self.of(DeadLetter), *self.of(Redriven)]
        self.copies: set[Spot] = {(c.topic, c.partition, c.offset) for c in copies}
        self.copied_to = {copy.topic for copy in copies}
        self.copied_to |= {defined.dead_letter for defined in self.of(GroupDefined) if defined.dead_letter}
        self.cut: dict[str, float] = {}
        self.settled: dict[str, float] = {}
        for change in self.changes:
            if change.kind == "delete" and change.outcome is not Outcome.FAIL:
                known = change.outcome is Outcome.OK and change.ended is not None
                end = change.ended if known and change.ended is not None else math.inf
                self.cut[change.topic] = min(self.cut.get(change.topic, math.inf), change.started)
                self.settled[change.topic] = max(self.settled.get(change.topic, -math.inf), end)
        defined = [c for c in self.changes if c.kind != "delete" and c.outcome is not Outcome.FAIL]
        self.keeps_all = {c.topic for c in defined if c.keeps_all} - {
            c.topic for c in defined if not c.keeps_all
        }
        # The replica with most records stands for the partition; `replicas` says where others differ.
        self.logs: dict[Place, Log] = {
            place: Log(max(held, key=lambda replica: len(replica.records)))
            for place, held in self.replicas.items()
        }

    def of(self, kind: type[_E]) -> list[_E]:
        """The events of delivery of one kind, in the order noted."""
        return cast("list[_E]", self._others.get(kind, []))

    def log(self, place: Place) -> Log:
        """The log of a partition; one that knows nothing where no replica was shown."""
        found = self.logs.get(place)
        if found is None:
            found = self.logs[place] = Log()
        return found

    def origin_fault(self, topic: str, value: str, *, copied: bool = True) -> tuple[str, str] | None:
        """The promise a record of this topic breaks by its value alone, and why; None: none.

        ``copied``: it may be one that the bus itself has written again, if the topic holds such.
        """
        publish = self.by_value.get(value) or self.keyed_by_value.get(value)
        copied = copied and topic in self.copied_to
        if publish is None or (publish.topic != topic and not copied):
            return "unpublished-record", f"was never published to {topic}"
        if publish.outcome is Outcome.FAIL:
            if value in self.transacted:
                return "fenced-effect", f"its {self.transacted[value].producer} was told to have failed"
            return "failed-record", "its publish was told to have failed"
        return None

    def judged(self, topic: str, started: float) -> bool:
        """May what was begun then be compared with the log at rest?

        Not what was begun before the last deletion of the topic had ended.
        """
        settled = self.settled.get(topic)
        return settled is None or started > settled


def _repeated(publishes: Sequence[Publish | Keyed]) -> str:
    seen: set[str] = set()
    for publish in publishes:
        if publish.value in seen:
            return publish.value
        seen.add(publish.value)
    return ""


def _records(transactions: Iterable[Transaction], published: Collection[str]) -> dict[str, Publish]:
    """What transactions published, by value."""
    found: dict[str, Publish] = {}
    for one in transactions:
        for number, record in enumerate(one.published):
            if record.value in found or record.value in published:
                raise HistoryError(f"two publishes have the same value: {record.value!r}")
            found[record.value] = Publish(
                one.client,
                one.producer,
                number,
                record.topic,
                record.value,
                one.started,
                record.key,
                one.ended,
                one.outcome,
                record.partition,
                record.offset,
            )
    return found
