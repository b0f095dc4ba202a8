"""Pre-vote and leader stickiness (21): asking before disturbing.

PySyncObj runs the election itself; it is only let into one after a majority
has said that it would vote. A voter says so when it hears no live leader.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.cluster.ports import Randomness
from holdfast.cluster.raft.settings import EngineSettings


@dataclass(slots=True)
class PreVote:
    """The state of asking. ``attempt`` is the term asked for, 0 when not asking."""

    settings: EngineSettings
    rng: Randomness
    voters: int
    attempt: int = 0
    started_at: float = 0.0
    retry_at: float = 0.0
    granted: set[str] = field(default_factory=set)

    def start(self, term: int, now: float, hurry: bool) -> None:
        """Ask anew for ``term``; ``hurry``: the leader is known to be gone."""
        self.attempt = term
        self.started_at = now
        self.granted.clear()
        shortest = self.settings.election_min
        low, high = (0.02, 0.06) if hurry else (shortest / 4, shortest / 2)
        self.retry_at = now + low + (high - low) * self.rng.random()

    def grant(self, voter: str, term: int) -> None:
        if term == self.attempt:
            self.granted.add(voter)

    def won(self, term: int) -> bool:
        """True when a majority (self included) would vote for us in ``term``."""
        return term == self.attempt and (len(self.granted) + 1) * 2 > self.voters

    def clear(self) -> None:
        self.attempt = 0
        self.retry_at = 0.0
        self.granted.clear()

    def outranks(self, now: float, ours: tuple[int, int, str], theirs: tuple[int, int, str]) -> bool:
        """True when our own fresh attempt goes before that of another candidate.

        Two that ask at the same time would otherwise grant each other, both
        stand, and split the vote. Ranks are (last term, last index, node id):
        the longer log first, then the lower id. An attempt counts for a short
        time only, so that one that cannot win blocks nobody.
        """
        if not self.attempt or now - self.started_at > 0.03:
            return False
        if ours[:2] != theirs[:2]:
            return ours[:2] > theirs[:2]
        return ours[2] < theirs[2]
