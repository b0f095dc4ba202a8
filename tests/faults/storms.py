"""Random schedules over simulated clusters, nastier than polite ones, with reads checked too.

Everything follows from the seed: settings, faults, load. Beside crashes, power
cuts and partitions there are links cut in one direction, latencies beyond the
election timeout, disks that take half a second to flush, full disks, clocks
that are wrong by minutes, and pauses.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from holdfast.chaos.sim import Divergence, SimCall, SimCluster, SimNode
from holdfast.cluster.raft.cures import ALL, Cures
from holdfast.cluster.raft.settings import EngineSettings

#: Bounds drawn tight, each in its own way, so that their edges are met.
SETTINGS = (
    EngineSettings(),
    EngineSettings(window_messages=2, message_entries=1),
    EngineSettings(entry_ops=1, message_entries=3, window_bytes=200, message_bytes=100),
    EngineSettings(early_results=False),
    EngineSettings(apply_entries=1),
    EngineSettings(cache_bytes=50),
    EngineSettings(max_uncommitted_bytes=300, max_proposals=50),
    EngineSettings(
        keep_entries=5,
        keep_entries_for_laggards=8,
        entry_ops=1,
        snapshot_chunk_bytes=200,
        snapshot_window_bytes=1000,
        snapshot_retry=0.1,
    ),
    EngineSettings(
        keep_entries=3,
        keep_entries_for_laggards=20,
        entry_ops=1,
        trim_rows_per_turn=2,
        early_results=False,
        snapshot_stall=1.0,
    ),
)

MIB = 1 << 20
ROOM = 1 << 60


@dataclass
class Reads:
    """Linearizable reads: each must see all that was acknowledged before it was asked for."""

    sim: SimCluster
    ok: int = 0
    waiting: list[tuple[SimNode, SimCall, list[bytes]]] = field(default_factory=list)

    def start(self, node_id: str) -> None:
        acked = [call.value for call in self.sim.calls if call.ok]
        self.waiting.append((self.sim.nodes[node_id], self.sim.barrier(node_id, timeout=2.0), acked))

    def check(self) -> None:
        still = []
        for item in self.waiting:
            node, call, acked = item
            if call.done is None:
                still.append(item)
            elif call.ok and node.up:
                self.ok += 1
                missing = set(acked) - set(node.values())
                if missing:
                    raise Divergence(f"stale read on {node.node_id}: {min(missing)!r} (seed {self.sim.seed})")
        self.waiting = still


class Storm:
    """One run; ``blow`` raises ``Divergence`` or ``AssertionError`` when a promise is broken."""

    def __init__(self, seed: int, nodes: int, cures: Cures = ALL) -> None:
        self.rng = random.Random(seed * 7919 + nodes)
        self.sim = SimCluster(nodes, seed=seed, cures=cures, settings=self.rng.choice(SETTINGS))
        self.reads = Reads(self.sim)
        self.minority = (nodes - 1) // 2
        self._sequence = 0
        self._actions = (
            self._crash,
            self._power_cut,
            self._start_all,
            self._start_all,
            self._isolate,
            self._split,
            self._one_way,
            self._heal,
            self._heal,
            self._reconnect,
            self._lose,
            self._pause,
            self._resume,
            self._slow_links,
            self._slow_disks,
            self._transfer,
            self._full_disk,
            self._empty_disks,
        )

    def blow(self, rounds: int = 60) -> Storm:
        self.sim.elect()
        for _ in range(rounds):
            for _ in range(self.rng.randrange(0, 15)):
                self._work()
                if self.rng.random() < 0.4:
                    self.sim.run_for(self.rng.random() * 0.004)
                    self.reads.check()
            self.rng.choice(self._actions)()
            end = self.sim.world.now + self.rng.choice([0.001, 0.01, 0.1, 0.5, 1.0, 2.0]) * self.rng.random()
            while self.sim.world.now < end:
                self.sim.run_for(min(0.06, end - self.sim.world.now))
                self.reads.check()
                self._work()
        self._calm()
        return self

    # -- load ----------------------------------------------------------------------

    def _work(self) -> None:
        running = [node.node_id for node in self.sim.nodes.values() if node.up and not node.paused]
        if not running:
            return
        if self.rng.random() < 0.3:
            self.reads.start(self.rng.choice(running))
        else:
            self._sequence += 1
            value = b"s%d" % self._sequence
            self.sim.propose(value, self.rng.choice(running), timeout=self.rng.choice([0.05, 2.0, 2.0]))

    # -- faults --------------------------------------------------------------------

    def _target(self) -> str:
        """The leader more often than not."""
        leader = self.sim.leader()
        up = [node.node_id for node in self.sim.nodes.values() if node.up]
        if leader is not None and self.rng.random() < 0.6:
            return leader.node_id
        return self.rng.choice(up or self.sim.ids)

    def _crash(self) -> None:
        down = sum(not node.up for node in self.sim.nodes.values())
        if down < self.minority or self.rng.random() < 0.2:
            self.sim.crash(self._target())

    def _power_cut(self) -> None:
        self.sim.nodes[self._target()].store.power = self.rng.choice(["cut_before", "cut_after"])

    def _start_all(self) -> None:
        for node_id in self.sim.ids:
            self.sim.start(node_id)

    def _isolate(self) -> None:
        target = self._target()
        others = [node_id for node_id in self.sim.ids if node_id != target]
        self.sim.network.partition([target], others, notice_after=self.rng.choice([None, 0.1, 0.5]))

    def _split(self) -> None:
        ids = self.rng.sample(self.sim.ids, len(self.sim.ids))
        at = self.rng.randrange(1, len(ids))
        self.sim.network.partition(ids[:at], ids[at:], notice_after=self.rng.choice([None, 0.1, 0.5]))

    def _one_way(self) -> None:
        a, b = self.rng.sample(self.sim.ids, 2)
        self.sim.network._links[a, b].silent = True

    def _heal(self) -> None:
        self.sim.network.heal_all()

    def _reconnect(self) -> None:
        a, b = self.rng.sample(self.sim.ids, 2)
        self.sim.network.reconnect(a, b, refused=self.rng.random() < 0.5)

    def _lose(self) -> None:
        self.sim.network.loss = self.rng.choice([0.0, 0.0, 0.02, 0.3])

    def _pause(self) -> None:
        self.sim.pause(self._target())

    def _resume(self) -> None:
        for node_id in self.sim.ids:
            self.sim.resume(node_id)

    def _slow_links(self) -> None:
        choices = [(0.0002, 0.0008), (0.0002, 0.1), (0.1, 0.2), (0.0002, 0.5)]
        self.sim.network.latency = self.rng.choice(choices)

    def _slow_disks(self) -> None:
        for node in self.sim.nodes.values():
            node.store.fsync = self.rng.choice([(0.0002, 0.0006), (0.0002, 0.05), (0.1, 0.6)])
            node.clock.wall_skew_us = self.rng.choice([0, 0, -(10**9), 10**9])

    def _transfer(self) -> None:
        leader = self.sim.leader()
        if leader is not None and leader.engine is not None:
            leader.engine.core.transfer_leadership()

    def _full_disk(self) -> None:
        self.sim.nodes[self._target()].store.disk_free = self.rng.choice([0, 100 * MIB, 200 * MIB])

    def _empty_disks(self) -> None:
        for node in self.sim.nodes.values():
            node.store.disk_free = ROOM

    # -- the calm after -------------------------------------------------------------

    def _calm(self) -> None:
        sim = self.sim
        sim.network.loss = 0.0
        sim.network.latency = (0.0002, 0.0008)
        sim.network.heal_all()
        self._empty_disks()
        for node in sim.nodes.values():
            sim.resume(node.node_id)
            node.store.power = "on"
            node.store.fsync = (0.0002, 0.0006)
            sim.start(node.node_id)
        sim.elect(limit=10.0)
        sim.settle(limit=20.0)
        sim.run_for(6.0)
        self.reads.check()
        sim.check_nothing_lost()
        for node in sim.nodes.values():
            if node.failure is not None:
                raise AssertionError(f"{node.node_id} halted (seed {sim.seed})") from node.failure
            values = node.values()
            if len(values) != len(set(values)):
                raise AssertionError(f"{node.node_id} applied a proposal twice (seed {sim.seed})")
            self._check_answers(set(values))

    def _check_answers(self, present: set[bytes]) -> None:
        for call in self.sim.calls:
            if call.done is None and call.node_id not in self.sim.crashed:
                raise AssertionError(f"{call.value!r} was never answered (seed {self.sim.seed})")
            said = call.error.message if call.error is not None else ""
            if "nothing was done" in said and call.value in present:
                raise AssertionError(f"{call.value!r} is in, its caller was told: {said} ({self.sim.seed})")
