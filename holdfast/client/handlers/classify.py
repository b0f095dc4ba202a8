"""From what a handler raised to what the broker is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, TypeAlias

from holdfast.client.handlers.errors import (
    ParkRecord,
    PayloadError,
    RecordTaken,
    RejectRecord,
    RetryLater,
    check_delay,
)
from holdfast.errors import HoldfastError

#: Bytes of UTF-8 that brokers keep of an error.
MAX_ERROR_BYTES = 200
#: Characters looked at: a message may hold megabytes.
_LOOKED_AT = 2_000


class Outcome(Enum):
    """What becomes of a record."""

    #: Handled.
    ACK = "ack"
    #: Failed: an attempt is charged, and it comes again or has had its last.
    RETRY = "retry"
    #: Not to be tried again: to the dead-letter topic.
    REJECT = "reject"
    #: Set aside; no attempt is charged.
    PARK = "park"
    #: As if it had not been handed out; no attempt is charged.
    RELEASE = "release"


class Verdict(NamedTuple):
    """An outcome and what goes with it.

    Attributes:
        error: for people; brokers keep 200 bytes of it with the record.
        delay: seconds until it comes again, of RETRY and PARK; None: by policy, and never.
    """

    outcome: Outcome
    error: str = ""
    delay: float | None = None


DONE = Verdict(Outcome.ACK)
LET_GO = Verdict(Outcome.RELEASE)

#: A user's own rule: None leaves an exception to the rules here.
OwnRule: TypeAlias = "Callable[[BaseException], Verdict | Outcome | None]"


def classify(
    error: BaseException, fatal: tuple[type[BaseException], ...] = (), own: OwnRule | None = None
) -> Verdict:
    """What a handler that raised this wants to become of its record.

    What it says in so many words counts first, then the user's own rule, then whether the same call may
    succeed later, then ``fatal``; everything else is tried again. A group of exceptions is tried
    again unless each of them is not to be.
    """
    said = explicit(error)
    if said is not None:
        return said
    if own is not None:
        ruled = _ruled(error, own)
        if ruled is not None:
            return ruled
    if isinstance(error, BaseExceptionGroup) and not isinstance(error, fatal):
        verdicts = [classify(each, fatal, own) for each in error.exceptions]
        return next((v for v in verdicts if v.outcome is Outcome.RETRY), verdicts[0])
    if isinstance(error, KeyboardInterrupt):
        return LET_GO
    text = describe(error)
    if isinstance(error, HoldfastError) and error.retriable:
        return Verdict(Outcome.RETRY, text)
    return Verdict(Outcome.REJECT if isinstance(error, fatal) else Outcome.RETRY, text)


def explicit(error: BaseException) -> Verdict | None:
    """What a handler has said in so many words."""
    if isinstance(error, RejectRecord):
        return Verdict(Outcome.REJECT, cut(str(error) or "rejected"))
    if isinstance(error, PayloadError):
        return Verdict(Outcome.REJECT, cut(f"payload: {error}"))
    if isinstance(error, ParkRecord):
        return Verdict(Outcome.PARK, cut(str(error) or "parked"), error.delay)
    if isinstance(error, RetryLater):
        return Verdict(Outcome.RETRY, cut(str(error) or "to be tried later"), error.delay)
    if isinstance(error, RecordTaken):
        return LET_GO
    return None


def describe(error: BaseException) -> str:
    """An exception in one line, as long as brokers keep."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  (whatever a user's __str__ raises, the record needs its outcome)
        text = "its message cannot be shown"
    name = type(error).__name__
    return cut(f"{name}: {text}" if text else name)


def cut(text: str) -> str:
    """The text in one line and at most 200 bytes of UTF-8."""
    line = " ".join(text[:_LOOKED_AT].split())
    return line.encode("utf-8", "replace")[:MAX_ERROR_BYTES].decode("utf-8", "ignore")


def _ruled(error: BaseException, own: OwnRule) -> Verdict | None:
    """What the user's rule says; a rule that fails says nothing but that the record is tried again."""
    try:
        ruled = own(error)
        if ruled is None:
            return None
        if isinstance(ruled, Outcome):
            return Verdict(ruled, describe(error))
        if isinstance(ruled, Verdict) and isinstance(ruled.outcome, Outcome):
            return Verdict(ruled.outcome, cut(ruled.error) or describe(error), check_delay(ruled.delay))
    except Exception as failure:  # noqa: BLE001  (a user's function)
        return Verdict(Outcome.RETRY, cut(f"{describe(error)}; classify: {describe(failure)}"))
    text = f"{describe(error)}; classify returned {type(ruled).__name__}, not an Outcome, a Verdict or None"
    return Verdict(Outcome.RETRY, cut(text))
