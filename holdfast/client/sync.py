"""The client for programs without an event loop: the asynchronous one, on a thread of its own."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

from holdfast.client.client import Client, connect
from holdfast.client.consumer import NOTHING, Subscription
from holdfast.client.dead_letter_calls import SyncDeadLetterCalls
from holdfast.client.group_calls import SyncGroupCalls
from holdfast.client.groups import GroupDefinition
from holdfast.client.handlers.host import SIGNALS
from holdfast.client.handlers.subscriber import Handler, Subscribe
from holdfast.client.inputs import HeadersInput
from holdfast.client.loop_thread import LoopThread
from holdfast.client.membership import Membership
from holdfast.client.sync_membership import SyncMembership
from holdfast.client.sync_transaction import SyncTransaction
from holdfast.client.types import Ack, Batch, ClusterInfo, PartitionDigest, PublishSummary, Record, TopicInfo
from holdfast.errors import ClosedError, HoldfastError, OverloadedError

_T = TypeVar("_T")

#: Records fetched from the loop's thread in one go.
_FETCH = 1000


class SyncClient(SyncGroupCalls, SyncDeadLetterCalls):
    """What ``Client`` does, with calls that wait. Made by ``connect_sync``; use it with ``with``.

    May be used by several threads. Arguments and errors are those of the
    methods of ``Client`` of the same names.
    """

    _client: Client

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = LoopThread()
        self._handed: deque[tuple[tuple[Any, ...], dict[str, Any]]] = deque()
        self._handing = False
        self._lock = threading.Lock()
        self._lost: HoldfastError | None = None
        self._closed = False
        try:
            self._loop.run(client.start())
        except BaseException:
            self._loop.stop()
            raise

    def close(self) -> None:
        """See ``Client.close``."""
        if self._closed:
            return
        self._closed = True
        try:
            self._loop.run(self._settle_sent())
            self._loop.run(self._client.close())
            self._raise_lost()
        finally:
            self._loop.stop()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif not self._closed:
            self._closed = True
            try:
                self._loop.run(self._client.__aexit__(kind, error, trace))
            finally:
                self._loop.stop()

    # -- publishing ------------------------------------------------------------

    def publish(
        self,
        topic: str,
        value: bytes,
        key: bytes | str | None = None,
        *,
        headers: HeadersInput = None,
        timestamp: datetime | int | None = None,
        timeout: float | None = None,
        idempotency_key: bytes | str | None = None,
    ) -> Ack:
        """Publish one record and wait for it. See ``Client.publish``."""
        return self._run(
            self._publish(
                topic,
                value,
                key,
                headers=headers,
                timestamp=timestamp,
                timeout=timeout,
                idempotency_key=idempotency_key,
            )
        )

    def publish_many(
        self,
        topic: str,
        values: Sequence[bytes],
        keys: Sequence[bytes | str | None] | None = None,
        *,
        timestamps: Sequence[datetime | int] | None = None,
        headers: HeadersInput = None,
        timeout: float | None = None,
    ) -> PublishSummary:
        """Publish many records and wait for all. See ``Client.publish_many``."""
        return self._run(
            self._client.publish_many(
                topic, values, keys, timestamps=timestamps, headers=headers, timeout=timeout
            )
        )

    def send(
        self,
        topic: str,
        value: bytes,
        key: bytes | str | None = None,
        *,
        headers: HeadersInput = None,
        timestamp: datetime | int | None = None,
    ) -> None:
        """Hand one record over; waits only while the buffer is full. ``flush()`` tells of losses."""
        self._check_open()
        self._handed.append(((topic, value, key), {"headers": headers, "timestamp": timestamp}))
        with self._lock:
            if not self._handing:
                self._handing = True
                self._loop.call(self._hand_over)
        if len(self._handed) > _FETCH:
            self._run(self._settle_sent())

    def flush(self) -> None:
        """Wait until everything sent is settled. See ``Client.flush``."""
        self._run(self._flush())
        self._raise_lost()

    async def _publish(self, topic: str, value: bytes, key: Any, **options: Any) -> Ack:
        # In a coroutine, because a future of the loop may only be made on its thread.
        await self._settle_sent()
        return await self._client.publish(topic, value, key, **options)

    async def _flush(self) -> None:
        await self._settle_sent()
        await self._client.flush()

    def _hand_over(self) -> None:
        """On the loop's thread: take what the callers of ``send`` left."""
        with self._lock:
            self._handing = False
        handed = self._handed
        while handed:
            arguments, options = handed[0]
            try:
                self._client.send(*arguments, **options)
            except OverloadedError:
                return  # _settle_sent waits for room
            except HoldfastError as error:
                self._lost = self._lost or error
            handed.popleft()

    async def _settle_sent(self) -> None:
        self._hand_over()
        while self._handed:
            await self._client.drain()
            self._hand_over()

    def _raise_lost(self) -> None:
        error, self._lost = self._lost, None
        if error is not None:
            raise error

    # -- reading -------------------------------------------------------------------

    def replay(self, topic: str, **options: Any) -> Iterator[Record]:
        """Records of a topic. Options are those of ``Client.replay``."""
        for batch in self.replay_batches(topic, **options):
            yield from batch.records()

    def replay_batches(self, topic: str, **options: Any) -> Iterator[Batch]:
        """Batches of a topic. Options are those of ``Client.replay_batches``."""
        self._check_open()
        batches = self._client.replay_batches(topic, **options)
        try:
            while True:
                batch = self._run(_next(batches))
                if batch is None:
                    return
                yield batch
        finally:
            self._close(batches)

    def subscribe(self, topics: str | Sequence[str], group: str, **options: Any) -> SyncSubscription:
        """Consume as a member of a group. Options are those of ``Client.subscribe``."""

        async def open_it() -> Subscription:
            return self._client.subscribe(topics, group, **options)

        return SyncSubscription(self, self._run(open_it()))

    def transaction(self, *, timeout: float | None = None) -> SyncTransaction:
        """Publish records and settle consumed ones, all or nothing. See ``Client.transaction``."""
        self._check_open()
        return SyncTransaction(self._client.transaction(timeout=timeout), self._run)

    def join(self, group: str, definition: GroupDefinition | None = None, **options: Any) -> SyncMembership:
        """Join a defined group. Options are those of ``Client.join``."""

        async def open_it() -> Membership:
            return self._client.join(group, definition, **options)

        return SyncMembership(self._run(open_it()), self._loop, self._run)

    # -- handlers --------------------------------------------------------------------

    def subscriber(self, topics: str | Sequence[str], *, group: str, **options: Any) -> Subscribe:
        """See ``Client.subscriber``. Plain functions are called in threads."""
        return self._client.subscriber(topics, group=group, **options)

    def include(self, handler: Handler[Any, Any]) -> None:
        """See ``Client.include``."""
        self._client.include(handler)

    def run(self, *, grace: float = 30.0, signals: bool = True) -> None:
        """See ``Client.run``; returns when ``stop`` was called, from a handler or another thread."""
        caught = signals and threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in SIGNALS} if caught else {}
        for number in before:
            signal.signal(number, lambda *_: self.stop(grace))
        try:
            self._run(self._client.run(grace=grace, signals=False))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self, grace: float = 30.0) -> None:
        """See ``Client.stop``."""
        self._loop.call(self._client.stop, grace)

    # -- topics and the cluster -------------------------------------------------------

    def create_topic(self, name: str, **options: Any) -> TopicInfo:
        """Create a topic. Options are those of ``Client.create_topic``."""
        return self._run(self._client.create_topic(name, **options))

    def topic(self, name: str, *, timeout: float | None = None) -> TopicInfo:
        """See ``Client.topic``."""
        return self._run(self._client.topic(name, timeout=timeout))

    def topics(self, *, timeout: float | None = None) -> list[TopicInfo]:
        """See ``Client.topics``."""
        return self._run(self._client.topics(timeout=timeout))

    def update_topic(self, name: str, **options: Any) -> TopicInfo:
        """Replace a topic's limits. Options are those of ``Client.update_topic``."""
        return self._run(self._client.update_topic(name, **options))

    def delete_topic(self, name: str, *, timeout: float | None = None) -> None:
        """See ``Client.delete_topic``."""
        self._run(self._client.delete_topic(name, timeout=timeout))

    def status(self, *, timeout: float | None = None) -> ClusterInfo:
        """See ``Client.status``."""
        return self._run(self._client.status(timeout=timeout))

    def statuses(self, *, timeout: float = 2.0) -> dict[str, ClusterInfo | HoldfastError]:
        """See ``Client.statuses``."""
        return self._run(self._client.statuses(timeout=timeout))

    def digest(
        self, topic: str = "", *, min_applied_index: int = 0, timeout: float | None = None
    ) -> list[PartitionDigest]:
        """See ``Client.digest``."""
        return self._run(self._client.digest(topic, min_applied_index=min_applied_index, timeout=timeout))

    # -- the thread ----------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._closed:
            work.close()
            raise ClosedError("the client has been closed")
        return self._loop.run(work)

    def _close(self, found: AsyncGenerator[Any, None]) -> None:
        if self._loop.running:
            self._loop.run(found.aclose())

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the client has been closed")


class SyncSubscription:
    """Records of a group as an iterator; leave with ``close()`` or ``with``."""

    def __init__(self, client: SyncClient, subscription: Subscription) -> None:
        self._client = client
        self._subscription = subscription

    def __iter__(self) -> Iterator[Record]:
        while True:
            some = self._client._run(self._subscription.take(_FETCH))
            if not some:
                return
            for record in some:
                yield record._replace(subscription=self)

    @property
    def subscription(self) -> Subscription:
        """The one that runs on the client's thread."""
        return self._subscription

    def ack(self, record: Record) -> Awaitable[None]:
        """Acknowledge a record. Returns at once; nothing needs to be awaited."""
        self._client._loop.call(self._subscription.ack, record)
        return NOTHING

    def committed(self, timeout: float | None = None) -> dict[tuple[str, int], int]:
        """See ``Subscription.committed``."""
        return self._client._run(self._subscription.committed(timeout))

    def close(self) -> None:
        """See ``Subscription.close``."""
        if not self._client._closed:
            self._client._run(self._subscription.close())

    def __enter__(self) -> SyncSubscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _next(batches: AsyncGenerator[Batch, None]) -> Batch | None:
    return await anext(batches, None)


def connect_sync(endpoints: str | Sequence[str], **options: Any) -> SyncClient:
    """A client that needs no event loop: ``with holdfast.connect_sync("host:7450") as bus``.

    Options are those of ``connect``.

    Raises:
        UnavailableError: no broker answers.
        InvalidArgumentError: an endpoint or option makes no sense.
    """
    return SyncClient(connect(endpoints, **options))
