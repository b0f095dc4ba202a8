"""Faults 5, 6, 7, 8 and 12: what the disk keeps."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

from holdfast.cluster.raft.cures import ALL
from holdfast.storage.damage import DamagedRowError

from .ours_storage import lmdb_syncs, ours_05, ours_06, ours_07, ours_08, ours_12
from .stock import Lab
from .stock_storage import stock_05, stock_06, stock_07, stock_08, stock_12


def test_fault_05(lab: Lab) -> None:
    """A crash in the middle of compaction clears the whole journal at the next start."""
    stock = stock_05(lab)
    assert stock.acked_last_index == stock.last_index_before
    assert stock.last_index_after < stock.acked_last_index

    ours = ours_05(lab.clock)
    assert len(ours) > 40
    assert all(case.last_index_after >= case.acked_last_index for case in ours)


def test_fault_06(lab: Lab, tmp_path: Path) -> None:
    """Nothing is ever flushed: a power cut takes acked entries and votes."""
    stock = stock_06(lab)
    assert stock.acked == 2
    assert stock.voted
    assert stock.syncs == 0

    ours = ours_06(lab.clock)
    assert ours.sent_too_early == []
    assert ours.acked == 2
    assert ours.last_index_after_power_cut >= ours.acked
    assert ours.votes_in_one_term == 1
    assert lmdb_syncs(tmp_path / "lmdb")

    broken = ours_06(lab.clock, dataclasses.replace(ALL, hold_until_durable=False))
    assert broken.sent_too_early
    assert broken.last_index_after_power_cut < broken.acked


def test_fault_07(lab: Lab, tmp_path: Path) -> None:
    """SIGKILL during compaction: of a thousand entries three are left."""
    stock = stock_07(lab)
    assert stock.entries_to_keep == 1000
    assert stock.entries_after_restart == 3

    for ours in ours_07(tmp_path / "ours"):
        assert ours.entries_after_restart == ours.entries_to_keep


def test_fault_08(lab: Lab, tmp_path: Path) -> None:
    """A ceiling of 4 GiB, a torn tail that prevents a start, damage that nobody notices."""
    stock = stock_08(lab)
    assert stock.error_past_4_gib is struct.error
    assert stock.error_on_torn_tail is struct.error
    assert stock.damaged_command_loaded != stock.command_written

    ours = ours_08(tmp_path / "ours")
    assert ours.last_index_past_4_gib == 1
    assert ours.last_index_after_torn_write == 1
    assert ours.error_on_damaged_entry is DamagedRowError


def test_fault_12(lab: Lab) -> None:
    """A stored commit index beyond the end of the log is clamped to entries never committed."""
    stock = stock_12(lab)
    assert stock.stored_commit > stock.log_end
    assert stock.applied == ["old 2", "old 3"]

    for ours in ours_12(lab.clock):
        assert ours.stored_commit <= ours.log_end
        assert ours.applied in ([], ours.committed_by_the_leader)
    assert any(ours.applied for ours in ours_12(lab.clock))
