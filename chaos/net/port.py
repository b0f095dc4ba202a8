"""What a breakable network offers, whatever it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

#: The end that all clients share.
CLIENTS = "clients"


@dataclass(frozen=True, slots=True)
class Place:
    """How one broker is started so that its traffic passes through the network.

    Attributes:
        prefix: goes before the broker's command.
        endpoint: host:port where clients reach it.
        env: its addresses, as ``HOLDFAST_*`` variables.
    """

    prefix: tuple[str, ...]
    endpoint: str
    env: Mapping[str, str]


class Net(Protocol):
    """Links between nodes, and between each node and ``CLIENTS``.

    Every call takes effect for connections that exist and for new ones. A cut
    is silent: nothing is refused or reset, bytes just do not arrive. What is
    under way when a link is healed arrives then, as TCP has it.

    Attributes:
        kind: ``netns``, ``proxy`` or ``containers``.
    """

    kind: str

    @property
    def can_delay(self) -> bool:
        """Whether ``delay`` is possible here."""

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Nothing passes between ``a`` and ``b``; ``one_way``: nothing from ``a`` to ``b``."""

    def heal(self, a: str, b: str) -> None:
        """Undo ``cut`` in both directions."""

    def delay(self, a: str, b: str, ms: float, jitter_ms: float = 0.0) -> None:
        """Bytes from ``a`` to ``b`` and back take ``ms`` and up to ``jitter_ms`` more, each way; 0: none.

        Raises:
            NotHereError: this kind of network cannot.
        """

    def bandwidth(self, a: str, b: str, bytes_per_s: float | None) -> None:
        """At most this much a second from ``a`` to ``b``, and as much back; None: unbounded.

        Raises:
            NotHereError: this kind of network cannot.
        """

    def heal_all(self) -> None:
        """No cuts, delays or bounds are left."""

    def close(self) -> None:
        """Remove everything; brokers must have ended. Safe to call twice."""


class PlacedNet(Net, Protocol):
    """A network that brokers of this machine are started in."""

    places: Mapping[str, Place]


def members(addresses: Mapping[str, tuple[str, str]]) -> str:
    """The ``HOLDFAST_MEMBERS`` setting, from (client, peer) addresses by node."""
    return ",".join(f"{node}={client}/{peer}" for node, (client, peer) in addresses.items())


def pairs(nodes: Sequence[str]) -> list[tuple[str, str]]:
    """Every two nodes, once, in the given order."""
    return [(a, b) for at, a in enumerate(nodes) for b in nodes[at + 1 :]]
