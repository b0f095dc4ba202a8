"""The EventBus service: puts publish, replay, subscribe and transact together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc

from holdfast.rpc.services.bus_publish import PublishService
from holdfast.rpc.services.handlers import Context, server_stream
from holdfast.rpc.services.transact import TransactService
from holdfast.v1 import bus_pb2

SERVICE = bus_pb2.DESCRIPTOR.services_by_name["EventBus"].full_name


class Replays(Protocol):
    """What serves ``Replay``; answers may be serialised already."""

    def replay(self, request: bus_pb2.ReplayRequest, context: Any) -> AsyncIterator[Any]: ...


class Subscribes(Protocol):
    """What serves ``Subscribe``; takes and gives serialised messages."""

    def subscribe(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]: ...


def handlers(
    publish: PublishService,
    replay: Replays | None,
    subscribe: Subscribes | None,
    transact: TransactService | None = None,
) -> grpc.GenericRpcHandler[bytes, bytes]:
    """What a server registers for ``holdfast.v1.EventBus``."""
    unary = publish.publish_observed if publish.observed else publish.publish
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Publish": grpc.unary_unary_rpc_method_handler(unary),
        "PublishStream": grpc.stream_stream_rpc_method_handler(publish.publish_stream),
    }
    if replay is not None:
        methods["Replay"] = server_stream(bus_pb2.ReplayRequest, replay.replay)
    if subscribe is not None:
        methods["Subscribe"] = grpc.stream_stream_rpc_method_handler(subscribe.subscribe)
    if transact is not None:
        methods["Transact"] = grpc.unary_unary_rpc_method_handler(transact.transact)
    return grpc.method_handlers_generic_handler(SERVICE, methods)


__all__ = ["SERVICE", "Context", "Replays", "Subscribes", "handlers"]
