"""What the cluster layer is handed: clock, randomness, transport, event sink.

Nothing in ``cluster`` reads a clock, draws a random number, opens a socket or
starts a timer on its own; brokers hand in the real ones, the simulator hands
in virtual ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast.v1 import peer_pb2


class Clock(Protocol):
    """Time. Both in seconds / microseconds of a real or a virtual clock."""

    def monotonic(self) -> float:
        """Seconds, never going back; for timers."""
        ...

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch; for stamping commands only."""
        ...


Randomness = random.Random


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A link to the peer is up in both directions; frames may flow."""

    node_id: str
    client_address: str


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """The link is gone; what was sent on it may be lost.

    ``refused``: the peer's process is known to be gone (reset, end of stream
    or connection refused), not merely silent.
    """

    node_id: str
    refused: bool


@dataclass(frozen=True, slots=True)
class PeerMessage:
    """One frame, in the order sent; never from a connection since replaced."""

    node_id: str
    frame: peer_pb2.PeerFrame
    #: The commands of an append's entries, when the transport kept them out of the frame; else none.
    commands: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class PeerActive:
    """Bytes of a frame that is not complete yet have arrived: a large one on a slow link."""

    node_id: str


TransportEvent = PeerConnected | PeerDisconnected | PeerMessage | PeerActive


class Transport(Protocol):
    """Links to the other voters. All but ``wake`` on the engine thread only.

    Frames are delivered in order or not at all: a frame that cannot be sent
    is dropped, never reordered. Buffers are bounded.
    """

    def start(self) -> None: ...

    def poll(self, timeout: float) -> Sequence[TransportEvent]:
        """Wait up to ``timeout`` seconds for events or ``wake``; may return none."""
        ...

    def send(self, node_id: str, frame: peer_pb2.PeerFrame) -> bool:
        """Queue a frame and try to write it at once; False when it was dropped."""
        ...

    def send_append(self, node_id: str, frame: peer_pb2.PeerFrame, commands: Sequence[bytes]) -> bool:
        """As ``send``; the append's entries lack their ``commands``, which need not be copied into it."""
        ...

    def backlog(self, node_id: str) -> int:
        """Bytes queued for the peer and not yet handed to the network."""
        ...

    def wake(self) -> None:
        """Make ``poll`` return soon. From any thread."""
        ...

    def close(self) -> None: ...


#: Typed events for telemetry; must not raise and must not block.
EventSink = Callable[[object], None]
