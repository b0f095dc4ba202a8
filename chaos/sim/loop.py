"""asyncio in virtual time: an event loop per simulated process, all in one thread."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from concurrent.futures import Executor
from contextvars import Context, copy_context
from typing import Any, NoReturn, TypeVar, TypeVarTuple, Unpack
from weakref import WeakKeyDictionary

from holdfast.chaos.sim.world import Entry, NodeClock, World

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

#: Callbacks in one moment beyond which somebody runs in circles.
MAX_PER_MOMENT = 200_000
#: Rounds of cancelling a dead process's tasks may need: each ``finally`` may wait anew.
_BURIAL_ROUNDS = 32
#: Callbacks in one of them.
_BURIAL_CALLBACKS = 10_000


class Spinning(AssertionError):
    """Callbacks make callbacks without end, and time stands still."""


class Handle(asyncio.Handle):
    """A callback that is due; lighter than asyncio's own."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def __repr__(self) -> str:
        return f"<Handle {self._callback!r}>"


class Timer(asyncio.TimerHandle):
    """A callback that will be due."""

    __slots__ = ("entry",)

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context, when: float
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False
        self._when = when
        self.entry: Entry | None = None

    def cancel(self) -> None:
        self._cancelled = True
        if self.entry is not None:
            World.cancel(self.entry)
            self.entry = None

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<Timer {self._callback!r} at {self._when}>"


class Loops:
    """All loops of a simulation; ``run_ready`` runs what is due on them.

    Args:
        world: time.
        on_error: called with the loop's name and the context of an error nobody
            handled, as ``loop.call_exception_handler`` gets it.
    """

    def __init__(self, world: World, on_error: Callable[[str, dict[str, Any]], None] | None = None) -> None:
        self.world = world
        self.on_error = on_error
        #: Errors nobody handled: (loop's name, context).
        self.errors: list[tuple[str, dict[str, Any]]] = []
        self.callbacks = 0
        self._active: deque[SimLoop] = deque()
        self._running: SimLoop | None = None
        self._moment = -1.0
        self._in_moment = 0

    def loop(self, name: str, clock: NodeClock | None = None) -> SimLoop:
        """A loop for one process; ``clock`` is its node's, None: the world's time."""
        return SimLoop(self, name, clock)  # type: ignore[abstract]  # sockets and processes are not simulated

    def run_ready(self) -> int:
        """Run everything that is due now, and what follows from it; how many callbacks ran.

        Raises:
            Spinning: there was no end of it.
        """
        active = self._active
        if not active:
            return 0
        if self._moment != self.world.now:
            self._moment, self._in_moment = self.world.now, 0
        before = self.callbacks
        outer, hooks = asyncio._get_running_loop(), sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=self._finalize)
        try:
            while active:
                loop = active.popleft()
                loop.queued = False
                if not loop.stopped:  # else it goes on when it is resumed
                    asyncio._set_running_loop(loop)
                    self._running = loop
                    loop.run_once(MAX_PER_MOMENT - self._in_moment - (self.callbacks - before))
        finally:
            self._running = None
            asyncio._set_running_loop(outer)
            sys.set_asyncgen_hooks(*hooks)
        ran = self.callbacks - before
        self._in_moment += ran
        return ran

    def run_round(self, loop: SimLoop) -> None:
        """Run what is due on one loop, and not what follows from it: one round of a real loop.

        Raises:
            Spinning: as ``run_ready``.
        """
        self._active.remove(loop)
        loop.queued = False
        if loop.stopped:
            return
        if self._moment != self.world.now:
            self._moment, self._in_moment = self.world.now, 0
        before = self.callbacks
        outer, hooks = asyncio._get_running_loop(), sys.get_asyncgen_hooks()
        asyncio._set_running_loop(loop)
        sys.set_asyncgen_hooks(finalizer=self._finalize)
        self._running = loop
        # Queued while it runs, so that what it adds does not queue it: that is for below.
        loop.queued = True
        try:
            loop.run_once(MAX_PER_MOMENT - self._in_moment, len(loop._ready))
        finally:
            self._running = None
            asyncio._set_running_loop(outer)
            sys.set_asyncgen_hooks(*hooks)
        loop.queued = False
        if loop._ready and not loop.stopped and not loop.dead:
            self.activate(loop)
        self._in_moment += self.callbacks - before

    @property
    def active(self) -> Sequence[SimLoop]:
        """Loops with something to do."""
        return self._active

    def unwind(self, loop: SimLoop) -> None:
        """Run what is due on a loop that is being buried, once."""
        outer, hooks, running = asyncio._get_running_loop(), sys.get_asyncgen_hooks(), self._running
        asyncio._set_running_loop(loop)
        sys.set_asyncgen_hooks(finalizer=self._finalize)
        self._running = loop
        try:
            loop.run_once(_BURIAL_CALLBACKS)
        finally:
            self._running = running
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(outer)

    def _finalize(self, generator: AsyncGenerator[Any, Any]) -> None:
        """An asynchronous generator was dropped half-way: the loop that dropped it ends it, as in asyncio."""
        loop = self._running
        if loop is not None and not loop.dead:
            loop.call_soon(loop.close_generator, generator)

    def activate(self, loop: SimLoop) -> None:
        loop.queued = True
        self._active.append(loop)

    def report(self, name: str, context: dict[str, Any]) -> None:
        self.errors.append((name, context))
        if self.on_error is not None:
            self.on_error(name, context)


class SimLoop(asyncio.AbstractEventLoop):
    """The event loop of one simulated process. Made by ``Loops.loop``.

    ``stop_running``/``resume`` freeze it as SIGSTOP does; ``bury`` is the end of
    the process: its tasks are unwound then and there, in a fixed order, and
    nothing of it runs ever again.
    """

    def __init__(self, loops: Loops, name: str, clock: NodeClock | None) -> None:
        self.name = name
        self.dead = False
        self.stopped = False
        #: On the list of loops with something to do.
        self.queued = False
        self._loops = loops
        self._world = loops.world
        self._lane = f"timer {name}"
        self._clock = clock
        self._ready: deque[Handle | Timer] = deque()
        self._tasks_made = 0
        self._ages: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        self._burying = False

    # -- time ---------------------------------------------------------------------

    def time(self) -> float:
        return self._world.now if self._clock is None else self._clock.monotonic()

    def call_soon(
        self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = Handle(callback, args, copy_context() if context is None else context)
        if not self.dead:
            self._ready.append(handle)
            if not self.queued:
                self._loops.activate(self)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = Timer(callback, args, copy_context() if context is None else context, when)
        if not self.dead and not self._burying:
            at = when if self._clock is None else self._clock.world_time(when)
            timer.entry = self._world.at(at, lambda: self._due(timer), self._lane)
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def _due(self, timer: Timer) -> None:
        timer.entry = None
        if self.dead:
            return
        self._ready.append(timer)
        if not self.queued:
            self._loops.activate(self)

    # -- futures and tasks -----------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[_T]:
        self._tasks_made += 1
        task = asyncio.Task(coro, loop=self, name=name or self.name, context=context)
        self._ages[task] = self._tasks_made
        return task

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Inline: threads have no place in virtual time."""
        future: asyncio.Future[_T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  (handed on by the future)
            future.set_exception(error)
        return future

    # -- running ------------------------------------------------------------------------

    def run_once(self, bound: int, at_most: int = sys.maxsize) -> None:
        """Run what is due at this moment, and what that makes due, but ``at_most`` so many callbacks.

        Raises:
            Spinning: more than ``bound`` callbacks.
        """
        ready = self._ready
        count = 0
        while ready and at_most:
            at_most -= 1
            handle = ready.popleft()
            if handle._cancelled:
                continue
            count += 1
            if count > bound:
                if self._burying:
                    return
                raise Spinning(f"{self.name} runs in circles at {self._world.now}: {handle!r}")
            try:
                handle._context.run(handle._callback, *handle._args)
            except Exception as error:  # noqa: BLE001  (reported)
                self.call_exception_handler(
                    {"message": f"exception in {handle!r}", "exception": error, "handle": handle}
                )
            if self.dead:
                break
        self._loops.callbacks += count

    def close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        async def close() -> None:
            await generator.aclose()

        self.create_task(close())

    def run(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start work on this loop from outside of it."""
        return self.create_task(work)

    def stop_running(self) -> None:
        """SIGSTOP: nothing runs until ``resume``; timers that come due wait."""
        self.stopped = True

    def resume(self) -> None:
        self.stopped = False
        if self._ready and not self.queued:
            self._loops.activate(self)

    def bury(self) -> None:
        """The process is dead: unwind its tasks and forget its timers.

        Cut off the process from the outside before: ``finally`` clauses of its
        tasks run here, and what they do must reach nobody.
        """
        if self.dead:
            return
        self._burying = True
        self.stopped = False
        for _ in range(_BURIAL_ROUNDS):
            self._ready = deque(handle for handle in self._ready if not isinstance(handle, Timer))
            # By age: a set has no order.
            tasks = sorted((task for task in self._ages if not task.done()), key=self._ages.__getitem__)
            if not tasks and not self._ready:
                break
            for task in tasks:
                task.cancel()
            self._loops.unwind(self)
        self.dead = True
        self._ready.clear()

    # -- errors -----------------------------------------------------------------------------

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        return

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        return self.dead

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.dead or self._burying:
            return  # the last words of a process that was killed
        self._loops.report(self.name, context)

    def run_forever(self) -> NoReturn:
        raise NotImplementedError("time is the simulation's: see Loops.run_ready")
