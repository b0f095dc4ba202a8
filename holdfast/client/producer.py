"""Drives the batcher: one publish stream to the leader, repeated elsewhere when it fails."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

from holdfast.client.backoff import Backoff
from holdfast.client.batcher import Batcher
from holdfast.client.connection import GET_TOPIC, Connection, Endpoint, settle
from holdfast.client.expiry import Expiry
from holdfast.client.failures import from_rpc
from holdfast.client.inputs import HeadersInput, to_bytes, to_headers, to_key
from holdfast.client.options import ClientOptions
from holdfast.client.parcels import RECORD_OVERHEAD, AckFuture, Delivery, TopicQueue
from holdfast.client.times import to_us
from holdfast.client.tracing import make_inject
from holdfast.client.types import PublishSummary
from holdfast.errors import (
    ClosedError,
    DeadlineExceededError,
    HoldfastError,
    InternalError,
    InvalidArgumentError,
    NoLeaderError,
    OverloadedError,
    UnavailableError,
)
from holdfast.v1 import bus_pb2, topics_pb2

#: How often deadlines are looked at while something waits.
_TICK_SECONDS = 0.1
#: Without an answer for this long, somebody else may have been elected.
_SILENCE_SECONDS = 0.4
#: Longer than any broker takes to answer, well or not: something is stuck.
_STUCK_SECONDS = 15.0
#: After a refusal, how long the answers to the other requests under way are waited for.
_DRAIN_SECONDS = 0.25
#: publish_many hands over this much at a time, so that others get their turn.
_CHUNK_BYTES = 4 << 20
logger = logging.getLogger(__name__)

_STREAM_ERRORS = (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError)

_Stream = grpc.aio.StreamStreamCall[bytes, bus_pb2.PublishStreamResponse]


class Producer:
    """The publishing half of a client."""

    def __init__(self, connection: Connection, options: ClientOptions) -> None:
        self._connection = connection
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._new_future = self._loop.create_future
        self._wall_us = connection.effects.wall_us
        self._inject = make_inject(options.trace_context)
        self._linger = options.linger_ms / 1000
        self._timeout = options.delivery_timeout
        self._batcher = Batcher(
            producer_id=connection.effects.producer_id(),
            batch_bytes=options.batch_bytes,
            max_in_flight=options.max_in_flight,
            max_buffered_bytes=options.max_buffered_bytes,
            compression=options.codec,
            now=self._loop.time,
            on_work=self._on_work,
            on_full=self._hurry,
            on_lost=self._on_lost,
        )
        self._expiry = Expiry(self._loop)
        self._lookups: dict[str, asyncio.Task[None]] = {}
        self._lost: HoldfastError | None = None
        self._room: deque[asyncio.Future[None]] = deque()
        self._sending = False
        self._outbox: deque[bytes] = deque()
        self._outbox_filled = asyncio.Event()
        self._work = asyncio.Event()
        self._last_answer = 0.0
        self._last_error: HoldfastError | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._closed = False
        self._runner: asyncio.Task[None] | None = None

    # -- the public calls ----------------------------------------------------------

    def publish(
        self,
        topic: str,
        value: bytes,
        key: bytes | str | None = None,
        headers: HeadersInput = None,
        timestamp: Any = None,
        timeout: float | None = None,
    ) -> AckFuture:
        """See ``Client.publish``."""
        future: AckFuture = self._new_future()
        try:
            self._add(topic, value, key, headers, timestamp, timeout, future)
        except OverloadedError as error:
            future.set_exception(error)
            return future
        if timeout is not None and timeout < self._timeout:
            self._expiry.watch(future, timeout)
        return future

    def send(
        self,
        topic: str,
        value: bytes,
        key: bytes | str | None = None,
        headers: HeadersInput = None,
        timestamp: Any = None,
    ) -> None:
        """See ``Client.send``."""
        self._add(topic, value, key, headers, timestamp, None, None)

    def _add(
        self,
        topic: str,
        value: bytes,
        key: bytes | str | None,
        headers: HeadersInput,
        timestamp: Any,
        timeout: float | None,
        future: AckFuture | None,
    ) -> None:
        if self._closed:
            raise ClosedError("the client has been closed")
        if type(value) is not bytes:
            value = to_bytes(value, "value")
        if key is None:
            key = b""
        elif type(key) is not bytes:
            key = to_key(key)
        stamp = self._wall_us() if timestamp is None else to_us(timestamp)
        extra = self._inject()
        pairs = extra if headers is None else to_headers(headers, extra)
        wait = self._timeout
        if timeout is not None and timeout > wait:
            wait = timeout
        self._batcher.add(topic, value, key, stamp, pairs, future, wait)

    async def publish_many(
        self,
        topic: str,
        values: Sequence[bytes],
        keys: Sequence[bytes | str | None] | None,
        timestamps: Sequence[Any] | None,
        headers: HeadersInput,
        timeout: float | None,
    ) -> PublishSummary:
        """See ``Client.publish_many``."""
        if self._closed:
            raise ClosedError("the client has been closed")
        values, key_column, stamps = _columns(values, keys, timestamps, self._wall_us)
        if not values:
            return PublishSummary(topic, 0, ())
        extra = self._inject()
        pairs = extra if headers is None else to_headers(headers, extra)
        wait = self._timeout if timeout is None else timeout
        deadline = self._loop.time() + wait
        queue = await self._topic(topic, deadline)
        delivery = Delivery(len(values), self._new_future())
        step = self._step(values, key_column)
        for at in range(0, len(values), step):
            cut = slice(at, at + step)
            part = values[cut]
            size = sum(map(len, part)) + RECORD_OVERHEAD * len(part)
            if self._batcher.buffered + size > self._batcher.max_buffered:
                await self._wait_room(size, deadline)
            if queue is not self._batcher.topics.get(topic):
                queue = await self._topic(topic, deadline)
            self._batcher.add_columns(
                queue,
                part,
                None if key_column is None else key_column[cut],
                stamps[cut],
                pairs,
                wait,
                delivery,
                at,
            )
            if at + step < len(values):
                await asyncio.sleep(0)
        return PublishSummary(topic, len(values), tuple(await delivery.future))

    def _step(self, values: Sequence[bytes], keys: Sequence[bytes] | None) -> int:
        """How many of these records are handed over at a time."""
        room = min(_CHUNK_BYTES, self._batcher.max_buffered)
        if keys is None:
            return self._batcher.whole_batches(values, room)
        count = len(values)
        size = sum(map(len, values)) + RECORD_OVERHEAD * count
        # Even pieces: a small last one would make thin batches, and they may have to wait for others.
        return -(-count // -(-size // room))

    async def flush(self) -> None:
        """See ``Client.flush``."""
        while self._lookups:
            await asyncio.wait(list(self._lookups.values()))
        for topic in list(self._batcher.topics.values()):
            topic.due = True
            self._pump(topic)
        settled = [parcel.watch(self._new_future) for parcel in self._batcher.outstanding()]
        if settled:
            await asyncio.wait(settled)
        if self._lost is not None:
            error, self._lost = self._lost, None
            raise error

    async def drain(self) -> None:
        """See ``Client.drain``."""
        if self._batcher.buffered > self._batcher.max_buffered // 2:
            await self._wait_room(self._batcher.max_buffered // 2, self._loop.time() + self._timeout)

    def forget(self, topic: str) -> None:
        """What was known of a topic holds no longer: it was deleted or made anew."""
        known = self._batcher.topics.get(topic)
        if known is not None and known.partitions and not known.pending and not known.in_flight:
            self._batcher.drop(known)

    async def close(self) -> None:
        """Send what waits, then stop; what cannot be sent fails with its own error or ``ClosedError``."""
        if self._closed:
            return
        self._closed = True
        error: HoldfastError | None = None
        if self._runner is not None:
            try:
                await self.flush()
            except HoldfastError as lost:
                error = lost
        await self.abort(ClosedError("the client has been closed"))
        if error is not None:
            raise error

    async def abort(self, error: HoldfastError) -> None:
        """Stop at once."""
        self._closed = True
        tasks = [*self._lookups.values()]
        if self._runner is not None:
            tasks.append(self._runner)
        for task in tasks:
            task.cancel()
        await settle(tasks)
        self._batcher.fail_all(error)
        self._expiry.close()
        if self._ticker is not None:
            self._ticker.cancel()
        self._make_room()

    # -- when to look at a topic -----------------------------------------------------

    def _on_work(self, topic: TopicQueue) -> None:
        topic.armed = True
        if self._runner is None:
            self._runner = self._loop.create_task(self._run())
            self._runner.add_done_callback(self._stopped)
        if self._ticker is None:
            self._ticker = self._loop.call_later(_TICK_SECONDS, self._tick)
        if not topic.partitions:
            if topic.name not in self._lookups:
                self._lookups[topic.name] = self._loop.create_task(self._look_up(topic))
        elif topic.in_flight == 0:
            self._hurry(topic)
        else:
            self._loop.call_later(self._linger, self._lingered, topic)
        self._work.set()

    def _hurry(self, topic: TopicQueue) -> None:
        if not topic.hurried:
            topic.hurried = True
            self._loop.call_soon(self._hurried, topic)

    def _hurried(self, topic: TopicQueue) -> None:
        topic.hurried = False
        self._pump(topic)

    def _lingered(self, topic: TopicQueue) -> None:
        topic.due = True
        self._pump(topic)

    def _pump(self, topic: TopicQueue) -> None:
        """Send what may leave."""
        batcher = self._batcher
        if self._sending:
            while batcher.ready(topic):
                request = batcher.next_request(topic)
                if request is None:
                    break
                if len(batcher.requests) == 1:
                    self._last_answer = self._loop.time()
                self._outbox.append(batcher.message(request))
            if self._outbox:
                self._outbox_filled.set()
        # Whatever is left is looked at after the next answer.
        topic.armed = bool(topic.pending)

    def _tick(self) -> None:
        now = self._loop.time()
        self._batcher.expire(now, self._last_error.message if self._last_error is not None else "")
        self._batcher.close_older(now - _TICK_SECONDS)
        for topic in list(self._batcher.topics.values()):
            if topic.pending:
                topic.due = True
                self._pump(topic)
        self._make_room()
        self._ticker = None
        if not self._batcher.buffered:
            self._batcher.rest()
        elif not self._closed:
            self._ticker = self._loop.call_later(_TICK_SECONDS, self._tick)

    def _on_lost(self, error: HoldfastError) -> None:
        self._lost = self._lost or error

    # -- topics ------------------------------------------------------------------------

    async def _topic(self, name: str, deadline: float) -> TopicQueue:
        """The topic's queue once its partitions are known."""
        while True:
            topic = self._batcher.topic(name)
            if topic.partitions:
                return topic
            lookup = self._lookups.get(name)
            if lookup is None:
                self._on_work(topic)
                lookup = self._lookups[name]
            left = deadline - self._loop.time()
            if left <= 0:
                raise DeadlineExceededError(f"topic {name} could not be looked up in time")
            await asyncio.wait([lookup], timeout=left)
            if lookup.done() and not lookup.cancelled():
                failure = lookup.exception()
                if failure is not None:
                    raise failure

    async def _look_up(self, topic: TopicQueue) -> None:
        try:
            found = await self._connection.call(
                GET_TOPIC, topics_pb2.GetTopicRequest(name=topic.name), self._timeout
            )
        except HoldfastError as error:
            self._batcher.forget(topic, error)
            self._make_room()
            raise
        else:
            self._batcher.route(topic, found.partitions, found.limits.max_record_bytes)
        finally:
            lookup = self._lookups.pop(topic.name, None)
            if lookup is not None:
                lookup.add_done_callback(_heard)
        topic.due = True
        self._hurry(topic)

    # -- room ----------------------------------------------------------------------------

    async def _wait_room(self, size: int, deadline: float) -> None:
        batcher = self._batcher
        while batcher.buffered and batcher.buffered + size > batcher.max_buffered:
            future = self._loop.create_future()
            self._room.append(future)
            try:
                async with asyncio.timeout_at(deadline):
                    await future
            except TimeoutError:
                raise self._late("no room in the buffer") from None
            if self._closed:
                raise ClosedError("the client has been closed")

    def _make_room(self) -> None:
        waiting, self._room = self._room, deque()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _late(self, what: str) -> HoldfastError:
        because = f": {self._last_error.message}" if self._last_error is not None else ""
        return OverloadedError(f"{what}, and brokers acknowledge nothing{because}")

    # -- the stream ------------------------------------------------------------------------

    async def _run(self) -> None:
        """Keep a stream to the leader while there is something to send."""
        backoff = self._connection.backoff()
        while True:
            if not self._batcher.buffered:
                self._batcher.rest()
                self._work.clear()
                await self._work.wait()
            try:
                endpoint = await self._connection.leader(self._timeout)
                await self._serve(endpoint, backoff)
            except HoldfastError as error:
                self._last_error = error
                self._batcher.on_break()
                self._make_room()
                if isinstance(error, ClosedError):
                    self._batcher.fail_all(error)
                    return
                await asyncio.sleep(backoff.after(error))

    def _stopped(self, runner: asyncio.Task[None]) -> None:
        """Nothing may wait for a runner that has failed through a fault of ours."""
        if runner.cancelled() or (failure := runner.exception()) is None:
            return
        logger.error("the producer stopped unexpectedly", exc_info=failure)
        self._closed = True
        self._batcher.fail_all(InternalError(f"the producer stopped unexpectedly: {failure!r}"))
        self._make_room()

    async def _serve(self, endpoint: Endpoint, backoff: Backoff) -> None:
        """Publish over one stream until it fails.

        Raises:
            HoldfastError: why it failed.
        """
        term = self._connection.term
        call = endpoint.publish_stream()
        self._outbox.clear()
        self._sending = True
        tasks = [
            self._loop.create_task(self._write(call)),
            self._loop.create_task(self._read(call, backoff)),
            self._loop.create_task(self._watch(term)),
        ]
        try:
            for topic in list(self._batcher.topics.values()):
                self._pump(topic)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self._sending = False
            for task in [task for task in tasks if task in done]:
                if task.cancelled():
                    raise UnavailableError(f"stream to {endpoint.address} was cancelled")
                task.result()
        except _STREAM_ERRORS as failure:
            raise await _stream_error(call, failure, endpoint) from failure
        finally:
            self._sending = False
            for task in tasks:
                task.cancel()
            await settle(tasks)
            call.cancel()

    async def _write(self, call: _Stream) -> None:
        outbox = self._outbox
        while True:
            while outbox:
                await call.write(outbox.popleft())
            self._outbox_filled.clear()
            await self._outbox_filled.wait()

    async def _read(self, call: _Stream, backoff: Backoff) -> None:
        batcher = self._batcher
        while True:
            response = await call.read()
            if not isinstance(response, bus_pb2.PublishStreamResponse):
                raise UnavailableError("the broker ended the stream")
            self._last_answer = self._loop.time()
            touched: dict[TopicQueue, None] = {}
            for result in response.results:
                request = batcher.on_result(result)
                if request.error is None:
                    touched[request.topic] = None
            if self._room and touched:
                self._make_room()
            if batcher.refused:
                await self._refused(call)
            backoff.reset()
            for topic in touched:
                if topic.pending:
                    self._pump(topic)

    async def _refused(self, call: _Stream) -> None:
        """A request was refused: hear the verdicts on the others under way, then start over.

        Raises:
            HoldfastError: the first refusal.
        """
        batcher = self._batcher
        error = batcher.refused[0].error or UnavailableError("refused")
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while batcher.requests:
                    response = await call.read()
                    if not isinstance(response, bus_pb2.PublishStreamResponse):
                        break
                    for result in response.results:
                        batcher.on_result(result)
        except TimeoutError:
            pass  # what has no verdict by now is uncertain, and repeated as such
        except _STREAM_ERRORS:
            pass  # the stream is given up anyway
        raise error

    async def _watch(self, term: int) -> None:
        """End a stream to a leader that has been replaced without our connection noticing."""
        while True:
            await asyncio.sleep(_SILENCE_SECONDS / 2)
            if not self._batcher.requests:
                continue
            silence = self._loop.time() - self._last_answer
            if silence > _SILENCE_SECONDS and await self._connection.newer_leader(term):
                raise NoLeaderError("the leader has been replaced")
            if silence > _STUCK_SECONDS:
                raise UnavailableError(f"no answer for {silence:.0f} s")


def _heard(future: asyncio.Future[Any]) -> None:
    """A failure that reaches the caller by another way is not one that nobody heard of."""
    if not future.cancelled():
        future.exception()


async def _stream_error(call: _Stream, failure: BaseException, endpoint: Endpoint) -> HoldfastError:
    """Why a stream ended; writing to a dead one does not tell, its status does."""
    if isinstance(failure, grpc.aio.AioRpcError):
        return from_rpc(failure, endpoint.address)
    if call.done():
        try:
            code, details = await call.code(), await call.details()
        except asyncio.CancelledError:
            return UnavailableError(f"stream to {endpoint.address} was cancelled")
        return UnavailableError(f"broker {endpoint.address} ended the stream: {code.name} {details or ''}")
    return UnavailableError(f"stream to {endpoint.address} failed: {failure}")


def _columns(
    values: Sequence[bytes],
    keys: Sequence[bytes | str | None] | None,
    timestamps: Sequence[Any] | None,
    wall_us: Callable[[], int],
) -> tuple[Sequence[bytes], list[bytes] | None, Sequence[int]]:
    if isinstance(values, bytes | str | Mapping):
        raise InvalidArgumentError("values must be a sequence of bytes", metadata={"field": "values"})
    if not isinstance(values, list | tuple):
        values = list(values)
    if set(map(type, values)) - {bytes}:
        values = [to_bytes(value, "value") for value in values]
    count = len(values)
    column: list[bytes] | None = None
    if keys is not None:
        if len(keys) != count:
            raise InvalidArgumentError(f"{len(keys)} keys for {count} values", metadata={"field": "keys"})
        column = [key if type(key) is bytes else b"" if key is None else to_key(key) for key in keys]
    if timestamps is None:
        return values, column, [wall_us()] * count
    if len(timestamps) != count:
        raise InvalidArgumentError(
            f"{len(timestamps)} timestamps for {count} values", metadata={"field": "timestamps"}
        )
    return values, column, [to_us(timestamp) for timestamp in timestamps]
