"""No acknowledged record is lost, no read is stale, no answer is wrong, whatever happens."""

from __future__ import annotations

import dataclasses

import pytest

from holdfast.chaos.sim import Divergence
from holdfast.cluster.raft.cures import ALL
from holdfast.errors import HoldfastError

from .storms import Storm


@pytest.mark.parametrize("seed", range(16))
def test_three_nodes(seed: int) -> None:
    storm = Storm(seed, 3).blow()
    assert storm.reads.ok
    assert any(call.ok for call in storm.sim.calls)


@pytest.mark.parametrize("seed", range(100, 104))
def test_five_nodes(seed: int) -> None:
    Storm(seed, 5).blow()


@pytest.mark.parametrize("cure", ["keep_matching_entries", "commit_within_confirmed", "confirm_reads"])
def test_a_planted_bug_is_found(cure: str) -> None:
    """A checker is trusted only after it has caught one."""
    cures = dataclasses.replace(ALL, **{cure: False})
    for seed in range(40):
        try:
            Storm(seed, 3, cures).blow()
        except (Divergence, AssertionError, HoldfastError):
            return
    pytest.fail(f"40 storms did not notice that {cure} is off")
