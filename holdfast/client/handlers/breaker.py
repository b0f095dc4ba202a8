"""A circuit breaker: a handler that only fails is left in peace for a while.

No clock: callers hand in ``now``, monotonic seconds.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum

from holdfast.errors import InvalidArgumentError

#: Seconds; the longest rest, however often a handler goes on failing.
MAX_REST = 300.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a handler is left in peace, and for how long.

    Attributes:
        failures: so many failed records without a success between them open the breaker. Rejected
            records do not count: poison is not an outage.
        within: seconds in which they have to fall.
        rest: seconds until one record is tried again; doubled, up to five minutes, each time that fails.

    Raises:
        InvalidArgumentError: a number is out of range.
    """

    failures: int = 10
    within: float = 30.0
    rest: float = 15.0

    def __post_init__(self) -> None:
        if isinstance(self.failures, bool) or not isinstance(self.failures, int) or self.failures < 1:
            raise _invalid("failures", "must be a whole number, at least 1")
        if not (self.within > 0 and math.isfinite(self.within)):
            raise _invalid("within", "must be more than 0 seconds")
        if not 0 < self.rest <= MAX_REST:
            raise _invalid("rest", f"must be more than 0 seconds and at most {MAX_REST:.0f}")


class State(Enum):
    """Of a circuit: records flow, none does, or one on trial."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Circuit:
    """A breaker at work."""

    def __init__(self, settings: Breaker) -> None:
        self._settings = settings
        self._failed: deque[float] = deque(maxlen=settings.failures)
        self._rest = settings.rest
        self._until = 0.0
        self.state = State.CLOSED

    def failed(self, now: float) -> bool:
        """A record failed; True when that opened the breaker.

        While it is open only records begun before can end: they say nothing new.
        """
        if self.state is State.OPEN:
            return False
        if self.state is State.HALF_OPEN:
            self._rest = min(2 * self._rest, MAX_REST)
            self._open(now)
            return True
        self._failed.append(now)
        if len(self._failed) < self._settings.failures or now - self._failed[0] > self._settings.within:
            return False
        self._open(now)
        return True

    def succeeded(self) -> bool:
        """A record was handled; True when that closed the breaker."""
        self._failed.clear()
        if self.state is not State.HALF_OPEN:
            return False
        self.state = State.CLOSED
        self._rest = self._settings.rest
        return True

    def tick(self, now: float) -> bool:
        """Time has passed; True when one record may be tried now."""
        if self.state is not State.OPEN or now < self._until:
            return False
        self.state = State.HALF_OPEN
        return True

    @property
    def rest(self) -> float:
        """Seconds of the present rest, or of the next one."""
        return self._rest

    def _open(self, now: float) -> None:
        self.state = State.OPEN
        self._until = now + self._rest
        self._failed.clear()


def _invalid(field: str, what: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"breaker: {field} {what}", metadata={"field": f"breaker.{field}"})
