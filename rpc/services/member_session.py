"""One stream of a member of a defined group, on the leader: what it is sent, and what it says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator

from holdfast.cluster.delivery.events import RecordsDelivered
from holdfast.cluster.delivery.parcels import Parcel
from holdfast.cluster.delivery.sessions import Session
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.cluster.ports import EventSink
from holdfast.errors import HoldfastError, InternalError, UnavailableError
from holdfast.rpc.egress import EgressStream
from holdfast.rpc.services.delivery_wire import heartbeat_response, parcel_response, plain_response
from holdfast.rpc.services.group_host import GroupHost
from holdfast.rpc.services.handlers import parse
from holdfast.rpc.services.subscribe_session import Repaired, check_size
from holdfast.rpc.status import invalid
from holdfast.storage.port import Store
from holdfast.v1 import bus_pb2

logger = logging.getLogger(__name__)

#: How often a member is looked at that is waited for.
_CLOGGED_S = 0.01


class MemberSession:
    """Carries messages between a stream and its group.

    Args:
        session: as the group knows it; ``wake`` is set by its ``notify``.
        records: deliver decoded records instead of batches.
        repaired: reads, and has damaged rows fetched from another node.
        egress: bounds what is on its way to the client.
    """

    def __init__(
        self,
        host: GroupHost,
        session: Session,
        wake: asyncio.Event,
        store: Store,
        settings: DeliverySettings,
        *,
        records: bool,
        repaired: Repaired,
        emit: EventSink | None,
        egress: EgressStream,
    ) -> None:
        self._live = host.live
        self._host = host
        self._session = session
        self._wake = wake
        self._store = store
        self._settings = settings
        self._records = records
        self._repaired = repaired
        self._emit = emit
        self._egress = egress
        self._heartbeat_s = settings.first_heartbeat
        self._loop = asyncio.get_running_loop()
        #: Its end was the client's wish.
        self.orderly = False
        #: Its end was what the client sent.
        self.garbage = False

    # -- from the client ------------------------------------------------------

    async def listen(self, requests: AsyncIterator[bytes]) -> None:
        """Take the client's messages until it has no more to say.

        After a Leave what it settled is still confirmed, and the stream ends.
        """
        session = self._session
        try:
            async for raw in requests:
                check_size(raw, self._settings)
                self._take(parse(bus_pb2.SubscribeRequest, raw))
                while session.clogged and session.ended is None:
                    await asyncio.sleep(_CLOGGED_S)
        except HoldfastError as error:
            self.garbage = True
            session.end(error)
        except Exception:
            logger.exception("a member's stream failed unexpectedly")
            session.end(InternalError("internal error; the broker's log says more"))
        else:
            if not session.leaving:
                # A process that was killed ends its stream like this, too: it may come back.
                session.end(UnavailableError("the stream ended without a Leave"))

    def _take(self, request: bus_pb2.SubscribeRequest) -> None:
        live, session = self._live, self._session
        if session.ended is not None:
            return
        self._host.look()
        kind = request.WhichOneof("kind")
        if kind == "settle":
            live.settle(session, request.settle)
            if request.settle.credits:
                live.credit(session, request.settle.credits)
        elif kind == "credit":
            live.credit(session, request.credit.records)
        elif kind == "heartbeat":
            live.hear(session)
        elif kind == "pause":
            live.pause(session, paused=request.pause.paused)
        elif kind == "leave":
            live.say_goodbye(session)
        elif kind == "start":
            raise invalid("start", "a subscription starts once; open another one")
        elif kind == "ack":
            raise invalid("ack", "a member of protocol 2 settles its records")
        else:
            raise invalid("kind", "the message is empty, or of a kind this broker does not know")

    # -- to the client --------------------------------------------------------

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """Serialised SubscribeResponses, until the stream ends.

        Raises:
            HoldfastError: why it ended, when not by the client.
        """
        session = self._session
        said = self._loop.time()
        while True:
            self._wake.clear()
            if session.ended is not None:
                raise session.ended
            message = self._next_control()
            if message is None and self._asks:
                await self._egress.turn()
                parcel = await self._repaired(self._next_parcel, self._settings.repair_wait)
                if parcel is not None and not parcel.records:
                    await asyncio.sleep(0)  # it looked through much and found nothing: others first
                    continue
                message = None if parcel is None else self._serialise(parcel)
            if message is None and session.leaving and not session.unsettled and session.ended is None:
                message = self._next_control()
                if message is None:
                    self.orderly = True
                    return
            if message is None and self._loop.time() - said >= self._heartbeat_s:
                message = heartbeat_response()
            if message is not None:
                said = self._loop.time()
                with self._egress.sending(len(message)):
                    yield message
            elif session.ended is None:
                await self._wait(said + self._heartbeat_s)

    @property
    def _asks(self) -> bool:
        """There may be records for it: it takes some, or some are settled already and only to be sent."""
        session = self._session
        return (session.willing and session.holder.credits > 0) or self._live.owes(session)

    async def _wait(self, until: float) -> None:
        linger = self._session.holder.linger_until
        # Over, and not asked, it would stay over, and nobody would ever wait.
        if linger is not None and self._asks:
            until = min(until, linger)
        timer = self._loop.call_at(until, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _next_control(self) -> bytes | None:
        told = self._live.next_message(self._session)
        if told is None:
            return None
        if told.WhichOneof("kind") == "welcome":
            self._heartbeat_s = told.welcome.heartbeat_ms / 1000
        return told.SerializeToString()

    def _next_parcel(self) -> Parcel | None:
        session, settings = self._session, self._settings
        if session.ended is not None:
            return None
        wanted = settings.decoded_message_bytes if self._records else settings.default_message_bytes
        with self._store.read() as reader:
            return self._live.next_parcel(reader, session, self._egress.allowance(wanted))

    def _serialise(self, parcel: Parcel) -> bytes:
        if self._emit is not None:
            flow = parcel.whole[0][0] if parcel.whole else parcel.sparse[0].flow
            group = self._session.hello.group
            self._emit(RecordsDelivered(group, flow.topic, parcel.records, parcel.bytes))
        if self._records:
            return plain_response(parcel)
        return parcel_response(parcel, lambda key: self._live.slot_of(self._session, key))
