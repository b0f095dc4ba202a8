"""Holdfast errors on the wire: gRPC codes with ``google.rpc`` details.

Every failed call carries an ErrorInfo of domain "holdfast" with the stable
reason and its facts; RetryInfo when the same call may be tried again; and
BadRequest naming the field when one is at fault.
"""

from __future__ import annotations

import logging
import traceback
from typing import Any, NoReturn

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

from holdfast.errors import HoldfastError, InternalError, InvalidArgumentError
from holdfast.v1 import errors_pb2

logger = logging.getLogger(__name__)

DOMAIN = "holdfast"
_DETAILS_KEY = "grpc-status-details-bin"

#: gRPC refuses metadata of more than 8 KiB, so long texts are cut.
_MAX_TEXT = 1024


def to_wire(error: HoldfastError) -> errors_pb2.Error:
    """The error as a message, for results inside a stream."""
    return errors_pb2.Error(
        reason=error.reason,
        message=error.message[:_MAX_TEXT],
        retriable=error.retriable,
        retry_after_ms=error.retry_after_ms,
        metadata=_facts(error),
    )


def to_status(error: HoldfastError) -> status_pb2.Status:
    """The error as a ``google.rpc.Status`` with its details."""
    status = status_pb2.Status(code=status_code(error).value[0], message=error.message[:_MAX_TEXT])
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_facts(error))
    status.details.add().Pack(info)
    if error.retriable:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    field = error.metadata.get("field")
    if field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=field, description=error.message[:_MAX_TEXT], reason=error.reason
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    return status


def status_code(error: HoldfastError) -> grpc.StatusCode:
    return grpc.StatusCode[error.code]


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> NoReturn:
    """End the call with the error; one that is not Holdfast's own is logged and hidden.

    gRPC ties the call and what ended it into a knot that lasts until the cycle
    collector comes by. So that no request's payload stays in it, the frames the
    error went through let go of what they hold; the caller's own frame must
    have done so before.
    """
    if not isinstance(error, HoldfastError):
        logger.error("a call failed unexpectedly", exc_info=error)
        let_go(error)
        error = InternalError("internal error; the broker's log says more")
    let_go(error)
    status = to_status(error)
    await context.abort(status_code(error), status.message, ((_DETAILS_KEY, status.SerializeToString()),))
    raise AssertionError("abort returned")  # it always raises


def let_go(error: BaseException) -> None:
    """Forget where the error was raised: its frames hold the request, and often the error itself."""
    linked: BaseException | None = error
    while linked is not None and linked.__traceback__ is not None:
        trace, linked.__traceback__ = linked.__traceback__, None
        traceback.clear_frames(trace)
        linked = linked.__cause__ or linked.__context__


def invalid(field: str, message: str) -> InvalidArgumentError:
    """An InvalidArgumentError that names its field."""
    return InvalidArgumentError(message, metadata={"field": field})


def _facts(error: HoldfastError) -> dict[str, str]:
    return {key: value[:_MAX_TEXT] for key, value in error.metadata.items()}
