"""Random faults from a seed; nothing acknowledged may be lost, and planted bugs must be found."""

from __future__ import annotations

import dataclasses

import pytest

from holdfast.chaos.sim import SimCluster
from holdfast.chaos.sim.storm import SHORT_LOG, storm
from holdfast.cluster.raft.cures import ALL


@pytest.mark.parametrize("seed", range(12))
def test_storm_over_three(seed: int) -> None:
    storm(seed)


@pytest.mark.parametrize("seed", range(4))
def test_storm_over_five(seed: int) -> None:
    storm(seed, nodes=5)


@pytest.mark.parametrize("seed", range(8))
def test_storm_with_snapshots(seed: int) -> None:
    storm(seed, settings=SHORT_LOG, rounds=100)


def test_same_seed_same_run() -> None:
    one, two = storm(3), storm(3)
    assert one.steps == two.steps
    assert one.network.bytes_sent == two.network.bytes_sent
    assert [call.ok for call in one.calls] == [call.ok for call in two.calls]


@pytest.mark.parametrize("cure", ["keep_matching_entries", "commit_within_confirmed"])
def test_storm_finds_a_planted_bug(cure: str) -> None:
    cures = dataclasses.replace(ALL, **{cure: False})

    def sick() -> None:
        for seed in range(20):
            storm(seed, cures=cures)

    with pytest.raises(AssertionError):
        sick()


def test_heartbeats_write_nothing() -> None:
    sim = SimCluster(3, seed=1)
    sim.elect()
    sim.publish(b"one")
    sim.settle()
    sim.run_for(1.0)
    before = [node.store.commits for node in sim.nodes.values()]
    sim.run_for(10.0)
    assert [node.store.commits for node in sim.nodes.values()] == before
