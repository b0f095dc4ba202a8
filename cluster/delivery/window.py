"""The acknowledgement window of one partition in one group."""

from __future__ import annotations

from holdfast.cluster.delivery.ranges import OffsetRanges
from holdfast.errors import InvalidArgumentError, NotDeliveredError


class AckWindow:
    """What was handed out, what was acknowledged, and the gap-free prefix.

    Offsets below ``committed`` are done with. ``next_offset`` is the next one to
    hand out; what lies in ``[base, next_offset)`` was handed to the present owner.
    Acks above a gap are remembered, so that a new owner is given only the rest.
    """

    __slots__ = ("_acked", "base", "committed", "next_offset")

    def __init__(self, start: int) -> None:
        self.base = start
        self.committed = start
        self.next_offset = start
        self._acked = OffsetRanges()

    @property
    def outstanding(self) -> int:
        """Offsets from the end of the acked prefix to the last handed out: what is bounded.

        Acked records above a gap count: they are redelivered after a change of
        leader, and remembering them costs memory.
        """
        return self.next_offset - self.committed

    @property
    def gaps(self) -> int:
        """Number of acked ranges above the prefix."""
        return len(self._acked)

    def span(self) -> tuple[int, int | None]:
        """What to hand out next: first offset, and where to stop (exclusive; None: no bound)."""
        return self._acked.gap_from(self.next_offset)

    def deliver(self, end: int) -> None:
        """Everything up to ``end`` (exclusive) has been handed to the owner or was acked before."""
        if end <= self.next_offset:
            raise ValueError(f"delivered up to {end}, which is not past {self.next_offset}")
        self.next_offset = end

    def ack(self, first: int, last: int) -> bool:
        """Acknowledge ``first..last``, both inclusive; again is harmless.

        Returns:
            True when the gap-free prefix moved.

        Raises:
            InvalidArgumentError: ``last`` lies before ``first``.
            NotDeliveredError: part of the range was not handed to the present owner.
        """
        if last < first:
            raise InvalidArgumentError(
                f"ack range {first}..{last} is empty", metadata={"field": "ack.ranges.last_offset"}
            )
        if first < self.base or last >= self.next_offset:
            delivered = f"{self.base}..{self.next_offset - 1}" if self.next_offset > self.base else "none"
            raise NotDeliveredError(
                f"offsets {first}..{last} were not all delivered to this member (delivered: {delivered})",
                metadata={"delivered_from": str(self.base), "delivered_to": str(self.next_offset)},
            )
        end = last + 1
        if end <= self.committed:
            return False
        if first > self.committed:
            self._acked.add(first, end)
            return False
        self._advance(end)
        return True

    def rewind(self) -> None:
        """The partition gets a new owner: hand out again what was not acknowledged."""
        self.base = self.next_offset = self.committed

    def skip_to(self, offset: int) -> bool:
        """Retention removed everything below ``offset``; True when the prefix moved."""
        if offset <= self.committed:
            return False
        self._advance(offset)
        return True

    def _advance(self, end: int) -> None:
        # After a rewind the prefix may grow past what was handed out again: acks
        # of the owner before lie above. Those records are not handed out again.
        self.committed = self._acked.take_prefix(end)
        self.next_offset = max(self.next_offset, self.committed)
