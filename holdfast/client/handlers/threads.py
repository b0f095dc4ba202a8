"""Threads for handlers that are not coroutines."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Threads:
    """Up to ``limit`` threads, started as they are needed.

    Daemons, unlike those of an executor: a handler that hangs must not keep a process alive that has left
    its groups. Not to be used by several threads.

    Args:
        name: of the threads, with a number.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0

    def submit(self, call: Callable[[], None]) -> None:
        """Call in a thread. The call must not raise; it waits when all threads are busy."""
        self._calls.put(call)
        if not self._idle.acquire(blocking=False) and self._started < self._limit:
            self._started += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()

    def close(self) -> None:
        """End the threads once they are idle; does not wait for them."""
        for _ in range(self._started):
            self._calls.put(None)

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            call()
            self._idle.release()
            del call  # what it holds is free while the thread waits
