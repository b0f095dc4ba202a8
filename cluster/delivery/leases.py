"""Who holds what: the leases of one flow, as runs or record by record."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from typing import NamedTuple, Protocol

from holdfast.errors import HoldfastError

_NO_OFFSET = 1 << 63


class Ages:
    """When a session's leases were handed out, to about a 64th of the longest time they may last.

    Leases are numbered in the order of their hand-out: a few marks say which
    are older than a given time, however many there are.
    """

    __slots__ = ("_marks",)

    def __init__(self) -> None:
        # (last lease, its time), ascending: the leases up to it were handed out no later.
        self._marks: deque[tuple[int, float, float]] = deque()

    def note(self, lease: int, now: float, longest: float) -> None:
        """``lease`` is handed out now; ``longest`` is how long it may last, in seconds."""
        if self._marks and now - self._marks[-1][1] < longest / 64:
            self._marks[-1] = (lease, self._marks[-1][1], now)
        else:
            self._marks.append((lease, now, now))

    def over(self, now: float, longest: float) -> int:
        """All leases up to this one have lasted ``longest`` seconds; 0: none has."""
        last = 0
        while self._marks and self._marks[0][2] + longest <= now:
            last = self._marks.popleft()[0]
        return last

    def next_over(self, longest: float) -> float | None:
        """When the next leases will have lasted that long."""
        return self._marks[0][2] + longest if self._marks else None


@dataclass(eq=False, slots=True)
class Holder:
    """One session of a member, or a transaction under way: whoever records are leased to.

    A member that comes back on another stream is another holder.
    """

    id: str
    #: Records it may still be sent.
    credits: int = 0
    #: Handlers it runs at once: how many of its records may be to blame when it dies.
    concurrency: int = 1
    #: It is sent stored batches only: a client of protocol 0.
    whole_only: bool = False
    #: Its stream has ended, or it wants no more.
    gone: bool = False
    #: It stands for a transaction of this member: nothing but its outcome ends its leases.
    lender: Holder | None = None

    # Kept by dispatch and the flows:
    #: Records it holds, in all flows.
    in_flight: int = 0
    #: The lease of the last parcel; 0: none yet.
    lease: int = 0
    #: Which of its flows is looked at first.
    turn: int = 0
    #: It works on a suspect, and is given nothing else.
    alone: bool = False
    #: A batch waits for credits until then; come again.
    linger_until: float | None = None
    #: When parcels were handed out, see ``Ages``.
    ages: Ages = field(default_factory=Ages)


class Refused(NamedTuple):
    """Offsets, both inclusive, of which something was asked that is not granted."""

    first: int
    last: int
    error: HoldfastError


class Lease(NamedTuple):
    """Records held by one holder under one lease."""

    holder: Holder
    first: int
    end: int
    lease: int  # 0: kept from an earlier stream
    lane: int = 0  # of a keyed record; 0: it has a lane of its own, or lanes are not by key


class Leases(Protocol):
    """What both kinds do."""

    def take(self, holder: Holder, lease: int, first: int, end: int) -> list[Lease]:
        """End what ``holder`` holds of ``first..end`` under ``lease`` (0: any); what that was, ascending."""
        ...

    def drop(self, holder: Holder) -> list[Lease]:
        """End all that ``holder`` holds, ascending."""
        ...

    def of(self, holder: Holder) -> list[Lease]:
        """What ``holder`` holds, ascending."""
        ...

    def at(self, offset: int) -> Lease | None:
        """Who holds a record."""
        ...

    def restore(self, lease: Lease) -> None:
        """Give back what ``take`` or ``drop`` ended, maybe to another holder."""
        ...

    def __iter__(self) -> Iterator[Lease]:
        """All, in no order."""
        ...


class RunLeases:
    """Leases of flows in which whole runs are handed out: one entry for a run, however long.

    Acks in order shorten the first run; others split one.
    """

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        #: By holder: (first, end, lease), ascending, disjoint.
        self._runs: dict[Holder, list[tuple[int, int, int]]] = {}

    def add(self, holder: Holder, first: int, end: int, lease: int) -> None:
        """Hand out a run nobody holds any of."""
        runs = self._runs.setdefault(holder, [])
        if not runs or runs[-1][0] < first:
            runs.append((first, end, lease))
        else:
            insort(runs, (first, end, lease))
        holder.in_flight += end - first

    def take(self, holder: Holder, lease: int, first: int, end: int) -> list[Lease]:
        """See ``Leases``."""
        runs = self._runs.get(holder)
        if runs is None:
            return []
        start = bisect_right(runs, (first, _NO_OFFSET)) - 1
        if start < 0 or runs[start][1] <= first:
            start += 1
        stop = start
        taken: list[Lease] = []
        left: list[tuple[int, int, int]] = []
        while stop < len(runs) and runs[stop][0] < end:
            run_first, run_end, run_lease = run = runs[stop]
            stop += 1
            if lease and lease != run_lease:
                left.append(run)
                continue
            low, high = max(run_first, first), min(run_end, end)
            taken.append(Lease(holder, low, high, run_lease))
            holder.in_flight -= high - low
            if run_first < low:
                left.append((run_first, low, run_lease))
            if high < run_end:
                left.append((high, run_end, run_lease))
        if taken:
            runs[start:stop] = left
            if not runs:
                del self._runs[holder]
        return taken

    def drop(self, holder: Holder) -> list[Lease]:
        """See ``Leases``."""
        dropped = [Lease(holder, *run) for run in self._runs.pop(holder, ())]
        holder.in_flight -= sum(it.end - it.first for it in dropped)
        return dropped

    def of(self, holder: Holder) -> list[Lease]:
        """See ``Leases``."""
        return [Lease(holder, *run) for run in self._runs.get(holder, ())]

    def at(self, offset: int) -> Lease | None:
        """See ``Leases``."""
        for holder, runs in self._runs.items():
            place = bisect_right(runs, (offset, _NO_OFFSET)) - 1
            if place >= 0 and offset < runs[place][1]:
                return Lease(holder, *runs[place])
        return None

    def next_from(self, offset: int) -> int | None:
        """The first offset at or after ``offset`` that somebody holds."""
        found = []
        for runs in self._runs.values():
            place = bisect_right(runs, (offset, _NO_OFFSET)) - 1
            if place >= 0 and offset < runs[place][1]:
                return offset
            if place + 1 < len(runs):
                found.append(runs[place + 1][0])
        return min(found, default=None)

    def restore(self, lease: Lease) -> None:
        """See ``Leases``."""
        self.add(lease.holder, lease.first, lease.end, lease.lease)

    @property
    def holders(self) -> list[Holder]:
        """Who holds anything, in the order in which they came to."""
        return list(self._runs)

    def __iter__(self) -> Iterator[Lease]:
        for holder, runs in self._runs.items():
            for run in runs:
                yield Lease(holder, *run)


class RecordLeases:
    """Leases of flows in which single records are handed out: one tuple for each.

    ``held`` is what others may look into: ``offset -> (holder, lease, lane)``.
    """

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: dict[int, tuple[Holder, int, int]] = {}

    def add(self, holder: Holder, offset: int, lease: int, lane: int) -> None:
        """Hand out a record nobody holds."""
        self.held[offset] = (holder, lease, lane)
        holder.in_flight += 1

    def take(self, holder: Holder, lease: int, first: int, end: int) -> list[Lease]:
        """See ``Leases``."""
        held = self.held
        offsets: Iterable[int] = range(first, end)
        if end - first > len(held):
            offsets = sorted(offset for offset in held if first <= offset < end)
        taken = []
        for offset in offsets:
            entry = held.get(offset)
            if entry is not None and entry[0] is holder and (not lease or lease == entry[1]):
                del held[offset]
                taken.append(Lease(holder, offset, offset + 1, entry[1], entry[2]))
        holder.in_flight -= len(taken)
        return taken

    def drop(self, holder: Holder) -> list[Lease]:
        """See ``Leases``."""
        dropped = self.of(holder)
        for lease in dropped:
            del self.held[lease.first]
        holder.in_flight -= len(dropped)
        return dropped

    def of(self, holder: Holder) -> list[Lease]:
        """See ``Leases``."""
        return sorted(
            (
                Lease(holder, offset, offset + 1, entry[1], entry[2])
                for offset, entry in self.held.items()
                if entry[0] is holder
            ),
            key=lambda lease: lease.first,
        )

    def at(self, offset: int) -> Lease | None:
        """See ``Leases``."""
        entry = self.held.get(offset)
        return None if entry is None else Lease(entry[0], offset, offset + 1, entry[1], entry[2])

    def restore(self, lease: Lease) -> None:
        """See ``Leases``."""
        self.add(lease.holder, lease.first, lease.lease, lease.lane)

    def __iter__(self) -> Iterator[Lease]:
        for offset, (holder, lease, lane) in self.held.items():
            yield Lease(holder, offset, offset + 1, lease, lane)


def in_delivery_order(held: Iterable[tuple[int, list[Lease]]], limit: int) -> list[tuple[int, int]]:
    """The first ``limit`` records of a holder in the order in which they were handed out.

    Args:
        held: per flow, under a number of the caller's, what the holder has there.

    Returns:
        (number of the flow, offset), oldest lease first.
    """

    def records(number: int, leases: list[Lease]) -> Iterator[tuple[int, int, int]]:
        for lease in sorted(leases, key=lambda it: (it.lease, it.first)):
            for offset in range(lease.first, lease.end):
                yield lease.lease, number, offset

    ordered = merge(*(records(number, leases) for number, leases in held))
    return [(number, offset) for _, number, offset in islice(ordered, limit)]
