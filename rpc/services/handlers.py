"""Generic method handlers: serializers and error mapping are ours.

Requests arrive as bytes and are parsed here, so that a message that does not
parse is the caller's error with details, and not an internal one of gRPC.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from holdfast.rpc.status import abort, invalid

Req = TypeVar("Req", bound=Message)
Context = grpc.aio.ServicerContext[Any, Any]

#: Unary calls: the parsed request and the time left, in seconds.
Unary = Callable[[Req, float], Awaitable[Message]]


def parse(kind: type[Req], raw: bytes) -> Req:
    """
    Raises:
        InvalidArgumentError: the bytes are no such message.
    """
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise invalid("request", f"the message does not parse as a {kind.__name__}") from None


def unary(
    kind: type[Req], behaviour: Unary[Req], default_timeout: float
) -> grpc.RpcMethodHandler[bytes, bytes]:
    """A unary call with the deadline and errors every call has."""

    async def handle(raw: bytes, context: Context) -> bytes:
        try:
            left = context.time_remaining()
            response = await behaviour(parse(kind, raw), default_timeout if left is None else left)
            return response.SerializeToString()
        except Exception as error:  # noqa: BLE001  (reported to the caller as a status)
            del raw  # see abort
            await abort(context, error)

    return grpc.unary_unary_rpc_method_handler(handle)


def server_stream(
    kind: type[Req], behaviour: Callable[[Req, Context], AsyncIterator[Message | bytes]]
) -> grpc.RpcMethodHandler[bytes, bytes]:
    """A call answered by a stream of messages or of serialised ones."""

    async def handle(raw: bytes, context: Context) -> AsyncIterator[bytes]:
        response: Message | bytes | None = None
        try:
            async for response in behaviour(parse(kind, raw), context):
                yield response if isinstance(response, bytes) else response.SerializeToString()
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001  (reported to the caller as a status)
            del raw, response  # see abort
            await abort(context, error)

    return grpc.unary_stream_rpc_method_handler(handle)
