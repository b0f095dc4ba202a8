"""Read barriers: the log index a linearizable read has to see (20).

A leader confirms that it still leads by a round of appends that started after
the read came; the round's number is echoed in every reply. Followers ask the
leader for the index. The read then waits until that index is visible here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Read:
    """One barrier. ``origin`` is the peer that asked, None for our own callers."""

    token: object
    deadline: float
    queued_at: float
    origin: str | None = None
    request_id: int = 0


@dataclass(slots=True)
class Round:
    """Reads that wait for one round of appends to be answered by a majority."""

    number: int
    index: int
    reads: list[Read]


@dataclass(slots=True)
class Asked:
    """Reads of a follower that wait for the leader's answer."""

    leader: str
    reads: list[Read]


@dataclass(slots=True)
class ReadBarriers:
    """All reads under way, by what they wait for. ``fresh`` may be added to by any thread."""

    fresh: deque[Read] = field(default_factory=deque)
    rounds: deque[Round] = field(default_factory=deque)
    asked: dict[int, Asked] = field(default_factory=dict)
    #: Confirmed, and waiting to be visible here: (index, read), in no order.
    confirmed: list[tuple[int, Read]] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        return bool(self.fresh or self.rounds or self.asked or self.confirmed)

    def start_over(self) -> None:
        """Leadership moved: unconfirmed reads are asked again (a read has no effect)."""
        again = [read for item in self.rounds for read in item.reads]
        again += [read for asked in self.asked.values() for read in asked.reads]
        self.rounds.clear()
        self.asked.clear()
        self.fresh.extendleft(reversed(again))

    def start_over_with(self, leader: str) -> None:
        """The link to ``leader`` broke: what was asked of it is asked again."""
        gone = [key for key, asked in self.asked.items() if asked.leader == leader]
        for key in gone:
            self.fresh.extendleft(reversed(self.asked.pop(key).reads))

    def visible(self, index: int) -> list[tuple[int, Read]]:
        """Confirmed reads whose index is visible now; they are forgotten here."""
        if not self.confirmed:
            return []
        done = [item for item in self.confirmed if item[0] <= index]
        if done:
            self.confirmed = [item for item in self.confirmed if item[0] > index]
        return done

    def expired(self, now: float) -> Iterator[Read]:
        """Reads past their deadline; they are forgotten here."""
        for item in self.rounds:
            yield from _take_expired(item.reads, now)
        for asked in self.asked.values():
            yield from _take_expired(asked.reads, now)
        late = [read for _, read in self.confirmed if read.deadline <= now]
        if late:
            self.confirmed = [item for item in self.confirmed if item[1].deadline > now]
            yield from late


def _take_expired(reads: list[Read], now: float) -> list[Read]:
    late = [read for read in reads if read.deadline <= now]
    if late:
        reads[:] = [read for read in reads if read.deadline > now]
    return late
