"""What becomes of the records a stream was handed when it ends, falls silent, or is followed by another.

Charged are the records its handlers may have begun, as many as it has handlers: one of them may be what
it died of. All others go out again as if nothing had been. Of a member that comes back nothing is charged:
one that is not static draws its id anew with every process, so it lives, and so does one that says
what it works on. Only a static member that comes back with empty hands may be a new process, whose
predecessor died.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from holdfast.cluster.delivery import messages
from holdfast.cluster.delivery.dispatch import take_up
from holdfast.cluster.delivery.flow import suspects_of
from holdfast.cluster.delivery.hello import Held
from holdfast.cluster.delivery.leases import Holder
from holdfast.cluster.delivery.outcomes import Charged
from holdfast.cluster.delivery.places import Place, Places
from holdfast.cluster.delivery.sessions import Session
from holdfast.cluster.delivery.surroundings import Surroundings
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Reader
from holdfast.v1 import bus_pb2


def give_up(
    places: Iterable[Place],
    holder: Holder,
    *,
    charge: bool,
    now: float | None = None,
    through: int | None = None,
) -> Iterator[tuple[Place, Charged]]:
    """End what ``holder`` holds; gives what is to be charged, and ends no more than is asked for.

    Args:
        charge: whether anything is: what its handlers may have begun.
        now: what it has extended beyond this time stays; None: nothing does.
        through: only leases up to this one; None: all.
    """
    if not holder.in_flight:
        return
    known = list(places)
    suspects = suspects_of(holder, [place.flow for place in known]) if charge else {}
    for place in known:
        for charged in place.flow.drop_member(holder, suspects.get(place.key, ()), now=now, through=through):
            yield place, charged


def resume(around: Surroundings, places: Places, session: Session) -> list[bus_pb2.Holding]:
    """A member is back: what of the records it works on stays its own."""
    if not session.hello.holding:
        return []
    kept: list[bus_pb2.Holding] = []
    with around.read() as reader:
        for held in session.hello.holding:
            place = places.named(held.topic, held.partition)
            if place is not None and place.owner in ("", session.member):
                kept += _hold(around, reader, place, held, session)
    return kept


def died(session: Session, earlier: Session) -> bool:
    """Whether what ``earlier`` held, and ``session`` does not go on with, may be what it died of."""
    fixed = session.hello.grace_ms is not None
    return fixed and not session.hello.holding and not earlier.blameless


def _hold(
    around: Surroundings, reader: Reader, place: Place, held: Held, session: Session
) -> Iterator[bus_pb2.Holding]:
    before = None if session.earlier is None else session.earlier.holder
    try:
        kept = take_up(
            reader, place.flow, session.holder, held.ranges, around.cache, around.stamp_us(), before
        )
    except DamagedRowError:
        return  # they are handed out again once the batch is repaired
    if kept:
        yield messages.holding(place, kept)
