"""One run: a plan's storm over a whole cluster with clients, then calm, then judgement."""

from __future__ import annotations

import gc
import zlib
from dataclasses import dataclass, field

import msgspec

from holdfast.chaos.checker import Violation, judge
from holdfast.chaos.checker.delivery_events import Conditions
from holdfast.chaos.checker.history import Fault, History, Leader, Replica
from holdfast.chaos.sim.cluster import Divergence, SimCluster, SimNode
from holdfast.chaos.sim.groups_at_rest import read_group
from holdfast.chaos.sim.liveness import Progress
from holdfast.chaos.sim.loop import Spinning
from holdfast.chaos.sim.nemesis import Nemesis
from holdfast.chaos.sim.oracle import Oracle
from holdfast.chaos.sim.order import Moments
from holdfast.chaos.sim.plan import SETTINGS, Plan
from holdfast.chaos.sim.prober import Prober
from holdfast.chaos.sim.promises import violation
from holdfast.chaos.sim.replicas import read_replicas
from holdfast.chaos.sim.sabotage import NONE, Sabotage
from holdfast.chaos.sim.services import Front, address_of
from holdfast.chaos.sim.timeline import Timeline
from holdfast.chaos.sim.work_progress import WorkProgress
from holdfast.chaos.sim.workloads import Workloads
from holdfast.chaos.sim.world import BEGIN
from holdfast.cluster.scrub import Scrub
from holdfast.cluster.state.machine import StateMachine
from holdfast.errors import HoldfastError
from holdfast.storage import membership

#: Clusters come together, and clients to an end, within so many virtual seconds of calm.
_SETTLE_S = 40.0
_FINISH_S = 40.0
#: Groups have committed all there is, within so many virtual seconds of the last publish.
_PROGRESS_S = 20.0
#: A defined group has settled all there is, within so many: what failed has waited and come again.
_WORK_S = 40.0
#: Its members are all back within so many.
_RETURN_S = 5.0
#: Objects that may pile up before garbage is collected, between two runs.
_GARBAGE = 200_000
#: Passes over all rows within which damage must be gone: a node may need a new disk in between.
_SCRUBS = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run gave.

    Attributes:
        virtual_s: simulated seconds.
        trace: a checksum over every turn of every engine and every event of the history;
            equal for equal seeds.
        summary: counts, for people.
        timeline: what happened, one note a line.
    """

    seed: int
    violations: tuple[Violation, ...]
    virtual_s: float
    trace: int
    summary: str
    timeline: str = field(repr=False)


class _Clients:
    """What the nemesis does to the links between clients and nodes."""

    def __init__(self, front: Front, prober: Prober, names: list[str]) -> None:
        self._front = front
        self._prober = prober
        self._names = names

    def cut(self, node_id: str, *, silent: bool) -> None:
        for name in self._names:
            self._front.clients.cut(name, address_of(node_id), "silent" if silent else "refused")

    def heal(self, node_id: str) -> None:
        for name in self._names:
            self._front.clients.heal(name, address_of(node_id))

    def heal_all(self) -> None:
        self._front.clients.heal_all()

    def pause(self, node_id: str) -> None:
        self._front.pause(node_id)

    def resume(self, node_id: str) -> None:
        self._front.resume(node_id)

    def write(self, node: SimNode) -> None:
        self._prober.write(node)

    def hush(self, quiet: bool) -> None:
        self._prober.silent = quiet
        for node_id in self._front.cluster.ids:
            if quiet:
                self.cut(node_id, silent=True)
            else:
                self.heal(node_id)


class Run:
    """A run under way."""

    def __init__(self, plan: Plan, sabotage: Sabotage) -> None:
        self.plan = plan
        self.cluster = cluster = SimCluster(
            plan.nodes,
            seed=plan.seed,
            settings=SETTINGS[plan.settings],
            cures=sabotage.cures,
            machine=StateMachine,
            start=False,
        )
        cluster.network.keep_frames = any(fault.kind in ("ghosts", "echo") for fault in plan.faults)
        self.history = History()
        self.timeline = Timeline(lambda: cluster.world.now)
        self.oracle = Oracle(cluster, self.history, self.timeline.note)
        self.violations: list[Violation] = []
        self.front = Front(cluster, on_error=self._unhandled)
        if plan.order is not None:
            cluster.run_moment = Moments(self.front, plan.order, self.timeline.note).run
        self.workloads = Workloads(self.front, self.history, plan.guests)
        self.prober = Prober(cluster, self._violate)
        self.nemesis = Nemesis(
            cluster,
            plan,
            _Clients(self.front, self.prober, self.workloads.names),
            self._fault,
            self.oracle.disturbed,
        )
        #: From when on the defined group has members that take all there is; None: never.
        self._calm_from: float | None = None
        cluster.watch = self

    # -- cluster.Watch: the oracle's, and the services' life -------------------------------

    def started(self, node: SimNode) -> None:
        self.oracle.started(node)
        self.front.started(node)

    def crashed(self, node: SimNode) -> None:
        self.oracle.crashed(node)
        if node.failure is not None:
            self._halted(node, node.failure)
            node.failure = None

    def applying(self, node: SimNode, index: int, entry: bytes) -> None:
        self.oracle.applying(node, index, entry)

    def event(self, node: SimNode, event: object) -> None:
        self.oracle.event(node, event)

    def turned(self, node: SimNode) -> None:
        self.oracle.turned(node)
        if node.wiped and node.engine is not None:
            # On the disk, not only known: a power cut must not take it back.
            node.wiped = membership.read(node.store.durable_view()) is not membership.Membership.JOINED

    # -- the run -----------------------------------------------------------------------------

    def execute(self) -> None:
        """Birth, storm, calm, judgement."""
        cluster = self.cluster
        for node_id in cluster.ids:
            cluster.start(node_id)
        cluster.elect(10.0)
        self.workloads.start()
        self.prober.start()
        self.nemesis.schedule()
        cluster.run_for(self.plan.storm)
        if self.violations or self.oracle.all_violations():
            # Nodes that have diverged may never come to rest.
            self.violations += self.oracle.all_violations()
            return
        self.nemesis.calm()
        self._come_to_rest()
        self.history.events.extend(read_replicas(cluster))
        if self.workloads.work is not None:
            self.history.events.extend(read_group(cluster, self.workloads.work.group))
            self.history.add(self._conditions(self.workloads.work.group))
        self.violations += self.oracle.all_violations()
        self.violations += judge(self.history)[0]

    def _come_to_rest(self) -> None:
        cluster = self.cluster
        self.prober.stopped = True
        if not cluster.run_until(self._healthy, _SETTLE_S):
            status = {n.node_id: n.engine.status() if n.engine else "down" for n in cluster.nodes.values()}
            self._violate(
                "no-recovery", f"no healthy cluster {_SETTLE_S:.0f} s after the last fault: {status}"
            )
            return
        self._settle_clients()
        self.workloads.finish()
        if not cluster.run_until(lambda: self.workloads.finished, _FINISH_S):
            self._violate(
                "clients-hang",
                f"clients are not done {_FINISH_S:.0f} s after the last fault: {self.workloads}",
            )
            return
        self._scrub()
        if not cluster.run_until(self._same, _SETTLE_S):
            status = {n.node_id: n.engine.status() if n.engine else "down" for n in cluster.nodes.values()}
            self._violate("no-recovery", f"replicas do not come together: {status}")

    def _settle_clients(self) -> None:
        """Publishing ends; then every group has to come to the end of what it reads."""
        cluster, workloads = self.cluster, self.workloads
        workloads.settle()
        if not cluster.run_until(lambda: workloads.settled, _FINISH_S):
            self._violate("clients-hang", f"{_FINISH_S:.0f} s after the last fault: {workloads}")
            return
        if workloads.work is not None:
            self._calm_from = cluster.world.now + _RETURN_S
            if not self._work_ends(WorkProgress(self.front, workloads.work.group)):
                return
        progress = Progress(self.front, workloads.reads)
        if not self._arrive(progress) or self.plan.order is None or not workloads.reads:
            return
        straggler = workloads.straggler()
        for _ in range(self.plan.order.rounds):
            straggler.publish()
            if not cluster.run_until(lambda: straggler.quiet, _FINISH_S):
                self._violate("clients-hang", f"{_FINISH_S:.0f} s after all was at rest: {workloads}")
                return
            if not self._arrive(progress):
                return

    def _arrive(self, progress: Progress) -> bool:
        """Every group comes to the end of what it reads."""
        if self.cluster.run_until(progress.complete, _PROGRESS_S):
            return True
        for facts in progress.stuck():
            self._violate("group-stuck", f"{_PROGRESS_S:.0f} s after the last record: {facts}")
        return False

    def _work_ends(self, progress: WorkProgress) -> bool:
        """The defined group settles all there is, if the clocks of the brokers let it."""
        if self.cluster.run_until(progress.complete, _WORK_S) or self._clocks_jumped:
            return True
        for facts in progress.stuck():
            self._violate("worker-stuck", f"{_WORK_S:.0f} s after the last record: {facts}")
        return False

    @property
    def _clocks_jumped(self) -> bool:
        """What waits may then be due whenever it likes."""
        return any(fault.kind == "clock_jump" for fault in self.plan.faults)

    def _conditions(self, group: str) -> Conditions:
        drifted = sum(fault.span for fault in self.plan.faults if fault.kind == "drift")
        return Conditions(
            ended=self.cluster.world.now,
            calm_from=self._calm_from,
            served=[] if self._clocks_jumped else [group],
            # Drift is a tenth at most; a turn may take a moment.
            skew_s=1e6 if self._clocks_jumped else 0.2 * drifted + 0.05,
            late_s=0.01,
        )

    def _healthy(self) -> bool:
        """A leader that can serve, every node up, no node that still has to learn what it forgot."""
        cluster = self.cluster
        leader = cluster.leader()
        if leader is None or leader.engine is None or not leader.engine.core.ready_to_read:
            return False
        for node in cluster.nodes.values():
            if node.engine is None:
                # Its own disk had failed or was damaged: the operator restarts it, or replaces the disk.
                self.nemesis.operate(node)
                return False
        return all(not node.wiped for node in cluster.nodes.values())

    def _scrub(self) -> None:
        """Every row is read once, as a broker's slow background pass would in time; damage is mended."""
        cluster = self.cluster
        if self.nemesis.rotten is None:
            return
        node = cluster.nodes[self.nemesis.rotten]
        for number in range(_SCRUBS):
            cluster.run_until(self._same, _SETTLE_S)
            if not self._found_damage(node):
                return
            cluster.run_for(1.0)
            if number == _SCRUBS // 2 and node.engine is not None:
                # Payload and its index come from other replicas; other rows ask for a new disk, in the log.
                self.nemesis.replace_disk(node)
        self._violate("not-repaired", f"{self.nemesis.rotten} has damaged rows after {_SCRUBS} passes")

    def _found_damage(self, node: SimNode) -> bool:
        engine = node.engine
        if engine is None:
            return True
        node.touched = True
        scrub = Scrub(node.store, engine.repair, rate=1)
        while not scrub.counters.passes:
            scrub.step(0.0)
        return scrub.counters.damaged > 0

    def _same(self) -> bool:
        leader = self.cluster.leader()
        if leader is None or leader.engine is None:
            return False
        last = leader.engine.core.journal.last_index
        for node in self.cluster.nodes.values():
            if node.engine is None:
                self.nemesis.operate(node)
                return False
            if node.engine.core.commit_index != last or node.engine.status().visible_index != last:
                return False
        return True

    # -- what goes wrong --------------------------------------------------------------------------

    def _halted(self, node: SimNode, failure: BaseException) -> None:
        if node.node_id not in self.nemesis.excused:
            self._violate("node-halted", f"{node.node_id} halted without a fault of its disk: {failure!r}")

    def _unhandled(self, loop: str, context: dict[str, object]) -> None:
        error = context.get("exception")
        self._violate("unhandled-error", f"{loop}: {context.get('message')}: {error!r}")

    def _violate(self, promise: str, detail: str) -> None:
        self.violations.append(violation(promise, detail, self.cluster.world.now))

    def _fault(self, kind: str, what: str) -> None:
        self.oracle.disturbed()
        self.timeline.note(kind, what)
        self.history.add(Fault(kind, what, self.cluster.world.now))

    def trace(self) -> int:
        encoder = msgspec.json.Encoder()
        trace = self.oracle.trace
        for event in self.history.events:
            trace = zlib.crc32(encoder.encode(event), trace)
        return trace

    def summary(self) -> str:
        kinds: dict[str, int] = {}
        for event in self.history.events:
            if not isinstance(event, Replica | Leader | Fault):
                name = type(event).__name__.lower()
                kinds[name] = kinds.get(name, 0) + 1
        return " ".join(f"{name}={count}" for name, count in sorted(kinds.items()))


def run(plan: Plan, sabotage: Sabotage = NONE) -> Outcome:
    """Run a plan to its end and judge it."""
    _prepare()
    began = Run(plan, sabotage)
    try:
        with sabotage.planted():
            try:
                began.execute()
            except (Divergence, Spinning) as error:
                began._violate("simulation-diverged", str(error))
                began.violations += began.oracle.all_violations()
            except HoldfastError as error:
                began._violate("unhandled-error", repr(error))
                began.violations += began.oracle.all_violations()
        return Outcome(
            plan.seed,
            tuple(began.violations),
            began.cluster.world.now - BEGIN,
            began.trace(),
            began.summary(),
            began.timeline.render(),
        )
    finally:
        began.front.close()
        if gc.get_count()[0] > _GARBAGE:
            gc.collect()


def _prepare() -> None:
    """Collect garbage between runs only, and never look at what was imported."""
    if gc.isenabled():
        gc.disable()
        gc.collect()
        gc.freeze()
