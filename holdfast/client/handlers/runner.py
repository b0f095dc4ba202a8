"""The runner's loop: tasks and threads around the core, on a link to a group."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol, TypeAlias

from holdfast.client.handlers.classify import Outcome, Verdict, explicit
from holdfast.client.handlers.context import Context
from holdfast.client.handlers.core import RunnerCore
from holdfast.client.handlers.errors import RecordTaken
from holdfast.client.handlers.job import Begin, Cancel, Decision, Job, Leave, Pause, Resume, Settle, Warn
from holdfast.client.handlers.link import Link
from holdfast.client.handlers.signature import CONTEXT, Values
from holdfast.client.handlers.spans import Spans
from holdfast.client.handlers.subscriber import Handler
from holdfast.client.handlers.threads import Threads
from holdfast.client.types import Record
from holdfast.errors import (
    AlreadySettledError,
    FencedError,
    HoldfastError,
    InternalError,
    InvalidArgumentError,
    LeaseExpiredError,
)

logger = logging.getLogger(__name__)

#: Seconds between looks at what is due; only while something may be.
SWEEP = 0.1
#: Seconds a worker may go from record to record before it lets the loop turn: heartbeats depend on that.
_TURN = 0.01
#: Seconds a call that ignores its cancellation is waited for at the end.
_LAST_WAIT = 1.0
#: A commit refused for one of these: the record is another member's, or settled.
_TAKEN = (AlreadySettledError, FencedError, LeaseExpiredError)


class Timer(Protocol):
    """What is to be called later."""

    def cancel(self) -> None:
        """Do not."""


class Timers(Protocol):
    """Time, in monotonic seconds; an event loop is one."""

    def time(self) -> float:
        """Now."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call it once, in so many seconds."""


#: Opens the transaction that a record is handled in; its commit settles the record.
OpenTransaction: TypeAlias = Callable[[Record], AbstractAsyncContextManager[Any]]


class Runner:
    """Calls a handler with the records of a link, until it is stopped.

    Context variables that a coroutine sets may still be set in a later call; threads start afresh.

    Args:
        transaction: needed by handlers of ``exactly_once`` groups.
        timers: the time of timeouts, breakers and graces; None: the event loop's.

    Raises:
        InvalidArgumentError: it is needed and missing.
    """

    def __init__(
        self,
        handler: Handler[Any, Any],
        link: Link,
        *,
        transaction: OpenTransaction | None = None,
        timers: Timers | None = None,
    ) -> None:
        self.handler = handler
        self._link = link
        self._once = handler.options.semantics == "exactly_once"
        if self._once and transaction is None:
            raise InvalidArgumentError(f"{handler!r} needs transactions", metadata={"field": "transaction"})
        self._transaction = transaction if self._once else None
        self._is_async = handler.signature.is_async
        self._wants_context = handler.signature.takes(CONTEXT)
        self._core = RunnerCore(handler.options, threaded=not self._is_async)
        self._threads = Threads(handler.options.concurrency, f"holdfast-{handler.options.group}")
        self._spans = Spans(handler.options.group)
        self._loop = asyncio.get_running_loop()
        self._timers: Timers = timers or self._loop
        #: Of whoever made the runner: what one call sets is not for the next one, where that can be helped.
        self._context = copy_context()
        #: Begun, for the next worker that is free.
        self._begun: deque[Job] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._workers: list[asyncio.Task[None]] = []
        #: Which worker a call runs in.
        self._at: dict[Job, asyncio.Task[Any]] = {}
        self._main: asyncio.Task[Any] | None = None
        self._closing = False
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        self._timer: Timer | None = None
        self._failure: BaseException | None = None

    # -- for its owner ----------------------------------------------------------------

    async def run(self) -> None:
        """Handle records until ``stop``, then leave the group.

        Cancelled, it gives everything back at once.

        Raises:
            HoldfastError: the link failed.
            SystemExit, KeyboardInterrupt: a handler did.
        """
        self._main = asyncio.current_task()
        reader = self._spawn(self._read())
        try:
            await self._over.wait()
            try:
                await self._link.close()
            except HoldfastError as error:
                self._failure = self._failure or error
        finally:
            self._closing = True
            self._do(self._core.abort(self._timers.time()))
            if self._timer is not None:
                self._timer.cancel()
            tasks = [reader, *self._workers]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_LAST_WAIT)
            self._threads.close()
        if self._failure is not None:
            raise self._failure

    def stop(self, grace: float = 30.0) -> None:
        """Begin nothing more; let what runs end, for ``grace`` seconds, then cancel it. ``run`` returns."""
        self._do(self._core.stop(self._timers.time(), grace))

    def abort(self) -> None:
        """Leave at once: what runs is cancelled and given back. ``run`` returns."""
        self._do(self._core.abort(self._timers.time()))

    def lost(self, topic: str, partition: int, offset: int) -> None:
        """The link says: this record is not ours any more."""
        self._do(self._core.lost(topic, partition, offset))

    def revoke(self, topic: str, partition: int) -> None:
        """The link says: this partition goes to another member."""
        self._do(self._core.revoke(topic, partition))

    # -- records in ---------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                while self._core.room < 1:
                    self._room.clear()
                    await self._room.wait()
                records = await self._link.take(self._core.room)
                if not records:
                    break
                self._do(self._core.deliver(records, self._timers.time()))
        except HoldfastError as error:
            self._fail(error)
        # Nothing can be told any more: there is no sense in waiting for what runs.
        self._do(self._core.stop(self._timers.time(), 0.0))

    # -- decisions out --------------------------------------------------------------------

    def _do(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Settle(record, verdict):
                    self._tell(record, verdict)
                case Begin(job):
                    self._begin(job)
                case Cancel(job):
                    task = self._at.get(job)
                    if task is not None:
                        task.cancel()
                case Pause():
                    self._link.pause()
                case Resume(limit):
                    self._link.resume(limit)
                case Warn(text):
                    logger.warning("%s: %s", self.handler.name, text)
                case Leave():
                    self._over.set()
        if self._core.room > 0:
            self._room.set()
        if self._timer is None and self._core.watched:
            self._timer = self._timers.call_later(SWEEP, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        self._do(self._core.tick(self._timers.time()))

    def _tell(self, record: Record, verdict: Verdict) -> None:
        link = self._link
        match verdict.outcome:
            case Outcome.ACK:
                if not self._once:  # there, the commit has done it
                    link.ack(record)
            case Outcome.RETRY:
                link.nack(record, verdict.delay, verdict.error)
            case Outcome.REJECT:
                link.reject(record, verdict.error)
            case Outcome.PARK:
                link.park(record, verdict.delay, verdict.error)
            case Outcome.RELEASE:
                link.release(record)

    def _begin(self, job: Job) -> None:
        if not self._is_async:
            self._threads.submit(partial(self._context.copy().run, self._call_in_thread, job))
            return
        self._begun.append(job)
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        if len(self._workers) < self.handler.options.concurrency:
            self._workers.append(self._spawn(self._work()))

    def _ended(self, job: Job, error: BaseException | None) -> None:
        if error is not None:
            self._log(job, error)
            if not isinstance(error, Exception | asyncio.CancelledError):
                self._fail(error)
        self._do(self._core.ended(job, error, self._timers.time()))

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self.stop()

    def _log(self, job: Job, error: BaseException) -> None:
        record = job.record
        place = (self.handler.name, record.topic, record.partition, record.offset)
        said = explicit(error)
        if said is not None:
            logger.info("%s: %s[%d]@%d: %s: %s", *place, said.outcome.value, said.error)
        elif not job.given_up:
            logger.warning("%s: %s[%d]@%d failed", *place, exc_info=error)

    # -- calls --------------------------------------------------------------------------

    def _values(self, job: Job) -> Values:
        record = job.record
        context = None
        if self._wants_context:
            context = Context(self.handler.options.group, job, partial(self._extend, record))
        return Values(self.handler.decode(record.value), record, context)

    def _extend(self, record: Record, seconds: float) -> None:
        self._loop.call_soon_threadsafe(self._link.extend, record, seconds)

    async def _call(self, job: Job) -> None:
        handler = self.handler
        if self._transaction is None:
            await handler.signature.call(handler.function, self._values(job))
            return
        values = None if job.skip else self._values(job)
        handled = False
        try:
            async with self._transaction(job.record) as transaction:
                if values is not None:
                    await handler.signature.call(handler.function, values._replace(transaction=transaction))
                handled = True
        except _TAKEN as error:
            if handled:
                raise RecordTaken(str(error)) from error
            raise

    def _call_in_thread(self, job: Job) -> None:
        handler = self.handler
        error: BaseException | None = None
        try:
            with self._spans.around(job.record):
                returned = handler.signature.call(handler.function, self._values(job))
            if inspect.isawaitable(returned):
                if inspect.iscoroutine(returned):
                    returned.close()
                raise TypeError(f"{handler.name} returned an awaitable: declare it with async def")
        except BaseException as raised:  # noqa: BLE001  (whatever it is, the record needs its outcome)
            error = raised
        try:
            self._loop.call_soon_threadsafe(self._ended, job, error, context=self._context)
        except RuntimeError:
            logger.debug("%s ended after its loop was closed", handler.name)

    async def _work(self) -> None:
        """One of the workers: calls one after another, each in this task."""
        me = asyncio.current_task()
        assert me is not None
        turned = self._loop.time()
        while True:
            while not self._begun:
                await self._rest(me)
            await self._handle(self._begun.popleft(), me)
            now = self._loop.time()
            if now - turned > _TURN:
                await asyncio.sleep(0)
                turned = now

    async def _handle(self, job: Job, me: asyncio.Task[Any]) -> None:
        error: BaseException | None = None
        self._at[job] = me
        try:
            if job.given_up:
                raise asyncio.CancelledError
            with self._spans.around(job.record):
                await self._call(job)
        except GeneratorExit:
            raise
        except BaseException as raised:  # noqa: BLE001  (whatever it is, the record needs its outcome)
            error = raised
        finally:
            del self._at[job]
        torn_down = self._torn_down(me)
        if torn_down:
            self._do(self._core.stop(self._timers.time(), 0.0))
        self._ended(job, error)
        if torn_down:
            raise asyncio.CancelledError

    async def _rest(self, me: asyncio.Task[Any]) -> None:
        """Wait for something to do."""
        waiter = self._loop.create_future()
        self._idle.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # One that came too late for its call is not meant for us.
            if self._torn_down(me):
                raise

    def _torn_down(self, me: asyncio.Task[Any]) -> bool:
        """Whether a cancellation means the runner, or only the call this task was in."""
        if not me.cancelling():
            return False
        if self._closing or (self._main is not None and self._main.cancelling()):
            return True
        while me.cancelling():
            me.uncancel()
        return False

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work, context=self._context.copy())
        task.add_done_callback(self._stopped)
        return task

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """The records must not wait for a task that failed through a fault of ours."""
        if not task.cancelled() and (failure := task.exception()) is not None:
            logger.error("%s: its runner stopped unexpectedly", self.handler.name, exc_info=failure)
            self._fail(InternalError(f"the runner stopped unexpectedly: {failure!r}"))
