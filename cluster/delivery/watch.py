"""When the leases of streams end: one time per stream, looked at when it may have come."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count

from holdfast.cluster.delivery.sessions import Session
from holdfast.cluster.group_definition import Definition

#: A silent stream, which keeps what it has extended, is looked at again so many times in a timeout.
_AGAIN = 8


class Watch:
    """The streams of one group, by the time at which their leases may be over.

    A message of a stream renews all its leases by a float in the session: nothing
    here is touched. An entry that comes up too early goes back with its true time.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Session]] = []
        self._count = count()

    def add(self, session: Session, definition: Definition) -> None:
        """A stream begins."""
        if session.hello.protocol:
            self._push(session.renewed + definition.ack_timeout_ms / 1_000, session)

    def over(self, now: float, definition: Definition) -> list[Session]:
        """The streams that have said nothing for the group's ack timeout."""
        timeout = definition.ack_timeout_ms / 1_000
        found: list[Session] = []
        while self._heap and self._heap[0][0] <= now:
            _, _, session = heappop(self._heap)
            if session.holder.gone:
                continue
            at = session.renewed + timeout
            if at <= now:
                found.append(session)
                at = now + timeout / _AGAIN
            self._push(at, session)
        return found

    def next_time(self) -> float | None:
        """When ``over`` is to be asked next."""
        while self._heap and self._heap[0][2].holder.gone:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _push(self, at: float, session: Session) -> None:
        heappush(self._heap, (at, next(self._count), session))
