"""Tunables of the engine. Times in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """All bounded resources and all times of the engine."""

    # -- time
    heartbeat: float = 0.05
    election_min: float = 0.4
    election_max: float = 0.8
    #: A node whose store was empty asks the others this often...
    join_query: float = 0.1
    #: ...and, when a majority is as new as it is, waits this long for the rest to speak.
    birth_wait: float = 1.0
    #: A leader that hears no majority for this long steps down.
    leader_fallback: float = 1.2
    #: Delay before a pre-vote after the leader's link broke: random in this range.
    broken_link_min: float = 0.005
    broken_link_max: float = 0.04
    #: A follower hears of a new commit index at the latest after this long.
    commit_notice: float = 0.002
    #: A proposal waits this long for a leader to be known.
    leader_wait: float = 1.0
    #: A deposed leader waits this long to learn what became of its entries.
    outcome_wait: float = 1.0

    # -- proposals
    max_proposals: int = 16_384
    max_proposal_bytes: int = 64 * MIB
    max_op_bytes: int = 16 * MIB
    #: Operations are merged into entries of about this size...
    entry_bytes: int = 1 * MIB
    entry_ops: int = 1024
    #: ...and one turn appends at most this much.
    turn_append_bytes: int = 4 * MIB
    #: A leader stops appending while this much is not committed.
    max_uncommitted_bytes: int = 64 * MIB

    # -- replication
    message_bytes: int = 1 * MIB
    message_entries: int = 1024
    #: Commands of this size together go beside their frame, which would copy them.
    apart_bytes: int = 16 * KIB
    #: In flight to one follower.
    window_bytes: int = 8 * MIB
    window_messages: int = 256
    cache_bytes: int = 32 * MIB

    # -- apply
    apply_entries: int = 512
    apply_bytes: int = 8 * MIB
    #: A turn that applied for this long goes on to the heartbeats.
    apply_time: float = 0.02

    # -- log trimming: what is kept behind the applied index, whichever is less,
    # for followers that were away for a moment, and for those that lag.
    keep_entries: int = 8_192
    keep_bytes: int = 256 * MIB
    keep_entries_for_laggards: int = 200_000
    keep_bytes_for_laggards: int = 2048 * MIB
    trim_rows_per_turn: int = 256

    # -- storage
    #: Below this much room appends of clients are refused...
    storage_reserve: int = 256 * MIB
    #: ...and a follower takes no more log below this much.
    follower_reserve: int = 128 * MIB
    usage_interval: float = 0.1

    # -- snapshots
    snapshot_window_bytes: int = 8 * MIB
    #: One chunk; signs of life wait behind it, so that a slow link wants it small.
    snapshot_chunk_bytes: int = 128 * KIB
    snapshot_retry: float = 0.5
    snapshot_stall: float = 30.0

    #: A damaged row is asked for again, of the next peer, after this long...
    repair_retry: float = 0.25
    #: ...and given up after this long: a leader that cannot go on without it ends.
    repair_deadline: float = 3.0

    #: Deliver results before the turn's flush (they are durable on a majority already).
    early_results: bool = True
    #: A jump of the wall clock against the monotonic one that is reported, microseconds.
    clock_jump_us: int = 500_000
