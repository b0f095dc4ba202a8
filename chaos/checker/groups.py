"""Group members get every record, in order; offsets follow acknowledgements and never go back.

Times of events are those of the clients: what a broker said first may arrive
last. Therefore members are compared across sessions only where the order is
certain: a higher generation is the work of the same or a later leader.

A group whose offsets are moved by hand (a seek) breaks these rules rightly;
histories with seeks are not for this checker.
"""

from __future__ import annotations

from collections import deque

from holdfast.chaos.checker.history import Acked, Assigned, Committed, Delivered, Outcome
from holdfast.chaos.checker.promises import Findings
from holdfast.chaos.checker.view import GroupEvent, Log, View


def check(view: View, findings: Findings) -> None:
    """Each group and partition by itself."""
    for (group, topic, partition), events in view.groups.items():
        cut = view.cut.get(topic)
        kept = events if cut is None else [event for event in events if event.at < cut]
        log = view.log((topic, partition)) if cut is None else Log()
        reads = [
            (read.ended, read.offset)
            for read in view.offset_reads.get((group, topic, partition), ())
            if read.outcome is Outcome.OK and read.offset is not None and read.ended is not None
            if cut is None or read.ended < cut
        ]
        flow = _Flow(f"group {group} at {topic}/{partition}", log, findings, view, topic)
        flow.judge(kept, reads)


class Covered:
    """Offsets as disjoint ranges; adding in ascending order is the cheap and usual case."""

    def __init__(self, base: int) -> None:
        self.prefix = base
        self._above: list[list[int]] = []  # [first, end), ascending, disjoint, not touching

    def add(self, first: int, end: int) -> None:
        if end <= self.prefix:
            return
        above = self._above
        place = len(above)
        while place and above[place - 1][0] > first:
            place -= 1
        if place and above[place - 1][1] >= first:
            place -= 1
            above[place][1] = max(above[place][1], end)
        else:
            above.insert(place, [first, end])
        while place + 1 < len(above) and above[place + 1][0] <= above[place][1]:
            above[place][1] = max(above[place][1], above.pop(place + 1)[1])
        while above and above[0][0] <= self.prefix:
            self.prefix = max(self.prefix, above.pop(0)[1])

    def missing(self, first: int, end: int) -> int | None:
        """The first offset of ``[first, end)`` that is not covered; None: all are."""
        first = max(first, self.prefix)
        for begin, stop in self._above:
            if first < begin:
                break
            first = max(first, stop)
        return first if first < end else None


class _Session:
    """One session's hold on the partition."""

    __slots__ = ("began", "committed", "floor", "generation", "next", "other", "start")

    def __init__(self, assigned: Assigned, floor: dict[int, int]) -> None:
        self.began = assigned.at
        self.start = assigned.start_offset
        self.next = assigned.start_offset
        # Where delivery may go on instead: an assignment is told again at every change of the group.
        self.other: int | None = None
        self.generation = assigned.generation
        self.committed = -1
        # What was confirmed before, by generation: this session must not be told less.
        self.floor = _highest(floor, assigned.generation)


def _highest(confirmed: dict[int, int], generation: int) -> int:
    return max((offset for made, offset in confirmed.items() if made <= generation), default=-1)


class _Flow:
    def __init__(self, where: str, log: Log, findings: Findings, view: View, topic: str) -> None:
        self._view = view
        self._topic = topic
        self._where = where
        self._log = log
        self._findings = findings
        self._sessions: dict[str, _Session] = {}
        # Generation -> the session that the partition belongs to.
        self._owners: dict[int, str] = {}
        # Generation -> highest offset confirmed under it; a new one replaces those it covers.
        self._confirmed: dict[int, int] = {}
        self._starts = -1
        self._base: int | None = None
        self._covered = Covered(0)

    def judge(self, events: list[GroupEvent], reads: list[tuple[float, int]]) -> None:
        """``reads``: when the group's offset was read, and what it was."""
        events = sorted(events, key=lambda event: event.at)
        self._base = self._first_offset(events)
        begin = self._base if self._base is not None else 0
        # What retention has removed needs no acknowledgement.
        self._covered = Covered(max(begin, self._log.start))
        asked = deque(sorted(reads))
        for event in events:
            # Of one moment the acknowledgements come first.
            while asked and asked[0][0] < event.at:
                self._read(*asked.popleft())
            if isinstance(event, Delivered):
                self._delivered(event)
            elif isinstance(event, Acked):
                self._covered.add(event.first, event.last + 1)
            elif isinstance(event, Assigned):
                self._assigned(event)
            else:
                self._told_committed(event)
        for at, offset in asked:
            self._read(at, offset)

    def _read(self, at: float, offset: int) -> None:
        """A read may be late, never ahead; of a group that was given nothing, any offset may be the first."""
        if self._base is not None and offset > self._covered.prefix:
            self._findings.add(
                "offset-ahead",
                f"{self._where}: read {offset}; {self._covered.prefix} was not acknowledged",
                at,
            )

    @staticmethod
    def _first_offset(events: list[GroupEvent]) -> int | None:
        """Where the group began, certainly: its first position is durable before the first delivery.

        None: nothing was delivered or confirmed, so every position may have been a new beginning.
        """
        lowest: list[int] = []
        start: dict[str, int] = {}  # of sessions that were given nothing yet
        for event in events:
            if isinstance(event, Assigned):
                start[event.session] = event.start_offset
                if event.initial == "earliest":
                    lowest.append(0)
            elif isinstance(event, Delivered):
                if event.session in start:
                    lowest.append(start.pop(event.session))
            elif isinstance(event, Committed):
                lowest.append(event.offset)
        return min(lowest, default=None)

    def _assigned(self, event: Assigned) -> None:
        who = f"{self._where}: session {event.session} (generation {event.generation})"
        owner = self._owners.setdefault(event.generation, event.session)
        if owner != event.session:
            self._findings.add("assigned-twice", f"{who} has what session {owner} has", event.at)
        self._starts = max(self._starts, event.start_offset)
        session = self._sessions.get(event.session)
        if session is not None:
            told_again = event.start_offset == session.start
            session.generation = max(session.generation, event.generation)
            if session.other is None:
                session.other = session.next
            session.next = session.start = event.start_offset
            if told_again:
                return
        else:
            session = self._sessions[event.session] = _Session(event, self._confirmed)
        if self._base is not None and event.start_offset > self._covered.prefix:
            self._findings.add(
                "start-skip",
                f"{who} starts at {event.start_offset}; {self._covered.prefix} was not acknowledged",
                event.at,
            )
        confirmed = _highest(self._confirmed, event.generation)
        if event.start_offset < confirmed:
            self._findings.add(
                "start-step-back",
                f"{who} starts at {event.start_offset}; {confirmed} was confirmed before",
                event.at,
            )

    def _delivered(self, event: Delivered) -> None:
        who = f"{self._where}: session {event.session}"
        wrong = self._log.contradiction(event.offset, event.value)
        if wrong:
            self._findings.add(
                "delivery-mismatch", f"{who} got {event.value!r} at offset {event.offset}; {wrong}", event.at
            )
        elif not self._log.holds(event.offset):
            fault = self._view.origin_fault(self._topic, event.value)
            if fault is not None:
                self._findings.add(fault[0], f"{who} got {event.value!r}: {fault[1]}", event.at)
        session = self._sessions.get(event.session)
        if session is None:
            self._findings.add(
                "delivery-unassigned", f"{who} got offset {event.offset} without an assignment", event.at
            )
            return
        expected = session.next
        if session.other is not None:
            # The first delivery after an assignment that was told again shows which it was.
            if event.offset >= session.other:
                expected = session.other
            session.other = None
        if event.offset < expected:
            self._findings.add(
                "delivery-step-back", f"{who} got offset {event.offset} after {expected - 1}", event.at
            )
        elif event.offset > expected:
            first = self._covered.missing(max(expected, self._log.start), event.offset)
            if first is not None:
                self._findings.add(
                    "delivery-skip", f"{who} got offset {event.offset}, and never {first}", event.at
                )
        session.next = event.offset + 1

    def _told_committed(self, event: Committed) -> None:
        who = f"{self._where}: session {event.session or '?'}"
        bound = self._covered.prefix if self._base is not None else max(self._starts, self._covered.prefix)
        if event.offset > bound:
            self._findings.add(
                "offset-ahead", f"{who} was told {event.offset}; {bound} was not acknowledged", event.at
            )
        session = self._sessions.get(event.session)
        if session is not None:
            floor = max(session.floor, session.committed)
            if event.offset < floor:
                self._findings.add(
                    "offset-regress", f"{who} was told {event.offset} after {floor} was confirmed", event.at
                )
            session.committed = max(session.committed, event.offset)
        # Who confirmed it is not known without a session: as if by the first leader.
        generation = session.generation if session is not None else 0
        for made in [made for made in self._confirmed if made >= generation]:
            if self._confirmed[made] <= event.offset:
                del self._confirmed[made]
        if event.offset > _highest(self._confirmed, generation):
            self._confirmed[generation] = event.offset
