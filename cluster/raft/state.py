"""What all parts of the core share: PySyncObj's private state, ours beside it, and how both are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pysyncobj.node import Node
from pysyncobj.syncobj import SyncObj

from holdfast.cluster import events
from holdfast.cluster.ports import (
    Clock,
    EventSink,
    Randomness,
)
from holdfast.cluster.raft import messages
from holdfast.cluster.raft.cures import Cures
from holdfast.cluster.raft.election import PreVote
from holdfast.cluster.raft.followers import Follower
from holdfast.cluster.raft.host import Host, MachineLike
from holdfast.cluster.raft.journal import StoreJournal
from holdfast.cluster.raft.outbox import Outbox
from holdfast.cluster.raft.rejoin import Rejoin
from holdfast.cluster.raft.repair import Repair
from holdfast.cluster.raft.settings import EngineSettings
from holdfast.cluster.raft.shipping import Shipper
from holdfast.cluster.raft.snapshots import Snapshots
from holdfast.cluster.results import Role
from holdfast.storage.port import Store

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2
ROLES = (Role.FOLLOWER, Role.CANDIDATE, Role.LEADER)


class RaftState(SyncObj):  # type: ignore[misc]  # pysyncobj has no types
    """Attributes are set by ``RaftCore``; the parts of the core are the subclasses beside this one."""

    # PySyncObj's private state, as far as it is used here.
    _SyncObj__raftState: int
    _SyncObj__raftCurrentTerm: int
    _SyncObj__raftCommitIndex: int
    _SyncObj__raftLastApplied: int
    _SyncObj__raftLeader: Node | None
    _SyncObj__raftElectionDeadline: float
    _SyncObj__newAppendEntriesTime: float
    _SyncObj__raftNextIndex: dict[Node, int]
    _SyncObj__raftMatchIndex: dict[Node, int]
    _SyncObj__lastResponseTime: dict[Node, float]
    _SyncObj__transferInProgress: bool
    _SyncObj__noopIDx: int | None
    _SyncObj__connectedNodes: set[Node]
    _SyncObj__votedForNodeId: str | None

    settings: EngineSettings
    node_id: str
    cures: Cures
    clock: Clock
    rng: Randomness
    store: Store
    machine: MachineLike
    host: Host
    emit: EventSink | None
    journal: StoreJournal
    outbox: Outbox
    envelope: messages.Envelope
    followers: dict[str, Follower]
    shipper: Shipper
    snapshots: Snapshots
    repair: Repair
    pre_vote: PreVote
    rejoin: Rejoin
    #: What the engine found when it last looked at the store: no more log is
    #: taken as a follower, no more records as a leader, bytes until the former.
    no_room: bool
    storage_low: bool
    room: int
    stirred: bool
    touched: set[tuple[int, int]]
    groups_changed: set[str]
    topics_index: int
    #: Of the present turn.
    applied_ops: int
    applied_entries: int
    apply_s: float
    #: Of the entry applied last.
    entry_apply_s: float
    _heard_leader_at: float
    #: The election deadline has passed since.
    _leader_silent: bool
    #: The commit index at the beginning of the tick.
    _commit_floor: int
    _stock_receive: Callable[[Node, dict[str, Any]], None]
    _stock_become_leader: Callable[[], None]

    @property
    def term(self) -> int:
        return self._SyncObj__raftCurrentTerm

    @property
    def leading(self) -> bool:
        return self._SyncObj__raftState == LEADER

    @property
    def role(self) -> Role:
        return ROLES[self._SyncObj__raftState]

    @property
    def leader_id(self) -> str | None:
        """The leader; None while none is known, or it has been silent for an election timeout."""
        leader = self.last_leader_id
        return None if self._leader_silent and leader != self.node_id else leader

    @property
    def last_leader_id(self) -> str | None:
        """The leader of this term, silent or not."""
        leader = self._SyncObj__raftLeader
        return None if leader is None else leader.id

    @property
    def commit_index(self) -> int:
        return self._SyncObj__raftCommitIndex

    @property
    def applied_index(self) -> int:
        return self._SyncObj__raftLastApplied

    @property
    def ready_to_read(self) -> bool:
        """A leader knows the commit index once an entry of its own term is committed."""
        noop = self._SyncObj__noopIDx
        return self.leading and noop is not None and self._SyncObj__raftCommitIndex >= noop

    def match_index(self, follower: Follower) -> int:
        return self._SyncObj__raftMatchIndex.get(follower.node, 0)

    def next_index(self, follower: Follower) -> int:
        return self._SyncObj__raftNextIndex[follower.node]

    def set_next_index(self, follower: Follower, index: int) -> None:
        self._SyncObj__raftNextIndex[follower.node] = index

    def _drop(self, node_id: str, reason: str) -> None:
        if self.emit is not None:
            self.emit(events.FrameDropped(node_id, reason))

    def note_problem(self, reason: str) -> None:
        if self.emit is not None:
            self.emit(events.EngineFailed(reason))

    def show_store(self) -> None:
        """Show the open transaction to readers."""
        self.journal.before_show()
        self.store.show()

    def persist_store(self) -> None:
        """Make the open transaction durable, and show it."""
        if self.store.dirty:
            self.journal.before_flush()
            self.store.persist()
        self.journal.on_flush()

    def commit_store(self) -> None:
        """Commit the open transaction, after which another one may begin."""
        if self.store.dirty:
            self.journal.before_flush()
            self.store.commit()
        self.journal.on_flush()
