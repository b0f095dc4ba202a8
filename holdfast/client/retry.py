"""How often records are tried, and how long they rest in between."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.errors import InvalidArgumentError
from holdfast.v1 import bus_pb2

_MAX_ATTEMPTS = 1_000
_LONGEST = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a record is tried, and how long it rests in between.

    None: as the group has it; where that is not known yet, the default.

    Attributes:
        attempts: after so many a record goes to the dead-letter topic, up to 1,000; 0,
            the default: never.
        initial: seconds before the second attempt; default 1.
        maximum: the longest pause, in seconds, up to seven days; default 60.
        multiplier: each pause is so many times the one before, 1 to 10; default 2.
        jitter: a pause is longer or shorter by up to this part of it, 0 to 1, drawn
            from the record itself; default 0.1.

    Raises:
        InvalidArgumentError: a number is out of range.
    """

    attempts: int | None = None
    initial: float | None = None
    maximum: float | None = None
    multiplier: float | None = None
    jitter: float | None = None

    def __post_init__(self) -> None:
        attempts = self.attempts
        whole = attempts is None or (isinstance(attempts, int) and not isinstance(attempts, bool))
        if not whole or not _within(attempts, 0, _MAX_ATTEMPTS):
            raise _invalid("attempts", f"must be 0 to {_MAX_ATTEMPTS}")
        if not _within(self.maximum, 0, _LONGEST):
            raise _invalid("maximum", "must be 0 seconds to seven days")
        most = _LONGEST if self.maximum is None else self.maximum
        if not _within(self.initial, 0, most):
            raise _invalid("initial", "must be 0 seconds to retry.maximum")
        if not _within(self.multiplier, 1, 10):
            raise _invalid("multiplier", "must be 1 to 10")
        if not _within(self.jitter, 0, 1):
            raise _invalid("jitter", "must be 0 to 1")

    def message(self) -> bus_pb2.RetryPolicy:
        """As brokers are told; what is None stays absent."""
        found = bus_pb2.RetryPolicy()
        if self.attempts is not None:
            found.max_attempts = self.attempts
        if self.initial is not None:
            found.initial_ms = round(self.initial * 1_000)
        if self.maximum is not None:
            found.max_ms = round(self.maximum * 1_000)
        if self.multiplier is not None:
            found.multiplier_milli = round(self.multiplier * 1_000)
        if self.jitter is not None:
            found.jitter_permille = round(self.jitter * 1_000)
        return found


def _within(value: float | None, low: float, high: float) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _invalid(field: str, what: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"retry.{field} {what}", metadata={"field": f"retry.{field}"})
