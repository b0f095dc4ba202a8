"""Virtual time and what is scheduled in it."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable


class World:
    """The clock of a simulation, its one source of randomness, and its calendar."""

    def __init__(self, seed: int) -> None:
        self.now = 1000.0
        self.rng = random.Random(seed)
        self._calendar: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Run ``action`` at ``when``; those of one moment in the order scheduled."""
        self._sequence += 1
        heapq.heappush(self._calendar, (max(when, self.now), self._sequence, action))

    def next_time(self) -> float:
        return self._calendar[0][0] if self._calendar else float("inf")

    def run_due(self) -> None:
        while self._calendar and self._calendar[0][0] <= self.now:
            heapq.heappop(self._calendar)[2]()


class NodeClock:
    """The clock of one node: the world's, with a wall clock that may be wrong."""

    def __init__(self, world: World) -> None:
        self._world = world
        #: Time the node has used up within its present turn (fsyncs), seconds.
        self.lag = 0.0
        self.wall_skew_us = 0

    def monotonic(self) -> float:
        return self._world.now + self.lag

    def wall_us(self) -> int:
        return 1_700_000_000_000_000 + int(self.monotonic() * 1_000_000) + self.wall_skew_us
