"""Egress: what is on its way to readers is bounded, whether they read or not.

gRPC takes a message whole and keeps it until the client's flow-control window
has let it through, so a reader that does not read costs its broker a message.
All streams of a node share one bound, those of one connection a part of it, so
that one client cannot take the room of all: the more is on its way, the
smaller the next message; at the bound streams take turns. A stream that stands
still for long while others wait for its room is ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

logger = logging.getLogger(__name__)

#: Messages are not cut below this, in bytes.
_LEAST = 64 << 10
_LOOK_S = 1.0


@dataclass(eq=False, slots=True)
class _Held:
    size: int
    since: float
    peer: str
    stream: asyncio.Task[object] | None


class Egress:
    """Counts the messages of one node that are being sent; event loop only.

    Args:
        max_bytes: of all of them together. One more message may come on top.
        max_bytes_per_peer: of those on one connection.
        stalled_after: seconds a message may stand still before its stream is
            ended for the sake of those that wait.
    """

    def __init__(self, max_bytes: int, max_bytes_per_peer: int, stalled_after: float) -> None:
        self._max_bytes = max_bytes
        self._max_bytes_per_peer = max_bytes_per_peer
        self._stalled_after = stalled_after
        self._held: dict[_Held, None] = {}  # in order of time
        self._of_peer: Counter[str] = Counter()
        self._waiting: dict[asyncio.Future[None], str] = {}  # in order of time
        self._granted: asyncio.Future[None] | None = None  # a turn whose message is not held yet
        self.bytes = 0
        self.ended = 0

    def stream(self, peer: str) -> EgressStream:
        """The part of one stream; ``peer`` names its connection."""
        return EgressStream(self, peer)

    def _room(self, peer: str) -> int:
        return min(self._max_bytes - self.bytes, self._max_bytes_per_peer - self._of_peer[peer])

    async def _turn(self, peer: str) -> None:
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        self._waiting[mine] = peer
        try:
            while not mine.done():
                await asyncio.wait((mine,), timeout=_LOOK_S)
                if not mine.done():
                    self._end_stalled(peer, loop.time())
        finally:
            self._waiting.pop(mine, None)
            # Whoever is next runs after this one has taken its share, or has not.
            if self._granted is mine:
                loop.call_soon(self._taken)

    def _take(self, held: _Held) -> None:
        self._held[held] = None
        self.bytes += held.size
        self._of_peer[held.peer] += held.size

    def _give(self, held: _Held) -> None:
        del self._held[held]
        self.bytes -= held.size
        self._of_peer[held.peer] -= held.size
        if not self._of_peer[held.peer]:
            del self._of_peer[held.peer]
        self._hand_on()

    def _taken(self) -> None:
        self._granted = None
        self._hand_on()

    def _hand_on(self) -> None:
        """Let the first of those go on that have room now, one at a time."""
        if self._granted is not None:
            return
        for mine, peer in self._waiting.items():
            if self.bytes >= self._max_bytes:
                return
            if self._room(peer) > 0:
                del self._waiting[mine]
                self._granted = mine
                mine.set_result(None)
                return

    def _end_stalled(self, peer: str, now: float) -> None:
        """End the stream that has stood still the longest where the room is missing."""
        anyone = self.bytes >= self._max_bytes
        for held in self._held:
            if now - held.since < self._stalled_after:
                return
            if (anyone or held.peer == peer) and held.stream is not None and not held.stream.done():
                logger.warning(
                    "ending a stream to %s: it took nothing for %.0f s while others waited",
                    held.peer,
                    now - held.since,
                )
                held.stream.cancel()
                held.stream = None
                self.ended += 1
                return


class EgressStream:
    """Made by ``Egress.stream``."""

    __slots__ = ("_egress", "_peer")

    def __init__(self, egress: Egress, peer: str) -> None:
        self._egress = egress
        self._peer = peer

    async def turn(self) -> None:
        """Wait until there is room; what is then sent is to be read and held without an await between."""
        if self._egress._granted is not None or self._egress._room(self._peer) <= 0:
            await self._egress._turn(self._peer)

    def allowance(self, wanted: int) -> int:
        """How large the next message should be, in bytes."""
        return min(wanted, max(_LEAST, self._egress._room(self._peer) // 4))

    @contextmanager
    def sending(self, size: int) -> Iterator[None]:
        """Around the ``yield`` that sends a message of ``size`` bytes."""
        held = _Held(size, asyncio.get_running_loop().time(), self._peer, asyncio.current_task())
        self._egress._take(held)
        try:
            yield
        finally:
            self._egress._give(held)
