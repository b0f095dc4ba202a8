"""Judges Raft-level facts while a simulation runs."""

from __future__ import annotations

from collections.abc import Callable, Collection

from holdfast.chaos.checker.history import Violation
from holdfast.chaos.checker.promises import Findings


class Consensus:
    """Told what nodes do, remembers what was committed, and notes every contradiction.

    Facts must be told in the order they happen. Memory grows with the log: one
    term and one digest an index.

    Args:
        depth: how many committed entries a new leader's log is compared with, from
            the last one down; the last one alone proves the rest if logs match.
    """

    def __init__(self, depth: int = 512) -> None:
        self._depth = depth
        self._findings = Findings()
        self._leaders: dict[int, str] = {}
        self._term_led: dict[str, int] = {}
        self._led_commit: dict[tuple[str, int], int] = {}
        # Index -> its term, as committed; index -> digest, as first applied, and by whom.
        self._terms: dict[int, int] = {}
        self._applied: dict[int, tuple[bytes, str]] = {}
        self._last: dict[str, int] = {}
        # Term of the committing leader -> highest index it committed.
        self._committed_in: dict[int, int] = {}

    @property
    def violations(self) -> list[Violation]:
        return self._findings.violations()

    @property
    def committed_index(self) -> int:
        """The highest index any leader has committed; 0: none yet."""
        return max(self._committed_in.values(), default=0)

    def elected(self, node: str, term: int, at: float, term_at: Callable[[int], int | None]) -> None:
        """A node became leader. ``term_at``: term of an index in its log; None: no such row (any more)."""
        first = self._leaders.setdefault(term, node)
        if first != node:
            self._findings.add("election-safety", f"{first} and {node} both lead in term {term}", at)
        self._term_led[node] = term
        last = max((index for led, index in self._committed_in.items() if led < term), default=0)
        for index in range(last, max(last - self._depth, 0), -1):
            committed = self._terms.get(index)
            held = term_at(index)
            if held is None:
                # Below the log's base there is nothing to compare; a log without `last` is short of it.
                if index == last:
                    self._findings.add(
                        "leader-completeness",
                        f"{node} leads in term {term} without the committed index {index} (term {committed})",
                        at,
                    )
                break
            if committed is not None and held != committed:
                self._findings.add(
                    "leader-completeness",
                    f"{node} leads in term {term} with term {held} at index {index}, not {committed}",
                    at,
                )
                break

    def committed(
        self, node: str, index: int, term: int, at: float, durable_on: Collection[str], voters: int
    ) -> None:
        """A leader's commit index reached ``index``.

        Args:
            term: of the entry there.
            durable_on: the nodes on whose stable storage that very entry lies.
            voters: number of voting members.
        """
        durable = set(durable_on)
        if len(durable) * 2 <= voters:
            names = ", ".join(sorted(durable)) or "no node"
            self._findings.add(
                "durable-majority",
                f"{node} commits index {index} (term {term}), durable on {names} of {voters} voters",
                at,
            )
        led = self._term_led.get(node, term)
        before = self._led_commit.get((node, led), 0)
        if index < before:
            self._findings.add(
                "commit-regress", f"{node}'s commit index goes from {before} to {index} in term {led}", at
            )
        self._led_commit[node, led] = max(before, index)
        self._note_term(node, index, term, at)
        if index > self._committed_in.get(led, 0):
            self._committed_in[led] = index

    def applied(self, node: str, index: int, term: int, digest: bytes, at: float) -> None:
        """A node applied an entry; ``digest``: of the entry and of what it did."""
        last = self._last.get(node)
        if last is not None and index != last + 1:
            self._findings.add("apply-order", f"{node} applies index {index} after {last}", at)
        self._last[node] = index
        self._note_term(node, index, term, at)
        first = self._applied.setdefault(index, (digest, node))
        if first[0] != digest:
            self._findings.add(
                "state-machine-safety",
                f"{node} applies {digest.hex()[:16]} at index {index},"
                f" {first[1]} applied {first[0].hex()[:16]}",
                at,
            )

    def restarted(self, node: str, applied_index: int) -> None:
        """A node came back and goes on from what its disk says it has applied; it leads no more."""
        self._last[node] = applied_index
        self._term_led.pop(node, None)

    def jumped(self, node: str, index: int) -> None:
        """A node installed a snapshot that covers everything up to ``index``."""
        self._last[node] = index

    def _note_term(self, node: str, index: int, term: int, at: float) -> None:
        known = self._terms.setdefault(index, term)
        if known != term:
            self._findings.add(
                "log-matching",
                f"{node} has term {term} at committed index {index}, elsewhere it is {known}",
                at,
            )
