"""A member of a group, and its handler's runner, in the same process as the broker and without a stream."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast

from holdfast.client.connection import Connection
from holdfast.client.events import Disconnected, SubscriptionEvent
from holdfast.client.handlers.job import Job
from holdfast.client.handlers.runner import Runner
from holdfast.client.membership import Membership
from holdfast.client.types import Record
from holdfast.cluster.delivery.hello import check_start
from holdfast.cluster.delivery.sessions import Session
from holdfast.errors import HoldfastError
from holdfast.rpc.services.delivery_wire import parcel_response
from holdfast.testing.broker import LocalBroker
from holdfast.testing.clock import VirtualClock
from holdfast.v1 import bus_pb2

#: Payload of one delivery, in bytes.
_ROOM = 1 << 20


class LocalMember(Membership):
    """A membership whose messages are handed over by ``turn``, and by nothing else."""

    def __init__(
        self,
        broker: LocalBroker,
        clock: VirtualClock,
        hello: bus_pb2.SubscribeStart,
        *,
        max_in_flight: int,
        on_event: Callable[[SubscriptionEvent], None],
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._stream_here: Session | None = None
        self._assigned = False
        #: The group may have something to say.
        self._notified = False
        self._spoke = 0.0
        super().__init__(
            cast(Connection, None),  # there is none, and nothing here asks for it
            hello,
            max_in_flight=max_in_flight,
            give_up_after=None,
            timeout=math.inf,
            on_event=on_event,
            on_end=lambda membership: None,
        )

    @property
    def waiting(self) -> bool:
        """Records are here that nobody has taken."""
        return bool(self._queue)

    def turn(self) -> bool:
        """Hand over what there is to say, in both directions; False: nothing."""
        if self._closing or self._failure is not None:
            return False
        session = self._stream_here
        try:
            if session is None:
                self._connect()
                return True
            return self._speak(session) | self._listen(session)
        except HoldfastError as error:
            self._broken(error)
            return True

    def due(self) -> float:
        """When it has to say that it lives."""
        if self._stream_here is None or not self._assigned:
            return math.inf
        return self._spoke + self._heartbeat_s

    def beat(self) -> None:
        """Say so if it is time."""
        if self._stream_here is not None and self.due() <= self._clock.time():
            self._spoke = self._clock.time()
            self._broker.live.hear(self._stream_here)

    def cut(self) -> None:
        """The process is gone, without a word."""
        self._closing = True
        session, self._stream_here = self._stream_here, None
        if session is not None:
            self._broker.live.leave(session)
        self._wake()

    async def close(self) -> None:
        """Give back what was not begun, and leave the group."""
        if self._closing:
            return
        self.pause()
        self.release_waiting()
        while self.turn() | self._broker.turn():
            pass
        self._closing = True
        session, self._stream_here = self._stream_here, None
        if session is not None:
            self._broker.live.say_goodbye(session)
            self._broker.live.leave(session, orderly=True)
        self._wake()

    async def abandon(self) -> None:
        self.cut()

    # -- in place of a stream -----------------------------------------------------------

    def _begin(self) -> asyncio.Task[None]:
        return self._loop.create_task(_nothing())

    def _soon(self) -> None:
        """The next turn takes it along."""

    def _notify(self) -> None:
        self._notified = True

    def _connect(self) -> None:
        start = self._greeting().start
        hello = check_start(start, max_credits=self._broker.settings.max_credits)
        self._assigned = False
        self._spoke = self._clock.time()
        self._stream_here = self._broker.live.join(hello, self._notify)

    def _speak(self, session: Session) -> bool:
        if not self._assigned:
            return False  # there are no slots to speak of
        live, some = self._broker.live, False
        for request in self._messages():
            some = True
            kind = request.WhichOneof("kind")
            if kind == "settle":
                live.settle(session, request.settle)
                if request.settle.credits:
                    live.credit(session, request.settle.credits)
            elif kind == "credit":
                live.credit(session, request.credit.records)
            elif kind == "pause":
                live.pause(session, paused=request.pause.paused)
        return some

    def _listen(self, session: Session) -> bool:
        if not self._notified and session.holder.linger_until is None:
            return False
        live, some = self._broker.live, False
        self._notified = False
        while (message := live.next_message(session)) is not None:
            some = True
            if self._hear(message) == "assignment":
                self._assigned = True
        if session.ended is not None:
            raise session.ended
        if (session.willing and session.holder.credits > 0) or live.owes(session):
            with self._broker.store.read() as reader:
                parcel = live.next_parcel(reader, session, _ROOM)
            if parcel is not None:
                some = True
                self._notified = True  # there may be more
                if parcel.records:
                    raw = parcel_response(parcel, lambda key: live.slot_of(session, key))
                    self._hear(bus_pb2.SubscribeResponse.FromString(raw))
        return some

    def _broken(self, error: HoldfastError) -> None:
        session, self._stream_here = self._stream_here, None
        if session is not None:
            self._broker.live.leave(session)
        self._assigned = False
        self._disconnected()
        if error.retriable:
            self._tell(Disconnected(error))
        else:
            self._fail(error)


class LocalRunner(Runner):
    """A runner that keeps account of its calls."""

    def __init__(self, *given: Any, begun: list[Record], **named: Any) -> None:
        super().__init__(*given, **named)
        self._begun_before = begun

    @property
    def has_room(self) -> bool:
        """It takes records."""
        return self._core.room > 0

    def at_work(self, clock: VirtualClock) -> set[Job]:
        """Calls that may end without virtual time."""
        return {job for job in self._core.at_work if not clock.sleeps(self._at.get(job))}

    def _begin(self, job: Job) -> None:
        if not job.skip:
            self._begun_before.append(job.record)
        super()._begin(job)


async def _nothing() -> None:
    pass
