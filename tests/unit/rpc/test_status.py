"""Errors on the wire: every class of the vocabulary, with its details."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2

from holdfast.errors import BY_REASON, InternalError, InvalidArgumentError, OverloadedError, from_reason
from holdfast.rpc.status import invalid, status_code, to_status, to_wire


@pytest.mark.parametrize("reason", sorted(BY_REASON))
def test_every_error_has_a_code_and_details(reason: str) -> None:
    error = from_reason(reason, "what to do", metadata={"a": "b"})
    status = to_status(error)
    assert status.code == status_code(error).value[0] == grpc.StatusCode[error.code].value[0]
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (reason, "holdfast", {"a": "b"})
    retry = [d for d in status.details if d.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
    assert bool(retry) == error.retriable
    wire = to_wire(error)
    assert (wire.reason, wire.retriable, wire.retry_after_ms) == (
        reason,
        error.retriable,
        error.retry_after_ms,
    )


def test_the_delay_of_a_retry() -> None:
    info = error_details_pb2.RetryInfo()
    assert to_status(OverloadedError("full", retry_after_ms=1234)).details[1].Unpack(info)
    assert info.retry_delay.ToMilliseconds() == 1234


def test_the_field_at_fault() -> None:
    status = to_status(invalid("topic", "missing"))
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert [(v.field, v.description) for v in bad.field_violations] == [("topic", "missing")]
    assert isinstance(invalid("x", "y"), InvalidArgumentError)


def test_endless_texts_are_cut() -> None:
    status = to_status(InternalError("x" * 100_000, metadata={"k": "y" * 100_000}))
    assert len(status.SerializeToString()) < 8000
