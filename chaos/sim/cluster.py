"""A cluster of real engines in virtual time, with checks that run at every step."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from holdfast.chaos.sim.disk import PowerCut, SimStore
from holdfast.chaos.sim.machine import LedgerMachine, record_op
from holdfast.chaos.sim.network import SimNetwork, SimTransport
from holdfast.chaos.sim.world import NodeClock, World
from holdfast.cluster import events as engine_events
from holdfast.cluster.engine import Engine, EngineSettings
from holdfast.cluster.raft.cures import ALL, Cures
from holdfast.cluster.raft.host import AppliedLike, MachineLike
from holdfast.cluster.results import Completed, Progress, ResultSink, Role
from holdfast.errors import HoldfastError
from holdfast.storage.port import Table, Writer


class Divergence(AssertionError):
    """A safety property does not hold; the message carries the seed."""


@dataclass
class SimCall:
    """One proposal or barrier, and its end."""

    value: bytes
    node_id: str
    started: float
    ended: float = 0.0
    done: Completed | None = None
    #: Of a barrier: the highest log index acknowledged to anybody when it began.
    must_see: int | None = None

    @property
    def ok(self) -> bool:
        return self.done is not None and self.done.error is None

    @property
    def error(self) -> HoldfastError | None:
        return None if self.done is None else self.done.error


class Asked:
    """A token that hears of its own end, though the node has services."""

    __slots__ = ()

    def ended(self, done: Completed) -> None:
        raise NotImplementedError


class Watch(Protocol):
    """Told of everything that happens to nodes."""

    def applying(self, node: SimNode, index: int, entry: bytes) -> None: ...

    def event(self, node: SimNode, event: object) -> None: ...

    def turned(self, node: SimNode) -> None:
        """A turn is over; the node may have died in it."""
        ...

    def started(self, node: SimNode) -> None: ...

    def crashed(self, node: SimNode) -> None: ...


class _Checked:
    """A state machine whose every step is compared with what other replicas did."""

    def __init__(self, inner: MachineLike, node: SimNode) -> None:
        self._inner = inner
        self._node = node

    def apply(self, w: Writer, index: int, entry: bytes) -> AppliedLike:
        cluster = self._node.cluster
        if cluster.watch is not None:
            cluster.watch.applying(self._node, index, entry)
        else:
            cluster.check_applied(self._node.node_id, index, entry)
        return self._inner.apply(w, index, entry)

    def reset(self) -> None:
        self._inner.reset()


@dataclass
class SimNode:
    """One node: a store that survives crashes, and an engine while it is up."""

    cluster: SimCluster
    node_id: str
    clock: NodeClock
    store: SimStore
    engine: Engine | None = None
    transport: SimTransport | None = None
    busy_until: float = 0.0
    progress: Progress | None = None
    events: list[object] = field(default_factory=list)
    failure: BaseException | None = None
    paused: bool = False
    #: Where the engine's results go besides; None: every token is a SimCall.
    sink: ResultSink | None = None
    #: Told when the node's process dies, after its engine is gone.
    on_crash: Callable[[], None] | None = None

    #: It has come back with an empty disk and is not known to be a voter again.
    wiped: bool = False
    #: The last log index of a disk it has lost; what it confirmed up to there is gone.
    lost_index: int = 0
    #: Its next turn is to be computed anew: it has turned, or was asked something.
    touched: bool = True
    #: When it has something to do though nothing arrives, in the world's time.
    wake: float = 0.0

    @property
    def up(self) -> bool:
        return self.engine is not None

    def plan(self) -> None:
        """Find out when the engine has something to do next, though nothing arrives."""
        assert self.engine is not None
        self.touched = False
        clock = self.clock
        self.wake = clock.world_time(self.engine.next_wakeup(clock.monotonic()))

    def due(self, now: float) -> bool:
        """Whether it is up, and its engine has something to do."""
        if self.busy_until > now or self.engine is None or self.paused:
            return False
        if self.touched:
            self.plan()
        return self.wake <= now or bool(self.transport.inbox)  # type: ignore[union-attr]

    def deliver(self, completed: Sequence[Completed], progress: Progress) -> None:
        """The engine's result sink."""
        self.progress = progress
        if self.sink is not None:
            theirs = []
            for done in completed:
                if isinstance(done.token, Asked):
                    done.token.ended(done)
                else:
                    theirs.append(done)
            self.sink.deliver(theirs, progress)
            return
        for done in completed:
            call = done.token
            assert isinstance(call, SimCall)
            if call.done is not None:
                raise Divergence(f"{call.value!r} was answered twice (seed {self.cluster.seed})")
            call.done = done
            call.ended = self.clock.monotonic()
            if done.error is None:
                self.cluster.check_answer(call, done, progress)

    def values(self) -> list[bytes]:
        """What this node has applied, shown to readers or not yet."""
        return LedgerMachine.values(self.store.writer())

    def digest(self) -> bytes:
        with self.store.read() as reader:
            return LedgerMachine.digest(reader)


class SimCluster:
    """``nodes`` engines named n1, n2, ...; nothing runs until ``run_for`` or ``run_until``.

    Checked at every step: no two nodes apply different entries at one index, no
    term has two leaders, nothing is answered twice, no barrier misses what was
    acknowledged before it.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        seed: int = 1,
        settings: EngineSettings | None = None,
        cures: Cures = ALL,
        machine: Callable[[], MachineLike] = LedgerMachine,
        start: bool = True,
    ) -> None:
        self.seed = seed
        self.world = World(seed)
        self.settings = settings or EngineSettings()
        self.cures = cures
        self.ids = [f"n{number}" for number in range(1, nodes + 1)]
        self.network = SimNetwork(self.world, self.ids)
        self.calls: list[SimCall] = []
        self.steps = 0
        #: Runs what is ready on an event loop in virtual time, after each moment's turns.
        self.run_ready: Callable[[], int] | None = None
        #: Runs a moment in an order of its own; says whether it has.
        self.run_moment: Callable[[], bool] | None = None
        #: Judges instead of the checks built in here.
        self.watch: Watch | None = None
        #: Nodes that have crashed at least once.
        self.crashed: set[str] = set()
        self.barriers: list[SimCall] = []
        self._acked_index = 0
        self._still = 0
        self._make_machine = machine
        self._applied: dict[int, bytes] = {}
        self._leaders: dict[int, str] = {}
        self.nodes: dict[str, SimNode] = {}
        self._running: list[SimNode] = []
        for node_id in self.ids:
            clock = NodeClock(self.world)
            store = SimStore(clock, self.world.rng)
            self.nodes[node_id] = SimNode(self, node_id, clock, store)
        if start:
            for node_id in self.ids:
                self.start(node_id)

    # -- nodes --------------------------------------------------------------------

    def start(self, node_id: str) -> SimNode:
        """Start a node's process on what its store holds."""
        node = self.nodes[node_id]
        if node.engine is not None:
            return node
        node.store.power = "on"
        node.transport = SimTransport(node_id, self.network, node.clock)
        try:
            node.engine = Engine(
                settings=self.settings,
                node_id=node_id,
                members=self.ids,
                store=node.store,
                transport=node.transport,
                clock=node.clock,
                rng=random.Random(self.world.rng.getrandbits(64)),
                machine=_Checked(self._make_machine(), node),
                sink=node,
                events=lambda event: self._on_event(node, event),
                cures=self.cures,
            )
        except HoldfastError as error:
            # What it needs to start is damaged.
            node.failure = error
            if self.watch is not None:
                self.watch.crashed(node)
            return node
        node.engine.start()
        node.touched = True
        node.busy_until = 0.0
        self._changed()
        if self.watch is not None:
            self.watch.started(node)
        return node

    def crash(self, node_id: str) -> None:
        """Kill -9 or power cut: what was not committed is gone, what was sent is not."""
        node = self.nodes[node_id]
        if node.engine is None:
            return
        node.engine = None
        node.transport = None
        node.paused = False
        self._changed()
        node.store.power_cut()
        self.crashed.add(node_id)
        self.network.detach(node_id)
        if node.on_crash is not None:
            node.on_crash()
        if self.watch is not None:
            self.watch.crashed(node)

    def restart(self, node_id: str) -> SimNode:
        self.crash(node_id)
        return self.start(node_id)

    def wipe(self, node_id: str) -> None:
        """The node dies, and its disk is replaced by an empty one; start it again."""
        self.crash(node_id)
        node = self.nodes[node_id]
        last = node.store.keys(Table.JOURNAL)
        node.lost_index = max(node.lost_index, int.from_bytes(last[-1], "big")) if last else node.lost_index
        node.store.wipe()
        node.wiped = True

    def pause(self, node_id: str) -> None:
        """SIGSTOP: the process does nothing; its links stay up."""
        self.nodes[node_id].paused = True
        self._changed()

    def resume(self, node_id: str) -> None:
        self.nodes[node_id].paused = False
        self._changed()

    def leader(self) -> SimNode | None:
        """The leader of the highest term among the nodes that are up."""
        leading = [
            node
            for node in self.nodes.values()
            if node.engine is not None and node.engine.core.leading and not node.paused
        ]
        return max(leading, key=lambda node: node.engine.core.term if node.engine else 0, default=None)

    def followers(self) -> list[SimNode]:
        leader = self.leader()
        return [node for node in self.nodes.values() if node.up and node is not leader]

    # -- work ----------------------------------------------------------------------

    def propose(self, value: bytes, node_id: str | None = None, timeout: float = 5.0) -> SimCall:
        """Hand a value to a node (the leader unless named). Refusals end the call at once."""
        node = self.nodes[node_id] if node_id is not None else self.leader()
        if node is None or node.engine is None:
            raise ValueError("no such node is up")
        call = SimCall(value, node.node_id, self.world.now)
        self.calls.append(call)
        try:
            node.engine.propose(record_op(value), call, self.world.now + timeout)
        except HoldfastError as error:
            call.done = Completed(call, None, error, 0)
        return call

    def publish(self, value: bytes, node_id: str | None = None, timeout: float = 5.0) -> SimCall:
        """``propose``, and run until it is answered."""
        call = self.propose(value, node_id, timeout)
        self.run_until(lambda: call.done is not None, timeout + 1.0)
        return call

    def barrier(self, node_id: str, timeout: float = 5.0) -> SimCall:
        node = self.nodes[node_id]
        if node.engine is None:
            raise ValueError("the node is down")
        call = SimCall(b"", node_id, self.world.now, must_see=self._acked_index)
        self.barriers.append(call)
        node.engine.read_barrier(call, self.world.now + timeout)
        return call

    # -- time ------------------------------------------------------------------------

    def step(self, limit: float) -> bool:
        """Go to the next moment at which something happens; False when that is past ``limit``."""
        world = self.world
        now = world.now
        soonest = world.next_time()
        for node in self._running:
            if node.touched:
                node.plan()
            wake = now if node.transport.inbox else node.wake  # type: ignore[union-attr]
            wake = max(wake, node.busy_until)
            if wake < soonest:  # noqa: PLR1730  (min() is a call, and this is the innermost loop)
                soonest = wake
        if soonest > limit:
            world.now = max(now, limit)
            return False
        if soonest > now:
            world.now = now = soonest
            self._still = 0
        else:
            self._still += 1
            if self._still > 10_000:
                raise Divergence(f"time stands still at {world.now} (seed {self.seed})")
        self.steps += 1
        if self.run_moment is not None and self.run_moment():
            return True
        world.run_due()
        for node in self._running:
            # As ``node.due`` says; this is the innermost loop.
            if node.touched:
                node.plan()
            if node.busy_until <= now and (
                node.wake <= now or node.transport.inbox  # type: ignore[union-attr]
            ):
                self.turn(node)
        if self.run_ready is not None:
            self.run_ready()
        return True

    @property
    def running(self) -> Sequence[SimNode]:
        """Nodes whose processes are up and do not stand still."""
        return self._running

    def _changed(self) -> None:
        """A node has come, gone, or stands still."""
        self._running = [node for node in self.nodes.values() if node.engine is not None and not node.paused]

    def turn(self, node: SimNode) -> None:
        """Let a node's engine turn, and die if that is what comes of it."""
        engine = node.engine
        if engine is None or node.paused:
            return
        node.clock.lag = 0.0
        node.touched = True
        try:
            engine.turn(0.0)
        except PowerCut:
            self.crash(node.node_id)
        except HoldfastError as error:
            node.failure = error
            self.crash(node.node_id)
        node.busy_until = self.world.now + node.clock.lag
        node.clock.lag = 0.0
        if self.watch is not None:
            self.watch.turned(node)

    def _touch(self) -> None:
        """Somebody may have asked an engine something since it last turned."""
        for node in self.nodes.values():
            node.touched = True

    def run_for(self, seconds: float) -> None:
        self._touch()
        limit = self.world.now + seconds
        while self.step(limit):
            pass

    def run_until(self, condition: Callable[[], bool], limit: float = 10.0) -> bool:
        """Run until ``condition`` holds; False when it did not within ``limit`` seconds."""
        end = self.world.now + limit
        while not condition():
            self._touch()
            if not self.step(end):
                return condition()
        return True

    def elect(self, limit: float = 5.0) -> SimNode:
        """Run until there is a leader that everybody up and connected follows."""
        if not self.run_until(self._settled, limit):
            raise Divergence(f"no leader within {limit} s (seed {self.seed})")
        leader = self.leader()
        assert leader is not None
        return leader

    def _settled(self) -> bool:
        leader = self.leader()
        return leader is not None and leader.engine is not None and leader.engine.core.ready_to_read

    def settle(self, limit: float = 10.0) -> None:
        """Run until every node that is up has applied and committed the same, to the end."""

        def same() -> bool:
            leader = self.leader()
            if leader is None or leader.engine is None:
                return False
            last = leader.engine.core.journal.last_index
            return all(
                node.engine is None
                or (node.engine.status().visible_index == last and node.engine.core.commit_index == last)
                for node in self.nodes.values()
            )

        if not self.run_until(same, limit):
            state = {n.node_id: n.engine.status() for n in self.nodes.values() if n.engine}
            raise Divergence(f"replicas did not come together (seed {self.seed}): {state}")

    # -- checks -------------------------------------------------------------------------

    def check_applied(self, node_id: str, index: int, entry: bytes) -> None:
        digest = hashlib.sha256(entry).digest()
        known = self._applied.setdefault(index, digest)
        if known != digest:
            raise Divergence(f"{node_id} applies another entry at {index} (seed {self.seed})")

    def check_answer(self, call: SimCall, done: Completed, progress: Progress) -> None:
        if call.must_see is None:
            self._acked_index = max(self._acked_index, done.index)
        elif done.index < call.must_see or progress.visible_index < done.index:
            raise Divergence(
                f"a read on {call.node_id} sees {min(done.index, progress.visible_index)}, "
                f"and {call.must_see} was acknowledged before it (seed {self.seed})"
            )

    def _on_event(self, node: SimNode, event: object) -> None:
        if self.watch is not None:
            self.watch.event(node, event)
            return
        node.events.append(event)
        if isinstance(event, engine_events.RoleChanged) and event.role is Role.LEADER:
            known = self._leaders.setdefault(event.term, node.node_id)
            if known != node.node_id:
                raise Divergence(f"{known} and {node.node_id} lead in term {event.term} (seed {self.seed})")

    def check_nothing_lost(self) -> None:
        """Everything acknowledged is applied once on every node that is up; replicas are identical."""
        acked = [call.value for call in self.calls if call.ok]
        digests = set()
        for node in self.nodes.values():
            if not node.up:
                continue
            values = node.values()
            counts: dict[bytes, int] = {}
            for value in values:
                counts[value] = counts.get(value, 0) + 1
            for value in acked:
                if counts.get(value) != 1:
                    raise Divergence(
                        f"{node.node_id} has acknowledged {value!r} {counts.get(value, 0)} times "
                        f"(seed {self.seed})"
                    )
            digests.add(node.digest())
        if len(digests) > 1:
            raise Divergence(f"replicas differ (seed {self.seed})")
