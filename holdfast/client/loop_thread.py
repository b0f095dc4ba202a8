"""An event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from holdfast.errors import ClosedError

_T = TypeVar("_T")


class LoopThread:
    """Runs coroutines for threads that have no loop. A daemon: it never keeps a program alive."""

    def __init__(self) -> None:
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._main, name="holdfast-client", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive() and not self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run to the end and return the result. Interrupted (Ctrl-C), the work is cancelled.

        Raises:
            ClosedError: the loop has been stopped, or this is its own thread.
        """
        if not self.running or threading.current_thread() is self._thread:
            work.close()
            raise ClosedError("the client's thread has stopped, or would wait for itself")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call on the loop's thread, soon."""
        if self.running:
            self._loop.call_soon_threadsafe(function, *arguments)

    def stop(self) -> None:
        """Stop the loop and wait for its thread."""
        if self.running:
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _main(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415  (not there on every platform)
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
