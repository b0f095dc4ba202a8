"""The asyncio face of the engine.

The engine runs on its own thread and reports once or twice per turn; the bridge
turns a report that somebody waits for into one ``call_soon_threadsafe``, which
resolves every future and wakes every watcher of that turn. A report that nobody
waits for is only noted: to wake the loop would cost it, and the engine that
shares the interpreter with it, more than all the rest. Nothing here blocks and
nothing here decides: it only carries.

A proposal cannot be taken back. When the coroutine that waits for one is
cancelled (its client went away), the operation goes on to commit and only its
answer is dropped; commits need no further shielding.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self, TypeVar

from holdfast.cluster.ports import Clock
from holdfast.cluster.results import Completed, Progress, Role
from holdfast.errors import (
    DeadlineExceededError,
    HoldfastError,
    InternalError,
    OutcomeUnknownError,
    OverloadedError,
    UnavailableError,
    from_reason,
)
from holdfast.storage.damage import DamagedRowError
from holdfast.v1 import log_pb2

_T = TypeVar("_T")

#: (topic id, partition)
PartitionKey = tuple[int, int]
#: What an operation gave, and the log index it was applied at.
Outcome = tuple[log_pb2.OpResult, int]

#: How long past its deadline a call may wait for the engine's own verdict. Only
#: an engine that is stuck (a disk that does not answer) lets it run out.
_GRACE_S = 1.0
_SWEEP_S = 0.25
#: Damaged rows in the way of one read that are repaired before it is given up.
_MAX_REPAIRS = 16
#: Calls given to the engine and not yet answered, before barriers are refused.
MAX_PENDING = 32_768


class EnginePort(Protocol):
    """What the bridge needs of the engine; all thread-safe."""

    def propose(self, op: bytes, token: object, deadline: float) -> None: ...

    def read_barrier(self, token: object, deadline: float) -> None: ...

    def repair(self, damage: DamagedRowError, token: object | None = None, deadline: float = 0.0) -> None: ...


class Audience(Protocol):
    """Readers of many partitions at a time."""

    def reads(self, keys: Iterable[PartitionKey], /) -> bool:
        """Whether anybody reads one of them; from any thread."""
        ...

    def touch(self, keys: Iterable[PartitionKey], /) -> None:
        """They have changed; on the loop."""
        ...


class Watch:
    """Wake-ups for a set of partitions; one waiter at a time.

    Use as a context manager, or call ``close``. A wake-up says "look again":
    several changes may come as one, and one may come without a change.
    """

    __slots__ = ("_bridge", "_keys", "_touched", "_waiter")

    def __init__(self, bridge: EngineBridge, keys: Iterable[PartitionKey]) -> None:
        self._bridge = bridge
        self._keys: set[PartitionKey] = set()
        self._touched: set[PartitionKey] = set()
        self._waiter: asyncio.Future[None] | None = None
        bridge._watches[self] = None
        self.add(keys)

    def add(self, keys: Iterable[PartitionKey]) -> None:
        """Watch further partitions."""
        for key in keys:
            if key not in self._keys:
                self._keys.add(key)
                self._bridge._watch_add(key, self)

    def discard(self, keys: Iterable[PartitionKey]) -> None:
        """Watch these no longer."""
        for key in keys:
            if key in self._keys:
                self._keys.discard(key)
                self._touched.discard(key)
                self._bridge._watch_discard(key, self)

    def wake(self) -> None:
        """Make ``wait`` return, with or without a touched partition."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _notify(self, key: PartitionKey) -> None:
        self._touched.add(key)
        self.wake()

    def _fail(self, error: HoldfastError) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    async def wait(self, timeout: float | None = None) -> set[PartitionKey]:
        """The partitions touched since the last call; waits until there is one.

        Returns an empty set after ``timeout`` seconds or ``wake``.

        Raises:
            UnavailableError: the broker is stopping.
            InternalError: the engine has failed.
        """
        self._bridge.check_open()
        if not self._touched:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = None if timeout is None else loop.call_later(timeout, self.wake)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        touched, self._touched = self._touched, set()
        return touched

    def close(self) -> None:
        self.discard(list(self._keys))
        self._bridge._watches.pop(self, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EngineBridge:
    """Futures and wake-ups for one engine, on one event loop.

    It is the engine's ``ResultSink``: make the bridge first, hand it to the
    engine, then ``attach`` the engine. ``deliver`` is called on the engine
    thread, everything else on the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, initial: Progress) -> None:
        self._loop = loop
        self._clock = clock
        self._engine: EnginePort | None = None
        self._progress = initial
        self._last: Progress | None = None  # once closed
        #: See ``_standing``: of the last report (engine's thread), and as listeners know it (loop).
        self._standing: object = None
        self._told: object = None
        self._pending: dict[asyncio.Future[Completed], float] = {}
        self._visible_waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._answered_index = 0
        self._ticket = itertools.count()
        # Ordered, unlike sets, so that a run can be repeated.
        self._watchers: dict[PartitionKey, dict[Watch, None]] = {}
        self._watches: dict[Watch, None] = {}
        self._listeners: list[Callable[[Progress], None]] = []
        self._audience: Audience | None = None
        self._on_groups: Callable[[frozenset[str]], None] | None = None
        self._closed: HoldfastError | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    def attach(self, engine: EnginePort) -> None:
        self._engine = engine
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    # -- calls -------------------------------------------------------------

    def propose(self, op: bytes, timeout: float) -> asyncio.Future[Completed]:
        """Propose an operation framed by ``commands.encode_op``; ``timeout`` in seconds.

        The future is never failed: pass what it gives to ``unwrap``. It may be
        done before the effects are visible here. For the hot path; others use
        ``submit``.

        Raises:
            OverloadedError: the engine's queue is full.
            UnavailableError: the broker is stopping.
        """
        engine = self.check_open()
        future: asyncio.Future[Completed] = self._loop.create_future()
        deadline = self._clock.monotonic() + timeout
        engine.propose(op, future, deadline)
        self._pending[future] = deadline
        return future

    async def submit(self, op: bytes, timeout: float) -> Outcome:
        """Propose an operation and wait until it is committed, applied, and visible in this node's store.

        Raises:
            HoldfastError: refused by the engine or by the state machine.
        """
        start = self._clock.monotonic()
        outcome = unwrap(await self.propose(op, timeout))
        await self.wait_applied(outcome[1], max(0.0, timeout - (self._clock.monotonic() - start)))
        return outcome

    async def barrier(self, timeout: float) -> int:
        """The log index up to which everything acknowledged before the call is visible here.

        Raises:
            NoLeaderError: no leader could confirm it.
            DeadlineExceededError: not within ``timeout`` seconds.
            OverloadedError: too many calls wait for the engine.
        """
        engine = self.check_open()
        # Proposals are bounded by the engine's queue; barriers take no place in it.
        if len(self._pending) >= MAX_PENDING:
            raise OverloadedError(f"{MAX_PENDING} calls wait for the engine; try again")
        future: asyncio.Future[Completed] = self._loop.create_future()
        deadline = self._clock.monotonic() + timeout
        engine.read_barrier(future, deadline)
        self._pending[future] = deadline
        done = await future
        if done.error is not None:
            raise done.error
        return done.index

    async def repair(self, damage: DamagedRowError, timeout: float) -> bool:
        """Have a damaged row fetched from another node; True when it can be read again.

        ``timeout`` in seconds. Why it was not repaired is in the broker's log.

        Raises:
            UnavailableError: the broker is stopping.
        """
        engine = self.check_open()
        future: asyncio.Future[Completed] = self._loop.create_future()
        deadline = self._clock.monotonic() + timeout
        try:
            engine.repair(damage, future, deadline)
        except OverloadedError:
            return False
        self._pending[future] = deadline
        return (await future).error is None

    async def read_repaired(self, read: Callable[[], _T], timeout: float) -> _T:
        """``read()``; damaged rows it meets are repaired and it is called again.

        Raises:
            DamagedRowError: one of them was not repaired within ``timeout`` seconds.
        """
        for _ in range(_MAX_REPAIRS):
            try:
                return read()
            except DamagedRowError as damage:
                if not await self.repair(damage, timeout):
                    raise
        return read()

    @property
    def progress(self) -> Progress:
        """The engine's latest report; changes at any moment."""
        return self._last or self._progress

    @property
    def closed(self) -> bool:
        return self._closed is not None

    @property
    def pending(self) -> int:
        """Calls given to the engine and not yet answered."""
        return len(self._pending)

    async def wait_applied(self, index: int, timeout: float) -> None:
        """Return when ``index`` is applied and visible in this node's store.

        Raises:
            DeadlineExceededError: not within ``timeout`` seconds.
        """
        self.check_open()
        if self._progress.visible_index >= index:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._visible_waiters, (index, next(self._ticket), future))
        if self._progress.visible_index >= index:
            # The engine got there since the look above, and saw nobody waiting.
            self._release_visible()
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            raise DeadlineExceededError(
                f"this node shows log index {self._progress.visible_index}, not yet {index}; try again"
            ) from None

    async def settle(self, timeout: float) -> None:
        """Return when everything this node has answered with success is visible in its store.

        The engine may answer a publish a moment before its effects can be read
        here; a read that starts with this sees what its caller was told.

        Raises:
            DeadlineExceededError: not within ``timeout`` seconds.
        """
        await self.wait_applied(self._answered_index, timeout)

    def watch(self, keys: Iterable[PartitionKey] = ()) -> Watch:
        """Wake-ups when the given partitions change (appended to, trimmed or dropped)."""
        return Watch(self, keys)

    def listen(self, callback: Callable[[Progress], None]) -> Callable[[], None]:
        """Call back on the loop when term, role, leader or topics have changed; returns the way to stop it.

        It may be called without a change, too.
        """
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    def inform(self, audience: Audience | None) -> None:
        """Who, beside the watches, wants to know of partitions that changed; None: nobody."""
        self._audience = audience

    def follow_groups(self, callback: Callable[[frozenset[str]], None] | None) -> None:
        """Call back on the loop with groups that somebody else than their coordinator has changed.

        A definition was put, positions were sought, parked records restored, or a group was
        deleted, through whichever node; this node's store shows it.
        """
        self._on_groups = callback

    def check_open(self) -> EnginePort:
        """Raises what the bridge was closed with."""
        if self._closed is not None:
            raise _copy(self._closed)
        if self._engine is None:
            raise UnavailableError("the broker is starting; try again")
        return self._engine

    # -- the engine's side ---------------------------------------------------

    def deliver(self, completed: Sequence[Completed], progress: Progress) -> None:
        """``ResultSink``: called on the engine thread."""
        if not self._note(completed, progress):
            return
        try:
            self._loop.call_soon_threadsafe(self._tell, completed, progress)
        except RuntimeError:
            # The loop is closed: nobody is left to be told.
            if not self._loop.is_closed():
                raise

    def _awaited(self, touched: Iterable[PartitionKey]) -> bool:
        watchers, audience = self._watchers, self._audience
        if self._visible_waiters or any(key in watchers for key in touched):
            return True
        return audience is not None and audience.reads(touched)

    def report(self, completed: Sequence[Completed], progress: Progress) -> None:
        """``deliver`` where there is no other thread."""
        if self._note(completed, progress):
            self._tell(completed, progress)

    def _note(self, completed: Sequence[Completed], progress: Progress) -> bool:
        """Take note of a report; True when somebody on the loop has to hear of it.

        Whoever begins to wait looks at ``progress`` (or at the store, which is committed by now)
        once it can be seen here, and ``progress`` is set before anybody is looked for: one of
        the two finds the other.
        """
        if self._closed is not None:
            return False
        self._progress = progress
        standing = _standing(progress)
        if standing != self._standing:
            self._standing = standing
            return True
        if completed or self._visible_waiters:
            return True
        if progress.groups and self._on_groups is not None:
            return True
        return bool(progress.touched) and self._awaited(progress.touched)

    def _tell(self, completed: Sequence[Completed], progress: Progress) -> None:
        if self._closed is not None:
            return  # everyone has been told
        pending = self._pending
        for done in completed:
            future: asyncio.Future[Completed] = done.token  # type: ignore[assignment]
            pending.pop(future, None)
            self._answered_index = max(self._answered_index, done.index)
            if not future.done():
                future.set_result(done)
        if self._visible_waiters:
            self._release_visible()
        touched = progress.touched
        if touched:
            if self._watchers:
                for key in touched:
                    for watch in self._watchers.get(key, ()):
                        watch._notify(key)
            if self._audience is not None:
                self._audience.touch(touched)
        if progress.groups and self._on_groups is not None:
            self._on_groups(progress.groups)
        # Never an older standing than ``progress`` has shown to others already.
        latest = self._progress
        standing = _standing(latest)
        if standing != self._told:
            self._told = standing
            for listener in tuple(self._listeners):
                listener(latest)

    def _release_visible(self) -> None:
        visible = self._progress.visible_index
        waiters = self._visible_waiters
        while waiters and waiters[0][0] <= visible:
            waiter = heapq.heappop(waiters)[2]
            if not waiter.done():
                waiter.set_result(None)

    # -- the end -----------------------------------------------------------

    def close(self, error: HoldfastError | None = None) -> None:
        """Fail every waiter and refuse new calls; the broker stops or its engine has failed.

        Operations in flight may still commit, so their callers are told that
        the outcome is unknown.
        """
        if self._closed is not None:
            return
        self._closed = error or UnavailableError("the broker is stopping; use another one")
        if self._sweeper is not None:
            self._sweeper.cancel()
        for future in list(self._pending):
            if not future.done():
                unknown = OutcomeUnknownError("the broker stopped before the outcome was known")
                future.set_result(Completed(future, None, unknown, 0))
        self._pending.clear()
        for _, _, waiter in self._visible_waiters:
            if not waiter.done():
                waiter.set_exception(_copy(self._closed))
        self._visible_waiters.clear()
        for watch in list(self._watches):
            watch._fail(_copy(self._closed))
        # Whoever follows the leadership learns that this node has no part in it any more.
        self._last = last = replace(self._progress, role=Role.FOLLOWER, leader_id=None, touched=frozenset())
        for listener in tuple(self._listeners):
            listener(last)

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        for future, deadline in list(self._pending.items()):
            if deadline + _GRACE_S < now:
                del self._pending[future]
                if future.done():  # its caller went away
                    continue
                late = OutcomeUnknownError(
                    "no answer from the engine within the deadline; its disk may be stuck"
                )
                future.set_result(Completed(future, None, late, 0))
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    # -- watches -----------------------------------------------------------

    def _watch_add(self, key: PartitionKey, watch: Watch) -> None:
        self._watchers.setdefault(key, {})[watch] = None

    def _watch_discard(self, key: PartitionKey, watch: Watch) -> None:
        watchers = self._watchers[key]
        watchers.pop(watch, None)
        if not watchers:
            del self._watchers[key]


def _standing(progress: Progress) -> object:
    """What those who listen hear of when it changes."""
    return (progress.term, progress.role, progress.leader_id, progress.topics_index)


def unwrap(done: Completed) -> Outcome:
    """The result and log index of a completed operation.

    Raises:
        HoldfastError: what the engine or the state machine refused it with.
    """
    if done.error is not None:
        raise done.error
    result = done.result
    if result is None:
        raise InternalError("the engine answered without a result")
    if result.HasField("error"):
        wire = result.error
        raise from_reason(
            wire.reason, wire.message, metadata=dict(wire.metadata), retry_after_ms=wire.retry_after_ms
        )
    return result, done.index


def _copy(error: HoldfastError) -> HoldfastError:
    # One exception object raised in many tasks would grow one traceback for all.
    return type(error)(error.message, metadata=error.metadata, retry_after_ms=error.retry_after_ms)
