"""Many records at a time to and from JetStream, over the public calls of nats-py."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

#: Messages between two acknowledgements of a fast batch: the most the server agrees to.
_FLOW = 500
#: Acknowledgements that may be outstanding: 10,000 messages, about as far ahead as other clients here may be.
#: The protocol's description advises three at most; it was slower in each of five pairs (100 B: 10 to 24 %).
_OUTSTANDING = 20
#: Unacknowledged messages where each is acknowledged: what ``publish_async`` has as its default; and those
#: handed to the connection before the event loop gets a turn.
_WINDOW = 4_000
_BURST = 500
#: Operations of a fast batch.
_START, _APPEND, _COMMIT = 0, 1, 2
_PATIENCE_SECONDS = 60

#: The status of a request to a consumer that has no leader yet.
NO_RESPONDERS = "503"
#: Messages a pull request asks for, and the requests kept outstanding.
_BATCH = 5_000
_REQUESTS = 2
_REQUEST = json.dumps({"batch": _BATCH}).encode()


class FastIngest:
    """Fast batches over one connection: the server acknowledges some hundred messages at a time.

    The answers to all batches come to one inbox. What each message's reply subject says: the batch, how many
    messages apart acknowledgements may be, that a gap ends the batch, the message's place, the operation.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = connection.new_inbox()
        self._batches: dict[str, _Batch] = {}
        self._listening: asyncio.Future[Subscription] | None = None

    async def publish(self, subject: str, payloads: Sequence[bytes], times: int) -> None:
        """One batch; its last message commits it. Raises RuntimeError when the server reports an error."""
        if self._listening is None:
            inbox = f"{self._inbox}.>"
            self._listening = asyncio.ensure_future(self._connection.subscribe(inbox, cb=self._answered))
        await self._listening
        name = uuid.uuid4().hex
        batch = self._batches[name] = _Batch()
        try:
            stored = await self._send(batch, f"{self._inbox}.{name}.{_FLOW}.fail.", subject, payloads, times)
        finally:
            del self._batches[name]
        if stored != len(payloads) * times:
            raise RuntimeError(f"NATS stored {stored} of {len(payloads) * times} records")

    async def _send(
        self, batch: _Batch, reply: str, subject: str, payloads: Sequence[bytes], times: int
    ) -> int:
        total = len(payloads) * times
        publish = self._connection.publish
        records = itertools.chain.from_iterable(itertools.repeat(payloads, times))
        look = batch.flow
        for sent, payload in enumerate(records, 1):
            operation = _COMMIT if sent == total else _START if sent == 1 else _APPEND
            await publish(subject, payload, f"{reply}{sent}.{operation}.$FI")
            if sent == look and sent < total:
                await asyncio.sleep(0)
                await batch.room(sent)
                look = sent + batch.flow
        return await asyncio.wait_for(batch.stored, _PATIENCE_SECONDS)

    async def _answered(self, message: Msg) -> None:
        name = message.subject[len(self._inbox) + 1 :].partition(".")[0]
        if batch := self._batches.get(name):
            batch.answered(json.loads(message.data) if message.data else {"error": message.headers})


class _Batch:
    """How far the server is with one batch."""

    def __init__(self) -> None:
        self.stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        #: Messages between two acknowledgements, as the server has it now: less when others publish too.
        self.flow = _FLOW
        self._acknowledged = 0
        self._moved = asyncio.Event()

    async def room(self, sent: int) -> None:
        """Wait until fewer than the window's messages are unacknowledged. Raises what the server reported."""
        while sent - self._acknowledged >= self.flow * _OUTSTANDING and not self.stored.done():
            self._moved.clear()
            await asyncio.wait_for(self._moved.wait(), _PATIENCE_SECONDS)
        if self.stored.done():
            raise RuntimeError(f"NATS ended a batch after {self.stored.result()} records")

    def answered(self, answer: dict[str, Any]) -> None:
        if answer.get("type") == "ack":
            self._acknowledged, self.flow = answer["seq"], max(answer["msgs"], 1)
        elif not self.stored.done():
            if "error" in answer or answer.get("type") == "gap":
                self.stored.set_exception(RuntimeError(f"NATS refused a batch: {answer}"))
            else:
                self.stored.set_result(answer["count"])
        self._moved.set()


async def windowed(connection: Connection, subject: str, payloads: Sequence[bytes], times: int) -> None:
    """Each message acknowledged, to one inbox, a window of them outstanding: for servers without batches.

    A third of the processor time of ``publish_async``, which keeps a future and a name for each message.
    Raises RuntimeError when the server refuses a message.
    """
    total = len(payloads) * times
    acknowledged, refused = 0, b""
    moved = asyncio.Event()

    async def answered(message: Msg) -> None:
        nonlocal acknowledged, refused
        acknowledged += 1
        if not message.data or b'"error"' in message.data:
            refused = message.data or NO_RESPONDERS.encode()
        moved.set()

    async def until_at_least(count: int) -> None:
        while acknowledged < count and not refused:
            moved.clear()
            await asyncio.wait_for(moved.wait(), _PATIENCE_SECONDS)
        if refused:
            raise RuntimeError(f"NATS refused a message: {refused.decode()}")

    inbox = connection.new_inbox()
    subscription = await connection.subscribe(inbox, cb=answered)
    try:
        records = itertools.chain.from_iterable(itertools.repeat(payloads, times))
        for sent, payload in enumerate(records, 1):
            await connection.publish(subject, payload, inbox)
            if sent % _BURST == 0:
                await asyncio.sleep(0)
                await until_at_least(sent - _WINDOW)
        await until_at_least(total)
    finally:
        await subscription.unsubscribe()


class Pull:
    """Reads a pull consumer with requests always outstanding; messages are taken as they have come."""

    def __init__(self, connection: Connection, stream: str, consumer: str) -> None:
        self._connection = connection
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = connection.new_inbox()
        self._arrived: list[Msg] = []
        self._news = asyncio.Event()
        self._refused: dict[str, str] | None = None
        self._asked = 0
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Self:
        self._subscription = await self._connection.subscribe(
            self._inbox, cb=self._came, pending_msgs_limit=0, pending_bytes_limit=0
        )
        await self._ask()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    async def take(self) -> list[Msg]:
        """What has come since the last call; waits for at least one message.

        Raises RuntimeError when the server ends a request with a status.
        """
        while not self._arrived:
            self._news.clear()
            await self._news.wait()
        if self._refused:
            raise RuntimeError(f"NATS ended a pull request: {self._refused}")
        taken, self._arrived = self._arrived, []
        self._asked -= len(taken)
        await self._ask()
        return taken

    async def _came(self, message: Msg) -> None:
        if message.headers and (status := message.headers.get("Status")):
            if status == NO_RESPONDERS:
                await asyncio.sleep(0.01)
                self._asked -= _BATCH
                await self._ask()
                return
            self._refused = message.headers
        self._arrived.append(message)
        self._news.set()

    async def _ask(self) -> None:
        while self._asked <= _BATCH * (_REQUESTS - 1):
            await self._connection.publish(self._next, _REQUEST, self._inbox)
            self._asked += _BATCH
