"""Times as users write them, and as the wire has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from holdfast.errors import InvalidArgumentError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MIN, _MAX = -(1 << 63), (1 << 63) - 1


def to_us(time: datetime | int, field: str = "timestamp") -> int:
    """Microseconds since the Unix epoch.

    Args:
        time: an aware datetime, or microseconds already.

    Raises:
        InvalidArgumentError: a datetime without time zone, or out of range.
    """
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise InvalidArgumentError(
                f"{field} has no time zone; write datetime(..., tzinfo=UTC)", metadata={"field": field}
            )
        return (time - _EPOCH) // _MICROSECOND
    if isinstance(time, bool) or not isinstance(time, int):
        raise InvalidArgumentError(
            f"{field} must be a datetime or microseconds since the Unix epoch, not {type(time).__name__}",
            metadata={"field": field},
        )
    if not _MIN <= time <= _MAX:
        raise InvalidArgumentError(f"{field} does not fit 64 bits", metadata={"field": field})
    return time


def from_us(time_us: int) -> datetime:
    """The UTC datetime of microseconds since the Unix epoch."""
    return _EPOCH + timedelta(microseconds=time_us)


def moment(time_us: int) -> datetime:
    """As ``from_us``; what no calendar reaches is the last moment of it."""
    try:
        return from_us(time_us)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)
