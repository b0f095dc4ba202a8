"""One group on its leader: members, hand-overs, leases, retries, and what is proposed of them.

Sans-I/O. Whoever drives it hands in the time, brings the answers to what it proposed, and sends what
members are to be told. What it may not forget is in the log; the rest is rebuilt from rows.

Whatever happens ends in ``_go_on``, which proposes what may be proposed. Two operations may be in
flight, one that settles and one that reshapes; neither concerns a partition of which the other
changes the fence. When the outcome of one is not known, nothing more is proposed until a fence in
the log is answered and the rows have been read anew: everything proposed before is decided then.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop

from holdfast.cluster.delivery import messages, returning
from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.claims import Claim, take_claim
from holdfast.cluster.delivery.dispatch import next_delivery
from holdfast.cluster.delivery.effects import Effect, PauseChanged, Trimmed
from holdfast.cluster.delivery.events import OffsetsTrimmed, RecordsHeard
from holdfast.cluster.delivery.flow import Flow
from holdfast.cluster.delivery.group_voice import GroupVoice
from holdfast.cluster.delivery.hearing import Hearing, Tally
from holdfast.cluster.delivery.leases import Holder
from holdfast.cluster.delivery.parcels import Parcel
from holdfast.cluster.delivery.pending import Receipt
from holdfast.cluster.delivery.places import Place
from holdfast.cluster.delivery.sessions import Session
from holdfast.cluster.delivery.surroundings import Kind, Surroundings
from holdfast.cluster.delivery.watch import Watch
from holdfast.cluster.group_definition import Ordering
from holdfast.errors import (
    AlreadySettledError,
    DeadlineExceededError,
    FencedError,
    HoldfastError,
    InternalError,
    LimitExceededError,
    OutcomeUnknownError,
    UnknownGroupError,
    UnknownTopicError,
)
from holdfast.storage.port import Reader
from holdfast.v1 import bus_pb2, log_pb2

_LOST = "the member's stream ended while it may have worked on this"
_EXPIRED = "the member said nothing for {} ms while it may have worked on this"
_TOO_LONG = "the member had this for more than {} ms"

#: After these a transaction may have been committed.
UNKNOWN = (OutcomeUnknownError, DeadlineExceededError, InternalError)
#: These say that the log knows something of the records that is not known here.
_NEWS = (AlreadySettledError, FencedError, UnknownGroupError, UnknownTopicError)


class LiveGroup(GroupVoice):
    """See the module, and ``GroupState``."""

    def __init__(self, name: str, around: Surroundings, since: float) -> None:
        super().__init__(name, around, since)
        self.aside: Holder | None = None
        self._watch = Watch()
        self._by_holder: dict[Holder, Session] = {}
        self._effects: list[Effect] = []
        self._due_at: tuple[int, float] | None = None
        self._parcels: dict[Session, list[Parcel]] = {}  # at most once: durable, and to be sent

    # -- streams ------------------------------------------------------------

    def join(self, session: Session, now: float) -> None:
        """A stream begins. What it cannot have is told by its end."""
        self.door.knock(session)
        if not self._defined or self._broken is not None:
            self._want_rows(0)
        self._go_on(now)

    def leave(self, session: Session, now: float, *, orderly: bool) -> None:
        """A stream ended.

        Args:
            orderly: it said goodbye. Otherwise its member may come back in time.
        """
        session.holder.gone = True
        self._parcels.pop(session, None)
        self._by_holder.pop(session.holder, None)
        if not self.door.gone(session):
            current = self.members.sessions.get(session.member) is session
            kept = self.members.depart(session, now, orderly=orderly)
            if current and not kept:
                self._give_up(session, now)
            if session.earlier is not None:
                self._lose(session.earlier, now)
                session.earlier = None
            self._reshape_due = True
        self._go_on(now)

    def close(self, error: HoldfastError) -> None:
        """Every stream ends with this error."""
        self.door.close(error)
        for session in self.members.sessions.values():
            session.end(error)

    # -- what members say ---------------------------------------------------

    def hear(self, session: Session, now: float) -> None:
        """It said something, whatever it was: its leases are renewed."""
        session.renewed = now
        if session.silent:
            session.silent = False
            session.notify()

    def settle(self, session: Session, message: bus_pb2.Settle, now: float) -> None:
        """A member settles records.

        Raises:
            InvalidArgumentError: the message is malformed.
        """
        self.hear(session, now)

        hearing = self._hearing(session, now)
        try:
            hearing.take(message)
        finally:
            self._tell_heard(hearing.tally)
            if message.nacks or session.holder.credits <= 0:
                self._wake()
            else:
                session.notify()
            self._go_on(now)

    def _hearing(self, session: Session, now: float) -> Hearing:
        return Hearing(
            session, self.places, self.definition, self.settling, Tally(), self.generation, now, self._freed
        )

    def _tell_heard(self, tally: Tally) -> None:
        if tally.acked or tally.released:
            self._around.tell(RecordsHeard(self.name, tally.acked, tally.released))

    def _freed(self, place: Place) -> None:
        """A lease of it has ended."""
        self._reshape_due |= place.key in self.shape.draining and not place.leased

    def claim(self, session: Session, consumed: bus_pb2.Consumed, now: float) -> Claim:
        """A transaction consumes records of a member: they are its own until ``decided``.

        Raises:
            HoldfastError: see ``claims.take_claim``.
        """
        self.hear(session, now)
        claim = take_claim(self._hearing(session, now), self.name, consumed)
        session.unsettled += 1
        self._claims[claim] = None
        return claim

    def decided(self, claim: Claim, error: HoldfastError | None, index: int, now: float) -> None:
        """What became of a transaction: committed (None), refused, or nobody knows.

        Args:
            index: what is applied by now: rows of that index show why it was refused.
        """
        if claim not in self._claims or claim in self._unknown:
            return
        if isinstance(error, UNKNOWN):
            self._in_doubt.add(Kind.TRANSACT)
            self._unknown.append(claim)
        else:
            if error is None:
                self._tell_heard(Tally(claim.holder.in_flight))
                claim.settled()
            else:
                claim.give_back()
                if isinstance(error, _NEWS):
                    self._want_rows(index)
            self._over(claim, now)
        self._go_on(now)

    def _over(self, claim: Claim, now: float) -> None:
        self._claims.pop(claim, None)
        claim.session.unsettled -= 1
        claim.session.notify()
        for place in claim.places:
            flow = place.flow
            if self.places.get(place.key) is place and flow.window.floor > flow.durable:
                # The log has it; its answer says how far the floor is.
                self.settling.floor(flow.key, flow.window.floor, now)
            self._freed(place)
            self._wake(place)

    def credit(self, session: Session, records: int, now: float) -> None:
        """Further records the member may be sent.

        Raises:
            LimitExceededError: it holds too many credits already.
        """
        self.hear(session, now)
        has, most = session.holder.credits, self.settings.max_credits
        if has + records > most:
            raise LimitExceededError(f"{has} + {records} credits; a member may hold {most}")
        session.holder.credits += records
        session.notify()

    def pause(self, session: Session, now: float, *, paused: bool) -> None:
        """The member takes no records until it says so; a pause takes back all credits."""
        self.hear(session, now)
        session.paused = paused
        if paused:
            session.holder.credits = 0
        self._wake()

    def say_goodbye(self, session: Session, now: float) -> None:
        """No more records; the stream may end once ``session.unsettled`` is 0."""
        self.hear(session, now)
        session.leaving = True
        session.notify()
        self._wake()

    @property
    def in_flight(self) -> int:
        """Records with members whose streams are there, and with transactions; from any thread."""
        claimed = sum(claim.holder.in_flight for claim in list(self._claims))
        return claimed + sum(holder.in_flight for holder in list(self._by_holder))

    # -- delivery -----------------------------------------------------------

    def flows_of(self, holder: Holder) -> Sequence[Flow]:
        """See ``dispatch.Delivering``."""
        session = self._by_holder.get(holder)
        if session is None:
            return []
        draining, moving = self.shape.draining, self.shape.moving
        mine = self._places_of(session)
        return [place.flow for place in mine if place.key not in draining and place.key not in moving]

    def tell(self, effect: Effect) -> None:
        """See ``dispatch.Delivering``."""
        self._effects.append(effect)

    def next_parcel(self, reader: Reader, session: Session, room: int, now: float) -> Parcel | None:
        """What a member is sent next; see ``dispatch.next_delivery``.

        Raises:
            DamagedRowError: as there.
        """
        ready = self._parcels.get(session)
        if ready:
            return ready.pop(0)
        if not session.willing or self._gathering:
            session.holder.linger_until = None  # it is asked again when that is over
            return None
        stamp_us = self._around.stamp_us()
        try:
            parcel = next_delivery(reader, self, session.holder, self._around.cache, room, now, stamp_us)
        finally:
            self._take_effects(now)
        if parcel is None or not parcel.spent:
            return parcel
        self._hold_back(session, parcel, now)
        return None

    def owes(self, session: Session) -> bool:
        """At most once: something was settled for it, and is still to be sent."""
        return bool(self._parcels.get(session))

    def touch(self, key: PartitionKey) -> None:
        """Records were appended to a partition."""
        place = self.places.get(key)
        if place is not None and place.flow.at_end:
            place.flow.touch()
            self._wake(place)

    def _hold_back(self, session: Session, parcel: Parcel, now: float) -> None:
        """At most once: it is sent when it is settled; if the member is gone by then, it is lost."""

        def durable(receipt: Receipt) -> None:
            if not receipt.lost and not session.holder.gone:
                self._parcels.setdefault(session, []).append(parcel)
                session.notify()

        receipt = Receipt(durable)
        self._tell_heard(Tally(parcel.records))
        for flow, (first, end) in parcel.spent:
            floor = flow.window.floor
            self.settling.settle(flow.key, [(first, end)] if end > floor else [], now, receipt)
            if floor > flow.durable:
                self.settling.floor(flow.key, floor, now)
        receipt.end()
        self._go_on(now)

    def _take_effects(self, now: float) -> None:
        effects, self._effects = self._effects, []
        for effect in effects:
            flow = effect.flow
            place = self.places.get(flow.key)
            if place is None or place.flow is not flow:
                continue
            if isinstance(effect, Trimmed):
                self.settling.floor(flow.key, flow.window.floor, now)
                event = OffsetsTrimmed(self.name, flow.topic, flow.key[1], effect.before, effect.floor)
                self._around.tell(event)
            elif isinstance(effect, PauseChanged):
                self._tell_pause(place, effect)
            # That a partition is gone is told by its topic.

    # -- times --------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due."""
        lost, some = self.members.tick(now)
        for session in lost:
            self._lose(session, now)
        self._reshape_due |= some
        self._reshape_due |= any(at <= now for at in self.shape.draining.values())
        if self._gathering and self.members.all_back(self._since):
            self._gathering = False
            self._wake()
        if self._defined:
            self._end_leases(now)
        self._take_dues(now)
        self._go_on(now)

    def next_time(self, now: float) -> float | None:
        """When ``tick`` has something to do, whatever happens until then."""
        times = [
            self.members.next_time(),
            self.shape.next_time(now),
            self._watch.next_time(),
            None if self.blocked else self.settling.due_at,
            self._again_at,
        ]
        longest = self.definition.max_lease_ms / 1_000
        if longest:
            times += [each.holder.ages.next_over(longest) for each in self.members.sessions.values()]
        if self._dues:
            times.append(self._due_time(now))
        return min((at for at in times if at is not None), default=None)

    def _due_time(self, now: float) -> float:
        """When the first retry is due by the clock of this node, as worked out once."""
        due_us, at = self._dues[0][0], self._due_at
        if at is None or at[0] != due_us or at[1] <= now:
            waits = max(due_us - self._around.stamp_us(), 0) / 1_000_000
            self._due_at = at = (due_us, now + waits)
        return at[1]

    def _end_leases(self, now: float) -> None:
        expired = log_pb2.RETRY_CAUSE_EXPIRED
        timeout, longest = self.definition.ack_timeout_ms, self.definition.max_lease_ms
        for session in self._watch.over(now, self.definition):
            session.silent = True
            self._give_up(session, now, expired, _EXPIRED.format(timeout), keep=now)
        if longest:
            for session in list(self.members.sessions.values()):
                through = session.holder.ages.over(now, longest / 1_000)
                if through:
                    self._give_up(session, now, expired, _TOO_LONG.format(longest), through=through)

    def _take_dues(self, now: float) -> None:
        stamp_us = self._around.stamp_us()
        while self._dues and self._dues[0][0] <= stamp_us:
            place = self.places.get(heappop(self._dues)[1])
            if place is not None:
                for charged in place.flow.let_go(stamp_us):
                    self._charge(place, charged, log_pb2.RETRY_CAUSE_LET_GO, now)
                self._wake(place)

    # -- members come and go ------------------------------------------------

    def _admit(self, session: Session, now: float) -> None:
        earlier, seated = self.members.arrive(session)
        self._by_holder[session.holder] = session
        self._watch.add(session, self.definition)
        if earlier is not None:
            if not earlier.holder.gone:
                earlier.holder.gone = True
                self._by_holder.pop(earlier.holder, None)
                self._parcels.pop(earlier, None)
                earlier.end(FencedError("the member has begun another stream, which takes its place"))
            if earlier.earlier is not None:
                self._give_up(earlier.earlier, now)
                earlier.earlier = None
            session.earlier = earlier
        self._reshape_due = True
        if seated and session.member not in self.shape.leaving:
            self._greet(session, now)

    def _seat(self, *, opened: bool, now: float) -> None:
        owned = self.definition.ordering == Ordering.PARTITION
        for member, session in list(self.members.sessions.items()):
            seated = member in self.members.seats and member not in self.shape.leaving
            if seated and not session.welcomed and session.ended is None:
                self._greet(session, now)
            session.assignment_due |= opened and not owned
            if session.assignment_due:
                session.notify()

    def _greet(self, session: Session, now: float) -> None:
        """It is a member: what it still works on stays its own, and what it dropped goes to whoever asks."""
        kept = returning.resume(self._around, self.places, session)
        earlier, session.earlier = session.earlier, None
        if earlier is not None:
            if returning.died(session, earlier):
                self._lose(earlier, now)
            else:
                self._give_up(earlier, now)
        session.welcomed = session.assignment_due = True
        session.tell(welcome=messages.welcome(session, self.definition, kept))
        if self._gathering and self.members.all_back(self._since):
            self._gathering = False
            self._wake()

    def _turn_away(self, member: str, error: HoldfastError) -> None:
        session = self.members.sessions.get(member)
        if session is not None and not session.welcomed:
            session.end(error)

    def _lose(self, session: Session, now: float) -> None:
        if session.blameless:
            self._give_up(session, now)
        else:
            self._give_up(session, now, log_pb2.RETRY_CAUSE_LOST, _LOST)

    def _give_up(
        self,
        session: Session,
        now: float,
        cause: log_pb2.RetryCause = log_pb2.RETRY_CAUSE_UNSPECIFIED,
        error: str = "",
        *,
        keep: float | None = None,
        through: int | None = None,
    ) -> None:
        """What a stream was handed is no more its own; with a cause, what it may have begun is charged."""
        charged = returning.give_up(
            self.places, session.holder, charge=bool(cause), now=keep, through=through
        )
        for place, each in charged:
            self._charge(place, each, cause, now, error)
        self._reshape_due |= bool(self.shape.draining)
        self._wake()
