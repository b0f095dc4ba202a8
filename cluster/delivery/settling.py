"""From what members say to entries: one SettleOp of a group in flight, the rest gathers meanwhile.

Knows no lease and reads no row. What is put in here is wanted: settled offsets, floors, charges
(one failure, expiry, loss or park of one record each). ``collect`` takes as much of it as one
operation may hold; what became of the operation is told by exactly one of

* ``settled``: applied. Everything in it is durable.
* ``failed``: nothing of it was done. It is wanted again, after a pause.
* ``reconcile``: rows read since the outcome was decided show what it was. Offsets are
  wanted again, which is harmless. A charge may not be made twice: it is wanted again only when its
  record's row is as it was when the operation was made.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from holdfast.cluster.commands import encode_op
from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.pending import Charge, Portion, Receipt
from holdfast.cluster.state.limits import StateLimits
from holdfast.errors import HoldfastError, UnknownTopicError
from holdfast.storage import bits
from holdfast.storage.damage import DamagedRowError
from holdfast.v1 import log_pb2

#: Waiting for company ends early at this many chunks of settled records, or charges.
ENOUGH_CHUNKS = 1_024
ENOUGH_CHARGES = 256

#: Pauses after a failure, in seconds: the first, and the longest of those that double from it.
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0

#: Kept with a record that could not become a dead letter.
GONE = "the dead-letter topic is gone"


class DeadLetter(NamedTuple):
    """A record on its way to the dead-letter topic: an append of one batch that holds it alone."""

    append: log_pb2.AppendOp
    batch: bytes


#: The dead letter a charge makes of its record; None when the record lives on. Raises
#: UnknownTopicError when it should die and its topic of dead letters is gone, DamagedRowError when it
#: cannot be read now.
Bury = Callable[[Charge], DeadLetter | None]

#: What tells a record's row from an earlier or a later one.
RowOf = Callable[[PartitionKey, int], object]


@dataclass(eq=False, slots=True)
class Settlement:
    """One operation in flight; ``op`` is framed."""

    op: bytes
    portions: dict[PartitionKey, Portion]
    charges: list[Charge]
    began: float  # when the first of it came
    buries: bool  # it holds dead letters

    def concerns(self, key: PartitionKey) -> bool:
        """Something in it is of this partition."""
        return key in self.portions or any(charge.key == key for charge in self.charges)


class Settling:
    """What one group wants settled.

    Args:
        group: its name.
        limits: bounds of one operation.
        delay: how long the first of what waits does so for company, in seconds.
    """

    def __init__(self, group: str, limits: StateLimits, delay: float) -> None:
        self.in_flight: Settlement | None = None
        self._group = group
        self._limits = limits
        self._delay = delay
        self._portions: dict[PartitionKey, Portion] = {}
        self._charges: list[Charge] = []
        self._chunks = 0  # about how many wait
        self._since: float | None = None  # when the first of what waits came
        self._pause = FIRST_PAUSE
        self._not_before = 0.0
        self._no_room_until = 0.0
        self._held = 0  # charges that wait for room, or for their records to be repaired

    # -- what is wanted -----------------------------------------------------

    def settle(
        self, key: PartitionKey, ranges: Iterable[tuple[int, int]], now: float, receipt: Receipt | None = None
    ) -> None:
        """Ranges of offsets, ``(first, end)``, are settled."""
        portion = self._portion(key, now)
        for chunk, value in bits.chunks_of(ranges).items():
            portion.chunks[chunk] = portion.chunks.get(chunk, 0) | value
            self._chunks += 1
        if receipt is not None and receipt not in portion.receipts[-1:]:
            receipt.add()
            portion.receipts.append(receipt)

    def floor(self, key: PartitionKey, floor: int, now: float) -> None:
        """Everything below ``floor`` is settled."""
        self._portion(key, now).merge(Portion(floor))

    def charge(self, charge: Charge, now: float) -> None:
        """Charge a record."""
        if charge.receipt is not None:
            charge.receipt.add()
        self._charges.append(charge)
        self._note(now)

    def forget(self, wanted: Callable[[PartitionKey], bool], error: HoldfastError) -> None:
        """What concerns other partitions than the wanted ones will never be: they are gone, or fenced.

        Of the operation in flight, too: what it does there is nothing to anybody.
        """
        it = self.in_flight
        if it is not None:
            for key in [key for key in it.portions if not wanted(key)]:
                it.portions.pop(key).lose(key, error)
            lost = [charge for charge in it.charges if not wanted(charge.key)]
            it.charges[:] = [charge for charge in it.charges if wanted(charge.key)]
            for charge in lost:
                charge.lose(error)
        for key in [key for key in self._portions if not wanted(key)]:
            self._portions.pop(key).lose(key, error)
        doomed = [charge for charge in self._charges if not wanted(charge.key)]
        self._charges = [charge for charge in self._charges if wanted(charge.key)]
        for charge in doomed:
            charge.lose(error)
        self._restart(self._since)

    def take_charges(self) -> list[Charge]:
        """Take back all charges that wait."""
        taken, self._charges = self._charges, []
        self._restart(self._since)
        return taken

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is in flight."""
        return self.in_flight is None and not self._portions and not self._charges

    @property
    def no_room(self) -> bool:
        """Dead letters wait for room on the brokers' disks."""
        return self._held > 0

    def charged(self) -> dict[PartitionKey, set[int]]:
        """The records for which a charge waits or is in flight."""
        charges = self._charges if self.in_flight is None else [*self._charges, *self.in_flight.charges]
        found: dict[PartitionKey, set[int]] = {}
        for charge in charges:
            found.setdefault(charge.key, set()).add(charge.offset)
        return found

    def concerns(self, key: PartitionKey) -> bool:
        """Something of the partition is in flight: its fence must not change now."""
        return self.in_flight is not None and self.in_flight.concerns(key)

    @property
    def due_at(self) -> float | None:
        """When to collect; None: nothing waits, or an answer is awaited."""
        if self._since is None or self.in_flight is not None:
            return None
        full = self._chunks >= ENOUGH_CHUNKS or len(self._charges) >= ENOUGH_CHARGES
        at = max(self._since if full else self._since + self._delay, self._not_before)
        if not self._portions and len(self._charges) <= self._held:
            at = max(at, self._no_room_until)
        return at

    def _portion(self, key: PartitionKey, now: float) -> Portion:
        self._note(now)
        portion = self._portions.get(key)
        if portion is None:
            portion = self._portions[key] = Portion()
        return portion

    def _note(self, now: float) -> None:
        if self._since is None:
            self._since = now

    def _restart(self, since: float | None) -> None:
        self._since = since if self._portions or self._charges else None
        self._chunks = sum(len(portion.chunks) for portion in self._portions.values())

    # -- one operation ------------------------------------------------------

    def collect(
        self,
        now: float,
        fence: Callable[[PartitionKey], int],
        skip: Container[PartitionKey],
        bury: Bury,
        row: RowOf,
    ) -> Settlement | None:
        """Take what one operation may hold; None when nothing may be sent now.

        Args:
            fence: of a partition's owner; 0: it has none.
            skip: partitions whose owner is about to change.
            bury: makes dead letters.
            row: what tells records' rows apart.
        """
        if self.in_flight is not None:
            return None
        began = now if self._since is None else self._since
        charges = self._take_charges(skip, bury, now)
        portions = self._take_portions(skip, len({charge.key for charge, _ in charges}))
        self._restart(now)
        if not portions and not charges:
            self._not_before = now + FIRST_PAUSE
            return None
        op = log_pb2.SettleOp(group=self._group)
        batches: list[bytes] = []
        by_key: dict[PartitionKey, list[tuple[Charge, DeadLetter | None]]] = {key: [] for key in portions}
        for charge, letter in charges:
            charge.before, charge.dead = row(charge.key, charge.offset), letter is not None
            by_key.setdefault(charge.key, []).append((charge, letter))
        for key, charged in by_key.items():
            flow = op.flows.add(topic_id=key[0], partition=key[1], fence=fence(key))
            if key in portions:
                portions[key].write(flow)
            for charge, letter in charged:
                flow.retries.append(_item(charge, letter))
                if letter is not None:
                    op.dead.append(letter.append)
                    batches.append(letter.batch)
        framed = encode_op(log_pb2.Op(settle=op), batches)
        taken = [charge for charge, _ in charges]
        self.in_flight = Settlement(framed, portions, taken, began, bool(batches))
        return self.in_flight

    def _take_portions(self, skip: Container[PartitionKey], others: int) -> dict[PartitionKey, Portion]:
        left = self._limits.max_settle_runs - others  # a partition counts as one at least
        taken: dict[PartitionKey, Portion] = {}
        for key in [key for key in self._portions if key not in skip]:
            if left <= 0:
                break
            portion = self._portions[key]
            taken[key], runs = portion.take(left)
            left -= max(runs, 1)
            if not portion.chunks:
                del self._portions[key]
        return taken

    def _take_charges(
        self, skip: Container[PartitionKey], bury: Bury, now: float
    ) -> list[tuple[Charge, DeadLetter | None]]:
        room = self._limits.max_dead_bytes
        taken: list[tuple[Charge, DeadLetter | None]] = []
        kept: list[Charge] = []
        places: set[tuple[PartitionKey, int]] = set()
        self._held = 0
        for charge in self._charges:
            place = charge.key, charge.offset
            if charge.key in skip or place in places or len(taken) >= self._limits.max_settle_retries:
                kept.append(charge)
                continue
            try:
                letter = _letter(charge, bury)
            except DamagedRowError:
                self._no_room_until = max(self._no_room_until, now + LONGEST_PAUSE)
                self._held += 1
                kept.append(charge)
                continue
            if letter is not None:
                if now < self._no_room_until:
                    self._held += 1
                    kept.append(charge)
                    continue
                # One that is larger than all an operation should hold goes alone.
                if len(letter.batch) > room and room < self._limits.max_dead_bytes:
                    kept.append(charge)
                    continue
                room -= len(letter.batch)
            places.add(place)
            taken.append((charge, letter))
        self._charges = kept
        return taken

    # -- how it ended -------------------------------------------------------

    def settled(self) -> Settlement:
        """The operation in flight is applied: what it held is durable."""
        it = self._end()
        self._pause = FIRST_PAUSE
        for portion in it.portions.values():
            portion.end()
        for charge in it.charges:
            charge.end()
        return it

    def failed(self, now: float, *, no_room: bool = False) -> None:
        """Nothing of it was done: it is wanted again.

        Args:
            no_room: on the disk, for dead letters. For a while they are left out; all else goes on.
        """
        it = self._end()
        self._want_again(it.portions, it.charges, it.began)
        if no_room and it.buries:
            self._no_room_until = now + self._pause
        else:
            self._not_before = now + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def reconcile(self, row: RowOf) -> None:
        """The outcome was unknown, is decided, and the rows show it."""
        it = self._end()
        again: list[Charge] = []
        for charge in it.charges:
            if row(charge.key, charge.offset) == charge.before:
                again.append(charge)
            else:
                charge.end()
        self._want_again(it.portions, again, it.began)

    def _end(self) -> Settlement:
        it, self.in_flight = self.in_flight, None
        if it is None:
            raise ValueError("no operation is in flight")
        return it

    def _want_again(self, portions: dict[PartitionKey, Portion], charges: list[Charge], since: float) -> None:
        for key, portion in portions.items():
            newer = self._portions.get(key)
            if newer is not None:
                portion.merge(newer)
            self._portions[key] = portion
        self._charges = charges + self._charges
        self._restart(since)


def _letter(charge: Charge, bury: Bury) -> DeadLetter | None:
    try:
        return bury(charge)
    except UnknownTopicError:
        charge.cause, charge.delay_ms, charge.error = log_pb2.RETRY_CAUSE_PARK, None, GONE
        return None


def _item(charge: Charge, letter: DeadLetter | None) -> log_pb2.RetryItem:
    return log_pb2.RetryItem(
        offset=charge.offset,
        cause=charge.cause,
        delay_ms=charge.delay_ms,
        lane=charge.lane,
        error=charge.error,
        dead=letter is not None,
    )
