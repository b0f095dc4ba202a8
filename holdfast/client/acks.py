"""What a consumer was given and what it acknowledged, per partition. No I/O."""

from __future__ import annotations

from holdfast.client.ranges import RangeSet


class PartitionAcks:
    """One partition of a subscription.

    ``acked`` outlives a broken connection: the broker delivers again what it
    has not committed, and what the application has acknowledged already must
    not reach it twice.
    """

    __slots__ = ("acked", "committed", "delivered", "pending")

    def __init__(self, start: int) -> None:
        #: The group's durable offset as last heard, or where delivery started.
        self.committed = start
        #: Given to this consumer by the present connection.
        self.delivered = RangeSet()
        #: Acknowledged by the application, not known to be durable.
        self.acked = RangeSet()
        #: To be sent to the broker.
        self.pending = RangeSet()

    def restart(self, start: int) -> None:
        """A new connection starts delivery anew from ``start``."""
        self.committed = start
        self.delivered.clear()
        self.pending.clear()
        self.acked.drop_below(start)

    def deliver(self, first: int, last: int) -> list[tuple[int, int]]:
        """Note a delivery; the parts of it that were acknowledged before and are to be left out."""
        self.delivered.add_range(first, last)
        if not self.acked:
            return []
        again = self.acked.overlap(first, last)
        for low, high in again:
            self.pending.add_range(low, high)
        return again

    def ack(self, offset: int) -> bool:
        """Acknowledge one; False when that changes nothing."""
        if offset < self.committed or not self.acked.add(offset):
            return False
        if offset in self.delivered:
            self.pending.add(offset)
            return True
        return False  # of an earlier connection: sent when it is delivered again

    def open_records(self) -> int:
        """How many were delivered and are not acknowledged."""
        return sum(
            [
                last - first + 1 - sum([high - low + 1 for low, high in self.acked.overlap(first, last)])
                for first, last in self.delivered
            ]
        )

    def commit(self, offset: int) -> None:
        """The broker says that everything below ``offset`` is durable."""
        self.committed = max(self.committed, offset)
        self.acked.drop_below(self.committed)
        self.delivered.drop_below(self.committed)

    def goal(self) -> int:
        """The durable offset that the acknowledgements so far lead to.

        Offsets that were never delivered (retention removed them) hold nothing up.
        """
        reached = self.committed
        for first, last in self.acked:
            if first > reached and self.delivered.overlap(reached, first - 1):
                break
            reached = max(reached, last + 1)
        return reached
