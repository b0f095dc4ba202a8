"""What the client library takes from the world around it: channels, randomness, the wall clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import time_ns
from typing import Protocol

import grpc

from holdfast.client.options import CHANNEL_OPTIONS


class Observer(Protocol):
    """Told what the public interface does not show; must not raise."""

    def replay_began(
        self, address: str, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]
    ) -> None:
        """A broker has said where a replay starts, and where the log ended then, by partition."""


def open_channel(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """A channel over the network; plain text without credentials."""
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(address, credentials, options=CHANNEL_OPTIONS)


def _wall_us() -> int:
    return time_ns() // 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """Handed to a client by the simulator; everybody else has the defaults.

    Attributes:
        channel: makes the channel to an address.
        jitter: 0 to 1, spreads the tries of many clients.
        shuffle: puts addresses into a random order.
        producer_id: a number no other producer has.
        transaction_id: 16 bytes no other transaction has.
        wall_us: microseconds since the Unix epoch.
    """

    channel: Callable[[str, grpc.ChannelCredentials | None], grpc.aio.Channel] = open_channel
    jitter: Callable[[], float] = random.random
    shuffle: Callable[[list[str]], None] = random.shuffle
    producer_id: Callable[[], int] = lambda: random.SystemRandom().randrange(1, 1 << 63)
    transaction_id: Callable[[], bytes] = lambda: random.SystemRandom().randbytes(16)
    wall_us: Callable[[], int] = _wall_us
    observer: Observer | None = None


REAL = Effects()
