"""The simulator: many engines, one thread, virtual time, seeded faults.

``SimCluster`` runs real engines over in-memory stores and links. The same seed
gives the same run, step by step.
"""

from holdfast.chaos.sim.cluster import Divergence, SimCall, SimCluster, SimNode
from holdfast.chaos.sim.machine import LedgerMachine, record_op
from holdfast.chaos.sim.network import SimNetwork, SimTransport
from holdfast.chaos.sim.world import NodeClock, World

__all__ = [
    "Divergence",
    "LedgerMachine",
    "NodeClock",
    "SimCall",
    "SimCluster",
    "SimNetwork",
    "SimNode",
    "SimTransport",
    "World",
    "record_op",
]
