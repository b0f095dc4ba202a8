"""A storm of faults over a simulated cluster: everything random, everything from one seed."""

from __future__ import annotations

import random

from holdfast.chaos.sim.cluster import Divergence, SimCluster
from holdfast.cluster.raft.cures import ALL, Cures
from holdfast.cluster.raft.settings import EngineSettings

#: A log so short that a follower that was away needs a snapshot.
SHORT_LOG = EngineSettings(
    keep_entries=10,
    keep_entries_for_laggards=20,
    entry_ops=1,
    snapshot_window_bytes=64 * 1024,
    snapshot_retry=0.2,
)


def storm(
    seed: int,
    *,
    nodes: int = 3,
    rounds: int = 60,
    cures: Cures = ALL,
    settings: EngineSettings | None = None,
) -> SimCluster:
    """Run a storm, then calm; raises ``Divergence`` when anything acknowledged was lost."""
    rng = random.Random(seed)
    sim = SimCluster(nodes, seed=seed, cures=cures, settings=settings)
    sim.elect()
    minority = (nodes - 1) // 2
    sequence = 0
    for _ in range(rounds):
        for _ in range(rng.randrange(0, 12)):
            up = [node.node_id for node in sim.nodes.values() if node.up and not node.paused]
            if not up:
                break
            sequence += 1
            sim.propose(b"s%d" % sequence, rng.choice(up), timeout=2.0)
            if rng.random() < 0.2:
                sim.barrier(rng.choice(up), timeout=2.0)
            if rng.random() < 0.3:
                sim.run_for(rng.random() * 0.003)
        action = rng.random()
        down = [node.node_id for node in sim.nodes.values() if not node.up]
        up = [node.node_id for node in sim.nodes.values() if node.up]
        leader = sim.leader()
        target = leader.node_id if leader and rng.random() < 0.6 else rng.choice(up or sim.ids)
        if action < 0.15 and len(down) < minority:
            sim.crash(target)
        elif action < 0.30 and len(down) < minority:
            sim.nodes[target].store.power = rng.choice(["cut_before", "cut_after"])
        elif action < 0.36:
            # The power goes for most at once, each in the middle of its next commit.
            for node in sim.nodes.values():
                if rng.random() < 0.8:
                    node.store.power = rng.choice(["cut_before", "cut_before", "cut_after"])
            for _ in range(rng.randrange(1, 4)):
                sequence += 1
                if up:
                    sim.propose(b"s%d" % sequence, rng.choice(up), timeout=2.0)
            sim.run_for(rng.random() * 0.01)
            sim.crash(target)
        elif action < 0.50:
            for node_id in down:
                sim.start(node_id)
        elif action < 0.60:
            others = [n for n in sim.ids if n != target]
            sim.network.partition([target], others, notice_after=rng.choice([None, 0.1, 0.5]))
        elif action < 0.65:
            a, b = rng.sample(sim.ids, 2)
            sim.network.cut(a, b, notice_after=rng.choice([None, 0.1, 0.5]))
        elif action < 0.80:
            sim.network.heal_all()
        elif action < 0.86:
            a, b = rng.sample(sim.ids, 2)
            sim.network.reconnect(a, b, refused=rng.random() < 0.5)
        elif action < 0.91:
            sim.network.loss = rng.choice([0.0, 0.0, 0.02, 0.2])
        elif action < 0.95:
            sim.pause(target)
        else:
            for node in sim.nodes.values():
                sim.resume(node.node_id)
        sim.run_for(rng.choice([0.001, 0.01, 0.1, 0.5, 1.0]) * rng.random())
    sim.network.loss = 0.0
    sim.network.heal_all()
    for node_id in sim.ids:
        sim.resume(node_id)
        sim.nodes[node_id].store.power = "on"
        sim.start(node_id)
    sim.elect(limit=10.0)
    sim.settle(limit=20.0)
    sim.run_for(6.0)
    for call in sim.calls + sim.barriers:
        # Answered, or its node crashed while it waited.
        if call.done is None and not _lost_with_its_node(sim, call.node_id):
            raise Divergence(f"{call.value!r} was never answered (seed {seed})")
    sim.check_nothing_lost()
    for node in sim.nodes.values():
        if node.failure is not None:
            raise Divergence(f"{node.node_id} halted (seed {seed})") from node.failure
    return sim


def _lost_with_its_node(sim: SimCluster, node_id: str) -> bool:
    return node_id in sim.crashed
