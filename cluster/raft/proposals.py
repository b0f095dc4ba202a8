"""Operations on their way into the log, and those waiting for what became of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from holdfast.errors import OverloadedError

#: What an entry costs on disk beside its operations, in bytes: a page not filled, tree pages.
ENTRY_OVERHEAD = 16 * 1024


@dataclass(slots=True)
class Proposal:
    """One operation. ``origin`` is the peer that forwarded it, None for our own callers."""

    op: bytes
    token: object
    deadline: float
    queued_at: float
    origin: str | None = None
    request_id: int = 0


class ProposalQueue:
    """Bounded, first in first out; offered from any thread, taken on the engine's.

    The bounds hold for everything not yet answered, wherever it waits.
    """

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._count = 0
        self._bytes = 0
        self.waiting: deque[Proposal] = deque()

    @property
    def outstanding(self) -> int:
        return self._count

    def offer(self, proposal: Proposal) -> None:
        """Raises:
        OverloadedError: too many operations, or too many bytes, are under way.
        """
        size = len(proposal.op)
        with self._lock:
            if self._count >= self._max_count or (self._bytes + size > self._max_bytes and self._count):
                raise OverloadedError(
                    f"{self._count} operations of {self._bytes} bytes are under way; try again later"
                )
            self._count += 1
            self._bytes += size
        self.waiting.append(proposal)

    def release(self, proposals: Iterable[Proposal]) -> None:
        """These are answered."""
        count = size = 0
        for proposal in proposals:
            count += 1
            size += len(proposal.op)
        if count:
            with self._lock:
                self._count -= count
                self._bytes -= size


@dataclass(slots=True)
class Waiting:
    """The proposals of one appended entry, in its order; None where one was given up."""

    term: int
    appended_at: float
    queued_at: float
    size: int
    proposals: list[Proposal | None]


class Waiters:
    """Appended entries of ours whose outcome is not known yet, by log index."""

    def __init__(self) -> None:
        self._by_index: dict[int, Waiting] = {}
        #: Set when leadership is lost: what has no outcome by then is unknown.
        self.give_up_at: float | None = None

    def __len__(self) -> int:
        return len(self._by_index)

    def add(self, index: int, waiting: Waiting) -> Waiting | None:
        """Returns what waited at this index before (of an older term, since replaced)."""
        before = self._by_index.get(index)
        self._by_index[index] = waiting
        return before

    def pop(self, index: int) -> Waiting | None:
        return self._by_index.pop(index, None)

    def pop_until(self, index: int) -> list[Waiting]:
        """Everything at or below ``index`` (jumped by a snapshot)."""
        gone = [at for at in self._by_index if at <= index]
        return [self._by_index.pop(at) for at in gone]

    def pop_all(self) -> list[Waiting]:
        gone = list(self._by_index.values())
        self._by_index.clear()
        return gone

    def waits_below(self, index: int) -> bool:
        """Whether something still waits at or below ``index``."""
        return any(at <= index for at in self._by_index)

    def expired(self, now: float) -> Iterator[Proposal]:
        """Proposals past their deadline; they are forgotten here."""
        for waiting in self._by_index.values():
            proposals = waiting.proposals
            for at, proposal in enumerate(proposals):
                if proposal is not None and proposal.deadline <= now:
                    proposals[at] = None
                    yield proposal
