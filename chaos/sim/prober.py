"""Writes and read barriers at every node, straight at the engines: stale reads show within a moment.

A client of the library takes a second to find a new leader. By then a deposed one
has stepped down by itself, and whether it would have served a stale read is not
known. These probes are there all the time.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.chaos.sim.cluster import Asked, SimCluster, SimNode
from holdfast.cluster.commands import encode_op
from holdfast.cluster.results import Completed
from holdfast.errors import HoldfastError
from holdfast.v1 import log_pb2

#: An operation that is acknowledged and changes nothing.
_WRITE = encode_op(log_pb2.Op(commit_offsets=log_pb2.CommitOffsetsOp(group="probe")))
_EVERY_S = 0.4
_TIMEOUT_S = 2.0


class Probe(Asked):
    """One call; the token that the engine gives back."""

    __slots__ = ("must_see", "node", "prober")

    def __init__(self, prober: Prober, node: SimNode, must_see: int | None) -> None:
        self.prober = prober
        self.node = node
        #: Of a read: the highest log index that was acknowledged to anybody before it began.
        self.must_see = must_see

    def ended(self, done: Completed) -> None:
        if done.error is None:
            self.prober.ended(self, done.index)


class Prober:
    """Asks until told to stop.

    Args:
        violate: told of a stale read.
    """

    def __init__(self, cluster: SimCluster, violate: Callable[[str, str], None]) -> None:
        self._cluster = cluster
        self._violate = violate
        self._rng = cluster.world.stream("prober")
        self._acked = 0
        self.stopped = False
        #: Ask nothing for the moment.
        self.silent = False

    def start(self) -> None:
        self._again()

    def ended(self, probe: Probe, index: int) -> None:
        if probe.must_see is None:
            self._acked = max(self._acked, index)
        elif index < probe.must_see:
            self._violate(
                "stale-barrier",
                f"a linearizable read on {probe.node.node_id} is told index {index}, and {probe.must_see}"
                " was acknowledged before it began",
            )

    def _again(self) -> None:
        if not self.stopped:
            self._cluster.world.at(self._cluster.world.now + 2 * _EVERY_S * self._rng.random(), self._ask)

    def _ask(self) -> None:
        nodes = [node for node in self._cluster.nodes.values() if node.engine is not None and not node.paused]
        if nodes and not self.silent:
            self.write(self._rng.choice(nodes))
            leading = [node for node in nodes if node.engine is not None and node.engine.core.leading]
            for node in leading or nodes[:1]:
                self._read(node)
        self._again()

    def write(self, node: SimNode) -> None:
        """Ask a node for one small entry of the log."""
        assert node.engine is not None
        try:
            node.engine.propose(_WRITE, Probe(self, node, None), node.clock.monotonic() + _TIMEOUT_S)
        except HoldfastError:
            return  # refused: nothing was done
        node.touched = True

    def _read(self, node: SimNode) -> None:
        assert node.engine is not None
        try:
            node.engine.read_barrier(Probe(self, node, self._acked), node.clock.monotonic() + _TIMEOUT_S)
        except HoldfastError:
            return
        node.touched = True
