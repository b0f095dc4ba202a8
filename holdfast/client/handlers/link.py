"""What the runner needs of a group's membership."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from holdfast.client.types import Record


class Link(Protocol):
    """A member of a group, as the runner sees it.

    What is said of a record takes effect at once; what it returns need not be awaited. Of a record that
    is not this member's any more it says nothing. In a group that is ordered by partition nothing of
    a partition is handed out behind a record that was not acknowledged, until the broker has
    begun there anew.
    """

    async def take(self, limit: int) -> list[Record]:
        """The next records, at least one and at most ``limit``; none when it is closed.

        Raises:
            HoldfastError: it failed for good.
        """

    def ack(self, record: Record) -> Awaitable[None]:
        """It has been handled."""

    def nack(self, record: Record, delay: float | None = None, error: str = "") -> Awaitable[None]:
        """It failed; again after ``delay`` seconds, None: as the group's policy says."""

    def park(self, record: Record, delay: float | None = None, error: str = "") -> Awaitable[None]:
        """Set it aside for ``delay`` seconds, None: until somebody restores it."""

    def reject(self, record: Record, error: str = "") -> Awaitable[None]:
        """To the dead-letter topic."""

    def release(self, record: Record) -> Awaitable[None]:
        """Hand it out again: it was not begun."""

    def extend(self, record: Record, seconds: float) -> Awaitable[None]:
        """Keep it this long from now, whatever becomes of the connection."""

    def pause(self) -> None:
        """Be handed nothing more until ``resume``."""

    def resume(self, limit: int | None = None) -> None:
        """Be handed records again; at most ``limit`` until the next call, None: as many as agreed.

        One that cannot count may hand out more: what is too much is released.
        """

    async def close(self) -> None:
        """Make durable what was said, and leave the group.

        Raises:
            HoldfastError: it could not be made durable; those records come again.
        """
