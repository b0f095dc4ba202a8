"""What drills of the network share: brokers placed in a network that can be broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from holdfast.chaos.checker.history import Fault
from holdfast.chaos.drills.scene import Drill, Scene, Target
from holdfast.chaos.drills.target import LocalTarget
from holdfast.chaos.net import containers
from holdfast.chaos.net.choose import choose
from holdfast.chaos.net.port import Net


class NetworkDrill(Drill):
    """A drill that breaks links.

    Attributes:
        delays: it wants links that can be slow to arrive, where there is a choice.
        net: the network; from ``around`` on.
    """

    delays: ClassVar[bool] = False
    net: Net

    def unable(self, target: Target) -> str:
        why = super().unable(target)
        if not why and not isinstance(target, LocalTarget):
            why = containers.lacking()
        return why

    @asynccontextmanager
    async def around(self, target: Target) -> AsyncIterator[None]:
        if not isinstance(target, LocalTarget):
            self.net = containers.ContainerNet(target.nodes, target.pid)
            yield
            return
        making = asyncio.create_task(asyncio.to_thread(choose, target.nodes, delays=self.delays))
        try:
            net = await asyncio.shield(making)
        except asyncio.CancelledError:
            (await making).close()
            raise
        self.net = net
        try:
            for node, place in net.places.items():
                broker = target.broker(node)
                broker.prefix = list(place.prefix)
                broker.client_address = place.endpoint
                broker.peer_address = place.env["HOLDFAST_PEER_LISTEN"]
                broker.env.update(place.env)
            yield
        finally:
            await asyncio.to_thread(net.close)

    async def heal(self, scene: Scene) -> None:
        await asyncio.to_thread(self.net.heal_all)

    async def cut(self, scene: Scene, fault: Fault, *links: tuple[str, str], one_way: bool = False) -> None:
        """Silence on these links; ``one_way``: from the first to the second of each.

        Cutting takes a moment. The fault begins when all is cut: a record that
        slipped through before would count as a recovery.
        """
        for a, b in links:
            await asyncio.to_thread(self.net.cut, a, b, one_way=one_way)
        fault.at = scene.now()

    async def heal_all(self) -> None:
        await asyncio.to_thread(self.net.heal_all)


def term_of(target: Target, node: str) -> int:
    """The node's term; 0 when it does not answer. Blocks."""
    status = target.status(node)
    return 0 if status is None else int(status.term)
