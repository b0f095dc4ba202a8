"""Silent cuts by packet filter: rules in the network namespace of each node.

What arrives is dropped where it arrives (INPUT), so that the sender notices
nothing; what goes to clients is dropped where it leaves (OUTPUT), because the
namespace of the clients is the machine's own and stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.chaos.net.port import CLIENTS
from holdfast.chaos.net.shell import run


class Filters:
    """The cuts, and the rules that make them.

    Args:
        inside: the command prefix that enters a node's network namespace.
        address: the IPv4 address of a node, or of the clients as nodes see it.
    """

    def __init__(
        self,
        nodes: Sequence[str],
        inside: Callable[[str], Sequence[str]],
        address: Callable[[str], str],
    ) -> None:
        self._nodes = tuple(nodes)
        self._inside = inside
        self._address = address
        self._cut: set[tuple[str, str]] = set()  # (from, to)

    def cut(self, a: str, b: str, *, one_way: bool) -> None:
        directions = {(a, b)} if one_way else {(a, b), (b, a)}
        self._change(self._cut | directions)

    def heal(self, a: str, b: str) -> None:
        self._change(self._cut - {(a, b), (b, a)})

    def heal_all(self) -> None:
        self._change(set())

    def _change(self, wanted: set[tuple[str, str]]) -> None:
        changed = wanted ^ self._cut
        self._cut = wanted
        for node in sorted({self._holder(*direction) for direction in changed}):
            self._write(node)

    @staticmethod
    def _holder(sender: str, receiver: str) -> str:
        return sender if receiver == CLIENTS else receiver

    def _write(self, node: str) -> None:
        """Replace all rules of one node: one step, so there is no moment between two states."""
        rules = []
        for sender, receiver in sorted(self._cut):
            if receiver == node:
                rules.append(f"-A INPUT -s {self._address(sender)} -j DROP")
            elif sender == node and receiver == CLIENTS:
                rules.append(f"-A OUTPUT -d {self._address(CLIENTS)} -j DROP")
        table = [
            "*filter",
            ":INPUT ACCEPT [0:0]",
            ":FORWARD ACCEPT [0:0]",
            ":OUTPUT ACCEPT [0:0]",
            *rules,
            "COMMIT\n",
        ]
        run([*self._inside(node), "iptables-restore", "-w"], text="\n".join(table))
