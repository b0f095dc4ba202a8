"""Deadlines of single publishes that are shorter than their batch's."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from holdfast.errors import DeadlineExceededError


class Expiry:
    """Fails futures that are late.

    Callers mostly use one timeout, so futures of the same timeout wait in a
    row and one timer serves them all.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rows: dict[float, deque[tuple[float, asyncio.Future[Any]]]] = {}
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def watch(self, future: asyncio.Future[Any], timeout: float) -> None:
        """Fail the future with ``DeadlineExceededError`` unless it is done in ``timeout`` seconds."""
        row = self._rows.get(timeout)
        if row is None:
            row = self._rows[timeout] = deque()
        while row and row[0][1].done():
            row.popleft()
        row.append((self._loop.time() + timeout, future))
        if timeout not in self._timers:
            self._timers[timeout] = self._loop.call_later(timeout, self._due, timeout)

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._rows.clear()

    def _due(self, timeout: float) -> None:
        row = self._rows[timeout]
        now = self._loop.time()
        while row and (row[0][1].done() or row[0][0] <= now):
            _, future = row.popleft()
            if not future.done():
                future.set_exception(
                    DeadlineExceededError(f"not acknowledged within {timeout:g} s; it may yet be stored")
                )
        if row:
            self._timers[timeout] = self._loop.call_at(row[0][0], self._due, timeout)
        else:
            del self._timers[timeout], self._rows[timeout]
