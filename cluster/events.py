"""Typed events of the engine, for telemetry. Emitted only when a sink is given.

Durations are seconds of the engine's clock, sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.cluster.results import Role


@dataclass(frozen=True, slots=True)
class TurnCompleted:
    """One engine turn that did something."""

    frames: int
    proposals: int
    appended_entries: int
    appended_bytes: int
    applied_entries: int
    applied_ops: int
    flushed: bool
    tick_s: float  # receiving, append, apply and shipping
    apply_s: float
    commit_s: float  # the flush


@dataclass(frozen=True, slots=True)
class ProposalTimings:
    """How long the operations of one log entry took on the leader that appended it.

    One event per entry, not per operation.
    """

    index: int
    ops: int
    bytes: int
    queued_s: float  # the oldest operation: from propose() to the append
    replicate_s: float  # from the append until a majority had it and its turn to apply came
    apply_s: float


@dataclass(frozen=True, slots=True)
class ElectionStarted:
    term: int
    pre_vote: bool


@dataclass(frozen=True, slots=True)
class RoleChanged:
    term: int
    role: Role


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    term: int
    leader_id: str | None


@dataclass(frozen=True, slots=True)
class JoiningBegan:
    """The store was empty, or not yet caught up when the node stopped: it does not vote.

    ``again``: it is known that the cluster has a past.
    """

    again: bool


@dataclass(frozen=True, slots=True)
class JoiningCounts:
    """The joining node knows the terms of all members: its copies count from now on."""

    term: int


@dataclass(frozen=True, slots=True)
class Joined:
    """The node is a full voter. ``born``: the cluster is new; else it has caught up."""

    born: bool
    term: int
    commit_index: int


@dataclass(frozen=True, slots=True)
class PeerLinkChanged:
    peer_id: str
    connected: bool
    refused: bool


@dataclass(frozen=True, slots=True)
class ProposalRejected:
    reason: str


@dataclass(frozen=True, slots=True)
class FrameDropped:
    """A frame of a peer was not taken; ``reason`` is one of a few fixed words."""

    peer_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class FollowerPaused:
    """A follower has no room for more log (full disk) and takes heartbeats only."""

    peer_id: str


@dataclass(frozen=True, slots=True)
class StorageFull:
    """``full`` True: appends are refused from now; False: they are taken again."""

    full: bool
    used: int
    quota: int
    disk_free: int


@dataclass(frozen=True, slots=True)
class LogTruncated:
    """Uncommitted entries of a deposed leader were replaced."""

    from_index: int
    last_index: int


@dataclass(frozen=True, slots=True)
class LogTrimmed:
    base_index: int
    rows_visited: int  # deleted, or kept for their batches


@dataclass(frozen=True, slots=True)
class SnapshotSent:
    peer_id: str
    last_index: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SnapshotAborted:
    """A transfer ended early; it is begun anew if the follower still needs it."""

    peer_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class SnapshotInstalled:
    last_index: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DamageFound:
    """A stored row failed its check; it is not served. ``repairable``: other nodes are asked for it."""

    table: str
    index: int | None  # of a log entry
    repairable: bool


@dataclass(frozen=True, slots=True)
class RowRepaired:
    """A damaged row was written back as another node has it."""

    table: str
    peer_id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RepairFailed:
    """No node that could be reached has the row."""

    table: str


@dataclass(frozen=True, slots=True)
class ScrubStepped:
    """A part of the data was read and checked."""

    rows: int
    bytes: int
    damaged: int
    finished: bool  # everything has been read once more


@dataclass(frozen=True, slots=True)
class ClockJumped:
    """The wall clock moved against the monotonic one by this many microseconds."""

    jump_us: int


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """The engine has halted; the process must end."""

    reason: str
