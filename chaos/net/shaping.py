"""Delay and bandwidth by the kernel's queues: one class per destination in each node's namespace.

Delay needs netem, which not every kernel has; the proxy delays everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from holdfast.chaos.net.port import CLIENTS
from holdfast.chaos.net.shell import NetError, NotHereError, run

_UNBOUNDED = 10_000_000_000  # bytes/s
#: What a narrow link lets wait before it drops, in seconds of its rate.
_QUEUE_SECONDS = 0.3
_QUEUE_BYTES_MIN = 128 << 10


class Shaping:
    """Shapes what nodes send; towards nodes from ``CLIENTS`` nothing is shaped.

    Args:
        inside: the command prefix that enters a node's network namespace.
        cable: the node's network device.
        addresses: IPv4 address by node, and of the clients.
    """

    def __init__(
        self,
        nodes: Sequence[str],
        inside: Callable[[str], Sequence[str]],
        cable: Callable[[str], str],
        addresses: Mapping[str, str],
    ) -> None:
        self._nodes = tuple(nodes)
        self._inside = inside
        self._cable = cable
        self._addresses = addresses
        self._classes = {name: number for number, name in enumerate((CLIENTS, *nodes), 1)}
        self._delay: dict[tuple[str, str], tuple[float, float]] = {}
        self._rate: dict[tuple[str, str], float] = {}
        self._shaped: set[str] = set()
        self.can_delay = self._has_netem()

    def delay(self, a: str, b: str, ms: float, jitter_ms: float) -> None:
        if not self.can_delay:
            raise NotHereError("this kernel has no netem; the proxy can delay")
        for direction in ((a, b), (b, a)):
            if ms or jitter_ms:
                self._delay[direction] = (ms, jitter_ms)
            else:
                self._delay.pop(direction, None)
        self._write(a, b)

    def bandwidth(self, a: str, b: str, bytes_per_s: float | None) -> None:
        for direction in ((a, b), (b, a)):
            if bytes_per_s is None:
                self._rate.pop(direction, None)
            else:
                self._rate[direction] = bytes_per_s
        self._write(a, b)

    def heal_all(self) -> None:
        self._delay.clear()
        self._rate.clear()
        self._write(*self._shaped)

    def _write(self, *names: str) -> None:
        for node in names:
            if node == CLIENTS:
                continue
            if node in self._shaped:
                self._tc(node, f"qdisc del dev {self._cable(node)} root\n")
                self._shaped.discard(node)
            receivers = {to for sender, to in (*self._delay, *self._rate) if sender == node}
            if receivers:
                self._tc(node, self._commands(node, sorted(receivers)))
                self._shaped.add(node)

    def _commands(self, node: str, receivers: Sequence[str]) -> str:
        device = self._cable(node)
        # Without a default class what is not classified goes out at once.
        lines = [f"qdisc add dev {device} root handle 1: htb"]
        for receiver in receivers:
            number = self._classes[receiver]
            rate = self._rate.get((node, receiver), _UNBOUNDED)
            bits = int(rate * 8)
            lines.append(
                f"class add dev {device} parent 1: classid 1:{number} htb rate {bits}bit "
                f"burst {max(16 << 10, int(rate / 100))} quantum 60000"
            )
            delay = self._delay.get((node, receiver))
            if delay is not None:
                ms, jitter = delay
                # netem spreads evenly around its middle.
                lines.append(
                    f"qdisc add dev {device} parent 1:{number} netem limit 10000 "
                    f"delay {ms + jitter / 2:.3f}ms {jitter / 2:.3f}ms"
                )
            else:
                limit = max(_QUEUE_BYTES_MIN, int(rate * _QUEUE_SECONDS))
                lines.append(f"qdisc add dev {device} parent 1:{number} bfifo limit {min(limit, 1 << 30)}")
            lines.append(
                f"filter add dev {device} parent 1: protocol ip prio 1 u32 "
                f"match ip dst {self._addresses[receiver]}/32 flowid 1:{number}"
            )
        return "\n".join(lines) + "\n"

    def _has_netem(self) -> bool:
        node = self._nodes[0]
        device = self._cable(node)
        try:
            self._tc(node, f"qdisc add dev {device} root netem delay 1ms\nqdisc del dev {device} root\n")
        except NetError:
            return False
        return True

    def _tc(self, node: str, commands: str) -> None:
        run([*self._inside(node), "tc", "-batch", "-"], text=commands)
