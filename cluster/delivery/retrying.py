"""The records of one flow that have failed: the leader's mirror of their rows, and whose turn it is."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush

import msgspec

from holdfast.storage.retries import RetryRow, State


class Retry(msgspec.Struct):
    """One record that failed and is not settled. Times in microseconds, of the stamp clock."""

    attempts: int  # charged so far, as the log has it
    state: State
    due_us: int
    lane: int = 0  # hash of its key; 0: it has a lane of its own
    #: It has a row; else it has only been charged so far.
    stored: bool = True
    #: Something about it is on its way to the log: it waits until the result is in.
    charged: bool = False
    #: It is first in its lane and nobody works on it: it goes out when it is due.
    armed: bool = False

    @property
    def parked(self) -> bool:
        return self.state in (State.PARKED, State.PARKED_FOR_GOOD)

    def is_due(self, stamp_us: int) -> bool:
        """It may be handed out, as far as its row goes."""
        return not self.charged and not self.parked and self.due_us <= stamp_us


class Retrying:
    """Rows by offset, and heaps of what is due when.

    Heaps keep entries that no longer hold; these are skipped when they come up,
    and swept out when they are the most.

    Args:
        max_attempts: of the group's definition: records with as many are never
            handed out again, see ``exhausted``.
    """

    __slots__ = ("_armed", "_offsets", "_parks", "_rows", "_suspects", "max_attempts")

    def __init__(self, max_attempts: int = 0) -> None:
        self.max_attempts = max_attempts
        self._rows: dict[int, Retry] = {}
        self._offsets: list[int] = []  # of the rows, ascending
        self._armed: list[tuple[int, int]] = []  # (due, offset)
        self._suspects: list[tuple[int, int]] = []
        self._parks: list[tuple[int, int]] = []

    def __len__(self) -> int:
        """Records that wait, are parked, or are worked on again."""
        return len(self._rows)

    def __contains__(self, offset: int) -> bool:
        return offset in self._rows

    def __iter__(self) -> Iterator[int]:
        """Offsets, ascending."""
        return iter(self._offsets)

    def get(self, offset: int) -> Retry | None:
        return self._rows.get(offset)

    def next_from(self, offset: int) -> int | None:
        """The first record at or after ``offset``."""
        at = bisect_left(self._offsets, offset)
        return self._offsets[at] if at < len(self._offsets) else None

    @property
    def top(self) -> int:
        """Behind the last record."""
        return self._offsets[-1] + 1 if self._offsets else 0

    # -- rows ---------------------------------------------------------------

    def load(self, rows: Iterable[tuple[int, RetryRow]]) -> None:
        """Begin anew with what is stored."""
        self._rows = {
            offset: Retry(row.attempts, row.state, row.due_us, row.lane) for offset, row in sorted(rows)
        }
        self._offsets = list(self._rows)
        self._armed, self._suspects = [], []
        self._parks = [(row.due_us, at) for at, row in self._rows.items() if row.state == State.PARKED]
        heapify(self._parks)

    def charge(self, offset: int, lane: int) -> None:
        """Something about the record is on its way to the log; it may have no row yet."""
        row = self._rows.get(offset)
        if row is None:
            row = self._rows[offset] = Retry(0, State.WAITING, 0, lane, stored=False)
            insort(self._offsets, offset)
        row.charged = True
        row.armed = False

    def put(self, offset: int, attempts: int, state: State, due_us: int, lane: int = 0) -> None:
        """The log says this of the record now; it is not armed. ``lane`` 0: the one it has."""
        row = self._rows.get(offset)
        if row is None:
            self._rows[offset] = Retry(attempts, state, due_us, lane)
            insort(self._offsets, offset)
        else:
            row.attempts, row.state, row.due_us = attempts, state, due_us
            row.lane = lane or row.lane
            row.stored = True
            row.charged = row.armed = False
        if state == State.PARKED:
            self._push(self._parks, due_us, offset)

    def drop(self, offset: int) -> Retry | None:
        """The record is settled, or as if it had never failed."""
        row = self._rows.pop(offset, None)
        if row is not None:
            del self._offsets[bisect_left(self._offsets, offset)]
        return row

    def below(self, floor: int) -> list[int]:
        """The records below ``floor``."""
        return self._offsets[: bisect_left(self._offsets, floor)]

    def within(self, first: int, end: int) -> list[int]:
        """The records from ``first`` up to, not including, ``end``."""
        return self._offsets[bisect_left(self._offsets, first) : bisect_left(self._offsets, end)]

    def exhausted(self, offset: int) -> bool:
        """The record has had all its attempts and has to become a dead letter."""
        row = self._rows.get(offset)
        return (
            row is not None and not row.charged and not row.parked and 0 < self.max_attempts <= row.attempts
        )

    # -- turns --------------------------------------------------------------

    def arm(self, offset: int) -> None:
        """It is first in its lane and nobody works on it: it goes out when it is due.

        Does nothing when it is parked, on its way to the log or exhausted.
        """
        row = self._rows[offset]
        if row.armed or row.charged or row.parked or self.exhausted(offset):
            return
        row.armed = True
        self._push(self._suspects if row.state == State.SUSPECT else self._armed, row.due_us, offset)

    def disarm(self, offset: int) -> None:
        """It goes out, or something else is first in its lane."""
        row = self._rows.get(offset)
        if row is not None:
            row.armed = False

    def next_due(self, stamp_us: int) -> int | None:
        """The armed record that is due first, when it is due; suspects apart."""
        return self._first_due(self._armed, stamp_us)

    def next_suspect(self, stamp_us: int) -> int | None:
        """The armed record, lost with a member, that is due first, when it is due."""
        return self._first_due(self._suspects, stamp_us)

    def over_parks(self, stamp_us: int) -> list[int]:
        """The records whose park is over: each once, until ``put`` parks it again."""
        found = []
        while self._parks and self._parks[0][0] <= stamp_us:
            due_us, offset = heappop(self._parks)
            row = self._rows.get(offset)
            if row is not None and self._holds_park(row, due_us) and offset not in found:
                found.append(offset)
        return found

    def next_due_us(self) -> int | None:
        """When the next record is due, armed or parked; None: none ever."""
        for heap in (self._armed, self._suspects):
            while heap and not self._holds(heap, heap[0]):
                heappop(heap)
        while self._parks:
            due_us, offset = self._parks[0]
            row = self._rows.get(offset)
            if row is not None and self._holds_park(row, due_us):
                break
            heappop(self._parks)
        return min((heap[0][0] for heap in (self._armed, self._suspects, self._parks) if heap), default=None)

    def _first_due(self, heap: list[tuple[int, int]], stamp_us: int) -> int | None:
        while heap and heap[0][0] <= stamp_us:
            if self._holds(heap, heap[0]):
                return heap[0][1]
            heappop(heap)
        return None

    def _holds(self, heap: list[tuple[int, int]], entry: tuple[int, int]) -> bool:
        row = self._rows.get(entry[1])
        if row is None or not row.armed or row.due_us != entry[0]:
            return False
        return (heap is self._suspects) == (row.state == State.SUSPECT)

    @staticmethod
    def _holds_park(row: Retry, due_us: int) -> bool:
        return row.state == State.PARKED and row.due_us == due_us and not row.charged

    def _push(self, heap: list[tuple[int, int]], due_us: int, offset: int) -> None:
        if len(heap) > 2 * len(self._rows) + 64:
            heap[:] = sorted(set(heap) & {(row.due_us, at) for at, row in self._rows.items()})
        heappush(heap, (due_us, offset))
