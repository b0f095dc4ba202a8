"""The error vocabulary: stable, unambiguous, honest about retries."""

from __future__ import annotations

import re

import pytest

from holdfast import errors

#: The names of gRPC's status codes.
CODES = {
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}  # fmt: skip

#: Reasons on the wire: only ever added to. Reason, gRPC code, retriable.
TABLE = {
    ("INVALID_ARGUMENT", "INVALID_ARGUMENT", False),
    ("MALFORMED_BATCH", "INVALID_ARGUMENT", False),
    ("CORRUPT_BATCH", "DATA_LOSS", True),
    ("RECORD_TOO_LARGE", "INVALID_ARGUMENT", False),
    ("CONFIGURATION", "INVALID_ARGUMENT", False),
    ("UNKNOWN_TOPIC", "NOT_FOUND", False),
    ("UNKNOWN_PARTITION", "NOT_FOUND", False),
    ("UNKNOWN_GROUP", "NOT_FOUND", False),
    ("TOPIC_EXISTS", "ALREADY_EXISTS", False),
    ("OFFSET_OUT_OF_RANGE", "OUT_OF_RANGE", False),
    ("SEQUENCE_GAP", "FAILED_PRECONDITION", False),
    ("PRODUCER_FENCED", "FAILED_PRECONDITION", False),
    ("NOT_DELIVERED", "FAILED_PRECONDITION", False),
    ("FENCED", "FAILED_PRECONDITION", False),
    ("FAILED_PRECONDITION", "FAILED_PRECONDITION", False),
    ("LEASE_EXPIRED", "FAILED_PRECONDITION", False),
    ("GROUP_CONFLICT", "FAILED_PRECONDITION", False),
    ("PROTOCOL_VERSION", "FAILED_PRECONDITION", False),
    ("TRANSACTION_REQUIRED", "FAILED_PRECONDITION", False),
    ("ALREADY_SETTLED", "FAILED_PRECONDITION", False),
    ("TRANSACTION_TOO_LARGE", "INVALID_ARGUMENT", False),
    ("TRANSACTION_REFUSED", "FAILED_PRECONDITION", False),
    ("REDRIVE_LOOP", "FAILED_PRECONDITION", False),
    ("DUPLICATE_KEYS", "ALREADY_EXISTS", False),
    ("STALE_GROUP", "ABORTED", True),
    ("LIMIT_EXCEEDED", "FAILED_PRECONDITION", False),
    ("UNAVAILABLE", "UNAVAILABLE", True),
    ("NO_LEADER", "UNAVAILABLE", True),
    ("OUTCOME_UNKNOWN", "ABORTED", True),
    ("OVERLOADED", "RESOURCE_EXHAUSTED", True),
    ("STORAGE_FULL", "RESOURCE_EXHAUSTED", True),
    ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", True),
    ("STORAGE", "DATA_LOSS", False),
    ("DATA_DIRECTORY", "FAILED_PRECONDITION", False),
    ("PORT_IN_USE", "FAILED_PRECONDITION", False),
    ("CLOSED", "CANCELLED", False),
    ("INTERNAL", "INTERNAL", False),
}


def _all(base: type[errors.HoldfastError] = errors.HoldfastError) -> list[type[errors.HoldfastError]]:
    found = []
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:
            found += [child, *_all(child)]
    return found


ALL = _all()


def test_reasons_are_unique() -> None:
    reasons = [cls.reason for cls in ALL]
    assert len(reasons) == len(set(reasons))
    assert set(errors.BY_REASON) == set(reasons)


def test_the_published_vocabulary_only_grows() -> None:
    now = {(cls.reason, cls.code, cls.retriable) for cls in ALL}
    assert now >= TABLE, f"changed or gone: {sorted(TABLE - now)}"


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_form(cls: type[errors.HoldfastError]) -> None:
    assert re.fullmatch(r"[A-Z][A-Z_]*[A-Z]", cls.reason)
    assert cls.code in CODES
    assert cls.__name__.endswith("Error")
    assert cls.__doc__, "says what it means"
    assert cls.default_retry_after_ms == 0 or cls.retriable


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_round_trip(cls: type[errors.HoldfastError]) -> None:
    sent = cls("what to do", metadata={"leader": "n2"}, retry_after_ms=17)
    got = errors.from_reason(
        sent.reason, sent.message, metadata=sent.metadata, retry_after_ms=sent.retry_after_ms
    )
    assert type(got) is cls
    assert (got.message, got.metadata, got.retry_after_ms) == ("what to do", {"leader": "n2"}, 17)
    assert str(got) == "what to do"


def test_an_unknown_reason_becomes_internal_and_is_not_retried() -> None:
    got = errors.from_reason("FROM_THE_FUTURE", "?")
    assert type(got) is errors.InternalError
    assert not got.retriable


def test_metadata_is_a_copy() -> None:
    given = {"leader": "n1"}
    error = errors.NoLeaderError("no leader", metadata=given)
    given["leader"] = "n2"
    assert error.metadata == {"leader": "n1"}


def test_a_retry_hint_of_zero_is_kept() -> None:
    assert errors.OverloadedError("full").retry_after_ms == errors.OverloadedError.default_retry_after_ms > 0
    assert errors.OverloadedError("full", retry_after_ms=0).retry_after_ms == 0


@pytest.mark.parametrize("cls", [cls for cls in ALL if cls.retriable], ids=lambda cls: cls.__name__)
def test_retriable_errors_are_of_the_cluster_or_the_link(cls: type[errors.HoldfastError]) -> None:
    """A retry cannot mend the caller's input; a batch damaged on the way is the exception."""
    condition = (
        errors.UnavailableError,
        errors.OutcomeUnknownError,
        errors.OverloadedError,
        errors.StorageFullError,
        errors.DeadlineExceededError,
        errors.CorruptBatchError,
    )
    assert issubclass(cls, condition)
