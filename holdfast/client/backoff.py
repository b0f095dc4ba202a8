"""Waiting between tries: short at first, longer with every failure, never in step with other clients."""

from __future__ import annotations

import random
from collections.abc import Callable

from holdfast.errors import HoldfastError, UnavailableError


class Backoff:
    """Delays in seconds: jittered, doubling from ``first`` up to ``longest``.

    The first tries come quickly because a new leader is usually there within
    half a second, and every further millisecond is one more without service.
    """

    def __init__(
        self, first: float = 0.01, longest: float = 0.5, jitter: Callable[[], float] = random.random
    ) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self._next = first

    def reset(self) -> None:
        """The last try went well."""
        self._next = self._first

    def after(self, error: HoldfastError) -> float:
        """The delay after this error: none at all when a broker that did well so far is suddenly gone."""
        if isinstance(error, UnavailableError) and self._next == self._first:
            self._next = self._first * 2
            return 0.0
        return self.delay(error.retry_after_ms if error.retriable else 0)

    def delay(self, hint_ms: int = 0) -> float:
        """The next delay; at least what the broker asked for, if it did (bounded)."""
        base = max(self._next, min(hint_ms / 1000, self._longest))
        self._next = min(self._next * 2, self._longest)
        return base * (0.5 + self._jitter() / 2)
