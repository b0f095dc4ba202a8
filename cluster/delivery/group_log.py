"""The half of a group that the log speaks to: what is proposed, and what became of it.

``live_group.py`` has the members' half, and the whole in words.
"""

from __future__ import annotations

from collections import Counter
from heapq import heappush

from holdfast.cluster.commands import encode_op
from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.events import GroupRebalanced, OffsetsCommitted, RecordsCharged, RecordsDied
from holdfast.cluster.delivery.group_rows import read_topics, start_of
from holdfast.cluster.delivery.group_state import GroupState
from holdfast.cluster.delivery.pending import Charge
from holdfast.cluster.delivery.places import Place
from holdfast.cluster.delivery.settling import FIRST_PAUSE, LONGEST_PAUSE, DeadLetter
from holdfast.cluster.delivery.surroundings import Kind, Token
from holdfast.cluster.group_definition import Ordering, check
from holdfast.cluster.results import Completed
from holdfast.errors import (
    HoldfastError,
    LimitExceededError,
    NoLeaderError,
    OverloadedError,
    StorageFullError,
    UnknownTopicError,
    from_reason,
)
from holdfast.storage.port import Reader
from holdfast.storage.retries import State
from holdfast.v1 import errors_pb2, log_pb2

#: After these nothing was done, for certain.
_CERTAIN = (NoLeaderError, OverloadedError, StorageFullError)

#: With these a replica says that its rows are not those the operation was worked out from.
_STALE = ("STALE_GROUP", "FENCED")

#: Causes that charge an attempt.
_CHARGING = (
    log_pb2.RETRY_CAUSE_NACK,
    log_pb2.RETRY_CAUSE_EXPIRED,
    log_pb2.RETRY_CAUSE_LOST,
    log_pb2.RETRY_CAUSE_REJECT,
)


#: What events call them.
_NAMES: dict[log_pb2.RetryCause, str] = {
    log_pb2.RETRY_CAUSE_NACK: "nack",
    log_pb2.RETRY_CAUSE_EXPIRED: "expired",
    log_pb2.RETRY_CAUSE_LOST: "lost",
    log_pb2.RETRY_CAUSE_REJECT: "rejected",
    log_pb2.RETRY_CAUSE_PARK: "parked",
}


class GroupLog(GroupState):
    """See the module."""

    # -- proposing ----------------------------------------------------------

    def _go_on(self, now: float) -> None:
        """Propose what may be proposed now."""
        if self._again_at is not None and now >= self._again_at:
            self._again_at = None
        decided = self._fenced or not self._in_doubt
        if self._rows_at is not None and self._around.visible >= self._rows_at and decided:
            self._read_rows(now)
        # Who comes back to a seat waits for nothing: what it works on is kept for a short time only.
        self._answer_door(now)
        if self.blocked:
            self._fence()
            return
        may_reshape = self._defined and self._again_at is None and self.shape.in_flight is None
        if self._reshape_due and may_reshape:
            self._reshape(now)
        due = self.settling.due_at
        if due is not None and due <= now:
            self._settle_some(now)

    def _propose(self, kind: Kind, framed: bytes) -> None:
        self._around.propose(framed, Token(self, kind))

    def _fence(self) -> None:
        wanted = bool(self._in_doubt) and not self._fenced
        if wanted and not self._fencing and self._again_at is None:
            self._fencing = True
            self._propose(Kind.FENCE, encode_op(log_pb2.Op(settle=log_pb2.SettleOp(group=self.name))))

    def _answer_door(self, now: float) -> None:
        rests = self.blocked or self._again_at is not None
        if self._defining or not self.door.waiting or (rests and not self._defined):
            return
        if self._broken is not None:
            self.door.close(self._broken)
            return
        has = self.definition if self._defined else None
        while True:
            welcome, wanted = self.door.open(has, implicit=self._implicit, empty=not self.members.seats)
            for session in welcome:
                self._admit(session, now)
            if wanted is None or rests:
                return
            missing = self._unreadable(wanted)
            if missing is None:
                break
            self.door.refused(missing)
        self._defining = True
        self._propose(Kind.DEFINE, encode_op(log_pb2.Op(put_group=wanted)))

    def _unreadable(self, wanted: log_pb2.PutGroupOp) -> HoldfastError | None:
        """Why a group of this definition could not be read: none is made of a slip of the pen."""
        try:
            with self._around.read() as reader:
                read_topics(reader, check(wanted.definition))
        except (UnknownTopicError, LimitExceededError) as error:
            return error
        return None

    def _reshape(self, now: float) -> None:
        self._reshape_due = False
        partitions = [(row.id, n) for row in self._topics.values() for n in range(row.partitions)]
        flows = self.places.by_key
        if self.definition.ordering == Ordering.PARTITION:
            asked, kept = self.shape.review(now, partitions, flows)
            self._tell_moves(asked, kept)
        new = [key for key in partitions if key not in flows]
        opens: list[log_pb2.FlowStart] = []
        if new:
            with self._around.read() as reader:
                opens = [self._start(reader, key) for key in new]
        met = [topic for topic in self._topics if topic not in self._topics_seen]
        it = self.shape.collect(now, self.generation, flows, self.settling.concerns, opens, met)
        if it is not None:
            self._propose(Kind.RESHAPE, it.framed)

    def _start(self, reader: Reader, key: PartitionKey) -> log_pb2.FlowStart:
        late = bool(self._topics_seen)
        offset = start_of(reader, self.definition, self._topics[key[0]], key[1], late=late)
        return log_pb2.FlowStart(topic_id=key[0], partition=key[1], offset=offset)

    def _settle_some(self, now: float) -> None:
        def fence(key: PartitionKey) -> int:
            place = self.places.get(key)
            return 0 if place is None else place.flow.fence

        with self._around.read() as reader:

            def bury(charge: Charge) -> DeadLetter | None:
                return self._bury(reader, charge)

            it = self.settling.collect(now, fence, self.shape.moving, bury, self._row)
        if it is not None:
            self._propose(Kind.SETTLE, it.op)

    def _bury(self, reader: Reader, charge: Charge) -> DeadLetter | None:
        place, letters, definition = self.places.get(charge.key), self._around.letters, self.definition
        if place is None or letters is None or not definition.dead_letter_topic:
            return None
        row = place.flow.retrying.get(charge.offset)
        attempts = (0 if row is None else row.attempts) + (charge.cause in _CHARGING)
        if charge.cause != log_pb2.RETRY_CAUSE_REJECT and not 0 < definition.max_attempts <= attempts:
            return None
        stamp_us = self._around.stamp_us()
        return letters.make(reader, self.name, definition, place.flow, charge, attempts, stamp_us)

    def _row(self, key: PartitionKey, offset: int) -> object:
        """What tells the row of a record from another; None: it has none."""
        place = self.places.get(key)
        row = None if place is None else place.flow.retrying.get(offset)
        return None if row is None or not row.stored else (row.attempts, row.state, row.due_us)

    # -- answers ------------------------------------------------------------

    def answered(self, kind: Kind, done: Completed, now: float) -> None:
        """A proposal has ended."""
        error = done.error
        if error is None and done.result is not None and done.result.HasField("error"):
            error = _error(done.result.error)
            self._refused(kind, error, done.index, now)
        elif error is None and done.result is not None:
            self._again_at, self._pause = None, FIRST_PAUSE
            self._applied(kind, done.result, done.index, now)
        elif isinstance(error, _CERTAIN):
            self._not_done(kind, now, no_room=isinstance(error, StorageFullError))
        else:
            self._not_known(kind, now)
        self._reshape_due |= self.shape.held_up
        if kind is Kind.RESHAPE:
            self._seat(opened=False, now=now)
        self._go_on(now)

    def _applied(self, kind: Kind, result: log_pb2.OpResult, index: int, now: float) -> None:
        if kind is Kind.SETTLE:
            self._settled(result.settle, now)
        elif kind is Kind.RESHAPE:
            self._reshaped(result.group.generation, now)
        else:
            self._ended(kind)
            self._want_rows(index)

    def _refused(self, kind: Kind, error: HoldfastError, index: int, now: float) -> None:
        """A replica refused it: nothing was written."""
        if kind is Kind.DEFINE:
            self._defining = False
            self.door.refused(error)
            return
        if kind is Kind.FENCE:
            self._ended(kind)
            self._want_rows(index)
            return
        if kind is Kind.RESHAPE:
            op = self.shape.ended()
            self._reshape_due = True
            self._rest(now)
            if error.reason == "LIMIT_EXCEEDED" and op.join:
                for row in op.join:
                    self._turn_away(row.id, error)
                return
        else:
            self.settling.failed(now)
            if error.reason == "LIMIT_EXCEEDED":
                for charge in self.settling.take_charges():
                    self._uncharge(charge, error)
                return
        if error.reason != "UNKNOWN_TOPIC" and error.reason not in _STALE:
            self.close(error)
        self._want_rows(index)

    def _not_done(self, kind: Kind, now: float, *, no_room: bool) -> None:
        if kind is Kind.SETTLE:
            it = self.settling.in_flight
            if no_room and it is not None:
                for charge in it.charges:
                    if charge.dead and charge.key not in self._no_room:
                        self._no_room[charge.key] = charge.offset
                        self._tell_room(charge.key, charge.offset)
            self.settling.failed(now, no_room=no_room)
            return
        if kind is Kind.RESHAPE:
            self.shape.ended()
            self._reshape_due = True
        self._defining = self._defining and kind is not Kind.DEFINE
        self._fencing = self._fencing and kind is not Kind.FENCE
        self._rest(now)

    def _not_known(self, kind: Kind, now: float) -> None:
        if kind in (Kind.SETTLE, Kind.RESHAPE):
            self._in_doubt.add(kind)
            return
        # These may be done twice.
        self._defining = self._defining and kind is not Kind.DEFINE
        self._fencing = self._fencing and kind is not Kind.FENCE
        self._rest(now)

    def _ended(self, kind: Kind) -> None:
        """Rows will show what it did."""
        if kind is Kind.DEFINE:
            self._defining = False
        elif kind is Kind.FENCE:
            self._fencing, self._fenced = False, True

    def _rest(self, now: float) -> None:
        self._again_at = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _settled(self, result: log_pb2.SettleResult, now: float) -> None:
        it = self.settling.in_flight
        if it is None:
            return
        charges = {(charge.key, charge.offset): charge for charge in it.charges}
        made: list[Charge] = []
        for state in result.flows:
            key = (state.topic_id, state.partition)
            place = self.places.get(key)
            if place is None or state.floor < 0 or not it.concerns(key):
                continue
            moved = state.floor > place.flow.durable
            place.flow.durable = state.floor
            place.flow.raise_floor(state.floor)
            for retry in state.retries:
                charge = charges.get((key, retry.offset))
                if charge is not None and self._charged(place, charge, retry):
                    made.append(charge)
            self._end_the_dying(place, now)
            if moved:
                self._tell_committed(place)
        self.settling.settled()
        if it.buries:
            for key in self._no_room:
                self._tell_room(key, None)
            self._no_room.clear()
        self._around.tell(OffsetsCommitted(self.name, len(it.portions), now - it.began))
        self._tell_charged(made)
        if it.charges:
            self._wake()

    def _tell_charged(self, charges: list[Charge]) -> None:
        causes = Counter(_NAMES[charge.cause] for charge in charges if charge.cause in _NAMES)
        for cause, records in causes.items():
            self._around.tell(RecordsCharged(self.name, cause, records))
        died = sum(charge.dead for charge in charges)
        if died:
            self._around.tell(RecordsDied(self.name, died))

    def _charged(self, place: Place, charge: Charge, retry: log_pb2.RetryState) -> bool:
        """Whether it was made."""
        flow, offset = place.flow, retry.offset
        if retry.state:
            flow.result(offset, retry.attempts, State(retry.state), retry.due_us, charge.lane)
            heappush(self._dues, (retry.due_us, place.key))
        elif charge.dead:
            flow.settled_in_log([(offset, offset + 1)])
        else:
            self._uncharge(
                charge,
                LimitExceededError("no more failed records are kept; this one is delivered again"),
            )
            return False
        return True

    def _uncharge(self, charge: Charge, error: HoldfastError) -> None:
        place = self.places.get(charge.key)
        if place is not None:
            place.flow.uncharge(charge.offset)
        charge.lose(error)
        self._wake()

    def _reshaped(self, generation: int, now: float) -> None:
        op = self.shape.ended()
        self.shape.changed(op)
        self.generation = generation
        self._topics_seen |= set(op.topics_seen)
        for lost in self.members.changed(op.join, op.leave, now):
            self._lose(lost, now)
        for start in op.open:
            place = self._add((start.topic_id, start.partition))
            if place is not None:
                place.flow.load(start.offset, (), ())
        moved = timed_out = 0
        for change in op.owners:
            place = self.places.get((change.topic_id, change.partition))
            if place is not None:
                stays = place.owner in self.members.seats
                moved += stays
                timed_out += stays and place.leased
                self._hand_over(place, change.member, generation)
        if op.owners:
            event = GroupRebalanced(
                self.name, generation, len(self.members.seats), len(self.places.by_key), moved, timed_out
            )
            self._around.tell(event)
        self._reshape_due = True
        self._seat(opened=bool(op.open), now=now)

    def _hand_over(self, place: Place, member: str, generation: int) -> None:
        """What the owner so far still had of it is handed out again, free of charge."""
        for holder in place.holders():
            place.flow.drop_member(holder)
        before = place.owner
        place.flow.fence = generation
        self.places.give(place, member)
        for each in (before, member):
            session = self.members.sessions.get(each)
            if session is not None:
                session.assignment_due = True


def _error(message: errors_pb2.Error) -> HoldfastError:
    return from_reason(message.reason, message.message, metadata=dict(message.metadata))
