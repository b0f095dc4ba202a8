"""The real clock, handed to everything below ``rpc``."""

from __future__ import annotations

import time


class SystemClock:
    """Implements ``cluster.ports.Clock`` with the machine's clocks."""

    __slots__ = ()

    #: Seconds, never going back. Asked thirty times for one publish: nothing in between.
    monotonic = staticmethod(time.monotonic)

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return time.time_ns() // 1000
