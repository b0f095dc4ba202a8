"""From exceptions to outcomes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.client.handlers.classify import MAX_ERROR_BYTES, Outcome, Verdict, classify, cut, describe
from holdfast.client.handlers.errors import ParkRecord, PayloadError, RecordTaken, RejectRecord, RetryLater
from holdfast.errors import InvalidArgumentError, OverloadedError, UnknownTopicError


class Unshowable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (RejectRecord("no such account"), Verdict(Outcome.REJECT, "no such account")),
        (RejectRecord(), Verdict(Outcome.REJECT, "rejected")),
        (PayloadError("not JSON"), Verdict(Outcome.REJECT, "payload: not JSON")),
        (ParkRecord(60, "by hand"), Verdict(Outcome.PARK, "by hand", 60)),
        (ParkRecord(), Verdict(Outcome.PARK, "parked", None)),
        (RetryLater(2.5), Verdict(Outcome.RETRY, "to be tried later", 2.5)),
        (RetryLater(reason="busy"), Verdict(Outcome.RETRY, "busy", None)),
        (RecordTaken("settled"), Verdict(Outcome.RELEASE)),
        (ValueError("bad"), Verdict(Outcome.RETRY, "ValueError: bad")),
        (KeyError(), Verdict(Outcome.RETRY, "KeyError")),
        (Unshowable(), Verdict(Outcome.RETRY, "Unshowable: its message cannot be shown")),
        (asyncio.CancelledError(), Verdict(Outcome.RETRY, "cancelled")),
        (SystemExit(3), Verdict(Outcome.RETRY, "SystemExit: 3")),
        (KeyboardInterrupt(), Verdict(Outcome.RELEASE)),
        (OverloadedError("full"), Verdict(Outcome.RETRY, "OverloadedError: full")),
        (UnknownTopicError("t"), Verdict(Outcome.RETRY, "UnknownTopicError: t")),
        (
            ExceptionGroup("both", [RejectRecord("no"), RejectRecord("never")]),
            Verdict(Outcome.REJECT, "no"),
        ),
        (
            ExceptionGroup("one", [RejectRecord("no"), ValueError("bad")]),
            Verdict(Outcome.RETRY, "ValueError: bad"),
        ),
    ],
)
def test_the_rules(error: BaseException, verdict: Verdict) -> None:
    assert classify(error) == verdict


def test_fatal_exceptions_are_not_tried_again() -> None:
    fatal = (LookupError, UnknownTopicError, OverloadedError)
    assert classify(KeyError("k"), fatal).outcome is Outcome.REJECT
    assert classify(UnknownTopicError("t"), fatal).outcome is Outcome.REJECT
    assert classify(ValueError(), fatal).outcome is Outcome.RETRY
    assert classify(OverloadedError("full"), fatal).outcome is Outcome.RETRY, (
        "the same call may succeed later"
    )
    assert classify(ExceptionGroup("g", [KeyError(), IndexError()]), fatal).outcome is Outcome.REJECT


def test_ones_own_rule_comes_before_all_but_what_was_said() -> None:
    def own(error: BaseException) -> Outcome | Verdict | None:
        if isinstance(error, ValueError):
            return Outcome.REJECT
        if isinstance(error, KeyError):
            return Verdict(Outcome.PARK, "by rule", 5)
        return None

    assert classify(ValueError("x"), own=own) == Verdict(Outcome.REJECT, "ValueError: x")
    assert classify(KeyError("x"), own=own) == Verdict(Outcome.PARK, "by rule", 5)
    assert classify(TypeError("x"), own=own) == Verdict(Outcome.RETRY, "TypeError: x")
    assert classify(RejectRecord("said"), own=lambda _: Outcome.RETRY) == Verdict(Outcome.REJECT, "said")


def test_ones_own_rule_that_fails_loses_nothing() -> None:
    def broken(error: BaseException) -> Outcome | None:
        raise LookupError("rule")

    verdict = classify(ValueError("x"), own=broken)
    assert verdict == Verdict(Outcome.RETRY, "ValueError: x; classify: LookupError: rule")
    odd: Any = lambda _: "reject"  # noqa: E731
    assert classify(ValueError("x"), own=odd).outcome is Outcome.RETRY
    assert "classify returned str" in classify(ValueError("x"), own=odd).error
    never = classify(ValueError("x"), own=lambda _: Verdict(Outcome.RETRY, "", -1))
    assert never.outcome is Outcome.RETRY
    assert "delay is -1" in never.error


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), 8 * 86_400, "5", True])
@pytest.mark.parametrize("kind", [ParkRecord, RetryLater])
def test_delays_that_are_none(kind: Any, delay: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        kind(delay)
    assert caught.value.metadata["field"] == "delay"


def test_errors_are_one_line_and_short() -> None:
    assert describe(ValueError("a\n  b\tc")) == "ValueError: a b c"
    long = cut("ä" * 5_000)
    assert long == "ä" * 100
    assert len(describe(ValueError("x" * 10_000_000)).encode()) == MAX_ERROR_BYTES
    assert cut("\ud800 half") == "? half"
