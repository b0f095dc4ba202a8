"""The relay: publishes the rows of an outbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from holdfast.client.handlers.classify import describe
from holdfast.client.options import ClientOptions
from holdfast.client.types import Ack
from holdfast.errors import ClosedError, HoldfastError, InvalidArgumentError
from holdfast.outbox.rows import Row, Rows

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Seconds a topic rests that cannot be published to, and the longest wait for a database that is away.
REST = 30.0
#: Rows taken at once, at most.
_MAX_BATCH = 4_000


class Publisher(Protocol):
    """What the relay needs of a ``Client``."""

    @property
    def options(self) -> ClientOptions: ...

    def publish(
        self,
        topic: str,
        value: bytes,
        key: bytes | str | None = None,
        *,
        headers: Any = None,
        timestamp: Any = None,
        idempotency_key: bytes | str | None = None,
    ) -> asyncio.Future[Ack]: ...


class Relay:
    """Publishes rows in the order they were put, and deletes them when they are acknowledged.

    Run as many as you like: in PostgreSQL one publishes and the others stand by; in SQLite they only do the
    same work twice. In no case is a record stored twice, as long as a row is published again within the
    topic's ``idempotency_ttl_ms``, which every topic needs.

    A record that brokers will never take (too large, say) is set aside, in its row's column ``failed``, and
    the log says so; a topic that cannot be published to rests for half a minute, while others go on.

    Args:
        bus: an open client.
        outbox: whose rows.
        connect: gives a connection of the outbox's kind, not an asynchronous one, for the relay alone;
            called in a thread, and again after a failure.
        batch: rows at once.
        poll: seconds between looks at an empty outbox.

    Raises:
        InvalidArgumentError: a number is out of range.
    """

    def __init__(
        self,
        bus: Publisher,
        outbox: Rows,
        connect: Callable[[], Any],
        *,
        batch: int = 500,
        poll: float = 0.5,
    ) -> None:
        if not 1 <= batch <= _MAX_BATCH:
            raise InvalidArgumentError(f"batch must be 1 to {_MAX_BATCH}", metadata={"field": "batch"})
        if not 0 < poll <= REST:
            raise InvalidArgumentError(
                f"poll must be more than 0 and at most {REST:.0f} seconds", metadata={"field": "poll"}
            )
        self._bus = bus
        self._outbox = outbox
        self._connect = connect
        self._batch = batch
        self._poll = poll
        self._connection: Any = None
        self._locked = False
        self._resting: dict[str, float] = {}
        self._stopping = asyncio.Event()
        # One thread: a connection of sqlite3 stays in the one that made it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="holdfast-relay")
        #: Rows published so far, those that were known already included.
        self.published = 0

    def stop(self) -> None:
        """Finish what is under way; ``run`` returns."""
        self._stopping.set()

    async def run(self) -> None:
        """Publish until ``stop``.

        A database that fails is connected to again, for as long as it takes.

        Raises:
            ClosedError: the client has been closed.
        """
        wait = self._poll
        try:
            while not self._stopping.is_set():
                try:
                    busy = await self._round()
                    wait = 0.0 if busy else self._poll
                except ClosedError:
                    raise
                except Exception as error:  # noqa: BLE001  (whatever a driver raises)
                    wait = min(max(2 * wait, self._poll), REST)
                    logger.warning("outbox %s: %s; again in %g s", self._outbox.table, describe(error), wait)
                    await self._disconnect()
                if wait:
                    await self._pause(wait)
        finally:
            await self._disconnect()
            self._thread.shutdown(wait=False)

    async def _round(self) -> bool:
        """Publish what can be; whether there was anything."""
        if self._connection is None:
            self._connection = await self._do(self._connect)
        if not self._locked:
            self._locked = await self._do(self._outbox.lock, self._connection)
            if not self._locked:
                return False
        now = asyncio.get_running_loop().time()
        self._resting = {topic: until for topic, until in self._resting.items() if until > now}
        rows = await self._do(self._outbox.take, self._connection, self._batch, list(self._resting))
        if not rows:
            return False
        topics: dict[str, list[Row]] = {}
        for row in rows:
            topics.setdefault(row.topic, []).append(row)
        done: list[int] = []
        failed: dict[int, str] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for topic, its in topics.items():
                    group.create_task(self._publish(topic, its, done, failed))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            # What is stored is deleted, whatever became of the rest.
            if done or failed:
                await self._do(self._outbox.finish, self._connection, done, failed)
        return True

    async def _publish(
        self, topic: str, rows: Sequence[Row], done: list[int], failed: dict[int, str]
    ) -> None:
        """Publish a topic's rows, request after request: none may overtake one that failed."""
        for some in self._requests(rows):
            futures: list[asyncio.Future[Ack]] = []
            for row in some:
                try:
                    futures.append(
                        self._bus.publish(
                            topic,
                            row.value,
                            row.key,
                            headers=row.headers,
                            timestamp=row.created_us,
                            idempotency_key=row.token,
                        )
                    )
                except HoldfastError as error:
                    futures.append(asyncio.get_running_loop().create_future())
                    futures[-1].set_exception(error)
            stop: HoldfastError | None = None
            for row, result in zip(some, await asyncio.gather(*futures, return_exceptions=True), strict=True):
                if isinstance(result, Ack):
                    done.append(row.id)
                    self.published += 1
                elif isinstance(result, InvalidArgumentError) and not result.retriable:
                    failed[row.id] = describe(result)
                    logger.error("outbox %s: row %d is set aside: %s", self._outbox.table, row.id, result)
                elif isinstance(result, HoldfastError):
                    stop = stop or result
                else:
                    raise result
            if isinstance(stop, ClosedError):
                raise stop
            if stop is not None:
                rest = self._poll if stop.retriable else REST
                logger.warning(
                    "outbox %s: topic %s rests for %g s: %s", self._outbox.table, topic, rest, stop
                )
                self._resting[topic] = asyncio.get_running_loop().time() + rest
                return

    def _requests(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """So many at a time as leave in one request: all of them are stored, or none."""
        most = self._bus.options.batch_bytes // 2
        some: list[Row] = []
        size = 0
        for row in rows:
            bytes_ = len(row.value) + len(row.key or b"") + sum(len(n) + len(v) for n, v in row.headers) + 300
            if some and size + bytes_ > most:
                yield some
                some, size = [], 0
            some.append(row)
            size += bytes_
        if some:
            yield some

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _disconnect(self) -> None:
        connection, self._connection, self._locked = self._connection, None, False
        if connection is not None:
            try:
                await self._do(connection.close)
            except Exception as error:  # noqa: BLE001  (it is given up anyhow)
                logger.debug("outbox %s: closing: %s", self._outbox.table, describe(error))

    async def _do(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """In the relay's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
