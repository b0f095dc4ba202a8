"""What was acknowledged and what a group was given, in memory that does not grow with the run.

An offset is open until it was both acknowledged to its publisher and delivered
to the group; below the lowest open one nothing is remembered. What is open at
the end was lost (acknowledged, never delivered) or is there without an
acknowledgement (a duplicate, or a publish whose outcome is not known).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class _Partition:
    low: int = 0  # every offset below is settled
    settled: set[int] = field(default_factory=set)  # those above it
    acked: dict[int, int] = field(default_factory=dict)  # offset -> number; not delivered yet
    seen: dict[int, int] = field(default_factory=dict)  # offset -> number; not acknowledged yet


class Ledger:
    """Numbers stand for records; each is published once."""

    def __init__(self) -> None:
        self.acked = 0
        self.delivered = 0
        self.redelivered = 0
        #: What contradicts what, in words; at most a hundred.
        self.problems: list[str] = []
        self._wrong = 0
        self._partitions: dict[int, _Partition] = {}
        self._unknown: set[int] = set()

    def note_ack(self, number: int, partition: int, offset: int) -> None:
        """A publisher was told that ``number`` is stored there."""
        self.acked += 1
        at = self._at(partition)
        if offset < at.low or offset in at.settled or offset in at.acked:
            self._twice(f"partition {partition} offset {offset} was acknowledged twice, now for {number}")
            return
        found = at.seen.pop(offset, None)
        if found is None:
            at.acked[offset] = number
        else:
            self._settle(at, partition, offset, number, found)

    def note_unknown(self, number: int) -> None:
        """A publish of ``number`` ended without an answer: it may be stored, once."""
        self._unknown.add(number)

    def note_delivery(self, number: int, partition: int, offset: int) -> None:
        """A member of the group was given ``number``; coming again after a reconnect is allowed."""
        at = self._at(partition)
        if offset < at.low or offset in at.settled or offset in at.seen:
            self.redelivered += 1
            return
        self.delivered += 1
        expected = at.acked.pop(offset, None)
        if expected is None:
            at.seen[offset] = number
        else:
            self._settle(at, partition, offset, expected, number)

    @property
    def open(self) -> int:
        """Offsets acknowledged and not delivered, or the other way round."""
        return sum(len(at.acked) + len(at.seen) for at in self._partitions.values())

    @property
    def remembered(self) -> int:
        """Offsets held in memory; bounded by what is under way."""
        return self.open + sum(len(at.settled) for at in self._partitions.values())

    @property
    def lost(self) -> int:
        """Acknowledged and (so far) not delivered."""
        return sum(len(at.acked) for at in self._partitions.values())

    @property
    def duplicated(self) -> int:
        """There without an acknowledgement that explains it, or acknowledged twice.

        A number whose outcome is unknown explains one place.
        """
        unexplained = self._wrong
        unknown = set(self._unknown)
        for at in self._partitions.values():
            for number in at.seen.values():
                if number in unknown:
                    unknown.discard(number)
                else:
                    unexplained += 1
        return unexplained

    def _at(self, partition: int) -> _Partition:
        return self._partitions.setdefault(partition, _Partition())

    def _settle(self, at: _Partition, partition: int, offset: int, acked: int, seen: int) -> None:
        if acked != seen:
            self._twice(f"partition {partition} offset {offset} holds {seen}, acknowledged was {acked}")
        at.settled.add(offset)
        while at.low in at.settled:
            at.settled.discard(at.low)
            at.low += 1

    def _twice(self, problem: str) -> None:
        self._wrong += 1
        if len(self.problems) < 100:
            self.problems.append(problem)
