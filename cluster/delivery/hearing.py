"""What a member says of its records, as a group takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from holdfast.cluster.delivery.leases import Refused
from holdfast.cluster.delivery.pending import Charge, Receipt
from holdfast.cluster.delivery.places import Place, Places
from holdfast.cluster.delivery.runs import Range, ranges_of
from holdfast.cluster.delivery.sessions import Session
from holdfast.cluster.delivery.settling import Settling
from holdfast.cluster.group_definition import DAY_MS, Definition, Ordering, Semantics
from holdfast.cluster.state.results import error_message
from holdfast.errors import (
    FailedPreconditionError,
    FencedError,
    HoldfastError,
    InvalidArgumentError,
    NotDeliveredError,
    TransactionRequiredError,
)
from holdfast.storage.retries import cut
from holdfast.v1 import bus_pb2, log_pb2

#: What the log is told of a nack. A release is charged only when it has been one too many.
_CAUSES: dict[int, log_pb2.RetryCause] = {
    bus_pb2.NACK_KIND_RETRY: log_pb2.RETRY_CAUSE_NACK,
    bus_pb2.NACK_KIND_PARK: log_pb2.RETRY_CAUSE_PARK,
    bus_pb2.NACK_KIND_REJECT: log_pb2.RETRY_CAUSE_REJECT,
    bus_pb2.NACK_KIND_RELEASE: log_pb2.RETRY_CAUSE_NACK,
}
_TOO_OFTEN = "given back too often"

#: Acks, nacks, extensions and runs of offsets in one Settle: each may be refused by itself, and is answered.
MAX_ITEMS = 16_384

#: Offsets they may name together, of which a run counts at most ``_MOST_HELD``: so many a partition has out.
MAX_NAMED = 10_000_000
_MOST_HELD = 200_000
_FEW = MAX_NAMED // _MOST_HELD

#: The longest a lease may be extended by at once.
MAX_EXTENSION_MS = 7 * DAY_MS


@dataclass(slots=True)
class Tally:
    """How many records a member has said something of."""

    acked: int = 0
    released: int = 0


class Hearing(NamedTuple):
    """One Settle being taken.

    Attributes:
        tally: what it came to.
        generation: of the group, for who is told that it is fenced.
        moved: called with each place in which a lease ended.
    """

    session: Session
    places: Places
    definition: Definition
    settling: Settling
    tally: Tally
    generation: int
    now: float
    moved: Callable[[Place], None]

    def take(self, message: bus_pb2.Settle) -> None:
        """Do all of it that may be done; the rest is refused, each by itself.

        Raises:
            InvalidArgumentError: the message is too long, and nothing of it is done; or it is
                malformed, and the parts before are done.
        """
        _check_length(message)
        session, refusals = self.session, list[bus_pb2.Refusal]()

        session.unsettled += 1

        def answer(receipt: Receipt) -> None:
            session.unsettled -= 1
            for key, first, last, error in receipt.lost:
                place = self.places.get(key)
                refusals.append(_refusal(0 if place is None else place.slot, 0, Refused(first, last, error)))
            if message.number or refusals:
                session.tell(settled=bus_pb2.Settled(number=message.number, refusals=refusals))

        receipt = Receipt(answer)
        try:
            for ack in message.acks:
                refusals += self._ack(ack, receipt)
            for nack in message.nacks:
                refusals += self._nack(nack, receipt)
            for extension in message.extensions:
                refusals += self._extend(extension)
        finally:
            receipt.end()

    def _ack(self, ack: bus_pb2.OffsetRuns, receipt: Receipt) -> Iterable[bus_pb2.Refusal]:
        ranges = self.ranges(ack)
        place = self.place(ack.slot)
        if isinstance(place, HoldfastError):
            return _all(ack.slot, ack.lease, ranges, place)
        if self.definition.semantics == Semantics.EXACTLY_ONCE:
            needed = "records of an exactly-once group are settled by a transaction that consumes them"
            return _all(ack.slot, ack.lease, ranges, TransactionRequiredError(needed))
        flow, holder = place.flow, self.session.holder
        if ack.cumulative:
            outcome = flow.settle_below(holder, ack.base)
        else:
            outcome = flow.settle(holder, ack.lease, ranges)
        if outcome.settled:
            self.tally.acked += sum(end - first for first, end in outcome.settled)
            floor = flow.window.floor
            above = [(first, end) for first, end in outcome.settled if end > floor]
            self.settling.settle(flow.key, above, self.now, receipt)
            if floor > flow.durable:
                self.settling.floor(flow.key, floor, self.now)
            self.moved(place)
        return [_refusal(ack.slot, ack.lease, refused) for refused in outcome.refused]

    def _nack(self, nack: bus_pb2.Nack, receipt: Receipt) -> Iterable[bus_pb2.Refusal]:
        here = [(nack.offset, nack.offset + 1)]
        if nack.kind not in _CAUSES:
            raise _invalid("nacks.kind", f"is {nack.kind}, which this broker does not know")
        if nack.offset < 0:
            raise _invalid("nacks.offset", "is negative")
        if nack.HasField("delay_ms") and nack.delay_ms > MAX_EXTENSION_MS:
            raise _invalid("nacks.delay_ms", f"is {nack.delay_ms}; up to {MAX_EXTENSION_MS} is allowed")
        place = self.place(nack.slot)
        if isinstance(place, HoldfastError):
            return _all(nack.slot, nack.lease, here, place)
        if self.definition.semantics == Semantics.AT_MOST_ONCE:
            never = "records of an at-most-once group are settled before they are delivered"
            return _all(nack.slot, nack.lease, here, FailedPreconditionError(never))
        nacked = place.flow.nack(self.session.holder, nack.lease, nack.offset, nack.kind)
        if nacked.refused is not None:
            return [_refusal(nack.slot, nack.lease, nacked.refused)]
        if nacked.charge is not None:
            released = nack.kind == bus_pb2.NACK_KIND_RELEASE
            charge = Charge(
                place.key,
                nack.offset,
                _CAUSES[nack.kind],
                nacked.charge.lane,
                _TOO_OFTEN if released else cut(nack.error),
                nack.delay_ms if nack.HasField("delay_ms") and not released else None,
                receipt,
            )
            self.settling.charge(charge, self.now)
        elif nack.kind == bus_pb2.NACK_KIND_RELEASE:
            self.tally.released += 1
        self.moved(place)
        return []

    def _extend(self, extension: bus_pb2.Extension) -> Iterable[bus_pb2.Refusal]:
        of = extension.of
        ranges = self.ranges(of)
        if extension.by_ms > MAX_EXTENSION_MS:
            raise _invalid("extensions.by_ms", f"is {extension.by_ms}; up to {MAX_EXTENSION_MS} is allowed")
        place = self.place(of.slot)
        if isinstance(place, HoldfastError):
            return _all(of.slot, of.lease, ranges, place)
        until = self.now + extension.by_ms / 1_000
        refused = place.flow.extend(self.session.holder, of.lease, ranges, until)
        return [_refusal(of.slot, of.lease, each) for each in refused]

    def ranges(self, of: bus_pb2.OffsetRuns) -> list[Range]:
        """What the message means; of a cumulative one everything below its base.

        Raises:
            InvalidArgumentError: it is malformed, or cumulative where records have no one order.
        """
        if not of.cumulative:
            return ranges_of(of.base, of.runs)
        if self.definition.ordering != Ordering.PARTITION:
            raise _invalid("acks.cumulative", "needs ordering partition: others are handled in no one order")
        if of.runs or of.base < 0:
            raise _invalid("acks.runs", "are none with a cumulative ack, whose base is not negative")
        return [(0, of.base)] if of.base else []

    def place(self, slot: int) -> Place | HoldfastError:
        """The partition a member means, if it has it."""
        place = self.places.at(slot)
        if place is not None and place.owner in ("", self.session.member):
            return place
        if place is not None or not self.places.was_given(slot):
            return NotDeliveredError(f"no partition was assigned here under slot {slot}")
        return FencedError(
            "the partition has moved to another member; what was not settled is delivered there",
            metadata={"generation": str(self.generation)},
        )


def _check_length(message: bus_pb2.Settle) -> None:
    """What one member says at once must not hold up the others.

    Raises:
        InvalidArgumentError: it says too much.
    """
    named = [*message.acks, *(each.of for each in message.extensions)]
    items = len(named) + len(message.nacks) + sum(len(of.runs) for of in named) // 2
    if items <= _FEW:
        return
    offsets = 0
    if items <= MAX_ITEMS:
        offsets = sum(min(length, _MOST_HELD) for of in named for length in of.runs[1::2])
    if items > MAX_ITEMS or offsets > MAX_NAMED:
        raise _invalid(
            "settle",
            f"has {items} items and runs, which name {offsets} offsets or more: up to {MAX_ITEMS} and "
            f"{MAX_NAMED} are allowed; say it in several messages",
        )


def _all(slot: int, lease: int, ranges: Iterable[Range], error: HoldfastError) -> list[bus_pb2.Refusal]:
    return [_refusal(slot, lease, Refused(first, end - 1, error)) for first, end in ranges]


def _refusal(slot: int, lease: int, refused: Refused) -> bus_pb2.Refusal:
    return bus_pb2.Refusal(
        slot=slot,
        lease=lease,
        first_offset=refused.first,
        last_offset=refused.last,
        error=error_message(refused.error),
    )


def _invalid(field: str, what: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{field} {what}", metadata={"field": field})
