"""Holdfast errors from what gRPC and brokers report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from holdfast.errors import (
    BY_REASON,
    ClosedError,
    DeadlineExceededError,
    FailedPreconditionError,
    HoldfastError,
    InternalError,
    InvalidArgumentError,
    OutcomeUnknownError,
    OverloadedError,
    UnavailableError,
    from_reason,
)
from holdfast.v1 import errors_pb2

DOMAIN = "holdfast"
_DETAILS_KEY = "grpc-status-details-bin"

#: For statuses without our details: from gRPC itself, a proxy, a foreign server.
_BY_CODE: dict[grpc.StatusCode, type[HoldfastError]] = {
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.ABORTED: OutcomeUnknownError,
    # gRPC's own: a write that raced with the end of its stream, a reset stream.
    grpc.StatusCode.INTERNAL: UnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.UNIMPLEMENTED: FailedPreconditionError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
}

#: After these the request may or may not have taken effect.
_UNCERTAIN = (OutcomeUnknownError, DeadlineExceededError, ClosedError, InternalError)


def from_rpc(error: grpc.aio.AioRpcError, where: str) -> HoldfastError:
    """The typed error of a failed call; ``where`` is the broker's address."""
    found = _from_details(error.trailing_metadata())
    if found is not None:
        return found
    code = error.code()
    text = error.details() or code.name
    if code is grpc.StatusCode.UNAVAILABLE:
        # "failed to connect to all addresses; last error: UNKNOWN: …: Connection refused"
        why = text.rpartition(": ")[2] if "failed to connect" in text else text
        return UnavailableError(f"broker {where} is not reachable: {why}", metadata={"address": where})
    cls = _BY_CODE.get(code, InternalError)
    return cls(f"{where}: {code.name}: {text}")


def from_result(error: errors_pb2.Error) -> HoldfastError:
    """The typed error of a result inside a stream."""
    return from_reason(
        error.reason, error.message, metadata=dict(error.metadata), retry_after_ms=error.retry_after_ms
    )


def said_by_broker(error: grpc.aio.AioRpcError) -> bool:
    """Whether a broker answered, so that a failure is not one of the connection."""
    return _from_details(error.trailing_metadata()) is not None


def is_uncertain(error: HoldfastError) -> bool:
    """Whether the request may have taken effect in spite of the error."""
    return isinstance(error, _UNCERTAIN)


def _from_details(metadata: Iterable[Any] | None) -> HoldfastError | None:
    for key, value in metadata or ():
        if key != _DETAILS_KEY:
            continue
        try:
            status = status_pb2.Status.FromString(value)
            return _from_status(status)
        except DecodeError:
            return None
    return None


def _from_status(status: status_pb2.Status) -> HoldfastError | None:
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    named = False
    retry_after_ms: int | None = None
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
            named = info.domain == DOMAIN
        elif detail.Is(retry.DESCRIPTOR):
            detail.Unpack(retry)
            retry_after_ms = retry.retry_delay.ToMilliseconds()
    if not named:
        return None
    if info.reason not in BY_REASON and retry_after_ms is not None:
        # A newer broker's reason: what matters is that it says "try again".
        return UnavailableError(status.message, metadata=dict(info.metadata), retry_after_ms=retry_after_ms)
    return from_reason(
        info.reason, status.message, metadata=dict(info.metadata), retry_after_ms=retry_after_ms
    )
