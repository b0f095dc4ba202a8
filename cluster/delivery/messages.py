"""What members are told: messages of protocol 2 from what a group knows."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.cluster.delivery.places import Place
from holdfast.cluster.delivery.runs import Range, runs_of
from holdfast.cluster.delivery.sessions import Session
from holdfast.cluster.group_definition import Definition, Ordering, Semantics, to_message
from holdfast.v1 import bus_pb2

_NOTES = {
    Semantics.AT_LEAST_ONCE: "",
    Semantics.AT_MOST_ONCE: "records are settled before they are delivered: what a consumer loses is lost",
    Semantics.EXACTLY_ONCE: "records are settled by Transact alone",
}


def welcome(session: Session, definition: Definition, kept: Iterable[bus_pb2.Holding]) -> bus_pb2.Welcome:
    """The first answer a member gets."""
    return bus_pb2.Welcome(
        protocol=session.hello.protocol,
        member_id=session.member,
        session=session.id,
        definition=to_message(definition),
        heartbeat_ms=definition.ack_timeout_ms // 3,
        kept=kept,
        note=_NOTES[definition.semantics],
    )


def holding(place: Place, ranges: Iterable[Range]) -> bus_pb2.Holding:
    """Records a member goes on with."""
    base, runs = runs_of(ranges)
    return bus_pb2.Holding(topic=place.flow.topic, partition=place.key[1], base=base, runs=runs)


def assignment(generation: int, definition: Definition, places: Iterable[Place]) -> bus_pb2.Assignment:
    """What a member reads, from now on and no more than that."""
    owned = definition.ordering == Ordering.PARTITION
    told = bus_pb2.Assignment(generation=generation)
    for place in places:
        flow = place.flow
        told.partitions.add(
            topic=flow.topic,
            partition=flow.key[1],
            start_offset=flow.window.floor,
            slot=place.slot,
            fence=flow.fence if owned else 0,
        )
    return told
