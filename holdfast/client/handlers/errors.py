"""What a handler raises to say what is to become of its record."""

from __future__ import annotations

import math

from holdfast.errors import InvalidArgumentError

#: Seconds; the longest delay that can be asked for.
MAX_DELAY = 7 * 86_400.0


class RejectRecord(Exception):
    """Never try this record again: it goes to the dead-letter topic with this reason."""


class ParkRecord(Exception):
    """Set this record aside; no attempt is charged.

    In an ordered group what comes behind it waits with it.

    Args:
        delay: seconds until it comes again; None: when somebody restores it.
        reason: kept with the record.

    Raises:
        InvalidArgumentError: no such delay.
    """

    def __init__(self, delay: float | None = None, reason: str = "") -> None:
        super().__init__(reason)
        self.delay = check_delay(delay)


class RetryLater(Exception):
    """Try this record again; an attempt is charged.

    Args:
        delay: seconds until then; None: as the group's retry policy says.
        reason: kept with the record.

    Raises:
        InvalidArgumentError: no such delay.
    """

    def __init__(self, delay: float | None = None, reason: str = "") -> None:
        super().__init__(reason)
        self.delay = check_delay(delay)


class PayloadError(Exception):
    """A record's value is not what the handler takes. Its message holds nothing of the value."""


class RecordTaken(Exception):
    """The record is another member's, or settled: what was to be committed with it was refused."""


def check_delay(delay: float | None) -> float | None:
    """The delay, when it is one.

    Raises:
        InvalidArgumentError: it is not within 0 seconds and seven days.
    """
    if delay is None:
        return None
    number = isinstance(delay, int | float) and not isinstance(delay, bool)
    if not number or not math.isfinite(delay) or not 0 <= delay <= MAX_DELAY:
        raise InvalidArgumentError(
            f"delay is {delay!r}: 0 to {MAX_DELAY:.0f} seconds are allowed", metadata={"field": "delay"}
        )
    return delay
