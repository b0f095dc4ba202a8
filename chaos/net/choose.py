"""Which network a drill gets: namespaces where this machine has them, the proxy elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence

from holdfast.chaos.net.netns import NamespaceNet, lacking
from holdfast.chaos.net.port import PlacedNet
from holdfast.chaos.net.proxy import ProxyNet
from holdfast.chaos.net.shell import NotHereError

#: ``netns`` or ``proxy``: takes the choice away.
FORCE = "HOLDFAST_CHAOS_NET"


def choose(nodes: Sequence[str], *, delays: bool = False, kind: str = "") -> PlacedNet:
    """A network for brokers ``nodes`` of this machine.

    Args:
        delays: it must be able to delay; a kernel without netem cannot.
        kind: ``netns`` or ``proxy``; empty: what ``HOLDFAST_CHAOS_NET`` says, or what is best here.

    Raises:
        NotHereError: the kind that was asked for cannot be had.
        NetError: it could not be made.
    """
    kind = kind or os.environ.get(FORCE, "")
    if kind not in ("", "netns", "proxy"):
        raise NotHereError(f"{FORCE}: {kind!r} is neither netns nor proxy")
    if kind != "proxy":
        why = lacking()
        if not why:
            net = NamespaceNet(nodes)
            if net.can_delay or not delays:
                return net
            net.close()
            why = "this kernel has no netem, so namespaces cannot delay"
        if kind == "netns":
            raise NotHereError(why)
    return ProxyNet(nodes)
