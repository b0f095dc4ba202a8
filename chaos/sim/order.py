"""What is due at one moment, in an order that the seed draws.

Time goes in steps, so that what is due at about the same time is due at one
moment. Without this it runs in one order only: what has arrived, then the
engines, then the loops. In life any of these may come first: a broker's
engine has a thread of its own, and between two rounds of its loop a message
may come in, a timer may be due, or the engine may report.

What is drawn is what a broker can show, and nothing else:

- Frames and messages of one connection and direction stay in order, and the
  timers of a process; see ``lane`` in ``World.at``. Faults, and what else has
  no lane, are passed by nothing that was scheduled.
- A loop runs whole rounds, as asyncio does: what is due when a round begins,
  in order. Arrivals, timers and turns come between two rounds.
- An engine turns at most once in a step. Its reports go to the end of the
  queue of its loop, whose callbacks before them find a store that is ahead.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.chaos.sim.plan import Order
from holdfast.chaos.sim.services import Front
from holdfast.chaos.sim.world import BEGIN, Entry

#: The moments of so many seconds before a plan's order ends are in the timeline: when a plan was made
#: small, one of the last is what it takes to break the promise.
TOLD = 0.01

#: Rounds that a loop runs between two things, one drawn as often as it is here.
_ROUNDS = (0, 1, 1, 2)

_MASK = (1 << 64) - 1
#: Moments are told apart down to this part of a second: engines are due between the ticks too.
_PARTS = 1 << 20


class Moments:
    """Runs the moments of a plan's ``order``; ``run`` is for ``SimCluster.run_moment``.

    Each moment draws for itself, so that others do the same with a window made smaller.

    Args:
        note: told of what was run, in order, as the end comes near.
    """

    def __init__(self, front: Front, order: Order, note: Callable[[str, str], None]) -> None:
        self._front = front
        self._cluster = front.cluster
        self._world = front.cluster.world
        self._loops = front.loops
        self._note = note
        self._begin = BEGIN + order.begin
        self._end = BEGIN + order.end
        self._share = round(order.share * _MASK)
        self._key = front.cluster.world.stream("order").getrandbits(64)
        self._state = 0
        self._moment = 0.0
        self._again = 0

    def run(self) -> bool:
        """Run what is due now; False: it has not, the moment is to be run as any other."""
        world = self._world
        now = world.now
        if not self._begin <= now < self._end:
            return False
        nodes = [node for node in self._cluster.running if node.due(now)]
        if not world.due(1 if nodes else 2):
            return False  # what follows from one thing has one order only
        self._again = self._again + 1 if now == self._moment else 0
        self._moment = now
        mixed = (self._key ^ (int(now * _PARTS) * 0x9E3779B97F4A7C15 + self._again)) & _MASK
        mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        self._state = mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _MASK
        if mixed > self._share:
            return False
        self._front.reports_wait = True
        try:
            told = self._run(now)
        finally:
            self._front.reports_wait = False
        if now >= self._end - TOLD:
            self._note("order", ", ".join(told))
        return True

    def _run(self, now: float) -> list[str]:
        """Run what is due, in an order drawn before; what was run, for people."""
        cluster, loops = self._cluster, self._loops
        told: list[str] = []
        entries: list[Entry] = []
        self._world.take_due(entries)
        self._mix(entries)
        last = len(entries)
        #: Before which entry each engine turns, if it has something to do by then; else at the end.
        turns = [(self._below(last + 1), node) for node in cluster.running]
        for at in range(last + 1):
            if loops.active:
                self._rounds(told)
            left = []
            for turn in turns:
                place, node = turn
                if place <= at and node.due(now):
                    told.append(node.node_id)
                    cluster.turn(node)
                else:
                    left.append(turn)
            turns = left
            if at < last:
                if loops.active:
                    self._rounds(told)
                _, _, action, lane = entries[at]
                if action is not None:
                    told.append(lane or "other")
                    action()
        loops.run_ready()
        return told

    def _mix(self, entries: list[Entry]) -> None:
        """Put entries into an order that is drawn; see ``World.at`` for what stays in order."""
        begin = 0
        for at, entry in enumerate(entries):
            if not entry[3]:
                self._mix_part(entries, begin, at)
                begin = at + 1
        self._mix_part(entries, begin, len(entries))

    def _mix_part(self, entries: list[Entry], begin: int, end: int) -> None:
        if end - begin < 2:
            return
        part = entries[begin:end]
        lanes: dict[str, list[Entry]] = {}
        for entry in part:
            lanes.setdefault(entry[3], []).append(entry)
        # Places are drawn for lanes; within its places, each lane stays in order.
        for left in range(len(part) - 1, 0, -1):
            other = self._below(left + 1)
            part[left], part[other] = part[other], part[left]
        follow = {lane: iter(those) for lane, those in lanes.items()}
        entries[begin:end] = [next(follow[entry[3]]) for entry in part]

    def _rounds(self, told: list[str]) -> None:
        """Let each loop that has something to do run a round, or two, or none."""
        for loop in tuple(self._loops.active):
            for _ in range(_ROUNDS[self._below(len(_ROUNDS))]):
                if not loop.queued:
                    break
                told.append(f"loop {loop.name}")
                self._loops.run_round(loop)

    def _below(self, bound: int) -> int:
        """A number from 0 up to and without ``bound``: a linear congruence will do, and is fast."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return (self._state >> 33) * bound >> 31
