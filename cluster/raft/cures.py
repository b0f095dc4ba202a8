"""One switch per safety cure of shared engine faults; all on, always, in production.

The simulator turns one off to show that its checks find the fault: a checker
is trusted only after it has caught a planted bug. The numbers are those of the
list of faults in ``cluster/DESIGN.md``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cures:
    keep_matching_entries: bool = True  # 1: an append never truncates what matches
    next_index_forward: bool = True  # 2: an ack never moves the next index back
    snapshot_commit_zero: bool = True  # 3: a snapshot chunk moves no commit index
    halt_on_bad_snapshot: bool = True  # 4: a failed load acks nothing
    hold_until_durable: bool = True  # 6: acks and votes leave after the commit
    leader_counts_durable: bool = True  # 9: the leader's own copy counts when durable
    drop_stale_replies: bool = True  # 10: replies of another term or run are dropped
    count_voters_once: bool = True  # 11: members only, each once per term
    commit_within_confirmed: bool = True  # 1, 12: commit <= prev + len(entries), <= durable end
    refuse_foreign_kinds: bool = True  # 14, 15: no version or membership entries
    check_snapshot_chunks: bool = True  # 17: id, offset and CRC of every chunk
    answer_stale_leader: bool = True  # 20: a deposed leader is told at once
    confirm_reads: bool = True  # 20: a read barrier needs a round of heartbeats
    pre_vote: bool = True  # 21
    leader_stickiness: bool = True  # 21: a voter that hears a leader refuses candidates
    joining_does_not_vote: bool = True  # 26: a node with an empty disk votes only once that is harmless
    fail_jumped_waiters: bool = True  # 22: a snapshot over a waiter's index ends the wait


ALL = Cures()
