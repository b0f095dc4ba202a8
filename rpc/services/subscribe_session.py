"""One subscription on the leader: what its client is sent, and what it says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol, TypeVar

from holdfast.cluster.delivery.events import AcksRefused, RecordsDelivered
from holdfast.cluster.delivery.group import Group
from holdfast.cluster.delivery.members import Flow, Member
from holdfast.cluster.delivery.reading import PartitionRef, Slice, Step, read_step
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.cluster.ports import EventSink
from holdfast.errors import HoldfastError, InternalError, UnknownTopicError
from holdfast.rpc.egress import EgressStream
from holdfast.rpc.services.decoding import BatchDecoder, add_records
from holdfast.rpc.services.delivery_wire import Parts, batches_field, delivery_response
from holdfast.rpc.services.handlers import parse
from holdfast.rpc.status import invalid, to_wire
from holdfast.storage import topics
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Reader, Store
from holdfast.v1 import bus_pb2

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

#: Refusals that may wait for a client that sends acks and reads nothing.
_MAX_REFUSALS = 1_000


class Repaired(Protocol):
    """``EngineBridge.read_repaired``."""

    async def __call__(self, read: Callable[[], _T], timeout: float) -> _T: ...


class Session:
    """Reads the client's messages into the group, and the group's into messages.

    Args:
        store: read in short snapshots.
        group, member: as the coordinator knows them.
        records: deliver decoded records instead of stored batches.
        commit: called when acks are waiting to be committed.
        repaired: reads, and has damaged rows fetched from another node.
        egress: bounds what is on its way to the client.
    """

    def __init__(
        self,
        store: Store,
        group: Group,
        member: Member,
        wake: asyncio.Event,
        settings: DeliverySettings,
        *,
        records: bool,
        commit: Callable[[Group], None],
        repaired: Repaired,
        emit: EventSink | None,
        egress: EgressStream,
    ) -> None:
        self._store = store
        self._group = group
        self._member = member
        self._wake = wake
        self._settings = settings
        self._decoder = BatchDecoder() if records else None
        self._commit = commit
        self._repaired = repaired
        self._emit = emit
        self._egress = egress
        self._turn = 0
        self._draining = False
        self._linger_until: float | None = None
        self._refusals_taken = asyncio.Event()

    # -- from the client ------------------------------------------------------

    async def listen(self, requests: AsyncIterator[bytes]) -> None:
        """Take the client's messages until it has no more to say.

        Then what it acked is still committed and confirmed, and the
        subscription ends.
        """
        try:
            async for raw in requests:
                check_size(raw, self._settings)
                await self._take(parse(bus_pb2.SubscribeRequest, raw))
        except HoldfastError as error:
            self._member.end(error)
        except Exception:
            logger.exception("a subscription failed unexpectedly")
            self._member.end(InternalError("internal error; the broker's log says more"))
        else:
            self._draining = True
            self._wake.set()

    async def _take(self, request: bus_pb2.SubscribeRequest) -> None:
        kind = request.WhichOneof("kind")
        if kind == "ack":
            group, member = self._group, self._member
            for item in request.ack.ranges:
                if not group.ack(member, item.topic, item.partition, item.first_offset, item.last_offset):
                    await self._refused()
            if group.commit_due:
                self._commit(group)
        elif kind == "credit":
            self._group.grant(self._member, request.credit.records)
        elif kind == "start":
            raise invalid("start", "a subscription starts once; open another one")
        else:
            raise invalid("kind", "the message is empty")

    async def _refused(self) -> None:
        refusals = self._member.refusals
        if self._emit is not None:
            self._emit(AcksRefused(self._group.name, refusals[-1].error.reason))
        while len(refusals) >= _MAX_REFUSALS:
            self._refusals_taken.clear()
            await self._refusals_taken.wait()

    # -- to the client --------------------------------------------------------

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """Serialised SubscribeResponses, until the session ends.

        Raises:
            HoldfastError: why it ended, when not by the client.
        """
        member = self._member
        while True:
            self._wake.clear()
            if member.ended is not None:
                raise member.ended
            message = self._next_control()
            if message is None and not self._draining and self._may_deliver():
                await self._egress.turn()
                message = await self._repaired(self._next_delivery, self._settings.repair_wait)
            if message is not None:
                with self._egress.sending(len(message)):
                    yield message
            elif self._draining and all(not flow.dirty for flow in member.owned.values()):
                return
            elif member.ended is None:
                await self._wait()

    async def _wait(self) -> None:
        """Return when there may be something to send, or to find out."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.idle_check
        if self._linger_until is not None and not self._draining:
            until = min(until, self._linger_until)
        timer = loop.call_at(until, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
        if loop.time() >= until:
            self._check_topics()

    def _check_topics(self) -> None:
        """A topic that is deleted wakes nobody."""
        with self._store.read() as reader:
            for topic_id, name in self._member.topics.items():
                if topics.read(reader, topic_id) is None:
                    self._group.drop_topic(topic_id, _deleted(name))

    def _next_control(self) -> bytes | None:
        member = self._member
        response = bus_pb2.SubscribeResponse()
        if member.assignment_due:
            member.assignment_due = False
            assignment = response.assignment
            assignment.generation = self._group.generation
            for flow in sorted(member.owned.values(), key=lambda flow: flow.key):
                assignment.partitions.add(
                    topic=flow.topic, partition=flow.partition, start_offset=flow.window.base
                )
        elif member.refusals:
            refusal = member.refusals.popleft()
            self._refusals_taken.set()
            refused = response.ack_refused
            refused.range.topic = refusal.topic
            refused.range.partition = refusal.partition
            refused.range.first_offset = refusal.first
            refused.range.last_offset = refusal.last
            refused.error.CopyFrom(to_wire(refusal.error))
        elif member.committed:
            for key, offset in member.committed.items():
                response.committed.offsets.add(topic=member.topics[key[0]], partition=key[1], offset=offset)
            member.committed.clear()
        else:
            return None
        return response.SerializeToString()

    def _may_deliver(self) -> bool:
        if self._member.credits > 0 and self._member.owned:
            return True
        self._linger_until = None
        return False

    def _next_delivery(self) -> bytes | None:
        member = self._member
        if member.ended is not None or not self._may_deliver():
            return None
        flows = list(member.owned.values())
        start = self._turn % len(flows)
        settings = self._settings
        wanted = settings.default_message_bytes if self._decoder is None else settings.decoded_message_bytes
        content = _Content(self._egress.allowance(wanted))
        lingering = False
        with self._store.read() as reader:
            for flow in flows[start:] + flows[:start]:
                if content.room <= 0 or member.credits <= 0:
                    break
                self._turn += 1
                try:
                    if flow.ready and self._deliver(reader, flow, content):
                        lingering = True
                except DamagedRowError:
                    if not content.records:
                        raise
                    # What was read of other partitions goes first; this one is next.
                    self._turn = flows.index(flow)
                    break
                if member.ended is not None:
                    return None
        if not lingering:
            self._linger_until = None
        if not content.records:
            return None
        if self._emit is not None:
            self._emit(RecordsDelivered(self._group.name, content.topic, content.records, content.bytes))
        return content.message()

    def _deliver(self, reader: Reader, flow: Flow, content: _Content) -> bool:
        """Put what the flow has into the message; True when it waits for more credit."""
        group, member = self._group, self._member
        step = self._read(reader, flow, content.room)
        if step is None:
            return False
        slices = step.slices
        if not slices:
            flow.ready = False
            return False
        end = step.next_offset
        content.topic = flow.topic
        if self._decoder is None:
            # Only a lack of credit is worth waiting for: room and gaps do not grow by waiting.
            tail = slices[-1]
            waits = (
                step.records >= member.credits
                and tail.last + 1 < tail.row.next_offset
                and not self._lingered(len(slices) > 1)
            )
            if waits:
                slices.pop()
                if not slices:
                    return True
                end = slices[-1].last + 1
            content.add_batches(flow.topic, slices)
            group.delivered(member, flow, end, sum(item.records for item in slices))
            return waits
        taken, end = content.add_records(flow.topic, slices, self._decoder)
        group.delivered(member, flow, end, taken)
        return False

    def _lingered(self, has_more: bool) -> bool:
        """True when a part of a batch is to be sent now: credits for the rest did not come in time."""
        now = asyncio.get_running_loop().time()
        if self._linger_until is None or has_more:
            self._linger_until = now + self._settings.credit_linger
            return False
        if now < self._linger_until:
            return False
        self._linger_until = None
        return True

    def _read(self, reader: Reader, flow: Flow, room: int) -> Step | None:
        """The next step of a flow; None when it may not be given anything."""
        group, member = self._group, self._member
        ref = PartitionRef(flow.topic, flow.key[0], flow.partition)
        for _ in range(2):  # once more after a trim
            allowed = group.room(flow)
            if allowed <= 0:
                return None
            first, stop = flow.window.span()
            step = read_step(
                reader,
                ref,
                first,
                stop=stop,
                max_bytes=room,
                max_records=min(allowed, member.credits),
                max_rows=self._settings.max_rows_per_read,
            )
            if step is None:
                group.drop_topic(flow.key[0], _deleted(flow.topic))
                return None
            if step.start_offset <= first:
                return step
            group.trimmed(flow, step.start_offset)
            if group.commit_due:
                self._commit(group)
        return None


class _Content:
    """A Delivery being put together."""

    def __init__(self, max_bytes: int) -> None:
        self.room = max_bytes
        self.topic = ""
        self.records = 0
        self.bytes = 0
        self._parts: Parts = []
        self._response = bus_pb2.SubscribeResponse()
        self._decoded = self._response.delivery.records.add

    def add_batches(self, topic: str, slices: list[Slice]) -> None:
        parts, size = batches_field(topic, slices)
        self._parts += parts
        self.bytes += size
        self.room -= size
        self.records += sum(item.records for item in slices)

    def add_records(self, topic: str, slices: list[Slice], decoder: BatchDecoder) -> tuple[int, int]:
        """How many records fitted, and the offset after the last one; at least one fits."""
        before = self.records
        end = slices[0].first
        for item in slices:
            if self.room <= 0:
                break
            added = add_records(self._decoded, topic, item, decoder.decode(item), None, self.room)
            self.records += added.records
            self.bytes += added.bytes
            self.room -= added.bytes
            end = added.next_offset
        return self.records - before, end

    def message(self) -> bytes:
        if self._parts:
            return delivery_response(self._parts, self.bytes)
        return self._response.SerializeToString()


def check_size(raw: bytes, settings: DeliverySettings) -> None:
    """
    Raises:
        InvalidArgumentError: more than any client has to say at once.
    """
    if len(raw) > settings.max_request_bytes:
        raise invalid("request", f"a message of {len(raw)} bytes; {settings.max_request_bytes} are allowed")


def _deleted(topic: str) -> UnknownTopicError:
    return UnknownTopicError(f"topic {topic!r} was deleted", metadata={"topic": topic})
