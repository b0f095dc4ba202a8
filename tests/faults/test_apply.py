"""Faults 11, 13, 14, 15 and 23: votes, applying, foreign entries, proposing."""

from __future__ import annotations

import dataclasses

from holdfast.cluster.raft.cures import ALL
from holdfast.cluster.raft.seam import configuration
from holdfast.cluster.raft.settings import EngineSettings
from holdfast.errors import OverloadedError, UnavailableError

from .ours_apply import (
    MEMBERSHIP,
    VERSION,
    ours_11,
    ours_13_bad_disk,
    ours_13_bad_entries,
    ours_15_stranger,
    ours_23,
    ours_foreign_kind,
)
from .stock import Lab
from .stock_apply import stock_11, stock_13, stock_14, stock_15, stock_23


def test_fault_11(lab: Lab) -> None:
    """Votes are counted without dedup or membership check."""
    stock = stock_11(lab)
    assert stock.one_voter_twice
    assert stock.a_stranger

    ours = ours_11(lab.clock)
    assert not ours.one_voter_twice
    assert not ours.a_stranger

    assert ours_11(lab.clock, dataclasses.replace(ALL, count_voters_once=False)).one_voter_twice


def test_fault_13(lab: Lab) -> None:
    """One entry that raises when it is applied silences the leader."""
    stock = stock_13(lab)
    assert stock.runs_of_the_bad_entry == stock.ticks_that_raised == stock.heartbeats_due
    assert stock.heartbeats_sent == 0

    ours = ours_13_bad_entries()
    assert ours.results == ["INVALID_ARGUMENT", "INVALID_ARGUMENT", "INTERNAL", None]
    assert ours.applied == ours.commit
    assert ours.heartbeats_sent == ours.heartbeats_due

    halted = ours_13_bad_disk(lab.clock)
    assert halted.failed
    assert halted.runs == 1
    assert halted.acks_after == 0
    assert halted.later_proposal is UnavailableError


def test_fault_14(lab: Lab) -> None:
    """After a version it does not know, a node applies the next entry twice."""
    assert stock_14(lab) == ["once", "once"]

    ours = ours_foreign_kind(lab.clock, VERSION)
    assert (ours.last_index, ours.acked) == (1, False)
    assert ours.applied == ["once"]

    broken = ours_foreign_kind(lab.clock, VERSION, dataclasses.replace(ALL, refuse_foreign_kinds=False))
    assert (broken.last_index, broken.acked) == (2, True)


def test_fault_15(lab: Lab) -> None:
    """Two membership changes at once: two majorities that share nobody."""
    stock = stock_15(lab)
    assert stock.changes_in_flight == 2
    assert stock.committed_by_old_leader >= stock.index
    assert stock.committed_by_new_leader >= stock.index
    assert stock.terms_at_index[0] != stock.terms_at_index[1]

    ours = ours_foreign_kind(lab.clock, MEMBERSHIP)
    assert (ours.last_index, ours.acked) == (1, False)
    assert ours.members == {"a", "c"}
    assert ours_15_stranger(lab.clock) == 1
    assert configuration(EngineSettings()).dynamicMembershipChange is False

    broken = ours_foreign_kind(lab.clock, MEMBERSHIP, dataclasses.replace(ALL, refuse_foreign_kinds=False))
    assert broken.acked


def test_fault_23(lab: Lab) -> None:
    """A proposal raises after it was queued, so that the retry is a duplicate."""
    stock = stock_23(lab)
    assert stock.raised is BlockingIOError
    assert stock.queued_although_raised
    assert len(stock.applied_after_retry) == 2

    ours = ours_23(lab.clock)
    assert ours.raised is OverloadedError
    assert not ours.queued_although_raised
    assert len(ours.applied_after_retry) == 1
    assert configuration(EngineSettings()).appendEntriesUseBatch is True
