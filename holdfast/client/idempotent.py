"""Publishing with idempotency keys: a unary call at a time per topic, repeated as it is until it is answered.

The key makes a repeat harmless, whoever sends it: there is no producer id, no
sequence and no epoch, and a program that starts again may repeat what it was at.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.client.connection import GET_TOPIC, PUBLISH, Connection, Tries, settle
from holdfast.client.expiry import Expiry
from holdfast.client.inputs import HeadersInput, to_bytes, to_headers, to_key
from holdfast.client.options import ClientOptions
from holdfast.client.parcels import RECORD_OVERHEAD, AckFuture
from holdfast.client.times import to_us
from holdfast.client.tracing import make_inject
from holdfast.client.types import Ack
from holdfast.errors import (
    ClosedError,
    DeadlineExceededError,
    FailedPreconditionError,
    HoldfastError,
    InternalError,
    InvalidArgumentError,
    OutcomeUnknownError,
    OverloadedError,
    RecordTooLargeError,
    UnknownTopicError,
)
from holdfast.v1 import bus_pb2, records_pb2, topics_pb2

_MAX_KEY_BYTES = 256
#: Brokers take no more of them in one call.
_MAX_RECORDS = 1000
#: What does not fit a message, whatever brokers are set to.
_MAX_RECORD_BYTES = 60 << 20

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Item:
    """A record that was handed in; ``deadline`` in seconds of the loop's clock."""

    record: records_pb2.Record
    idempotency_key: bytes
    future: AckFuture
    size: int
    deadline: float
    timeout: float


@dataclass(eq=False, slots=True)
class _Queue:
    """The records of one topic.

    Attributes:
        under_way: those of the call that is not answered.
        window: seconds for which the topic remembers keys; 0: not looked up.
        sender: runs while there is something to send.
    """

    topic: str
    waiting: deque[_Item] = field(default_factory=deque)
    under_way: list[_Item] = field(default_factory=list)
    window: float = 0.0
    sender: asyncio.Task[None] | None = None


class KeyedProducer:
    """The half of publishing that goes by idempotency keys."""

    def __init__(self, connection: Connection, options: ClientOptions) -> None:
        self._connection = connection
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._inject = make_inject(options.trace_context)
        self._queues: dict[str, _Queue] = {}
        self._expiry = Expiry(self._loop)
        self._buffered = 0
        self._room: deque[asyncio.Future[None]] = deque()
        self._closed = False

    # -- the public calls ----------------------------------------------------------

    def publish(
        self,
        topic: str,
        value: bytes,
        key: bytes | str | None,
        headers: HeadersInput,
        timestamp: Any,
        timeout: float | None,
        idempotency_key: bytes | str,
    ) -> AckFuture:
        """See ``Client.publish``."""
        if self._closed:
            raise ClosedError("the client has been closed")
        token = _checked_key(idempotency_key)
        extra = self._inject()
        pairs = extra if headers is None else to_headers(headers, extra)
        record = records_pb2.Record(
            key=b"" if key is None else to_key(key),
            value=to_bytes(value, "value"),
            timestamp_us=self._connection.effects.wall_us() if timestamp is None else to_us(timestamp),
        )
        for name, text in pairs or ():
            record.headers.add(name=name, value=text)
        size = record.ByteSize() + len(token) + RECORD_OVERHEAD
        if size > _MAX_RECORD_BYTES:
            raise RecordTooLargeError(
                f"a record of {size} bytes; no broker takes more than {_MAX_RECORD_BYTES}",
                metadata={"size": str(size), "limit": str(_MAX_RECORD_BYTES)},
            )
        future: AckFuture = self._loop.create_future()
        if self._buffered + size > self._options.max_buffered_bytes:
            future.set_exception(
                OverloadedError(f"{self._buffered} bytes wait already: await drain() between publishes")
            )
            return future
        wait = self._options.delivery_timeout if timeout is None else timeout
        patience = max(wait, self._options.delivery_timeout)
        item = _Item(record, token, future, size, self._loop.time() + patience, patience)
        self._buffered += size
        self._expiry.watch(future, wait)
        queue = self._queues.setdefault(topic, _Queue(topic))
        queue.waiting.append(item)
        if queue.sender is None:
            # It begins after this turn of the loop: what is handed in together travels together.
            queue.sender = self._loop.create_task(self._send_all(queue))
        return future

    async def flush(self) -> None:
        """Wait until everything handed in is settled."""
        while senders := [queue.sender for queue in self._queues.values() if queue.sender is not None]:
            await asyncio.wait(senders)

    async def drain(self) -> None:
        """See ``Client.drain``.

        Raises:
            OverloadedError: the buffer did not empty in time.
        """
        deadline = self._loop.time() + self._options.delivery_timeout
        while self._buffered > self._options.max_buffered_bytes // 2:
            future = self._loop.create_future()
            self._room.append(future)
            try:
                async with asyncio.timeout_at(deadline):
                    await future
            except TimeoutError:
                raise OverloadedError("no room in the buffer, and brokers acknowledge nothing") from None
            if self._closed:
                raise ClosedError("the client has been closed")

    def forget(self, topic: str) -> None:
        """What was known of a topic holds no longer."""
        queue = self._queues.get(topic)
        if queue is not None:
            queue.window = 0.0

    async def close(self) -> None:
        """Send what waits, then stop."""
        self._closed = True
        await self.flush()

    async def abort(self, error: HoldfastError) -> None:
        """Stop at once."""
        self._closed = True
        senders = [queue.sender for queue in self._queues.values() if queue.sender is not None]
        for sender in senders:
            sender.cancel()
        await settle(senders)
        for queue in self._queues.values():
            self._fail([*queue.under_way, *queue.waiting], error)
            queue.waiting.clear()
        self._expiry.close()

    # -- sending -------------------------------------------------------------------

    async def _send_all(self, queue: _Queue) -> None:
        try:
            while items := self._take(queue):
                await self._send(queue, items)
                queue.under_way = []
        except Exception as failure:
            # Nothing may wait for a sender that has failed through a fault of ours.
            logger.exception("publishing to %s stopped unexpectedly", queue.topic)
            error = InternalError(f"the producer stopped unexpectedly: {failure!r}")
            self._fail([*queue.under_way, *queue.waiting], error)
            queue.waiting.clear()
        queue.sender = None
        if not queue.window:
            # Never found, or forgotten: topics that are not there take no memory.
            self._queues.pop(queue.topic, None)

    def _take(self, queue: _Queue) -> list[_Item]:
        """What leaves next; its deadlines are not over."""
        items = queue.under_way
        waiting, now, size = queue.waiting, self._loop.time(), 0
        while waiting and len(items) < _MAX_RECORDS:
            if items and size + waiting[0].size > self._options.batch_bytes:
                break
            item = waiting.popleft()
            if item.deadline <= now:
                late = f"topic {queue.topic}: not acknowledged within {item.timeout:g} s; nothing was stored"
                self._fail([item], DeadlineExceededError(late))
                continue
            size += item.size
            items.append(item)
        return items

    async def _send(self, queue: _Queue, items: Sequence[_Item]) -> None:
        """Publish these, and settle them."""
        request = bus_pb2.PublishRequest(
            topic=queue.topic,
            records=[item.record for item in items],
            idempotency_keys=[item.idempotency_key for item in items],
        )
        last = max(items, key=lambda item: item.deadline)
        try:
            response = await self._deliver(queue, request, last)
            if len(response.positions) != len(items):
                raise InternalError(f"{len(response.positions)} places for {len(items)} records")
        except InvalidArgumentError as error:
            if len(items) == 1:
                self._fail(items, error)
                return
            # One of them is refused, which one is not said; the others must not suffer.
            middle = len(items) // 2
            await self._send(queue, items[:middle])
            await self._send(queue, items[middle:])
        except HoldfastError as error:
            if isinstance(error, UnknownTopicError | FailedPreconditionError):
                queue.window = 0.0
            self._fail(items, error)
        else:
            for item, place in zip(items, response.positions, strict=True):
                self._settled(item)
                if not item.future.done():
                    item.future.set_result(Ack(queue.topic, place.partition, place.offset, place.duplicate))
            self._make_room()

    async def _deliver(
        self, queue: _Queue, request: bus_pb2.PublishRequest, last: _Item
    ) -> bus_pb2.PublishResponse:
        """Repeat the request until it is answered.

        Raises:
            DeadlineExceededError: not in time; the message says whether anything may be stored.
            OutcomeUnknownError: it may be stored, and a repeat might not be known as one any more.
            HoldfastError: refused.
        """
        window = queue.window or await self._look_up(queue, last.deadline)
        backoff = self._connection.backoff()
        tries = Tries()
        until = last.deadline
        while True:
            began = self._loop.time()
            try:
                return await self._connection.attempt(PUBLISH, request, until - began, tries)
            except HoldfastError as failed:
                error = failed
            if not error.retriable and not isinstance(error, InternalError):
                raise error
            if tries.uncertain:
                # For so long after the first try that may have been stored, a repeat is known as one.
                until = min(until, began + window)
            delay = backoff.delay(error.retry_after_ms)
            if self._loop.time() + delay < until:
                await asyncio.sleep(delay)
            elif until < last.deadline:
                raise OutcomeUnknownError(
                    f"topic {queue.topic}: not acknowledged within the {window:g} s for which it remembers "
                    f"idempotency keys; it may be stored or not: {error.message}"
                )
            else:
                outcome = "it may be stored or not" if tries.uncertain else "nothing was stored"
                raise DeadlineExceededError(
                    f"topic {queue.topic}: not acknowledged within {last.timeout:g} s; {outcome}: "
                    f"{error.message}"
                )

    async def _look_up(self, queue: _Queue, deadline: float) -> float:
        """Seconds for which the topic remembers keys.

        Brokers that do not know keys would pass over them: their topics have no such window.

        Raises:
            FailedPreconditionError: it remembers none.
            HoldfastError: it could not be looked up.
        """
        request = topics_pb2.GetTopicRequest(name=queue.topic)
        found = await self._connection.call(GET_TOPIC, request, max(deadline - self._loop.time(), 0.001))
        if not found.limits.idempotency_ttl_ms:
            raise FailedPreconditionError(
                f"topic {queue.topic!r} takes no idempotency keys; give it a window first: "
                f"update_topic({queue.topic!r}, idempotency_ttl_ms=...)",
                metadata={"field": "idempotency_key", "topic": queue.topic},
            )
        queue.window = found.limits.idempotency_ttl_ms / 1000
        return queue.window

    # -- settling ------------------------------------------------------------------

    def _fail(self, items: Sequence[_Item], error: HoldfastError) -> None:
        for item in items:
            self._settled(item)
            if not item.future.done():
                item.future.set_exception(error)
        self._make_room()

    def _settled(self, item: _Item) -> None:
        self._buffered -= item.size
        item.size = 0

    def _make_room(self) -> None:
        waiting, self._room = self._room, deque()
        for future in waiting:
            if not future.done():
                future.set_result(None)


def _checked_key(key: bytes | str) -> bytes:
    """
    Raises:
        InvalidArgumentError: it is neither text nor bytes, empty, or too long.
    """
    token = to_key(key, "idempotency_key")
    if not 0 < len(token) <= _MAX_KEY_BYTES:
        raise InvalidArgumentError(
            f"an idempotency key has 1 to {_MAX_KEY_BYTES} bytes, not {len(token)}",
            metadata={"field": "idempotency_key"},
        )
    return token
