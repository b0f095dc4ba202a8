"""Faults 3, 4, 17, 18, 19 and 22: snapshots and what they jump over."""

from __future__ import annotations

import dataclasses

import pytest

from holdfast.cluster.raft.cures import ALL

from .ours_snapshot import ours_03, ours_04, ours_17, ours_18, ours_19, ours_22
from .stock import Lab
from .stock_snapshot import stock_03, stock_04, stock_17, stock_18, stock_19, stock_22


def test_fault_03(lab: Lab) -> None:
    """A snapshot chunk commits a deposed leader's own tail."""
    stock = stock_03(lab)
    assert stock.succeeded
    assert stock.applied == ["mine alone"]

    ours = ours_03(lab.clock)
    assert not ours.succeeded
    assert ours.applied == []

    assert ours_03(lab.clock, dataclasses.replace(ALL, snapshot_commit_zero=False)).succeeded


def test_fault_04(lab: Lab) -> None:
    """A snapshot that does not load is acked as a replica."""
    stock = stock_04(lab)
    assert stock.acked_success
    assert stock.values == []

    ours, halted = ours_04(lab.clock)
    assert halted
    assert not ours.acked_success
    assert ours.values == ["x"], "what was there is there still"

    broken, halted = ours_04(lab.clock, dataclasses.replace(ALL, halt_on_bad_snapshot=False))
    assert broken.acked_success
    assert not halted


def test_fault_17(lab: Lab) -> None:
    """A reconnect splices two snapshots."""
    old, new, spliced = stock_17()
    assert spliced == old[:4] + new[4:]

    ours = ours_17(lab.clock)
    assert ours.wanted_next[0] == 0, "the second half of another snapshot: from its beginning, please"
    assert ours.wanted_next[1] > 0, "a damaged chunk: that one again"
    assert not ours.installed
    assert ours.values == []
    assert ours.values_of_the_whole == ["aaaa", "bbbb", "cccc"]

    broken = ours_17(lab.clock, dataclasses.replace(ALL, check_snapshot_chunks=False))
    assert broken.wanted_next != ours.wanted_next


def test_fault_18(lab: Lab) -> None:
    """A whole snapshot at once, and no answer until its end: the leader steps down."""
    stock = stock_18(lab)
    assert stock.chunks_at_once > 100
    assert stock.replies == 0
    assert stock.leader_before
    assert not stock.leader_after

    ours = ours_18()
    assert ours.bytes_at_once < 60 * 5000 / 4, "a window, not the whole"
    assert ours.replies > 4
    assert ours.leader_before
    assert ours.leader_after


def test_fault_19(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read error of the leader's snapshot breaks both sides."""
    stock = stock_19(lab)
    assert stock.error_on_the_leader is TypeError
    assert stock.serialized_sent is False
    assert stock.error_on_the_follower is TypeError

    ours = ours_19(lab.clock, monkeypatch)
    assert ours.leads_on
    assert ours.malformed_chunks == 0
    assert ours.follower_values == ours.values
    assert ours.reported


def test_fault_22(lab: Lab) -> None:
    """Callers hang when a snapshot jumps over their index or a link breaks."""
    stock = stock_22(lab)
    assert stock.applied_after_jump >= stock.waiting_for
    assert stock.answers_after_jump == 0
    assert stock.answers_after_broken_link == 0

    ours = ours_22(lab.clock)
    assert ours.error_after_jump == "OUTCOME_UNKNOWN"
    assert ours.error_after_broken_link == "OUTCOME_UNKNOWN"
    assert ours.error_after_deadline == "DEADLINE_EXCEEDED"
    assert ours.outstanding == 0

    broken = ours_22(lab.clock, dataclasses.replace(ALL, fail_jumped_waiters=False))
    assert broken.error_after_jump is None
