"""Settings of a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import grpc

from holdfast.errors import InvalidArgumentError
from holdfast.records import Compression

#: Batches of one producer and partition a broker remembers: a retry of an
#: older one could not be told from a new one, so no more may be in flight.
REMEMBERED_BATCHES = 8

_MAX_BATCH_BYTES = 4 << 20

_MAX_MESSAGE_BYTES = 64 << 20

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # Brokers allow pings at this pace. They find a peer that is gone without
    # a word: a frozen process, a network that swallows packets.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A broker comes back within milliseconds or not for long; gRPC's own
    # pace (a second at first, two minutes in the end) is for the internet.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    # Clients of one process must not share the state of failed connections.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """How a client behaves; every field is a keyword of ``holdfast.connect``.

    Attributes:
        linger_ms: the longest a record waits for company while an earlier
            request of its topic is under way. A record that finds the
            topic idle leaves at once, together with all that were handed
            in during the same turn of the event loop.
        batch_bytes: size at which a batch is closed; up to 4 MiB. One of 4,096 records is closed in any case.
        max_in_flight: requests per topic under way at once, 1 to 8.
        max_buffered_bytes: bound on what was handed in and is not
            acknowledged; beyond it ``publish`` and ``send`` are refused
            with ``OverloadedError`` and ``publish_many`` waits.
        delivery_timeout: seconds a record is tried for, across failures and
            changes of leader, unless a call says otherwise.
        timeout: seconds for every other call, unless the call says otherwise.
        connect_timeout: seconds to find the first broker.
        compression: "none" or "zstd"; worth its time from about 1 KiB a batch.
        trace_context: puts the W3C context of an active OpenTelemetry span
            into the headers of published records.
        discover: learn the other brokers' addresses from the cluster; off
            when they cannot be reached from here.
        credentials: TLS credentials; None: plain text.
        name: shown by brokers as the consumer's name.
    """

    linger_ms: float = 3.0
    batch_bytes: int = 1 << 20
    max_in_flight: int = 5
    max_buffered_bytes: int = 64 << 20
    delivery_timeout: float = 30.0
    timeout: float = 10.0
    connect_timeout: float = 10.0
    compression: Literal["none", "zstd"] = "none"
    trace_context: bool = True
    discover: bool = True
    credentials: grpc.ChannelCredentials | None = None
    name: str = ""

    def __post_init__(self) -> None:
        _require(self.linger_ms >= 0, "linger_ms", "0 or more milliseconds")
        _require(1 <= self.batch_bytes <= _MAX_BATCH_BYTES, "batch_bytes", f"1 to {_MAX_BATCH_BYTES}")
        _require(1 <= self.max_in_flight <= REMEMBERED_BATCHES, "max_in_flight", f"1 to {REMEMBERED_BATCHES}")
        _require(self.max_buffered_bytes >= 1, "max_buffered_bytes", "at least 1")
        for field in ("delivery_timeout", "timeout", "connect_timeout"):
            _require(getattr(self, field) > 0, field, "more than 0 seconds")
        _require(self.compression in ("none", "zstd"), "compression", '"none" or "zstd"')

    @property
    def codec(self) -> Compression:
        return Compression.ZSTD if self.compression == "zstd" else Compression.NONE


def _require(holds: bool, field: str, what: str) -> None:
    if not holds:
        raise InvalidArgumentError(f"{field} must be {what}", metadata={"field": field})
