"""Compares what was published, what was acknowledged and what came back.

Nothing here trusts the broker: every replayed record is matched by content
with the row it must be, at the place its ack named.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast.chaos.demo.flights import Departure

Place = tuple[int, int]  # (partition, offset)


@dataclass
class Verdict:
    """The counts of the demo's last line; all but the first two must be 0."""

    acked: int = 0
    replayed: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    damaged: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.out_of_order or self.damaged or self.problems)


class Replayed:
    """Collects a replay, record by record."""

    def __init__(self, published: Sequence[Departure], acked: dict[Place, int]) -> None:
        self._published = published
        self._acked = acked  # place -> index of the departure
        self._seen: set[int] = set()
        self._next_offset: dict[int, int] = defaultdict(int)
        self._last_of_key: dict[bytes, int] = {}
        self.verdict = Verdict(acked=len(acked))

    def add(self, partition: int, offset: int, key: bytes, value: bytes, timestamp_us: int) -> None:
        verdict = self.verdict
        verdict.replayed += 1
        expected = self._next_offset[partition]
        if offset != expected:
            verdict.problems.append(f"partition {partition}: offset {offset} where {expected} was due")
        self._next_offset[partition] = offset + 1
        index = self._acked.get((partition, offset))
        if index is None:
            # Never acknowledged at this place: a second copy, or a stranger.
            verdict.duplicated += 1
            return
        row = self._published[index]
        if (row.key, row.value, row.timestamp_us) != (key, value, timestamp_us):
            verdict.damaged += 1
        if index in self._seen:
            verdict.duplicated += 1
        self._seen.add(index)
        if key:
            if self._last_of_key.get(key, -1) > index:
                verdict.out_of_order += 1
            self._last_of_key[key] = index

    def finish(self) -> Verdict:
        verdict = self.verdict
        verdict.lost = len(set(self._acked.values()) - self._seen)
        if verdict.damaged:
            verdict.problems.append(f"{verdict.damaged} records differ from the table")
        return verdict
