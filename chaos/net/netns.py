"""Each broker in a network namespace of its own, joined by a bridge; clients are in the machine's own.

The bridge lives in a namespace too, so that the machine's packet filter has no
say in what passes and removing the namespace removes every cable. Names carry
the pid of the process that made them: what a dead one has left is swept away
by the next one.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import random
import re
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from holdfast.chaos.net.filters import Filters
from holdfast.chaos.net.port import CLIENTS, Place, members
from holdfast.chaos.net.shaping import Shaping
from holdfast.chaos.net.shell import NetError, NotHereError, run

_TOOLS = ("ip", "tc", "iptables-restore")
_OURS = re.compile(r"hf(\d+)-\d+-")
_RANGE = ipaddress.IPv4Network("10.128.0.0/9")
_CLIENT_PORT, _PEER_PORT = 7450, 7451
_serial = itertools.count()


def lacking() -> str:
    """Why network namespaces cannot be used here; empty: they can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"network namespaces need {', '.join(missing)} (Debian: iproute2, iptables)"
    name = f"hf{os.getpid()}-{next(_serial)}-try"
    try:
        run(["ip", "netns", "add", name])
        try:
            run(["ip", "netns", "exec", name, "iptables-restore", "-w"], text="*filter\nCOMMIT\n")
        finally:
            run(["ip", "netns", "del", name])
    except NetError as error:
        return f"network namespaces do not work here: {error}"
    return ""


class NamespaceNet:
    """Namespaces, cables and a bridge for ``nodes``. Implements ``PlacedNet``.

    Raises:
        NetError: it could not be made; nothing is left then.
    """

    kind = "netns"

    def __init__(self, nodes: Sequence[str]) -> None:
        sweep()
        self._stem = f"hf{os.getpid()}-{next(_serial)}-"
        self._nodes = tuple(nodes)
        network = free_network()
        hosts = list(itertools.islice(network.hosts(), len(nodes) + 1))
        self._addresses = dict(zip((CLIENTS, *nodes), map(str, hosts), strict=True))
        self._made: list[str] = []
        self._our_cable = ""
        self._filters = Filters(nodes, self._inside, self._addresses.__getitem__)
        try:
            self._build(network.prefixlen)
            self._shaping = Shaping(nodes, self._inside, self._cable, self._addresses)
        except BaseException:
            self.close()
            raise
        self.can_delay = self._shaping.can_delay
        everybody = {
            node: (f"{self._addresses[node]}:{_CLIENT_PORT}", f"{self._addresses[node]}:{_PEER_PORT}")
            for node in nodes
        }
        self.places: Mapping[str, Place] = {
            node: Place(
                prefix=tuple(self._inside(node)),
                endpoint=client,
                env={
                    "HOLDFAST_LISTEN": client,
                    "HOLDFAST_PEER_LISTEN": peer,
                    "HOLDFAST_MEMBERS": members(everybody),
                },
            )
            for node, (client, peer) in everybody.items()
        }

    def _inside(self, node: str) -> list[str]:
        # The machine's own namespace has no name, and rules for clients are not made there.
        return ["ip", "netns", "exec", self._stem + node]

    @staticmethod
    def _cable(_node: str) -> str:
        return "e0"

    def _build(self, prefix: int) -> None:
        bridge = self._stem + "sw"
        for name in (bridge, *(self._stem + node for node in self._nodes)):
            run(["ip", "netns", "add", name])
            self._made.append(name)
        run(["ip", "-n", bridge, "-batch", "-"], text="link add br0 type bridge\nlink set br0 up\n")
        for node in self._nodes:
            space = self._stem + node
            run(["ip", "link", "add", "e0", "netns", space, "type", "veth",
                 "peer", "name", f"p-{node}", "netns", bridge])  # fmt: skip
            run(
                ["ip", "-n", space, "-batch", "-"],
                text=f"addr add {self._addresses[node]}/{prefix} dev e0\nlink set lo up\nlink set e0 up\n",
            )
        ours = self._our_cable = self._stem.replace("-", "c", 1).rstrip("-")
        run(["ip", "link", "add", ours, "type", "veth", "peer", "name", "p-clients", "netns", bridge])
        run(
            ["ip", "-batch", "-"],
            text=f"addr add {self._addresses[CLIENTS]}/{prefix} dev {ours}\nlink set {ours} up\n",
        )
        ports = [f"p-{node}" for node in (*self._nodes, CLIENTS)]
        run(
            ["ip", "-n", bridge, "-batch", "-"],
            text="".join(f"link set {port} master br0\nlink set {port} up\n" for port in ports),
        )

    # -- Net ---------------------------------------------------------------------

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        self._filters.cut(a, b, one_way=one_way)

    def heal(self, a: str, b: str) -> None:
        self._filters.heal(a, b)

    def delay(self, a: str, b: str, ms: float, jitter_ms: float = 0.0) -> None:
        self._shaping.delay(a, b, ms, jitter_ms)

    def bandwidth(self, a: str, b: str, bytes_per_s: float | None) -> None:
        self._shaping.bandwidth(a, b, bytes_per_s)

    def heal_all(self) -> None:
        self._filters.heal_all()
        self._shaping.heal_all()

    def close(self) -> None:
        made, self._made = self._made, []
        if self._our_cable:
            # It would go with the bridge, but some time later.
            run(["ip", "link", "del", self._our_cable])
            self._our_cable = ""
        for name in made:
            run(["ip", "netns", "del", name])


def free_network() -> ipaddress.IPv4Network:
    """A private /24 that no address or route of this machine overlaps.

    Raises:
        NotHereError: every one is taken.
    """
    taken = list(_networks_in_use())
    subnets = list(_RANGE.subnets(new_prefix=24))
    for network in random.SystemRandom().sample(subnets, 256):
        if not any(network.overlaps(other) for other in taken):
            return network
    raise NotHereError(f"no free network of 256 tried in {_RANGE}")


def _networks_in_use() -> Iterator[ipaddress.IPv4Network]:
    for link in json.loads(run(["ip", "-4", "-j", "addr"])):
        for entry in link.get("addr_info", ()):
            yield ipaddress.IPv4Network(f"{entry['local']}/{entry['prefixlen']}", strict=False)
    for route in json.loads(run(["ip", "-4", "-j", "route", "show", "table", "all"])):
        if route["dst"] != "default":
            yield ipaddress.IPv4Network(route["dst"], strict=False)


def sweep() -> list[str]:
    """Remove namespaces that a process of ours left behind when it died; their names.

    Brokers that still run in one are ended: nobody else has a hold on them.
    """
    listed = json.loads(run(["ip", "-j", "netns", "list"]) or "[]")
    swept = []
    for name in (entry["name"] for entry in listed):
        match = _OURS.match(name)
        if match is None or Path(f"/proc/{match[1]}").exists():
            continue
        with suppress(NetError):  # another drill may sweep at the same time
            for pid in run(["ip", "netns", "pids", name]).split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            run(["ip", "netns", "del", name])
            swept.append(name)
    return swept
