"""Virtual time and what is scheduled in it."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from math import ceil
from typing import Any

#: Time goes in steps of this part of a second.
TICKS = 1024

#: What the clock shows as a simulation begins, seconds.
BEGIN = 1000.0

#: Something scheduled: when, its number, what to do (None: not any more), and its lane (see ``World.at``).
Entry = list[Any]


class World:
    """The clock of a simulation, its one source of randomness, and its calendar."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = BEGIN
        self.rng = random.Random(seed)
        self._calendar: list[Entry] = []
        self._sequence = 0

    def stream(self, name: str) -> random.Random:
        """A generator of its own for one purpose, so that draws for one do not move those of another."""
        return random.Random(f"{self.seed}/{name}")

    def at(self, when: float, action: Callable[[], object], lane: str = "") -> Entry:
        """Run ``action`` at ``when``; those of one moment in the order scheduled. See ``cancel``.

        Args:
            lane: where the order of a moment is drawn, those of one lane keep theirs and
                may pass those of others; what has none is passed by nothing.
        """
        self._sequence += 1
        # Up to the next tick: what is due at about the same time is one step of the simulation.
        when = ceil(when * TICKS) / TICKS if when > self.now else self.now
        entry = [when, self._sequence, action, lane]
        heapq.heappush(self._calendar, entry)
        return entry

    @staticmethod
    def cancel(entry: Entry) -> None:
        """Forget something scheduled; of no effect when it has run."""
        entry[2] = None

    def next_time(self) -> float:
        calendar = self._calendar
        while calendar and calendar[0][2] is None:
            heapq.heappop(calendar)
        return calendar[0][0] if calendar else float("inf")

    def run_due(self) -> bool:
        """Run what is due; True when anything was."""
        calendar, now = self._calendar, self.now
        if not calendar or calendar[0][0] > now:
            return False
        while calendar and calendar[0][0] <= now:
            action = heapq.heappop(calendar)[2]
            if action is not None:
                action()
        return True

    def due(self, count: int) -> bool:
        """Whether so many, 1 or 2, are due; one that was cancelled may be among them."""
        calendar, now = self._calendar, self.now
        if count == 1:
            return bool(calendar) and calendar[0][0] <= now
        # In a heap the second comes right below the first.
        return len(calendar) > 1 and min(calendar[1:3])[0] <= now

    def take_due(self, taken: list[Entry]) -> None:
        """Move what is due to the end of ``taken``, instead of running it."""
        calendar, now = self._calendar, self.now
        while calendar and calendar[0][0] <= now:
            taken.append(heapq.heappop(calendar))


class NodeClock:
    """The clock of one node: it may run fast or slow, and its wall clock may be wrong."""

    def __init__(self, world: World) -> None:
        self._world = world
        #: Time the node has used up within its present turn (fsyncs), seconds.
        self.lag = 0.0
        #: What its wall clock is wrong by, microseconds.
        self.wall_skew_us = 0
        self._rate = 1.0
        self._from = world.now
        self._base = world.now

    def monotonic(self) -> float:
        return self._base + (self._world.now + self.lag - self._from) * self._rate

    def wall_us(self) -> int:
        return 1_700_000_000_000_000 + int(self.monotonic() * 1_000_000) + self.wall_skew_us

    def world_time(self, monotonic: float) -> float:
        """When this clock shows ``monotonic``, in the world's time."""
        when = self._from + (monotonic - self._base) / self._rate
        # Rounding must not make it a moment too early: nothing would be due then, for ever.
        return when if self._rate == 1.0 and self._from == self._base else when + 1e-9

    @property
    def rate(self) -> float:
        """Its seconds per second of the world."""
        return self._rate

    def run_at(self, rate: float) -> None:
        """Drift: from now on ``rate`` of its seconds pass in one of the world's."""
        self._base += (self._world.now - self._from) * self._rate
        self._from = self._world.now
        self._rate = rate
