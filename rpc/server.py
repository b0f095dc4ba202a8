"""The gRPC server: options, binding, and what a taken port is called."""

from __future__ import annotations

import errno
import socket

import grpc

from holdfast.errors import ConfigurationError, PortInUseError
from holdfast.rpc.logs import quiet_grpc
from holdfast.rpc.settings import Address

MAX_MESSAGE_BYTES = 64 << 20

OPTIONS: tuple[tuple[str, int], ...] = (
    # On by default in gRPC: a second broker on the same port would start silently.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A dead peer is noticed within 20 s; pings of clients every 5 s are welcome,
    # where the default would answer them with GOAWAY.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_concurrent_streams", 4096),
)


def create() -> grpc.aio.Server:
    """A server without handlers and ports; to be made on the loop it runs on."""
    quiet_grpc()
    return grpc.aio.server(options=OPTIONS)


def bind(server: grpc.aio.Server, address: Address) -> Address:
    """Listen on the address; port 0 picks a free one. Returns the bound address.

    Raises:
        PortInUseError: another process has the port.
        ConfigurationError: the address cannot be bound for another reason.
    """
    try:
        port = server.add_insecure_port(str(address))
    except RuntimeError as error:
        raise _why(address) from error
    if port == 0:
        raise _why(address)
    return Address(address.host, port)


def _why(address: Address) -> ConfigurationError | PortInUseError:
    """gRPC says only that it failed; the plain socket call says why."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return ConfigurationError(
                f"cannot listen on {address}: {error.strerror or error}", metadata={"field": "listen"}
            )
    return PortInUseError(
        f"cannot listen on {address}: port {address.port} is in use; stop the process that has it, "
        "or choose another with --listen",
        metadata={"port": str(address.port)},
    )
