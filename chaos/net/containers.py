"""Cuts and bandwidth for brokers in containers: rules in each container's own network namespace."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence

from holdfast.chaos.net.filters import Filters
from holdfast.chaos.net.port import CLIENTS
from holdfast.chaos.net.shaping import Shaping
from holdfast.chaos.net.shell import NotHereError, run


def lacking() -> str:
    """Why containers' networks cannot be broken here; empty: they can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "entering a container's network needs root"
    missing = [tool for tool in ("nsenter", "ip", "tc", "iptables-restore") if shutil.which(tool) is None]
    return f"needs {', '.join(missing)}" if missing else ""


class ContainerNet:
    """Implements ``Net``. Containers must run when a link of theirs is changed.

    Clients are whoever reaches a container through its gateway, as all of the host do.

    Args:
        pid: a process inside a node's container, as this machine numbers it; 0: it does not run.
    """

    kind = "containers"

    def __init__(self, nodes: Sequence[str], pid: Callable[[str], int]) -> None:
        self._nodes = tuple(nodes)
        self._pid = pid
        self._known: dict[str, str] = {}
        self._filters = Filters(nodes, self._inside, self._address)
        self._shaping_made: Shaping | None = None

    @property
    def can_delay(self) -> bool:
        return self._shaping().can_delay

    def _inside(self, node: str) -> list[str]:
        pid = self._pid(node)
        if not pid:
            raise NotHereError(f"the container of {node} does not run")
        return ["nsenter", "--target", str(pid), "--net"]

    def _address(self, name: str) -> str:
        # Asked once: the filter must still know a container that has just died.
        if name not in self._known:
            for node in self._nodes:
                self._known[node] = self._ask(node, "addr", "show", "dev", self._cable(node))
            self._known[CLIENTS] = self._ask(self._nodes[0], "route", "show", "default")
        return self._known[name]

    def _ask(self, node: str, *question: str) -> str:
        answer = json.loads(run([*self._inside(node), "ip", "-4", "-j", *question]))
        first = answer[0]
        address: str = first["gateway"] if "gateway" in first else first["addr_info"][0]["local"]
        return address

    def _cable(self, node: str) -> str:
        device: str = json.loads(run([*self._inside(node), "ip", "-4", "-j", "route", "show", "default"]))[0][
            "dev"
        ]
        return device

    def _shaping(self) -> Shaping:
        if self._shaping_made is None:
            addresses = {name: self._address(name) for name in (*self._nodes, CLIENTS)}
            self._shaping_made = Shaping(self._nodes, self._inside, self._cable, addresses)
        return self._shaping_made

    # -- Net ---------------------------------------------------------------------

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        self._filters.cut(a, b, one_way=one_way)

    def heal(self, a: str, b: str) -> None:
        self._filters.heal(a, b)

    def delay(self, a: str, b: str, ms: float, jitter_ms: float = 0.0) -> None:
        self._shaping().delay(a, b, ms, jitter_ms)

    def bandwidth(self, a: str, b: str, bytes_per_s: float | None) -> None:
        self._shaping().bandwidth(a, b, bytes_per_s)

    def heal_all(self) -> None:
        self._filters.heal_all()
        if self._shaping_made is not None:
            self._shaping_made.heal_all()

    def close(self) -> None:
        """Nothing to remove: what was made goes with the containers."""
