"""Publish and PublishStream.

No interceptors, no per-call objects that are not needed: a publish is parse,
look up, check, propose, await, serialise.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import grpc

from holdfast.cluster.ports import EventSink
from holdfast.cluster.results import Completed
from holdfast.errors import (
    DuplicateKeysError,
    HoldfastError,
    OverloadedError,
    RecordTooLargeError,
    UnavailableError,
)
from holdfast.rpc.admission import Admission
from holdfast.rpc.bridge import EngineBridge, unwrap
from holdfast.rpc.events import PublishHandled
from holdfast.rpc.services.keyed_publish import KeyedPublish
from holdfast.rpc.services.publish_request import (
    Parsed,
    Prepared,
    PublishEncoder,
    add_positions,
    parse_publish,
)
from holdfast.rpc.services.topic_cache import TopicCache
from holdfast.rpc.settings import Limits
from holdfast.rpc.status import abort, invalid, let_go, to_wire
from holdfast.v1 import bus_pb2

Context = grpc.aio.ServicerContext[bytes, bytes]

#: A message of results is sent before it grows past this many of them.
_RESULTS_PER_MESSAGE = 4096
_RETRY_S = 0.005
#: Operations proposed for one publish with idempotency keys, before it is told to try again: each
#: but the last met keys that others had just stored.
_ROUNDS = 4
#: Records with idempotency keys under way on this node, beyond which publishes of them are refused:
#: they cost an entry's apply more than their bytes say.
_MAX_KEYED = 10_000


class PublishService:
    """Publishes through the engine.

    Args:
        bridge: the engine.
        topics: looked up per request.
        encoder: checks and encodes requests.
        admission: bounds what this node has in flight.
        limits: of this broker.
        emit: where events go; None: nowhere, and nothing is measured.
    """

    def __init__(
        self,
        bridge: EngineBridge,
        topics: TopicCache,
        encoder: PublishEncoder,
        admission: Admission,
        limits: Limits,
        emit: EventSink | None = None,
    ) -> None:
        self._bridge = bridge
        self._topics = topics
        self._encoder = encoder
        self._admission = admission
        self._limits = limits
        self._default_timeout = limits.default_deadline_ms / 1000
        self._emit = emit
        self._streams: set[_Stream] = set()
        self._keyed = 0

    @property
    def observed(self) -> bool:
        """Telemetry is on: serve ``publish_observed``."""
        return self._emit is not None

    def close(self) -> None:
        """Read no more from streams; each ends once what it has read is answered."""
        for stream in self._streams:
            stream.close()

    async def publish(self, raw: bytes, context: Context) -> bytes:
        """One serialised PublishRequest to one serialised PublishResponse."""
        try:
            return await self._publish(raw, context, None)
        except Exception as error:  # noqa: BLE001  (reported to the caller as a status)
            del raw  # see abort
            await abort(context, error)

    async def publish_observed(self, raw: bytes, context: Context) -> bytes:
        """``publish`` for when telemetry is on: the same, measured."""
        emit = self._emit
        if emit is None:
            return await self.publish(raw, context)
        started = time.perf_counter()
        seen = _Observed()
        size = len(raw)
        reason = ""
        try:
            return await self._publish(raw, context, seen)
        except Exception as error:  # noqa: BLE001  (reported to the caller as a status)
            reason = error.reason if isinstance(error, HoldfastError) else "INTERNAL"
            del raw  # see abort
            await abort(context, error)
        finally:
            seconds = time.perf_counter() - started
            handled = _handled(seen.topic, size, seconds, reason, seen.done, _traceparent(context))
            if seen.repeats:
                # Its topic exists, whether anything was stored or not.
                handled = replace(handled, topic=seen.topic, repeats=seen.repeats)
            emit(handled)

    async def _publish(self, raw: bytes, context: Context, seen: _Observed | None) -> bytes:
        size = len(raw)
        self._check_size(size)
        self._admission.enter(size)
        try:
            timeout = context.time_remaining()
            if timeout is None:
                timeout = self._default_timeout
            request = parse_publish(raw)
            name = request.message.topic
            if seen is not None:
                seen.topic = name
            topic = self._topics.cached(name) or await self._topics.find(name, timeout)
            prepared = self._encoder.prepare(request, topic)
            if prepared.keyed is not None:
                return await self._bounded_keyed(prepared.keyed, timeout, seen)
            done = await self._bridge.propose(prepared.op, timeout)
            if seen is not None:
                seen.done = done
            return _response(done, prepared.spread).SerializeToString()
        finally:
            self._admission.leave(size)

    async def _bounded_keyed(self, keyed: KeyedPublish, timeout: float, seen: _Observed | None) -> bytes:
        if self._keyed + keyed.records > _MAX_KEYED:
            raise OverloadedError(f"{self._keyed} records with idempotency keys are under way; try again")
        self._keyed += keyed.records
        try:
            return await self._publish_keyed(keyed, timeout, seen)
        finally:
            self._keyed -= keyed.records

    async def _publish_keyed(self, keyed: KeyedPublish, timeout: float, seen: _Observed | None) -> bytes:
        """Store what is new, and answer what is not.

        Raises:
            OverloadedError: others go on storing the same keys; nothing was stored by this call.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + timeout
        for _ in range(_ROUNDS):
            if not keyed.left:
                break
            done = await self._bridge.propose(keyed.op(), max(0.0, deadline - now()))
            if seen is not None:
                seen.done = done
            result = done.result
            if result is not None and result.error.reason == DuplicateKeysError.reason:
                keyed.repeated(result.marked)
            else:
                keyed.stored(unwrap(done)[0].append.acks)
        if keyed.left:
            raise OverloadedError("others publish the same idempotency keys at the same time; try again")
        if seen is not None:
            seen.repeats = keyed.repeats
        return keyed.response().SerializeToString()

    async def publish_stream(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Pipelined publishing: serialised requests in, serialised results out, in order."""
        stream = _Stream(self._limits)
        stream.reader = reader = asyncio.create_task(self._read(requests, stream))
        self._streams.add(stream)
        try:
            while await stream.head_ready():
                response = bus_pb2.PublishStreamResponse()
                for entry in stream.take_ready():
                    self._admission.leave(entry.size)
                    result = response.results.add(request_id=entry.request_id)
                    _fill(result, entry)
                    if self._emit is not None:
                        self._emit(_handled_entry(entry, result.error.reason))
                yield response.SerializeToString()
            if stream.closing:
                raise UnavailableError("the broker is stopping; use another one")
            await reader
        except Exception as error:  # noqa: BLE001  (reported to the caller as a status)
            await abort(context, error)
        finally:
            self._streams.discard(stream)
            reader.cancel()
            for entry in stream.take_all():
                # The operations go on to commit; only their answers are dropped.
                self._admission.leave(entry.size)

    def _check_size(self, size: int) -> None:
        # Beyond this it could never be admitted, and "try again" would be a lie.
        limit = self._limits.max_inflight_bytes
        if size > limit:
            raise RecordTooLargeError(
                f"a request of {size} bytes; at most {self._limits.max_request_bytes} of payload are taken",
                metadata={"field": "request", "limit": str(self._limits.max_request_bytes)},
            )

    async def _read(self, requests: AsyncIterator[bytes], stream: _Stream) -> None:
        try:
            async for raw in requests:
                # One that is too large is not held: only its refusal waits in line.
                size = min(len(raw), self._limits.max_inflight_bytes)
                await stream.room_for(size)
                await self._admission.enter_wait(size)
                entry = _InFlight(size)
                if self._emit is not None:
                    entry.started = time.perf_counter()
                try:
                    self._check_size(len(raw))
                    request = parse_publish(raw)
                    entry.request_id = request.message.request_id
                    entry.topic = request.message.topic
                    await self._start(request, entry)
                except HoldfastError as error:
                    let_go(error)
                    entry.error = error
                except BaseException:
                    self._admission.leave(size)
                    raise
                stream.add(entry)
        finally:
            stream.end()

    async def _start(self, request: Parsed, entry: _InFlight) -> None:
        topic = self._topics.cached(entry.topic) or await self._topics.find(
            entry.topic, self._default_timeout
        )
        prepared: Prepared = self._encoder.prepare(request, topic, streamed=True)
        entry.spread = prepared.spread
        deadline = asyncio.get_running_loop().time() + self._default_timeout
        while True:
            try:
                entry.future = self._bridge.propose(prepared.op, self._default_timeout)
                return
            except OverloadedError:
                # To refuse this one and take the next would tear a gap into the
                # producer's sequence: hold the stream instead.
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                await asyncio.sleep(_RETRY_S)


@dataclass(slots=True)
class _Observed:
    """What telemetry wants to know of a publish."""

    topic: str = ""
    done: Completed | None = None
    repeats: int = 0


@dataclass(eq=False, slots=True)
class _InFlight:
    """A request of a stream: waiting for ``future``, or failed with ``error``."""

    size: int
    request_id: int = 0
    future: asyncio.Future[Completed] | None = None
    spread: list[int] | None = None
    error: HoldfastError | None = None
    topic: str = ""
    started: float = 0.0  # only when measured

    @property
    def ready(self) -> bool:
        return self.future is None or self.future.done()


class _Stream:
    """What one PublishStream has in flight, in order and bounded."""

    def __init__(self, limits: Limits) -> None:
        self._max_requests = limits.stream_inflight_requests
        self._max_bytes = max(limits.stream_inflight_bytes, limits.max_request_bytes)
        self._entries: deque[_InFlight] = deque()
        self._bytes = 0
        self._ended = False
        self._changed: asyncio.Future[None] | None = None  # the writer waits for an entry
        self._room: asyncio.Future[None] | None = None  # the reader waits for room
        self.reader: asyncio.Task[None] | None = None
        self.closing = False

    def close(self) -> None:
        """The broker stops: read no more."""
        self.closing = True
        if self.reader is not None:
            self.reader.cancel()

    async def room_for(self, size: int) -> None:
        while self._entries and (
            len(self._entries) >= self._max_requests or self._bytes + size > self._max_bytes
        ):
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def add(self, entry: _InFlight) -> None:
        self._entries.append(entry)
        self._bytes += entry.size
        _resolve(self._changed)

    def end(self) -> None:
        self._ended = True
        _resolve(self._changed)

    async def head_ready(self) -> bool:
        """Wait until the oldest request is answered; False when there will be none."""
        while not self._entries:
            if self._ended:
                return False
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed
        future = self._entries[0].future
        if future is not None and not future.done():
            await future
        return True

    def take_ready(self) -> list[_InFlight]:
        """The answered requests at the head, in order."""
        entries = self._entries
        taken: list[_InFlight] = []
        while entries and entries[0].ready and len(taken) < _RESULTS_PER_MESSAGE:
            entry = entries.popleft()
            self._bytes -= entry.size
            taken.append(entry)
        _resolve(self._room)
        return taken

    def take_all(self) -> list[_InFlight]:
        taken = list(self._entries)
        self._entries.clear()
        return taken


def _resolve(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def _response(done: Completed, spread: list[int] | None) -> bus_pb2.PublishResponse:
    response = unwrap(done)[0].append
    if spread is not None:
        add_positions(response, spread)
    return response


def _fill(result: bus_pb2.PublishResult, entry: _InFlight) -> None:
    error = entry.error
    if entry.future is not None:
        try:
            result.response.CopyFrom(_response(entry.future.result(), entry.spread))
            return
        except HoldfastError as refused:
            let_go(refused)
            error = refused
    result.error.CopyFrom(to_wire(error or invalid("request", "not answered")))


def _handled_entry(entry: _InFlight, reason: str) -> PublishHandled:
    done = entry.future.result() if entry.future is not None else None
    return _handled(entry.topic, entry.size, time.perf_counter() - entry.started, reason, done, "")


def _handled(
    topic: str, size: int, seconds: float, reason: str, done: Completed | None, trace: str
) -> PublishHandled:
    records = 0
    if done is not None and done.result is not None and not reason:
        records = sum(ack.count for ack in done.result.append.acks)
    # A topic that does not exist must not become a label: callers could make any number of them.
    shown = topic if records else ""
    return PublishHandled(
        shown, records, size, seconds, reason, done.index if done and not reason else 0, trace
    )


def _traceparent(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent":
            return value if isinstance(value, str) else ""
    return ""
