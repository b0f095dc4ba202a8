"""Many records at a time to and from JetStream, over the public calls of nats-py."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

#: Messages between two acknowledgements of a fast batch: the most the server agrees to.
_FLOW = 500
#: Acknowledgements that may be outstanding: the most that the protocol's description advises.
_OUTSTANDING = 3
#: Messages handed to the connection before the event loop gets a turn.
_BURST = 500
#: Operations of a fast batch.
_START, _APPEND, _COMMIT = 0, 1, 2

#: Messages a pull request asks for, and the requests kept outstanding.
_BATCH = 5_000
_REQUESTS = 2


async def fast_ingest(connection: Connection, subject: str, payloads: Sequence[bytes], times: int) -> None:
    """One fast batch: the server acknowledges every some hundred messages, the last one commits.

    Raises RuntimeError when the server reports a gap or an error.
    """
    total = len(payloads) * times
    inbox = connection.new_inbox()
    acknowledged = 0
    window = _FLOW * _OUTSTANDING
    moved = asyncio.Event()
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def answered(message: Msg) -> None:
        nonlocal acknowledged, window
        answer: dict[str, Any] = json.loads(message.data) if message.data else {"error": message.headers}
        if answer.get("type") == "ack":
            acknowledged, window = answer["seq"], max(answer["msgs"], 1) * _OUTSTANDING
            moved.set()
        elif not done.done():
            if "error" in answer or answer.get("type") == "gap":
                done.set_exception(RuntimeError(f"NATS refused a batch: {answer}"))
            else:
                done.set_result(answer["count"])
            moved.set()

    subscription = await connection.subscribe(f"{inbox}.>", cb=answered)
    reply = f"{inbox}.{_FLOW}.fail."
    publish = connection.publish
    try:
        records = itertools.chain.from_iterable(itertools.repeat(payloads, times))
        for sent, payload in enumerate(records, 1):
            operation = _COMMIT if sent == total else _START if sent == 1 else _APPEND
            await publish(subject, payload, f"{reply}{sent}.{operation}.$FI")
            if sent % _BURST == 0:
                await asyncio.sleep(0)
                while sent - acknowledged >= window and sent < total and not done.done():
                    moved.clear()
                    await asyncio.wait_for(moved.wait(), 60)
                if done.done():
                    break
        stored = await asyncio.wait_for(done, 60)
    finally:
        await subscription.unsubscribe()
    if stored != total:
        raise RuntimeError(f"NATS stored {stored} of {total} records")


async def publish_async(connection: Connection, subject: str, payloads: Sequence[bytes], times: int) -> None:
    """``publish_async`` with its default window of 4,000; every acknowledgement is looked at."""
    jetstream = connection.jetstream()
    pending = []
    for payload in itertools.chain.from_iterable(itertools.repeat(payloads, times)):
        pending.append(await jetstream.publish_async(subject, payload))
    await asyncio.wait_for(jetstream.publish_async_completed(), 120)
    for future in pending:
        future.result()


class Pull:
    """Reads a pull consumer with requests always outstanding; messages are taken as they have come."""

    def __init__(self, connection: Connection, stream: str, consumer: str, limit: int | None = None) -> None:
        """``limit``: the most messages that are asked for altogether, for a consumer that outlives this."""
        self._connection = connection
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = connection.new_inbox()
        self._left = limit
        self._arrived: list[Msg] = []
        self._news = asyncio.Event()
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
        taken, self._arrived = self._arrived, []
        for message in taken:
            if message.headers and "Status" in message.headers and not message.reply:
                raise RuntimeError(f"NATS ended a pull request: {message.headers}")
        self._asked -= len(taken)
        await self._ask()
        return taken

    async def _came(self, message: Msg) -> None:
        self._arrived.append(message)
        self._news.set()

    async def _ask(self) -> None:
        while self._asked <= _BATCH * (_REQUESTS - 1) and self._left != 0:
            batch = _BATCH if self._left is None else min(_BATCH, self._left)
            request = json.dumps({"batch": batch}).encode()
            await self._connection.publish(self._next, request, self._inbox)
            self._asked += batch
            if self._left is not None:
                self._left -= batch
