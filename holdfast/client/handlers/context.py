"""What a handler can ask for beside its record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from holdfast.client.types import Record


class Work(Protocol):
    """A record at work, as the runner sees it."""

    @property
    def record(self) -> Record: ...

    @property
    def given_up(self) -> bool: ...

    @property
    def lost(self) -> bool: ...


class Context:
    """How a handler's call stands. Ask for it with a parameter annotated ``Context``, or named so.

    May be used from any thread.

    Attributes:
        group: whose record it is.
    """

    __slots__ = ("_extend", "_work", "group")

    def __init__(self, group: str, work: Work, extend: Callable[[float], object]) -> None:
        self.group = group
        self._work = work
        self._extend = extend

    @property
    def record(self) -> Record:
        """The record as it was delivered."""
        return self._work.record

    @property
    def attempt(self) -> int:
        """1 at the first delivery, one more for each failure since."""
        return self._work.record.attempt

    @property
    def given_up(self) -> bool:
        """Nobody waits for this call any more: its time is over, or the runner stops.

        A thread cannot be cancelled: one that works for long looks here now and then, and returns.
        """
        return self._work.given_up

    @property
    def lost(self) -> bool:
        """The record was taken away: another member may have it, and what this call says does not count."""
        return self._work.lost

    def extend(self, seconds: float) -> None:
        """Keep the record this long from now, even if this process falls silent meanwhile."""
        self._extend(seconds)
