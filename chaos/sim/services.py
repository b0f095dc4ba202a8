"""The real services on simulated nodes, and clients of the real library to use them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import grpc

from holdfast.chaos.sim.cluster import SimCluster, SimNode
from holdfast.chaos.sim.loop import Loops, SimLoop
from holdfast.chaos.sim.rpc import ClientNetwork, SimServer
from holdfast.client.client import Client
from holdfast.client.effects import Effects, Observer
from holdfast.client.options import CHANNEL_OPTIONS, ClientOptions
from holdfast.cluster.engine import Engine
from holdfast.cluster.results import Completed, EngineStatus, Progress, Role
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.node_services import NodeServices
from holdfast.rpc.settings import Limits, Maintenance, Member, Settings
from holdfast.rpc.topology import Topology
from holdfast.storage.damage import DamagedRowError

_START = Progress(0, 0, 0, Role.FOLLOWER, None)
#: Retention is looked after more often than in life, so that trims happen within a run.
_MAINTENANCE = Maintenance(interval_ms=2_000)

Death = Literal["reset", "end", "silent"]


def address_of(node_id: str) -> str:
    """Where a simulated node's clients connect."""
    return f"{node_id}:7450"


class _Asked:
    """The engine as its services see it; the simulation is told that it was asked something."""

    def __init__(self, node: SimNode, engine: Engine) -> None:
        self._node = node
        self._engine = engine

    def propose(self, op: bytes, token: object, deadline: float) -> None:
        self._node.touched = True
        self._engine.propose(op, token, deadline)

    def read_barrier(self, token: object, deadline: float) -> None:
        self._node.touched = True
        self._engine.read_barrier(token, deadline)

    def repair(self, damage: DamagedRowError, token: object | None = None, deadline: float = 0.0) -> None:
        self._node.touched = True
        self._engine.repair(damage, token, deadline)

    def status(self) -> EngineStatus:
        return self._engine.status()


class _Sink:
    """Reports reach the bridge without a detour over the loop: tasks run after the turn anyway.

    But where the order of a moment is drawn: then they are noted at once, and told behind what
    is due on the loop, as in a broker.
    """

    def __init__(self, bridge: EngineBridge, loop: SimLoop, front: Front) -> None:
        self._bridge = bridge
        self._loop = loop
        self._front = front
        #: Reports that wait to be told on the loop; none may pass them.
        self._waiting = 0

    def deliver(self, completed: Sequence[Completed], progress: Progress) -> None:
        if self._front.reports_wait or self._waiting:
            self._waiting += 1
            self._bridge.deliver(completed, progress)
            self._loop.call_soon(self._told)
        else:
            self._bridge.report(completed, progress)

    def _told(self) -> None:
        self._waiting -= 1


class NodeProcess:
    """The services of one node from its start to its end."""

    def __init__(self, front: Front, node: SimNode) -> None:
        assert node.engine is not None
        self.node = node
        self.address = address_of(node.node_id)
        self.loop = loop = front.loops.loop(node.node_id, node.clock)
        self.bridge = EngineBridge(loop, node.clock, node.progress or _START)
        node.sink = _Sink(self.bridge, loop, front)
        engine = _Asked(node, node.engine)
        self.bridge.attach(engine)
        settings = front.settings(node.node_id)
        self.services = NodeServices(
            settings,
            Topology(settings),
            node.store,
            self.bridge,
            engine,
            node.clock,
            "sim",
            connect=partial(front.clients.channel, node.node_id, loop),
        )
        self._front = front
        loop.call_soon(self.services.duties.start)
        front.clients.serve(SimServer(self.address, loop, self.services.handlers))

    def die(self, how: Death) -> None:
        """The process is gone, and its connections with it."""
        self.node.sink = None
        self._front.clients.server_died(self.address, how)
        self._front.clients.client_died(self.node.node_id)
        self.loop.bury()


class Front:
    """Services on every node of a cluster, and what stands between them and their clients.

    Args:
        cluster: its nodes may be running already.
        limits, maintenance: of every node.
        on_error: called with a loop's name and context for every error nobody handled.
    """

    def __init__(
        self,
        cluster: SimCluster,
        *,
        limits: Limits | None = None,
        maintenance: Maintenance = _MAINTENANCE,
        on_error: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> None:
        self.cluster = cluster
        self.loops = Loops(cluster.world, on_error)
        self.clients = ClientNetwork(cluster.world)
        self.processes: dict[str, NodeProcess] = {}
        #: Of client programs.
        self.programs: list[ClientProcess] = []
        self.births = 0
        #: How the next node's death shows; None: as chance has it.
        self.death: Death | None = None
        #: What engines report waits its turn on the loops of their nodes.
        self.reports_wait = False
        self._limits = limits or Limits()
        self._maintenance = maintenance
        self._rng = cluster.world.stream("front")
        cluster.run_ready = self.loops.run_ready
        for node in cluster.nodes.values():
            node.on_crash = partial(self.crashed, node)
            if node.up:
                self.started(node)

    @property
    def endpoints(self) -> list[str]:
        return [address_of(node_id) for node_id in self.cluster.ids]

    def settings(self, node_id: str) -> Settings:
        members = {other: Member(address_of(other), f"{other}:7451") for other in self.cluster.ids}
        return Settings(
            node_id=node_id,
            cluster_id="sim",
            members=members,
            limits=self._limits,
            maintenance=self._maintenance,
        )

    # -- nodes -------------------------------------------------------------------------------

    def started(self, node: SimNode) -> None:
        """To be called when a node's engine has been made."""
        self.processes[node.node_id] = NodeProcess(self, node)

    def crashed(self, node: SimNode) -> None:
        """Called when a node's engine is gone."""
        process = self.processes.pop(node.node_id, None)
        if process is not None:
            how: Death = self.death or ("reset" if self._rng.random() < 0.5 else "end")
            process.die(how)
            self.clients.thaw(process.address)

    def pause(self, node_id: str) -> None:
        """SIGSTOP, to be called with ``SimCluster.pause``."""
        process = self.processes.get(node_id)
        if process is not None:
            process.loop.stop_running()
            self.clients.freeze(process.address)

    def resume(self, node_id: str) -> None:
        process = self.processes.get(node_id)
        if process is not None:
            process.loop.resume()
            self.clients.thaw(process.address)

    # -- clients -------------------------------------------------------------------------------

    def process(self, name: str) -> ClientProcess:
        """A client process: a loop of its own, which may die."""
        process = ClientProcess(self, name)
        self.programs.append(process)
        return process

    def close(self) -> None:
        """The end of the simulation: unwind all that still runs."""
        for program in list(self.programs):
            program.kill()
        for process in list(self.processes.values()):
            process.die("reset")
        self.processes.clear()


class ClientProcess:
    """What a client program runs in. Made by ``Front.process``."""

    def __init__(self, front: Front, name: str) -> None:
        self.name = name
        self.loop: SimLoop = front.loops.loop(name)
        front.births += 1
        # Its own in each life: a producer's id must not come again.
        self.rng = front.cluster.world.stream(f"client/{name}/{front.births}")
        self._front = front

    def client(self, options: ClientOptions | None = None, observer: Observer | None = None) -> Client:
        """A client of the real library, not started."""
        chance = random.Random(self.rng.getrandbits(64))
        world = self._front.cluster.world
        effects = Effects(
            channel=self._channel,
            jitter=chance.random,
            shuffle=chance.shuffle,
            producer_id=lambda: chance.randrange(1, 1 << 63),
            transaction_id=lambda: chance.randbytes(16),
            wall_us=lambda: 1_700_000_000_000_000 + int(world.now * 1_000_000),
            observer=observer,
        )
        return Client(self._front.endpoints, options or ClientOptions(), effects)

    def _channel(self, address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        return self._front.clients.channel(self.name, self.loop, address, CHANNEL_OPTIONS)

    def kill(self) -> None:
        """Die without a goodbye; not to be called from within the process itself."""
        if self in self._front.programs:
            self._front.programs.remove(self)
            self._front.clients.client_died(self.name)
            self.loop.bury()
