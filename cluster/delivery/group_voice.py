"""What a group tells its members, and which of them."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.cluster.delivery import messages
from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.effects import PauseChanged
from holdfast.cluster.delivery.events import DeliveryPaused, DeliveryResumed
from holdfast.cluster.delivery.group_log import GroupLog
from holdfast.cluster.delivery.places import Place
from holdfast.cluster.delivery.sessions import Session
from holdfast.cluster.group_definition import Ordering
from holdfast.v1 import bus_pb2


class GroupVoice(GroupLog):
    """See the module; ``live_group.py`` has the whole in words."""

    def next_message(self, session: Session) -> bus_pb2.SubscribeResponse | None:
        """What a member is to be told next; deliveries come behind all of it."""
        told = session.take()
        if told is not None:
            return told
        if session.assignment_due and session.welcomed:
            return self._assignment(session)
        if session.committed:
            committed, session.committed = session.committed, {}
            message = bus_pb2.Committed()
            for key, floor in committed.items():
                place = self.places.get(key)
                if place is not None:
                    message.offsets.add(topic=place.flow.topic, partition=key[1], offset=floor)
            return bus_pb2.SubscribeResponse(committed=message)
        return None

    def _assignment(self, session: Session) -> bus_pb2.SubscribeResponse:
        session.assignment_due = False
        told = messages.assignment(self.generation, self.definition, self._places_of(session))
        return bus_pb2.SubscribeResponse(assignment=told)

    def _tell_moves(self, asked: list[PartitionKey], kept: list[PartitionKey]) -> None:
        slots: dict[Session, list[int]] = {}
        for key in asked:
            place = self.places.by_key[key]
            for session in self._sessions_of(place):
                slots.setdefault(session, []).append(place.slot)
        within_ms = round(self.shape.within * 1_000)
        for session, each in slots.items():
            if session.assignment_due:
                # It has to know a partition before it is asked to let it go.
                session.put(self._assignment(session))
            session.tell(revoking=bus_pb2.Revoking(slots=each, within_ms=within_ms))
        for key in kept:
            kept_place = self.places.get(key)
            if kept_place is not None:
                for session in self._sessions_of(kept_place):
                    session.assignment_due = True
                    session.notify()

    def _tell_room(self, key: PartitionKey, offset: int | None) -> None:
        place = self.places.get(key)
        if place is None:
            return
        told = bus_pb2.Paused(topic=place.flow.topic, partition=key[1], paused=offset is not None)
        if offset is not None:
            told.reason, told.offset = bus_pb2.PAUSE_REASON_STORAGE, offset
        for session in self._sessions_of(place):
            session.tell(paused=told)

    def _tell_committed(self, place: Place) -> None:
        for session in self._sessions_of(place):
            session.committed[place.key] = place.flow.durable
            session.notify()

    def _tell_pause(self, place: Place, effect: PauseChanged) -> None:
        flow, pause = place.flow, effect.pause
        told = bus_pb2.Paused(topic=flow.topic, partition=flow.key[1], paused=pause is not None)
        if pause is None:
            self._around.tell(DeliveryResumed(self.name, flow.topic, flow.key[1]))
        else:
            told.reason = int(pause.reason)  # type: ignore[assignment]
            told.offset = pause.offset
            floor, cursor = flow.window.floor, flow.cursor
            self._around.tell(DeliveryPaused(self.name, flow.topic, flow.key[1], floor, cursor))
        for session in self._sessions_of(place):
            session.tell(paused=told)

    # -- who has what -------------------------------------------------------

    def _places_of(self, session: Session) -> Iterable[Place]:
        if self.definition.ordering != Ordering.PARTITION:
            return self.places
        return [place for place in self.places if place.owner == session.member]

    def _sessions_of(self, place: Place) -> Iterable[Session]:
        if self.definition.ordering != Ordering.PARTITION:
            return [session for session in self.members.sessions.values() if session.welcomed]
        owner = self.members.sessions.get(place.owner)
        return [] if owner is None else [owner]

    def _wake(self, place: Place | None = None) -> None:
        sessions = self.members.sessions.values() if place is None else self._sessions_of(place)
        for session in sessions:
            if session.willing and session.holder.credits > 0:
                session.notify()
