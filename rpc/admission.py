"""Admission: what a node has taken and not yet answered is bounded.

Unary calls beyond the bound are refused at once (the caller backs off);
streams wait, which is back-pressure, since what is not read fills the
connection's window.
"""

from __future__ import annotations

import asyncio
from collections import deque

from holdfast.errors import OverloadedError, UnavailableError


class Admission:
    """Counts publishes in flight on one node; event loop only.

    Args:
        max_calls: requests in flight.
        max_bytes: their payload, in bytes; at least the largest request.
    """

    __slots__ = ("_closed", "_idle", "_max_bytes", "_max_calls", "_waiting", "bytes", "calls")

    def __init__(self, max_calls: int, max_bytes: int) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self.calls = 0
        self.bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._closed = False
        self._idle: asyncio.Future[None] | None = None

    def enter(self, size: int) -> None:
        """Take a request of ``size`` bytes; every ``enter`` needs a ``leave``.

        Raises:
            OverloadedError: the node is at its bound.
            UnavailableError: the node is stopping.
        """
        if self._closed:
            raise _stopping()
        if self.calls >= self._max_calls or self.bytes + size > self._max_bytes or self._waiting:
            raise OverloadedError(
                f"this broker has {self.calls} publishes of {self.bytes} bytes in flight; try again"
            )
        self.calls += 1
        self.bytes += size

    async def enter_wait(self, size: int) -> None:
        """``enter`` that waits for room, first come first served.

        Raises:
            UnavailableError: the node is stopping.
        """
        if self._closed:
            raise _stopping()
        if self._waiting or not self._fits(size):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled() and turn.exception() is None:
                    self.leave(size)  # the turn had been given
                else:
                    self._waiting = deque(entry for entry in self._waiting if entry[1] is not turn)
                    self._hand_out()
                raise
        else:
            self.calls += 1
            self.bytes += size

    def leave(self, size: int) -> None:
        """The request has been answered."""
        self.calls -= 1
        self.bytes -= size
        if self._waiting:
            self._hand_out()
        if self._idle is not None and not self.calls and not self._idle.done():
            self._idle.set_result(None)

    async def drain(self, timeout: float) -> bool:
        """Take no more, and wait until all is answered; False after ``timeout`` seconds."""
        self._closed = True
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(_stopping())
        if self.calls:
            self._idle = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._idle
            except TimeoutError:
                return False
        return True

    def _fits(self, size: int) -> bool:
        return self.calls < self._max_calls and (self.bytes + size <= self._max_bytes or not self.calls)

    def _hand_out(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self.calls += 1
                self.bytes += size
                turn.set_result(None)


def _stopping() -> UnavailableError:
    return UnavailableError("the broker is stopping; use another one")
