"""One group with members that ack, fail, die and come back, under leaders that change: section by section
of what a group promises, looked at after every step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast.cluster.delivery.batch_cache import BatchCache
from holdfast.cluster.delivery.deep_flow import DeepFlow
from holdfast.cluster.delivery.dispatch import next_delivery, take_up
from holdfast.cluster.delivery.flow import Flow, suspects_of
from holdfast.cluster.delivery.key_flow import KeyFlow
from holdfast.cluster.delivery.leases import Holder
from holdfast.cluster.delivery.outcomes import Charged
from holdfast.cluster.delivery.pool_flow import PoolFlow
from holdfast.cluster.group_definition import Ordering
from holdfast.storage.retries import NEVER_US, RetryRow, State
from holdfast.v1 import bus_pb2, log_pb2

from .dispatch_kit import ROOM, Charge, Log, OneGroup, Op, Sent, defined, tell, unpack

PARTITIONS = 2
KEYS = (b"a", b"b", b"c", b"")
NAMES = ("x", "y", "z")
CAUSES = {
    bus_pb2.NACK_KIND_RETRY: log_pb2.RETRY_CAUSE_NACK,
    bus_pb2.NACK_KIND_PARK: log_pb2.RETRY_CAUSE_PARK,
    bus_pb2.NACK_KIND_REJECT: log_pb2.RETRY_CAUSE_REJECT,
}
#: Milliseconds until a record comes again: at once, soon, later than most runs last, or by policy.
DELAYS = st.sampled_from([0, 40, 500, None])

#: What upsets everything leaves time for the rest.
RARELY = st.sampled_from([False, False, True])

Place = tuple[int, int]


def step(**draws: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule; after one that failed nothing is looked at any more."""
    return lambda function: rule(**draws)(_noted(function))


def always(function: Callable[[GroupModel], None]) -> Any:
    """An invariant, likewise."""
    return invariant()(_noted(function))


def _noted(function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def noted(self: GroupModel, *given: Any, **drawn: Any) -> None:
        self.broken = True
        function(self, *given, **drawn)
        self.broken = False

    return noted


class GroupModel(RuleBasedStateMachine):
    """Everything a leader does, and what members and the log do to it; subclasses choose the ordering."""

    ordering: ClassVar[Ordering]

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.definition = defined(
            self.ordering,
            max_unacked=12,
            max_retrying=5,
            max_attempts=2,
            dead_letter_topic="dead",
            initial_ms=20,
            max_ms=100,
        )
        self.log = Log(self.definition, PARTITIONS)
        self.now = 0.0
        self.stamp_us = 1_000_000
        #: Settled since the beginning of time, as this leader knows; and as the log has it.
        self.settled: dict[int, set[int]] = defaultdict(set)
        self.durable: dict[int, set[int]] = defaultdict(set)
        #: What each member works on. Of what was settled under it, or sought away from: ghosts.
        self.hand: dict[Place, Holder] = {}
        self.ghosts: dict[Place, Holder] = {}
        self.extended: dict[Place, float] = {}
        self.lent: dict[Holder, tuple[Holder, set[Place]]] = {}
        self.members: dict[str, Holder] = {}
        self.queue: list[Op] = []
        self._lead()

    # -- the leader ---------------------------------------------------------

    def _lead(self) -> None:
        self.group = OneGroup(self.definition)
        self.cache = BatchCache(2_000)
        for number in range(PARTITIONS):
            self.group.open(self.log, number)
        self._share_out()

    def _share_out(self) -> None:
        """Partitions in order belong to whoever is there; what a new owner has is not the old one's."""
        alive = list(self.members.values())
        for number in range(PARTITIONS):
            owner = self.group.owners.get(number)
            if owner is None or owner not in alive:
                self.group.owners.pop(number, None)
                if alive:
                    self.group.owners[number] = alive[number % len(alive)]

    def flow(self, number: int) -> Flow:
        return self.group.flows[number]

    def _charge(
        self, number: int, charged: list[Charged], cause: log_pb2.RetryCause, delay_ms: int | None = None
    ) -> None:
        if charged:
            wanted = [Charge(it.offset, cause, it.lane, delay_ms) for it in charged]
            self.queue.append(Op(number, charges=wanted))

    def _tend(self) -> None:
        """What a coordinator does whenever something happened: dead letters, and parks that are over."""
        for number, flow in self.group.flows.items():
            self._charge(number, flow.take_dying(), log_pb2.RETRY_CAUSE_LET_GO)
            self._charge(number, flow.let_go(self.stamp_us), log_pb2.RETRY_CAUSE_LET_GO)

    def _settled(self, number: int, ranges: list[tuple[int, int]]) -> None:
        found = {offset for first, end in ranges for offset in range(first, end)}
        self.settled[number] |= found

    # -- members ------------------------------------------------------------

    def _of(self, holder: Holder, number: int | None = None) -> list[Place]:
        return sorted(
            place
            for place, who in self.hand.items()
            if who is holder and (number is None or place[0] == number)
        )

    def _end(self, place: Place) -> None:
        self.hand.pop(place, None)
        self.extended.pop(place, None)

    def _void_behind(self, place: Place) -> None:
        """Of a partition in order, everything behind a record that did not work out."""
        if self.ordering == Ordering.PARTITION:
            for other, holder in list(self.hand.items()):
                if other[0] == place[0] and other[1] > place[1] and holder.lender is None:
                    self._end(other)

    @step(name=st.sampled_from(NAMES), credits=st.integers(0, 6), concurrency=st.integers(1, 3))
    def join(self, name: str, credits: int, concurrency: int) -> None:
        if name in self.members:
            self.members[name].credits += credits
            return
        self.members[name] = Holder(name, credits, concurrency)
        self._share_out()

    @initialize(
        logs=st.lists(
            st.lists(st.sampled_from(KEYS), min_size=4, max_size=14), min_size=PARTITIONS, max_size=PARTITIONS
        )
    )
    def begin(self, logs: list[list[bytes]]) -> None:
        for number, keys in enumerate(logs):
            for at in range(0, len(keys), 3):
                self.append(number, keys[at : at + 3])
        for name in NAMES[:2]:
            self.join(name, 4, 2)

    @step(number=st.integers(0, PARTITIONS - 1), keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=6))
    def append(self, number: int, keys: list[bytes]) -> None:
        self.log.append(number, keys)
        self.stamp_us = max(self.stamp_us, self.log.stamp_us)
        self.flow(number).touch()

    @precondition(lambda self: self.members)
    @step(data=st.data(), credits=st.integers(0, 4), room=st.sampled_from([ROOM, ROOM, 1, 60]))
    def deliver(self, data: st.DataObject, credits: int, room: int) -> None:
        first = data.draw(st.sampled_from(sorted(self.members)))
        for name in sorted(self.members, key=lambda name: name != first):
            self.members[name].credits += credits
            self._deliver(self.members[name], room)

    def _deliver(self, holder: Holder, room: int = ROOM) -> list[Sent]:
        before = self._of(holder)
        credits = holder.credits
        with self.log.store.read() as reader:
            parcel = next_delivery(reader, self.group, holder, self.cache, room, self.now, self.stamp_us)
        if parcel is None:
            return []
        sent = unpack(parcel)
        assert sent, "nothing was found, in a log this small"
        assert len(sent) <= credits == holder.credits + len(sent)
        for it in sent:
            self._check_sent(it, holder)
            self.hand[it.place] = holder
        suspects = [it for it in sent if self._is_suspect(it)]
        if suspects:
            assert len(sent) == 1, "a suspect travels alone"
            assert not before, "and to a member that has nothing else"
        if any(self._is_suspect_at(place) for place in before):
            raise AssertionError("a member that has a suspect was given more")
        for _, group in _by_flow(sent).items():
            assert len({it.whole for it in group}) == 1, "a flow is either whole or cut in one parcel"
            assert [it.offset for it in group] == sorted(it.offset for it in group)
        return sent

    def _row(self, place: Place) -> RetryRow | None:
        return self.log.retries(place[0]).get(place[1])

    def _is_suspect_at(self, place: Place) -> bool:
        row = self._row(place)
        return row is not None and row.state == State.SUSPECT

    def _is_suspect(self, it: Sent) -> bool:
        return self._is_suspect_at(it.place)

    def _check_sent(self, it: Sent, holder: Holder) -> None:
        number, offset = it.place
        assert (it.key, it.value) == self.log.records[number][offset], "handed-mismatch"
        assert offset not in self.settled[number], "handed-after-settled"
        assert it.place not in self.hand, "handed twice"
        row = self._row(it.place)
        if row is None:
            assert it.attempts == 0
        else:
            assert row.state in (State.WAITING, State.SUSPECT), "handed out while parked"
            assert row.due_us <= self.stamp_us, "retry-early"
            assert it.attempts == row.attempts < self.definition.max_attempts, "attempts-over"
        if self.ordering == Ordering.KEY and it.key:
            for other, (key, _) in enumerate(self.log.records[number][:offset]):
                assert key != it.key or other in self.settled[number], "key-order"
            for other_place in (*self.hand, *self.ghosts):
                assert other_place[0] != number or self._key(other_place) != it.key, "key-overlap"
        if self.ordering == Ordering.PARTITION:
            assert self.group.owners[number] is holder
            for other in range(offset):
                ahead = self.hand.get((number, other))
                mine = ahead is holder or (ahead is not None and ahead.lender is holder)
                assert other in self.settled[number] or mine, "partition-order"

    def _key(self, place: Place) -> bytes:
        return self.log.records[place[0]][place[1]][0]

    def _draw_held(self, data: st.DataObject) -> tuple[Holder, Place] | None:
        held = [(who, place) for place, who in self.hand.items() if who.lender is None]
        return data.draw(st.sampled_from(sorted(held, key=lambda it: it[1]))) if held else None

    @precondition(lambda self: self.hand)
    @step(data=st.data(), length=st.integers(1, 4))
    def ack(self, data: st.DataObject, length: int) -> None:
        """A run that may reach beyond what the member has."""
        drawn = self._draw_held(data)
        if drawn is None:
            return
        holder, (number, first) = drawn
        outcome = self.flow(number).settle(holder, 0, [(first, first + length)])
        mine = {o for o in range(first, first + length) if self.hand.get((number, o)) is holder}
        told = {o for low, high in outcome.settled for o in range(low, high)}
        assert told == mine
        refused = {o for it in outcome.refused for o in range(it.first, it.last + 1)}
        assert refused == set(range(first, first + length)) - mine - self.settled[number]
        for offset in mine:
            self._end((number, offset))
        for offset in range(first, first + length):
            if self.ghosts.get((number, offset)) is holder:
                self._end_ghost((number, offset))
        self._settled(number, outcome.settled)
        self.queue.append(Op(number, outcome.settled))

    @precondition(lambda self: self.hand)
    @step(data=st.data())
    def ack_below(self, data: st.DataObject) -> None:
        drawn = self._draw_held(data)
        if drawn is None:
            return
        holder, (number, below) = drawn
        mine = {place[1] for place in self._of(holder, number) if place[1] < below}
        outcome = self.flow(number).settle_below(holder, below)
        assert {o for low, high in outcome.settled for o in range(low, high)} == mine
        assert not outcome.refused or self.ghosts
        for place in [place for place, who in self.ghosts.items() if who is holder and place[0] == number]:
            if place[1] < below:
                self._end_ghost(place)
        for offset in mine:
            self._end((number, offset))
        self._settled(number, outcome.settled)
        self.queue.append(Op(number, outcome.settled))

    @precondition(lambda self: self.ghosts)
    @step(data=st.data(), acks=st.booleans())
    def speak_of_ghost(self, data: st.DataObject, acks: bool) -> None:
        """Of a lease that settles nothing any more the lane is freed, however it ends."""
        place = data.draw(st.sampled_from(sorted(self.ghosts)))
        holder = self.ghosts[place]
        self._end_ghost(place)
        number, offset = place
        if acks:
            outcome = self.flow(number).settle(holder, 0, [(offset, offset + 1)])
            assert not outcome.settled
            assert bool(outcome.refused) == (offset not in self.settled[number])
        else:
            assert self.flow(number).nack(holder, 0, offset).charge is None

    @precondition(lambda self: self.hand)
    @step(data=st.data(), kind=st.sampled_from(sorted(CAUSES)), delay=DELAYS)
    def nack(self, data: st.DataObject, kind: bus_pb2.NackKind, delay: int | None) -> None:
        self._nack(data, kind, delay)

    @precondition(lambda self: self.hand)
    @step(data=st.data(), buries=st.booleans())
    def fail_and_retry(self, data: st.DataObject, buries: bool) -> None:
        """All of it, so that records get far: failed, charged, due, and out again."""
        self._nack(data, bus_pb2.NACK_KIND_RETRY, 0)
        for _ in range(len(self.queue)):
            self._apply(buries=buries)
        for name in sorted(self.members):
            self.members[name].credits += 3
            self._deliver(self.members[name])

    def _nack(self, data: st.DataObject, kind: bus_pb2.NackKind, delay: int | None) -> None:
        drawn = self._draw_held(data)
        if drawn is None:
            return
        holder, place = drawn
        nacked = self.flow(place[0]).nack(holder, 0, place[1], kind)
        assert nacked.refused is None
        assert nacked.charge is not None
        assert nacked.charge.offset == place[1]
        self._end(place)
        self._void_behind(place)
        self._charge(place[0], [nacked.charge], CAUSES[kind], delay)

    @precondition(lambda self: self.hand)
    @step(data=st.data())
    def release(self, data: st.DataObject) -> None:
        drawn = self._draw_held(data)
        if drawn is None:
            return
        holder, place = drawn
        nacked = self.flow(place[0]).nack(holder, 0, place[1], bus_pb2.NACK_KIND_RELEASE)
        assert nacked == (None, None)
        self._end(place)
        self._void_behind(place)

    @precondition(lambda self: self.members)
    @step(data=st.data(), number=st.integers(0, PARTITIONS - 1), offset=st.integers(0, 30))
    def meddle(self, data: st.DataObject, number: int, offset: int) -> None:
        """Words about what is another's, or nobody's, change nothing."""
        holder = data.draw(st.sampled_from(list(self.members.values())))
        place = (number, offset)
        if self.hand.get(place) is holder or self.ghosts.get(place) is holder:
            return
        flow = self.flow(number)
        outcome = flow.settle(holder, 0, [(offset, offset + 1)])
        assert not outcome.settled
        assert bool(outcome.refused) == (offset not in self.settled[number])
        assert flow.nack(holder, 0, offset).refused is not None
        assert flow.extend(holder, 0, [(offset, offset + 1)], self.now + 9)

    @precondition(lambda self: self.hand)
    @step(data=st.data(), seconds=st.integers(1, 40))
    def extend(self, data: st.DataObject, seconds: int) -> None:
        drawn = self._draw_held(data)
        if drawn is None:
            return
        holder, (number, offset) = drawn
        until = self.now + seconds
        assert not self.flow(number).extend(holder, 0, [(offset, offset + 1)], until)
        self.extended[number, offset] = until

    @precondition(lambda self: self.members)
    @step(data=st.data(), happens=RARELY)
    def fall_silent(self, data: st.DataObject, happens: bool) -> None:
        """Its leases expire but for those extended; it stays."""
        if not happens:
            return
        self._drop(data.draw(st.sampled_from(list(self.members.values()))), log_pb2.RETRY_CAUSE_EXPIRED)

    @precondition(lambda self: self.members)
    @step(data=st.data(), happens=RARELY, replaced=st.booleans())
    def die(self, data: st.DataObject, happens: bool, replaced: bool) -> None:
        if not happens:
            return
        holder = self.members.pop(data.draw(st.sampled_from(sorted(self.members))))
        holder.gone = True
        self._drop(holder, log_pb2.RETRY_CAUSE_LOST)
        if replaced:  # at once, by another process
            self.members[holder.id] = Holder(holder.id, 4, holder.concurrency)
            while self.queue:
                self._apply()
        self._share_out()

    def _drop(self, holder: Holder, cause: log_pb2.RetryCause) -> None:
        flows = list(self.group.flows.values())
        suspects = suspects_of(holder, flows)
        blamed = {(key[1], offset) for key, offsets in suspects.items() for offset in offsets}
        mine = set(self._of(holder))
        assert blamed <= mine
        assert len(blamed) == min(holder.concurrency, len(self._heads(mine)))
        stays = cause == log_pb2.RETRY_CAUSE_EXPIRED
        for flow in flows:
            now = self.now if stays else None
            charged = flow.drop_member(holder, suspects.get(flow.key, ()), now=now)
            number = flow.key[1]
            spared = {
                place[1]
                for place in mine
                if stays and place[0] == number and self.extended.get(place, self.now) > self.now
            }
            wanted = {place[1] for place in blamed if place[0] == number} - spared
            assert {it.offset for it in charged} == wanted
            gone = {place for place in mine if place[0] == number and place[1] not in spared}
            for place in gone:
                self._end(place)
            if gone and self.ordering == Ordering.PARTITION:
                self._void_behind(min(gone))
            self._charge(number, charged, cause)
        for place in [place for place, who in self.ghosts.items() if who is holder]:
            if not (stays and self.extended.get(place, self.now) > self.now):
                self._end_ghost(place)

    def _end_ghost(self, place: Place) -> None:
        del self.ghosts[place]
        self.extended.pop(place, None)

    def _heads(self, mine: set[Place]) -> set[Place]:
        """The records a member can have begun."""
        if self.ordering == Ordering.PARTITION:
            return {min(place for place in mine if place[0] == number) for number, _ in mine}
        return mine

    # -- transactions -------------------------------------------------------

    @precondition(lambda self: self.hand)
    @step(data=st.data(), length=st.integers(1, 3))
    def consume(self, data: st.DataObject, length: int) -> None:
        drawn = self._draw_held(data)
        if drawn is None:
            return
        holder, (number, first) = drawn
        to = Holder("transaction", lender=holder)
        wanted = {(number, offset) for offset in range(first, first + length)}
        refused = self.flow(number).lend(holder, 0, [(first, first + length)], to)
        assert bool(refused) == any(self.hand.get(place) is not holder for place in wanted)
        if not refused:
            self.lent[to] = (holder, wanted)
            self.hand.update(dict.fromkeys(wanted, to))

    @precondition(lambda self: self.lent)
    @step(data=st.data(), applied=st.booleans())
    def decide(self, data: st.DataObject, applied: bool) -> None:
        to = data.draw(st.sampled_from(list(self.lent)))
        holder, _ = self.lent.pop(to)
        places = set(self._of(to))
        for number, flow in self.group.flows.items():
            here = {place[1] for place in places if place[0] == number}
            if applied:
                ranges = flow.settle_lent(to)
                assert {o for low, high in ranges for o in range(low, high)} == here
                self.log.apply(Op(number, ranges), self.stamp_us)
                self._settled(number, ranges)
                self.durable[number] |= here
            else:
                flow.take_back(to, None if holder.gone else holder)
        for place in places:
            self._end(place)
            if not applied and not holder.gone and self._resumes(place):
                self.hand[place] = holder
        for place in [place for place, who in self.ghosts.items() if who is to]:
            self._end_ghost(place)
            if not applied and not holder.gone:
                self.ghosts[place] = holder

    def _resumes(self, place: Place) -> bool:
        """Of a partition in order, what is behind a record that failed meanwhile is void."""
        held = self.flow(place[0]).leases.at(place[1])
        if self.ordering != Ordering.PARTITION:
            assert held is not None
        return held is not None

    # -- the log ------------------------------------------------------------

    @precondition(lambda self: self.queue)
    @step()
    def apply(self) -> None:
        self._apply()

    @precondition(lambda self: self.queue)
    @step()
    def apply_all(self) -> None:
        while self.queue:
            self._apply()

    @precondition(lambda self: self.queue)
    @step()
    def apply_without_room(self) -> None:
        """Nothing can be buried for now."""
        self._apply(buries=False)

    def _apply(self, *, buries: bool = True) -> None:
        op = self.queue.pop(0)
        state = self.log.apply(op, self.stamp_us, buries=buries)
        waits = [it for it in op.charges if not buries and it.cause == log_pb2.RETRY_CAUSE_REJECT]
        if waits:
            self.queue.append(Op(op.partition, charges=waits))
        self.stamp_us = max(self.stamp_us, self.log.stamp_us)
        self._learn(op.partition)
        self.settled[op.partition] |= self.durable[op.partition]
        tell(self.flow(op.partition), state)

    def _learn(self, number: int) -> None:
        """What the log has settled is settled for ever."""
        self.durable[number] = self.log.settled(number)

    @precondition(lambda self: self.queue)
    @step(applied=st.booleans())
    def outcome_unknown(self, applied: bool) -> None:
        """An operation whose fate had to be read from the rows: charged once, if it was."""
        op = self.queue.pop(0)
        if applied:
            self.log.apply(op, self.stamp_us)
            self._learn(op.partition)
            self.settled[op.partition] |= self.durable[op.partition]
        else:
            self.queue.insert(0, op)
        charged = {
            charge.offset for each in self.queue if each.partition == op.partition for charge in each.charges
        }
        self.log.reload(self.flow(op.partition), charged)

    @precondition(lambda self: self.queue)
    @step()
    def charge_refused(self) -> None:
        """The log has no room for more rows: a failure becomes a release."""
        for op in self.queue:
            for charge in op.charges:
                row = self._row((op.partition, charge.offset))
                if row is None:
                    op.charges.remove(charge)
                    self.flow(op.partition).uncharge(charge.offset)
                    return

    @step(number=st.integers(0, PARTITIONS - 1), ahead=st.integers(1, 8), happens=RARELY)
    def trim(self, number: int, ahead: int, happens: bool) -> None:
        """Retention: whole batches go; a leased record of one is a ghost that holds its lane."""
        if not happens:
            return
        start = self.log.trim(number, self.log.floor(number) + ahead)
        flow = self.flow(number)
        flow.raise_floor(start)
        self.log.raise_floor(number, start)
        self._learn(number)
        self.settled[number] |= self.durable[number]
        for place, holder in list(self.hand.items()):
            if place[0] == number and place[1] < start:
                del self.hand[place]
                if self.ordering == Ordering.KEY:
                    self.ghosts[place] = holder

    @step(number=st.integers(0, PARTITIONS - 1), back=st.integers(0, 6), happens=RARELY)
    def seek(self, number: int, back: int, happens: bool) -> None:
        """What was proposed before is fenced off; of keys in work the lanes stay taken."""
        if not happens:
            return
        floor = max(self.log.floor(number) - back, self.log.start(number))
        self.queue = [op for op in self.queue if op.partition != number]
        self.log.seek(number, floor)
        self.flow(number).seek(floor)
        self.settled[number] = set(range(floor))
        self.durable[number] = set(range(floor))
        for place, holder in list(self.hand.items()):
            if place[0] == number:
                self._end(place)
                if self.ordering == Ordering.KEY:
                    self.ghosts[place] = holder
        self.extended = {place: until for place, until in self.extended.items() if place[0] != number}
        for place in [place for place in self.ghosts if place[0] == number and not self._key(place)]:
            self._end_ghost(place)

    @step(milliseconds=st.sampled_from([1, 30, 200, 5_000]))
    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds / 1_000
        self.stamp_us += milliseconds * 1_000

    @step(holding=st.booleans(), happens=RARELY)
    def new_leader(self, holding: bool, happens: bool) -> None:
        """Everything but the rows is gone; members come back, some with what they still work on."""
        if not happens:
            return
        self.queue.clear()
        worked_on = {name: self._of(holder) for name, holder in self.members.items()}
        self.hand.clear()
        self.ghosts.clear()
        self.extended.clear()
        self.lent.clear()
        for number in range(PARTITIONS):
            self._learn(number)
            self.settled[number] = set(self.durable[number])
        owners = {number: holder.id for number, holder in self.group.owners.items()}
        self.members = {
            name: Holder(name, holder.credits, holder.concurrency) for name, holder in self.members.items()
        }
        self._lead()
        for number, name in owners.items():
            if name in self.members:
                self.group.owners[number] = self.members[name]
        if not holding:
            return
        for name, places in worked_on.items():
            for number, flow in self.group.flows.items():
                if self.ordering == Ordering.PARTITION and owners.get(number) != name:
                    continue
                ranges = [(offset, offset + 1) for other, offset in places if other == number]
                with self.log.store.read() as reader:
                    kept = take_up(reader, flow, self.members[name], ranges, self.cache, self.stamp_us)
                for first, end in kept:
                    for offset in range(first, end):
                        assert (number, offset) in places
                        assert offset not in self.settled[number]
                        self.hand[number, offset] = self.members[name]

    @precondition(lambda self: self.members)
    @step(data=st.data(), keeps=st.booleans(), happens=RARELY)
    def come_back(self, data: st.DataObject, keeps: bool, happens: bool) -> None:
        """A member's stream broke; it is back on another, and says what it still works on."""
        if not happens:
            return
        name = data.draw(st.sampled_from(sorted(self.members)))
        before = self.members[name]
        after = Holder(name, before.credits, before.concurrency)
        self.members[name] = after
        before.gone = True
        for number, owner in list(self.group.owners.items()):
            if owner is before:
                self.group.owners[number] = after
        self.lent = {
            to: (after if holder is before else holder, places) for to, (holder, places) in self.lent.items()
        }
        held = set(self._of(before)) if keeps else set()
        for number, flow in self.group.flows.items():
            ranges = [(place[1], place[1] + 1) for place in sorted(held) if place[0] == number]
            with self.log.store.read() as reader:
                kept = take_up(reader, flow, after, ranges, self.cache, self.stamp_us, before)
            assert kept == ranges
            assert flow.drop_member(before) == []
        for place in self._of(before):
            if place in held:
                self.hand[place] = after
            else:
                self._end(place)
        for place in [place for place, who in self.ghosts.items() if who is before]:
            self._end_ghost(place)

    # -- what always holds --------------------------------------------------

    @always
    def every_offset_is_in_one_place(self) -> None:
        self._tend()
        for number, flow in self.group.flows.items():
            assert flow.window.floor <= flow.cursor <= flow.seen
            above = {o for o in self.settled[number] if o >= flow.window.floor}
            assert above == {
                o for o in range(flow.window.floor, len(self.log.records[number]) + 5) if o in flow.window
            }
            leased = {offset for it in flow.leases for offset in range(it.first, it.end)}
            mine = {place[1] for place in (*self.hand, *self.ghosts) if place[0] == number}
            if self.ordering == Ordering.KEY:
                assert leased == mine
            else:  # of trimmed records the leases go on until they end, and block nothing
                assert {offset for offset in leased if offset >= flow.window.floor} == mine
            for offset in range(flow.window.floor, flow.cursor):
                if offset not in flow.window:
                    assert self._places(flow, offset) == 1, (offset, flow)
            if isinstance(flow, KeyFlow):
                self._check_lanes(flow)

    def _places(self, flow: Flow, offset: int) -> int:
        held = flow.leases.at(offset) is not None
        if isinstance(flow, DeepFlow):
            return int(held)
        waits = offset in flow.retrying and not held
        if isinstance(flow, PoolFlow):
            returned = sum(first <= offset < end for first, end in flow.returned)
            return held + waits + returned
        assert isinstance(flow, KeyFlow)
        if held and (flow.key[1], offset) in self.ghosts:
            return 1  # sought away from: it waits behind itself
        queued = sum(offset in queue for queue in flow.lanes.queues.values() if queue)
        keyed = bool(self._key((flow.key[1], offset)))
        if waits:
            assert queued == keyed
            return 1
        return held + queued + (offset in flow.returned)

    def _check_lanes(self, flow: KeyFlow) -> None:
        lanes = [it.lane for it in flow.leases if it.lane]
        assert len(lanes) == len(set(lanes)), "key-overlap"
        assert len(flow.lanes.ready) == len(set(flow.lanes.ready))
        states = [*lanes, *flow.lanes.ready, *flow.lanes.waiting]
        assert sorted(states) == sorted(flow.lanes.queues), (
            "a lane that is not free is held, ready or waiting"
        )
        for lane, queue in flow.lanes.queues.items():
            assert list(queue or ()) == sorted(set(queue or ()))
            if lane in flow.lanes.waiting:
                assert queue
                assert queue[0] == flow.lanes.waiting[lane]

    @always
    def records_in_flight_are_counted(self) -> None:
        for holder in (*self.members.values(), *self.lent):
            held = [it for flow in self.group.flows.values() for it in flow.leases if it.holder is holder]
            assert holder.in_flight == sum(it.end - it.first for it in held)

    @always
    def what_waits_is_as_the_log_has_it(self) -> None:
        """Attempts never fall, due times are the log's: the mirror is the rows, but for what is proposed."""
        proposed = {(op.partition, charge.offset) for op in self.queue for charge in op.charges}
        for number, flow in self.group.flows.items():
            rows = self.log.retries(number)
            for offset in flow.retrying:
                row, mine = rows.get(offset), flow.retrying.get(offset)
                assert mine is not None
                assert mine.charged == ((number, offset) in proposed)
                if row is not None:
                    assert (mine.attempts, mine.state, mine.due_us) == (row.attempts, row.state, row.due_us)
                else:
                    assert mine.charged
            assert {o for o in rows if o not in flow.window} <= set(flow.retrying)

    def teardown(self) -> None:
        """Handed-lost, retry-forgotten: whatever happened, everything is settled in the end, or parked."""
        if self.broken:
            return
        self.queue_out()
        for to in list(self.lent):
            holder, _ = self.lent.pop(to)
            for flow in self.group.flows.values():
                flow.take_back(to, None)
            for place in self._of(to):
                self._end(place)
        for holder in list(self.members.values()):
            holder.gone = True
            for flow in self.group.flows.values():
                flow.drop_member(holder)
        self.hand.clear()
        self.ghosts.clear()
        self.members = {"last": Holder("last", 10_000)}
        self._share_out()
        last = self.members["last"]
        for _ in range(120):
            self._tend()
            self.queue_out()
            self.stamp_us += 50_000
            self.now += 0.05
            for it in self._deliver(last):
                outcome = it.flow.settle(last, 0, [(it.offset, it.offset + 1)])
                assert outcome.settled == [(it.offset, it.offset + 1)]
                self._end(it.place)
                self._settled(it.flow.key[1], outcome.settled)
                self.queue.append(Op(it.flow.key[1], outcome.settled))
        for number, flow in self.group.flows.items():
            parked = {o for o, row in self.log.retries(number).items() if row.due_us == NEVER_US}
            left = set(range(len(self.log.records[number]))) - self.settled[number]
            if self.ordering == Ordering.PARTITION and parked:
                left = {o for o in left if o < min(parked)}
            elif parked and flow.standing() is None:
                behind = {self._key((number, o)) for o in parked} - {b""}
                if self.ordering == Ordering.KEY:
                    left = {o for o in left if self._key((number, o)) not in behind}
            if flow.standing() is None or not parked:
                assert left <= parked, "handed-lost"

    def queue_out(self) -> None:
        while self.queue:
            self._apply()
            self._tend()


def _by_flow(sent: list[Sent]) -> dict[int, list[Sent]]:
    found: dict[int, list[Sent]] = defaultdict(list)
    for it in sent:
        found[it.flow.key[1]].append(it)
    return found


class ByKey(GroupModel):
    ordering = Ordering.KEY


class ByPartition(GroupModel):
    ordering = Ordering.PARTITION


class InNoOrder(GroupModel):
    ordering = Ordering.NONE


_SETTINGS = settings(max_examples=60, stateful_step_count=50, deadline=None)

TestByKey = ByKey.TestCase
TestByPartition = ByPartition.TestCase
TestInNoOrder = InNoOrder.TestCase
TestByKey.settings = TestByPartition.settings = TestInNoOrder.settings = _SETTINGS
