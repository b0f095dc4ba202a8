"""Time that passes when a test says so."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any

from holdfast.errors import InvalidArgumentError

#: When it is, in a test that does not say.
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)


class VirtualTimer:
    """What is to be called at a virtual time."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Do not call it."""
        self.callback = None


class VirtualClock:
    """The time of a ``TestBus``; for one event loop.

    Args:
        start: what time it is at first, an aware datetime.
    """

    def __init__(self, start: datetime = EPOCH) -> None:
        if start.tzinfo is None:
            raise InvalidArgumentError("start needs a time zone", metadata={"field": "start"})
        self._start_us = (start - _UNIX) // _MICROSECOND
        self._seconds = 0.0
        self._timers: list[tuple[float, int, VirtualTimer]] = []
        self._numbers = count()
        #: Tasks in ``sleep``: nothing wakes them but time.
        self._asleep: set[asyncio.Task[Any]] = set()

    def time(self) -> float:
        """Seconds since the clock was made."""
        return self._seconds

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return self._start_us + round(self._seconds * 1_000_000)

    def now(self) -> datetime:
        """The date and time, in UTC."""
        return _UNIX + self.wall_us() * _MICROSECOND

    async def sleep(self, seconds: float) -> None:
        """Return once so much virtual time has passed; for handlers, in place of ``asyncio.sleep``."""
        over = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not over.done():
                over.set_result(None)

        timer = self.call_later(seconds, wake)
        me = asyncio.current_task()
        assert me is not None
        self._asleep.add(me)
        try:
            await over
        finally:
            self._asleep.discard(me)
            timer.cancel()

    def call_later(self, delay: float, callback: Callable[[], object], /) -> VirtualTimer:
        """Call it once, in so many virtual seconds."""
        timer = VirtualTimer(callback)
        heappush(self._timers, (self._seconds + max(delay, 0.0), next(self._numbers), timer))
        return timer

    # -- for the bus ------------------------------------------------------------

    def sleeps(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether a task waits for nothing but this clock."""
        return task in self._asleep

    def due(self) -> float:
        """When the next timer is due; infinity: there is none."""
        while self._timers and self._timers[0][2].callback is None:
            heappop(self._timers)
        return self._timers[0][0] if self._timers else math.inf

    def move(self, at: float) -> None:
        """It is this time now, or still later; what is due by then is called."""
        self._seconds = max(self._seconds, at)
        while self.due() <= self._seconds:
            _, _, timer = heappop(self._timers)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
