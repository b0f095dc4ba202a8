"""Records that a transaction under way consumes: out of their member's hands until it is decided."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.hearing import Hearing
from holdfast.cluster.delivery.leases import Holder, Refused
from holdfast.cluster.delivery.places import Place
from holdfast.cluster.delivery.runs import runs_of
from holdfast.cluster.delivery.sessions import Session
from holdfast.errors import HoldfastError, InvalidArgumentError
from holdfast.v1 import bus_pb2, log_pb2

#: Whether a record is settled in the log.
SettledInLog = Callable[[PartitionKey, int], bool]


class Claim:
    """What one transaction consumes of one session.

    Its records are leased to ``holder``, which stands for the transaction: they do not expire, are handed to
    nobody, and cannot be settled otherwise.

    Attributes:
        settle: the records, with the fences of their partitions.
        places: where they are.
    """

    def __init__(self, session: Session, group: str) -> None:
        self.session = session
        self.group = group
        self.holder = Holder(session.id, lender=session.holder)
        self.places: list[Place] = []
        self.settle = log_pb2.SettleOp(group=group)

    def settled(self) -> None:
        """The transaction is committed."""
        for place in self.places:
            place.flow.settle_lent(self.holder)

    def give_back(self) -> None:
        """It will never be: its member has the records again, if it is still there."""
        holder = None if self.session.holder.gone else self.session.holder
        for place in self.places:
            place.flow.take_back(self.holder, holder)

    def decide(self, settled: SettledInLog) -> None:
        """Nobody knows what became of it, but the log shows it: nothing else settles these records."""
        holder = None if self.session.holder.gone else self.session.holder
        for place in self.places:
            held = place.flow.leases.of(self.holder)
            if held and settled(place.key, held[0].first):
                place.flow.settle_lent(self.holder)
            else:
                place.flow.take_back(self.holder, holder)


def take_claim(hearing: Hearing, group: str, consumed: bus_pb2.Consumed) -> Claim:
    """Take records out of a session, all of them or none.

    Raises:
        NotDeliveredError, LeaseExpiredError, FencedError, AlreadySettledError: one of them is not the
            session's, or not any more; ``metadata`` has its place.
        InvalidArgumentError: the message is malformed.
    """
    claim = Claim(hearing.session, group)
    try:
        for item in consumed.offsets:
            _lend(hearing, claim, item)
        _name(claim)
    except HoldfastError:
        claim.give_back()
        raise
    return claim


def _lend(hearing: Hearing, claim: Claim, item: bus_pb2.OffsetRuns) -> None:
    ranges = hearing.ranges(item)
    place = hearing.place(item.slot)
    if isinstance(place, HoldfastError):
        raise place
    flow, lender = place.flow, hearing.session.holder
    if item.cumulative:
        below = item.base
        ranges = [(it.first, min(it.end, below)) for it in flow.leases.of(lender) if it.first < below]
    refused = flow.lend(lender, item.lease, ranges, claim.holder)
    if refused:
        raise _error(claim, place, refused[0])
    if place not in claim.places:
        claim.places.append(place)


def _name(claim: Claim) -> None:
    """Write down what is claimed."""
    for place in claim.places:
        flow = place.flow
        held = flow.leases.of(claim.holder)
        if held:
            base, runs = runs_of((it.first, it.end) for it in held)
            topic_id, partition = place.key
            claim.settle.flows.add(
                topic_id=topic_id, partition=partition, fence=flow.fence, base=base, runs=runs
            )
    if not claim.settle.flows:
        raise InvalidArgumentError(
            "a transaction consumes no record of the session it names", metadata={"field": "consume.offsets"}
        )


def _error(claim: Claim, place: Place, refused: Refused) -> HoldfastError:
    error = refused.error
    error.metadata.update(
        group=claim.group,
        topic=place.flow.topic,
        partition=str(place.key[1]),
        offset=str(refused.first),
    )
    return error
