"""Who belongs to a group: streams that are there, and seats kept for those that may come back.

A *session* is a stream. A *seat* is a member's row in the state: its share of the partitions is
its own as long as there is a seat. Whatever ended the stream (a kill, a cut connection, a change of
leader), two times run from that moment: for ``rejoin`` seconds the records it was handed stay with
it, for its grace its seat does. Back in time, nothing moves. What the group's rows should become is
not kept but worked out: ``wanted`` compares seats with sessions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from holdfast.cluster.delivery.sessions import Session
from holdfast.storage.members import MemberRow
from holdfast.v1 import log_pb2


@dataclass(eq=False, slots=True)
class Seat:
    """A member's place.

    Attributes:
        session: its stream; None: it is away.
        ghost: the stream that ended last, as long as what it was handed is kept for its return.
        away_since: when the stream ended, or this leader began.
        waited: it has been away so long that nothing is kept for it but its seat.
        over: it left, or its grace is over: the seat goes with the next change.
    """

    member: str
    name: str
    fixed: bool
    grace_ms: int
    session: Session | None = None
    ghost: Session | None = None
    away_since: float = 0.0
    waited: bool = False
    over: bool = False


class Membership:
    """The members of one group on its leader.

    Args:
        rejoin: how long what a stream was handed is kept after its end, in seconds.
    """

    def __init__(self, rejoin: float) -> None:
        self.sessions: dict[str, Session] = {}  # by member; the newest stream of each
        self.seats: dict[str, Seat] = {}
        self._rejoin = rejoin
        self._away: dict[str, Seat] = {}

    def load(self, rows: Iterable[tuple[str, MemberRow]], since: float) -> list[Session]:
        """Take over the group's rows; whoever has no stream here is away since ``since``.

        Returns:
            Streams that ended and whose seats are gone.
        """
        before, self.seats, self._away = self.seats, {}, {}
        for member, row in rows:
            seat = before.get(member) or Seat(member, row.name, row.fixed, row.grace_ms, away_since=since)
            seat.name, seat.fixed, seat.grace_ms = row.name, row.fixed, row.grace_ms
            self._seat(seat)
        gone = (seat for member, seat in before.items() if member not in self.seats)
        return [seat.ghost for seat in gone if seat.ghost is not None]

    def arrive(self, session: Session) -> tuple[Session | None, bool]:
        """A stream begins.

        Returns:
            The stream of the same member it takes the place of, still live or one
            whose records are kept; and whether it has a seat.
        """
        member = session.member
        earlier = self.sessions.pop(member, None)
        self.sessions[member] = session
        seat = self.seats.get(member)
        if seat is None:
            return earlier, False
        earlier = earlier or seat.ghost
        seat.session, seat.ghost, seat.over, seat.waited = session, None, False, False
        self._away.pop(member, None)
        return earlier, True

    def depart(self, session: Session, now: float, *, orderly: bool) -> bool:
        """A stream ended.

        Returns:
            True: what it was handed is kept for its return. False: it is not, for
            it left, had no seat, or its member has another stream.
        """
        member = session.member
        if self.sessions.get(member) is not session:
            return False
        del self.sessions[member]
        seat = self.seats.get(member)
        if seat is None:
            return False
        seat.session, seat.away_since = None, now
        seat.over = seat.waited = orderly
        seat.ghost = None if orderly else session
        self._away[member] = seat
        return not orderly

    def tick(self, now: float) -> tuple[list[Session], bool]:
        """Times that are over.

        Returns:
            Streams whose records are not kept any longer; and whether any time was over.
        """
        lost: list[Session] = []
        some = False
        for seat in self._away.values():
            if not seat.waited and now >= self._waits(seat):
                seat.waited = some = True
                if seat.ghost is not None:
                    lost.append(seat.ghost)
                    seat.ghost = None
            if not seat.over and now >= self._ends(seat):
                seat.over = some = True
        return lost, some

    def next_time(self) -> float | None:
        """When ``tick`` has something to do."""
        times = [self._ends(seat) for seat in self._away.values() if not seat.over]
        times += [self._waits(seat) for seat in self._away.values() if not seat.waited]
        return min(times, default=None)

    def awaits(self, member: str) -> bool:
        """It is away, and may come back to what it was handed."""
        seat = self._away.get(member)
        return seat is not None and not seat.waited

    def all_back(self, since: float) -> bool:
        """Nobody that was away at ``since`` may still come back to what an earlier leader handed it."""
        return all(seat.waited or seat.away_since > since for seat in self._away.values())

    @property
    def empty(self) -> bool:
        """No stream and no seat: the group may be forgotten."""
        return not self.sessions and not self.seats

    # -- the rows -----------------------------------------------------------

    def row_of(self, session: Session) -> log_pb2.MemberRow:
        """What a member's row should be."""
        hello = session.hello
        rejoin_ms = round(self._rejoin * 1_000)
        fixed = hello.grace_ms is not None
        return log_pb2.MemberRow(
            id=session.member,
            name=hello.name,
            fixed=fixed,
            grace_ms=max(hello.grace_ms or 0, rejoin_ms) if hello.protocol else 0,
        )

    def wanted(self) -> tuple[list[log_pb2.MemberRow], list[str]]:
        """Rows to be put, and members whose rows are to go."""
        joins = []
        for member, session in self.sessions.items():
            if session.ended is not None:
                continue
            seat, row = self.seats.get(member), self.row_of(session)
            if seat is None or (seat.name, seat.fixed, seat.grace_ms) != (row.name, row.fixed, row.grace_ms):
                joins.append(row)
        leaves = [member for member, seat in self._away.items() if seat.over]
        return joins, leaves

    def changed(self, joins: Iterable[log_pb2.MemberRow], leaves: Iterable[str], now: float) -> list[Session]:
        """These rows were put, and those are gone.

        Returns:
            Streams that ended and whose records were kept for a return that will not be.
        """
        lost: list[Session] = []
        for member in leaves:
            seat = self.seats.pop(member, None)
            self._away.pop(member, None)
            if seat is not None and seat.ghost is not None:
                lost.append(seat.ghost)
        for row in joins:
            seat = self.seats.get(row.id) or Seat(row.id, row.name, row.fixed, row.grace_ms, away_since=now)
            seat.name, seat.fixed, seat.grace_ms = row.name, row.fixed, row.grace_ms
            self._seat(seat)
        return lost

    def _seat(self, seat: Seat) -> None:
        self.seats[seat.member] = seat
        seat.session = self.sessions.get(seat.member)
        if seat.session is None:
            self._away[seat.member] = seat
        else:
            self._away.pop(seat.member, None)

    def _waits(self, seat: Seat) -> float:
        return seat.away_since + min(self._rejoin, seat.grace_ms / 1_000)

    def _ends(self, seat: Seat) -> float:
        return seat.away_since + seat.grace_ms / 1_000
