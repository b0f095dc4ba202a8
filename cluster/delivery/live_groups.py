"""All groups of one leader in one term: who is asked what, whose time has come, whose answer it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import count, islice

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.claims import Claim
from holdfast.cluster.delivery.group_state import GroupState
from holdfast.cluster.delivery.hello import Hello
from holdfast.cluster.delivery.live_group import LiveGroup
from holdfast.cluster.delivery.parcels import Parcel
from holdfast.cluster.delivery.sessions import Session
from holdfast.cluster.delivery.surroundings import Surroundings, Token
from holdfast.cluster.results import Completed
from holdfast.errors import HoldfastError, LimitExceededError, NotDeliveredError
from holdfast.storage import members
from holdfast.storage.port import Reader
from holdfast.v1 import bus_pb2

#: Rows of members looked at in one step, after a change of leader.
_STEP = 1_000

#: A time that has come and for which nothing could be done comes again, in seconds.
_SOON = 0.001


class LiveGroups:
    """The groups of one leader; thrown away with its term.

    Nothing of a group is in memory unless it has members, or has had some and is not done with them.

    Args:
        term: of the leader; streams are told apart by it.
        around: what groups are handed.
        clock: monotonic seconds.
        alarm: called with a time at which ``tick`` is to be called, when that is
            sooner than what ``tick`` said last.
    """

    def __init__(
        self,
        term: int,
        around: Surroundings,
        clock: Callable[[], float],
        alarm: Callable[[float], None] = lambda at: None,
    ) -> None:
        self.term = term
        self.groups: dict[str, LiveGroup] = {}
        self._around = around
        self._clock = clock
        self._alarm = alarm
        self._since = clock()
        self._streams = count(1)
        self._of: dict[Session, LiveGroup] = {}
        self._by_id: dict[str, Session] = {}
        self._claimed: dict[Claim, LiveGroup] = {}
        self._unread: dict[str, LiveGroup] = {}  # their rows are to be read, once they are visible
        #: (time, group): the sooner one of a group counts.
        self._wheel: list[tuple[float, str]] = []
        self._next: dict[str, float] = {}
        self._scanned: tuple[str, str] | None = None
        self._scanning = True
        self._set("", self._since)

    # -- streams ------------------------------------------------------------

    def join(self, hello: Hello, notify: Callable[[], None]) -> Session:
        """A stream begins; what becomes of it its session tells.

        Raises:
            LimitExceededError: too many groups are active.
        """
        now = self._clock()
        group = self._group(hello.group)
        session = Session(f"{self.term:x}.{next(self._streams):x}", hello, now, notify)
        self._by_id[session.id] = session
        self._of[session] = group
        group.join(session, now)
        self._after(group, now)
        return session

    def leave(self, session: Session, *, orderly: bool = False, garbage: bool = False) -> None:
        """A stream ended.

        Args:
            orderly: it said goodbye, or is one of protocol 0: nobody waits for its return.
            garbage: it ended for what it sent: no record is to blame for that.
        """
        self._by_id.pop(session.id, None)
        group = self._of.pop(session, None)
        if group is not None:
            now = self._clock()
            session.blameless |= garbage
            group.leave(session, now, orderly=orderly)
            self._after(group, now)

    def hear(self, session: Session) -> None:
        """It said something: a heartbeat, if nothing else."""
        self._of[session].hear(session, self._clock())

    def settle(self, session: Session, message: bus_pb2.Settle) -> None:
        """See ``LiveGroup``; so are the following.

        Raises:
            InvalidArgumentError: the message is malformed.
        """
        group, now = self._of[session], self._clock()
        try:
            group.settle(session, message, now)
        finally:
            self._after(group, now)

    def credit(self, session: Session, records: int) -> None:
        """
        Raises:
            LimitExceededError: it holds too many credits already.
        """
        self._of[session].credit(session, records, self._clock())

    def pause(self, session: Session, *, paused: bool) -> None:
        self._of[session].pause(session, self._clock(), paused=paused)

    def say_goodbye(self, session: Session) -> None:
        self._of[session].say_goodbye(session, self._clock())

    def claim(self, consumed: bus_pb2.Consumed) -> Claim:
        """A transaction consumes records of a session; ``decided`` tells what became of it.

        Raises:
            NotDeliveredError: there is no such session of the group.
            HoldfastError: see ``claims.take_claim``.
        """
        session = self._by_id.get(consumed.session)
        group = None if session is None else self._of[session]
        if session is None or group is None or group.name != consumed.group:
            raise NotDeliveredError(
                f"group {consumed.group!r} has no session {consumed.session[:40]!r} here; join it anew, the "
                "records come again",
                metadata={"group": consumed.group},
            )
        now = self._clock()
        claim = group.claim(session, consumed, now)
        self._claimed[claim] = group
        return claim

    def decided(self, claim: Claim, error: HoldfastError | None, index: int) -> None:
        """See ``LiveGroup``."""
        group, now = self._claimed.pop(claim), self._clock()
        group.decided(claim, error, index, now)
        self._after(group, now)

    def next_message(self, session: Session) -> bus_pb2.SubscribeResponse | None:
        """What it is to be told next, before any parcel."""
        group = self._of.get(session)
        return session.take() if group is None else group.next_message(session)

    def next_parcel(self, reader: Reader, session: Session, room: int) -> Parcel | None:
        """What it is sent next.

        Raises:
            DamagedRowError: a batch is damaged on this node.
        """
        group, now = self._of[session], self._clock()
        try:
            return group.next_parcel(reader, session, room, now)
        finally:
            self._after(group, now)

    def owes(self, session: Session) -> bool:
        """Something was settled for it, and is still to be sent, whatever credits it has left."""
        group = self._of.get(session)
        return group is not None and group.owes(session)

    def slot_of(self, session: Session, key: PartitionKey) -> int:
        """The number its member knows a partition by; 0: the group does not read it any more."""
        group = self._of.get(session)
        place = None if group is None else group.places.get(key)
        return 0 if place is None else place.slot

    # -- what happens elsewhere ---------------------------------------------

    def answered(self, token: Token, done: Completed) -> None:
        """A proposal has ended."""
        now = self._clock()
        token.group.answered(token.kind, done, now)
        self._after(token.group, now)

    @property
    def waits_for_rows(self) -> bool:
        """A group is to read its rows, and they are not visible yet."""
        return bool(self._unread)

    def visible(self, index: int) -> None:
        """Readers see what was applied up to this log index."""
        if index > self._around.visible:
            self._around.visible = index
            now = self._clock()
            for group in list(self._unread.values()):
                group.tick(now)
                self._after(group, now)

    def changed(self, names: Iterable[str], index: int) -> None:
        """The entry of this index changed groups otherwise than by what was proposed here."""
        now = self._clock()
        for name in names:
            group = self.groups.get(name)
            if group is not None:
                group.changed(index, now)
                self._after(group, now)

    def topics_changed(self, index: int) -> None:
        """The entry of this index changed a topic."""
        self.changed(list(self.groups), index)

    def reads(self, keys: Iterable[PartitionKey]) -> bool:
        """Whether a group has one of these partitions; from any thread."""
        readers = self._around.readers
        return any(key in readers for key in keys)

    def in_flight(self) -> dict[str, int]:
        """Records handed out and not settled, per group; from any thread."""
        return {group.name: group.in_flight for group in list(self.groups.values())}

    def touch(self, keys: Iterable[PartitionKey]) -> None:
        """Records were appended to these partitions."""
        readers = self._around.readers
        for key in keys:
            for group in readers.get(key, ()):
                group.touch(key)

    def end_all(self, error: HoldfastError) -> None:
        """Leadership is lost, or the broker stops: every stream ends with this error."""
        for group in self.groups.values():
            group.close(error)

    # -- times --------------------------------------------------------------

    def tick(self) -> float | None:
        """Do what is due; when to come again. None: not before something happens."""
        now = self._clock()
        while self._wheel and self._wheel[0][0] <= now:
            at, name = heappop(self._wheel)
            if self._next.get(name) != at:
                continue
            del self._next[name]
            if not name:
                self._scan(now)
                continue
            group = self.groups.get(name)
            if group is None:
                # None of the members an earlier leader left has come: they are let go.
                group = self.groups[name] = LiveGroup(name, self._around, self._since)
                group.changed(0, now)
            group.tick(now)
            self._after(group, now)
        return self._wheel[0][0] if self._wheel else None

    def _scan(self, now: float) -> None:
        """Look for members an earlier leader left: by when is somebody who is not here to be back?"""
        with self._around.read() as reader:
            rows = list(islice(members.scan_all(reader, self._scanned), _STEP))
        for name, member, row in rows:
            self._scanned = (name, member)
            if name not in self.groups:
                at = self._since + row.grace_ms / 1_000
                self._set(name, min(at, self._next.get(name, at)))
        self._scanning = len(rows) == _STEP
        if self._scanning:
            self._set("", now)

    def _group(self, name: str) -> LiveGroup:
        group = self.groups.get(name)
        if group is None:
            most = self._around.settings.max_groups
            if len(self.groups) >= most:
                raise LimitExceededError(
                    f"{len(self.groups)} groups are active on this broker, the most it coordinates",
                    metadata={"limit": str(most)},
                )
            group = self.groups[name] = LiveGroup(name, self._around, self._since)
        return group

    def _after(self, group: GroupState, now: float) -> None:
        """Something happened to a group: forget it, or note when its time comes."""
        if self.groups.get(group.name) is not group:
            return
        if group.waits_for_rows:
            self._unread[group.name] = group
        else:
            self._unread.pop(group.name, None)
        if group.idle:
            group.forget()
            del self.groups[group.name]
            self._next.pop(group.name, None)
            return
        at = group.next_time(now)
        if at is not None and at <= now:
            # What is due and not done yet must not be put off by whatever happens meanwhile.
            at = min(self._next.get(group.name, now + _SOON), now + _SOON)
        if at is not None:
            self._set(group.name, at)
        else:
            self._next.pop(group.name, None)

    def _set(self, name: str, at: float) -> None:
        known = self._next.get(name)
        if known == at:
            return
        first = self._wheel[0][0] if self._wheel else None
        self._next[name] = at
        heappush(self._wheel, (at, name))
        if first is None or at < first:
            self._alarm(at)
