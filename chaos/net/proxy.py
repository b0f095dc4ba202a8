"""A proxy before every link between brokers and before every broker's client port: no root needed.

Of two brokers the one with the smaller id dials, so each pair needs one relay;
the dialler's own ``members`` setting names it as the other's peer address.
Clients find a relay at the address each broker advertises. All relays run on
one thread with an event loop of its own, so that a busy drill does not slow them.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Callable, Mapping, Sequence

from holdfast.chaos.net.port import CLIENTS, Place, members, pairs
from holdfast.chaos.net.relay import Direction, Relay
from holdfast.chaos.net.shell import NetError
from holdfast.chaos.processes import free_ports

_HOST = "127.0.0.1"


class ProxyNet:
    """Relays between ``nodes`` and to each from the clients. Implements ``PlacedNet``.

    Args:
        seed: of the jitter.
    """

    kind = "proxy"
    can_delay = True

    def __init__(self, nodes: Sequence[str], *, seed: int = 0) -> None:
        self._nodes = tuple(sorted(nodes))
        self._ways: dict[tuple[str, str], Direction] = {}
        self._relays: dict[tuple[str, str], Relay] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)
        self._thread.start()
        ports = iter(free_ports(2 * len(nodes)))
        client = {node: (_HOST, next(ports)) for node in self._nodes}
        peer = {node: (_HOST, next(ports)) for node in self._nodes}
        links = {(CLIENTS, node): client[node] for node in self._nodes}
        links |= {(a, b): peer[b] for a, b in pairs(self._nodes)}
        # Bound at once and kept: nobody else can take these ports.
        listeners = {link: _listener() for link in links}
        rng = random.Random(seed)

        def start() -> None:
            for (a, b), target in links.items():
                forward, backward = Direction(), Direction()
                self._ways[a, b], self._ways[b, a] = forward, backward
                self._relays[a, b] = Relay(listeners[a, b], target, forward, backward, rng)
                self._relays[a, b].start()

        self._call(start)
        addresses = {link: f"{_HOST}:{sock.getsockname()[1]}" for link, sock in listeners.items()}
        self.places: Mapping[str, Place] = {
            node: Place(
                prefix=(),
                endpoint=addresses[CLIENTS, node],
                env={
                    "HOLDFAST_LISTEN": _text(client[node]),
                    "HOLDFAST_PEER_LISTEN": _text(peer[node]),
                    "HOLDFAST_ADVERTISE": addresses[CLIENTS, node],
                    "HOLDFAST_MEMBERS": members(
                        {
                            other: (
                                addresses[CLIENTS, other],
                                addresses[node, other] if node < other else _text(peer[other]),
                            )
                            for other in self._nodes
                        }
                    ),
                },
            )
            for node in self._nodes
        }

    # -- Net ---------------------------------------------------------------------

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        def apply() -> None:
            self._way(a, b).cut = True
            if not one_way:
                self._way(b, a).cut = True

        self._call(apply)

    def heal(self, a: str, b: str) -> None:
        def apply() -> None:
            self._way(a, b).cut = self._way(b, a).cut = False

        self._call(apply)

    def delay(self, a: str, b: str, ms: float, jitter_ms: float = 0.0) -> None:
        def apply() -> None:
            for way in (self._way(a, b), self._way(b, a)):
                way.delay_s, way.jitter_s = ms / 1e3, jitter_ms / 1e3

        self._call(apply)

    def bandwidth(self, a: str, b: str, bytes_per_s: float | None) -> None:
        def apply() -> None:
            for way in (self._way(a, b), self._way(b, a)):
                way.bytes_per_s = bytes_per_s

        self._call(apply)

    def heal_all(self) -> None:
        def apply() -> None:
            for way in self._ways.values():
                way.cut = False
                way.delay_s = way.jitter_s = 0.0
                way.bytes_per_s = None

        self._call(apply)

    def close(self) -> None:
        if self._loop.is_closed():
            return

        async def end() -> None:
            await asyncio.gather(*(relay.close() for relay in self._relays.values()))

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()

    def _way(self, a: str, b: str) -> Direction:
        way = self._ways.get((a, b))
        if way is None:
            raise NetError(f"no link between {a} and {b}")
        return way

    def _call(self, function: Callable[[], None]) -> None:
        """Run on the relays' thread and wait for it."""

        async def call() -> None:
            function()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(10.0)


def _listener() -> socket.socket:
    sock = socket.socket()
    (port,) = free_ports(1)
    sock.bind((_HOST, port))
    sock.listen(128)
    sock.setblocking(False)
    return sock


def _text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"
