"""PySyncObj's consensus algorithm, with our journal, sender, apply and messages around it.

What stays PySyncObj's: terms and votes, the election, counting of copies, what
may be committed, stepping down. What is replaced or guarded is in the methods
below; each says which fault of the library it cures (the numbers are those of
``cluster/DESIGN.md``). All methods run on the engine's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pysyncobj.node import Node
from pysyncobj.syncobj import SyncObj

from holdfast.cluster import events
from holdfast.cluster.ports import (
    Clock,
    EventSink,
    PeerConnected,
    PeerDisconnected,
    PeerMessage,
    Randomness,
    Transport,
    TransportEvent,
)
from holdfast.cluster.raft import messages
from holdfast.cluster.raft.cures import Cures
from holdfast.cluster.raft.election import PreVote
from holdfast.cluster.raft.followers import Follower
from holdfast.cluster.raft.inbound import LogConflictError, examine
from holdfast.cluster.raft.journal import StoreJournal
from holdfast.cluster.raft.messages import COMMAND, Command, PeerFrame
from holdfast.cluster.raft.outbox import Outbox
from holdfast.cluster.raft.proposals import ENTRY_OVERHEAD
from holdfast.cluster.raft.rejoin import Rejoin
from holdfast.cluster.raft.repair import Repair
from holdfast.cluster.raft.seam import (
    NullPoller,
    NullResolver,
    NullSerializer,
    Outlet,
    PeerNode,
    configuration,
    rebind,
)
from holdfast.cluster.raft.settings import EngineSettings
from holdfast.cluster.raft.shipping import Shipper
from holdfast.cluster.raft.snapshots import Snapshots
from holdfast.cluster.results import Role
from holdfast.errors import InternalError
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.partitions import scan_states
from holdfast.storage.port import Store, Writer
from holdfast.v1 import log_pb2

_FOLLOWER, _CANDIDATE, _LEADER = 0, 1, 2
_ROLES = (Role.FOLLOWER, Role.CANDIDATE, Role.LEADER)
#: Entries the base of the log moves by, about.
_TRIM_STEP = 256
#: A frame of a higher term makes its receiver step down. Not here: appends and
#: votes (PySyncObj's business) and questions that must not disturb.
_STEP_DOWN = frozenset({"append_reply", "vote_reply", "snapshot_reply", "join_reply"})


class AppliedLike(Protocol):
    """What applying one entry gave."""

    @property
    def results(self) -> list[log_pb2.OpResult]: ...

    @property
    def touched(self) -> set[tuple[int, int]]: ...


class MachineLike(Protocol):
    """The deterministic state machine: total; it raises only when the store does."""

    def apply(self, writer: Writer, index: int, entry: bytes, /) -> AppliedLike: ...

    def reset(self) -> None: ...


class Host(Protocol):
    """What the core calls back, on the engine's thread."""

    def append_proposals(self, now: float) -> None: ...

    def applied(self, index: int, term: int, results: list[log_pb2.OpResult]) -> None: ...

    def leadership_changed(self, leading: bool, now: float) -> None: ...

    def link_lost(self, node_id: str) -> None: ...

    def round_answered(self) -> None: ...

    def jumped(self, index: int) -> None: ...

    def receive(self, node_id: str, kind: str, frame: PeerFrame, now: float) -> None: ...


class RaftCore(SyncObj):  # type: ignore[misc]  # pysyncobj has no types
    """One voter. Driven by ``receive`` and ``tick``; the engine commits and releases."""

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

    def __init__(
        self,
        *,
        settings: EngineSettings,
        node_id: str,
        members: Sequence[str],
        store: Store,
        transport: Transport,
        clock: Clock,
        rng: Randomness,
        machine: MachineLike,
        host: Host,
        cures: Cures,
        emit: EventSink | None,
    ) -> None:
        self.settings = settings
        self.node_id = node_id
        self.cures = cures
        self.clock = clock
        self.rng = rng
        self.store = store
        self.machine = machine
        self.host = host
        self.emit = emit
        self.journal = StoreJournal(store, settings.cache_bytes)
        self.outbox = Outbox(transport, hold=cures.hold_until_durable)
        self.envelope = messages.Envelope(rng.getrandbits(63) | 1)
        others = sorted(set(members) - {node_id})
        self.followers = {peer: Follower(PeerNode(peer)) for peer in others}
        self.shipper = Shipper(self)
        self.snapshots = Snapshots(self)
        self.repair = Repair(self)
        self.pre_vote = PreVote(settings, rng, len(others) + 1)
        self.rejoin = Rejoin(self)
        #: What the engine found when it last looked at the store: no more log is
        #: taken as a follower, no more records as a leader, bytes until the former.
        self.no_room = False
        self.storage_low = False
        self.room = 1 << 62
        self.touched: set[tuple[int, int]] = set()
        #: Of the present turn.
        self.applied_ops = 0
        self.applied_entries = 0
        self.apply_s = 0.0
        #: Of the entry applied last.
        self.entry_apply_s = 0.0
        self._votes: set[tuple[int, str]] = set()
        self._heard_leader_at = float("-inf")
        self._commit_floor = 0
        self._announced_leader: str | None = None
        self._transfer_asked = False
        self._sweeping = True
        self._handlers: dict[str, Callable[[Follower, PeerFrame, float], None]] = {
            "append": self._on_append,
            "append_reply": self._on_append_reply,
            "vote_request": self._on_vote_request,
            "vote_reply": self._on_vote_reply,
            "timeout_now": self._on_timeout_now,
            "snapshot_chunk": self.snapshots.on_chunk,
            "snapshot_reply": self.snapshots.on_reply,
            "row_request": self.repair.on_request,
            "row_reply": self.repair.on_reply,
            "join_query": self.rejoin.on_query,
            "join_reply": self.rejoin.on_reply,
        }
        stock = rebind(
            self,
            {
                "monotonicTime": clock.monotonic,
                "random": rng,
                "createJournal": lambda _name=None: self.journal,
                "Serializer": NullSerializer,
                "createPoller": lambda _kind: NullPoller(),
                "globalDnsResolver": NullResolver,
            },
        )
        self._stock_receive = stock["_SyncObj__onMessageReceived"]
        self._stock_become_leader = stock["_SyncObj__onBecomeLeader"]
        self._stock_tick = stock["_onTick"]
        stock["__init__"](
            PeerNode(node_id),
            [follower.node for follower in self.followers.values()],
            conf=configuration(settings),
            transport=Outlet(self._send_stock),
        )
        # What is applied stays applied: a start costs the same however long the log is.
        self._SyncObj__raftLastApplied = self.journal.applied_index
        if not others:
            # Nobody to wait for, nobody to disturb.
            self._SyncObj__raftElectionDeadline = clock.monotonic()

    # -- what the engine asks --------------------------------------------------

    @property
    def term(self) -> int:
        return self._SyncObj__raftCurrentTerm

    @property
    def leading(self) -> bool:
        return self._SyncObj__raftState == _LEADER

    @property
    def role(self) -> Role:
        return _ROLES[self._SyncObj__raftState]

    @property
    def leader_id(self) -> str | None:
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

    def confirmed_round(self) -> int:
        """The newest round that a majority (self included) has answered."""
        rounds = sorted((f.answered_round for f in self.followers.values()), reverse=True)
        others_needed = (len(rounds) + 1) // 2
        return self.shipper.round if others_needed == 0 else rounds[others_needed - 1]

    def next_wakeup(self, now: float) -> float:
        """When a tick is due though nothing arrives, on the engine's clock."""
        if self._SyncObj__raftState == _LEADER:
            due = self._SyncObj__newAppendEntriesTime
            if self._may_apply:
                return now
            notice = self.shipper.next_wakeup()
            if notice is not None and notice < due:
                due = notice
            snapshot = self.snapshots.next_wakeup()
            if snapshot is not None and snapshot < due:
                due = snapshot
            return due
        if self._may_apply:
            return now
        if self.rejoin.joining:
            return self.rejoin.next_wakeup()
        due = self._SyncObj__raftElectionDeadline
        if due <= now and self.pre_vote.retry_at > now:
            return self.pre_vote.retry_at
        if due <= now and not self._majority_connected():
            return now + self.settings.election_min  # a connection wakes the engine
        return due

    @property
    def _may_apply(self) -> bool:
        applied = self._SyncObj__raftLastApplied
        return self._SyncObj__raftCommitIndex > applied and not self.repair.blocks(applied + 1)

    # -- inbound ---------------------------------------------------------------

    def on_event(self, event: TransportEvent, now: float) -> None:
        if isinstance(event, PeerMessage):
            self.receive(event.node_id, event.frame, now)
        elif isinstance(event, PeerConnected):
            self._connected(event, now)
        else:
            self._disconnected(event, now)

    def receive(self, node_id: str, frame: PeerFrame, now: float) -> None:
        """One frame of a peer. Foreign, old and malformed ones are dropped."""
        follower = self.followers.get(node_id)
        if follower is None:
            self._drop(node_id, "stranger")  # 11
            return
        if not self._same_run(follower, frame):
            self._drop(node_id, "earlier_run")  # 10
            return
        kind = frame.WhichOneof("body")
        if kind is None:
            self._drop(node_id, "empty")
            return
        if frame.term > self._SyncObj__raftCurrentTerm and kind in _STEP_DOWN:
            self._adopt_term(follower, frame.term)
        handler = self._handlers.get(kind)
        if handler is None:
            self.host.receive(node_id, kind, frame, now)
        else:
            handler(follower, frame, now)

    def _same_run(self, follower: Follower, frame: PeerFrame) -> bool:
        """10: a link belongs to one run of the peer's process."""
        if follower.link_fresh:
            follower.link_fresh = False
            if follower.boot_id not in (0, frame.boot_id):
                # Whatever an earlier run acked is told anew by this one.
                if follower.node in self._SyncObj__raftMatchIndex:
                    self._SyncObj__raftMatchIndex[follower.node] = 0
                follower.answered_round = 0
            follower.boot_id = frame.boot_id
            return True
        return frame.boot_id == follower.boot_id or not self.cures.drop_stale_replies

    def _drop(self, node_id: str, reason: str) -> None:
        if self.emit is not None:
            self.emit(events.FrameDropped(node_id, reason))

    def _adopt_term(self, follower: Follower, term: int) -> None:
        """Step down to a higher term without granting anything."""
        self._stock_receive(
            follower.node,
            {"type": "request_vote", "term": term, "last_log_term": -1, "last_log_index": 0},
        )

    def _connected(self, event: PeerConnected, now: float) -> None:
        follower = self.followers.get(event.node_id)
        if follower is None:
            self._drop(event.node_id, "stranger")
            return
        follower.connected = True
        follower.link_broken = False
        follower.link_fresh = True
        follower.reset()
        self._SyncObj__connectedNodes.add(follower.node)
        self.pre_vote.retry_at = now
        self.rejoin.connected(follower, now)
        # Tell the peer where things stand at once, not a heartbeat later.
        self.shipper.beat = True
        if self.emit is not None:
            self.emit(events.PeerLinkChanged(event.node_id, True, False))

    def _disconnected(self, event: PeerDisconnected, now: float) -> None:
        follower = self.followers.get(event.node_id)
        if follower is None:
            return
        follower.connected = False
        follower.link_broken = event.refused
        follower.reset()
        self._SyncObj__connectedNodes.discard(follower.node)
        self.snapshots.link_lost(follower)
        self.host.link_lost(event.node_id)
        if event.refused and event.node_id == self.leader_id and not self.leading:
            # A broken connection is news: no need to wait for silence.
            settings = self.settings
            delay = settings.broken_link_min
            delay += (settings.broken_link_max - delay) * self.rng.random()
            self._SyncObj__raftElectionDeadline = min(self._SyncObj__raftElectionDeadline, now + delay)
            self.pre_vote.clear()
        if self.emit is not None:
            self.emit(events.PeerLinkChanged(event.node_id, False, event.refused))

    # -- appends, follower's side ------------------------------------------------

    def _on_append(self, follower: Follower, frame: PeerFrame, now: float) -> None:
        if not self.heed_leader(follower, frame.term, now):
            return
        self.snapshots.heard_append(follower.node_id)
        append = frame.append
        fault = messages.append_fault(append)
        if fault is None and self.cures.refuse_foreign_kinds and messages.has_foreign_kind(append):
            fault = "foreign_kind"
        if fault is not None:
            self._drop(follower.node_id, fault)
            return
        journal = self.journal
        verdict = examine(
            append, messages.entries_of(append), journal, self._SyncObj__raftCommitIndex, self.cures
        )
        no_room = False
        if verdict.entries and verdict.success:
            size = ENTRY_OVERHEAD + sum(len(command.data) for command, _, _ in verdict.entries)
            no_room = self.no_room or size > self.room
            if not no_room:
                self.room -= size
        if no_room:
            # Take part in everything but the growth of the log.
            verdict.entries = []
            verdict.success = False
            verdict.prev_index, verdict.prev_term = journal.last_index, journal.last_term
            verdict.commit_index = min(verdict.commit_index, append.prev_index)
        elif verdict.truncate_from and self.emit is not None:
            self.emit(events.LogTruncated(verdict.truncate_from, journal.last_index))
        self._stock_receive(
            follower.node,
            {
                "type": "append_entries",
                "term": frame.term,
                "commit_index": verdict.commit_index,
                "prevLogIdx": verdict.prev_index,
                "prevLogTerm": verdict.prev_term,
                "entries": verdict.entries,
            },
        )
        reply = self.envelope.append_reply(
            self._SyncObj__raftCurrentTerm,
            success=verdict.success,
            match_index=verdict.match_index if verdict.success else 0,
            last_index=verdict.last_index,
            round_number=append.round,
            rejected_prev=0 if verdict.success else append.prev_index,
            no_room=no_room,
            storage_low=self.storage_low,
            uncounted=self.rejoin.uncounted,
            joining=self.rejoin.joining,
        )
        self.outbox.hold(follower.node_id, reply, ack=verdict.success)

    def heed_leader(self, follower: Follower, term: int, now: float) -> bool:
        """True when a message of a leader of ``term`` is to be followed; answers an old one (20)."""
        current = self._SyncObj__raftCurrentTerm
        if term < current:
            if self.cures.answer_stale_leader:
                self.outbox.hold(follower.node_id, self.envelope.append_reply(current, success=False))
            return False
        if term == current and self._SyncObj__raftState == _LEADER:
            raise LogConflictError(f"{follower.node_id} leads in term {term}, as this node does")
        self._heard_leader_at = now
        self.pre_vote.clear()
        return True

    def note_leader(self, follower: Follower, term: int, claimed_commit: int = 0) -> None:
        """Let PySyncObj take note of a leader, and nothing else.

        3: a snapshot chunk says nothing about our log, so it moves no commit index.
        """
        commit = 0 if self.cures.snapshot_commit_zero else claimed_commit
        self._stock_receive(follower.node, {"type": "append_entries", "term": term, "commit_index": commit})

    def note_problem(self, reason: str) -> None:
        if self.emit is not None:
            self.emit(events.EngineFailed(reason))

    def _SyncObj__sendNextNodeIdx(self, *_: object, **__: object) -> None:
        """PySyncObj's own ack is not sent: the verdict knows what was really confirmed (1)."""

    # -- acks, leader's side -------------------------------------------------------

    def _on_append_reply(self, follower: Follower, frame: PeerFrame, now: float) -> None:
        if self._SyncObj__raftState != _LEADER:
            return
        if frame.term != self._SyncObj__raftCurrentTerm and self.cures.drop_stale_replies:
            self._drop(follower.node_id, "earlier_term")  # 10
            return
        reply = frame.append_reply
        follower.storage_low = reply.storage_low
        follower.joining = reply.joining
        if not reply.uncounted:
            self.answered(follower, reply.round, now)
        if reply.success:
            self._acked(follower, reply.match_index, now, counts=not reply.uncounted)
        else:
            self._refused(follower, reply, now)

    def answered(self, follower: Follower, round_number: int, now: float) -> None:
        """Any reply of the current term: the follower is there, and had not left us then."""
        self._SyncObj__lastResponseTime[follower.node] = now
        if round_number > follower.answered_round:
            follower.answered_round = round_number
            self.host.round_answered()

    def _acked(self, follower: Follower, match: int, now: float, *, counts: bool = True) -> None:
        if match > self.journal.last_index:
            self._drop(follower.node_id, "ack_beyond_log")
            return
        node = follower.node
        before = self._SyncObj__raftNextIndex[node]
        if counts:
            self._stock_receive(
                node,
                {"type": "next_node_idx", "reset": False, "success": True, "next_node_idx": match + 1},
            )
        if self.cures.next_index_forward:  # 2
            self._SyncObj__raftNextIndex[node] = max(before, match + 1)
        follower.acked(match, now)

    def follower_has(self, follower: Follower, index: int, now: float, *, counts: bool = True) -> None:
        """A snapshot up to ``index`` is installed there: go on with the log from it."""
        self.set_next_index(follower, index + 1)
        follower.reset()
        self._acked(follower, index, now, counts=counts)

    def _refused(self, follower: Follower, reply: Any, now: float) -> None:
        match = self.match_index(follower)
        next_index = self.next_index(follower)
        if reply.no_room:
            follower.refused()
            if follower.paused_until <= now and self.emit is not None:
                self.emit(events.FollowerPaused(follower.node_id))
            follower.paused_until = now + 5 * self.settings.heartbeat
            self.set_next_index(follower, min(next_index, max(match, reply.last_index) + 1))
            return
        if reply.rejected_prev <= match or (follower.probing and reply.rejected_prev != next_index - 1):
            return  # an answer to something sent before the last refusal
        hint = max(match, min(reply.last_index, reply.rejected_prev - 1))
        self.set_next_index(follower, hint + 1)
        follower.refused()

    def quorum_is_full(self) -> bool:
        """A leader's view: followers without room leave no majority that could take records."""
        low = [follower.storage_low for follower in self.followers.values() if follower.connected]
        quorum = (len(self.followers) + 1) // 2 + 1
        return self.leading and any(low) and 1 + low.count(False) < quorum

    # -- elections -------------------------------------------------------------------

    def _SyncObj__connectedToAnyone(self) -> bool:
        """PySyncObj asks this when its election deadline has passed: may it stand? (21)"""
        self._transfer_asked = self._SyncObj__transferInProgress
        if self.rejoin.joining:
            return False
        if not self.followers or self._transfer_asked:
            return True
        if not self.cures.pre_vote:
            return bool(self._SyncObj__connectedNodes)
        wanted = self._SyncObj__raftCurrentTerm + 1
        if self.pre_vote.won(wanted):
            return True
        now = self.clock.monotonic()
        if now >= self.pre_vote.retry_at and self._majority_connected():
            self._ask_pre_votes(wanted, now)
        return False

    def _majority_connected(self) -> bool:
        return (len(self._SyncObj__connectedNodes) + 1) * 2 > len(self.followers) + 1

    def _ask_pre_votes(self, term: int, now: float) -> None:
        leader = self.leader_id
        hurry = leader is None or (leader in self.followers and self.followers[leader].link_broken)
        self.pre_vote.start(term, now, hurry)
        if self.emit is not None:
            self.emit(events.ElectionStarted(term, True))
        for follower in self.followers.values():
            if follower.connected:
                self.outbox.send(
                    follower.node_id,
                    self.envelope.vote_request(
                        self._SyncObj__raftCurrentTerm,
                        for_term=term,
                        last_index=self.journal.last_index,
                        last_term=self.journal.last_term,
                        pre_vote=True,
                    ),
                )

    def _hears_leader(self, now: float) -> bool:
        """Stickiness: a live leader is known, so no other is needed."""
        if self._SyncObj__raftState == _LEADER:
            return True
        leader = self.leader_id
        if leader is None or now - self._heard_leader_at >= self.settings.election_min:
            return False
        follower = self.followers.get(leader)
        return follower is None or not follower.link_broken

    def _on_vote_request(self, follower: Follower, frame: PeerFrame, now: float) -> None:
        request = frame.vote_request
        current = self._SyncObj__raftCurrentTerm
        if request.pre_vote:
            granted = self._would_vote(follower, request, now)
            if granted:
                # Let the one that asked first go first.
                self.pre_vote.clear()
                wait = 0.05 + 0.1 * self.rng.random()
                self._SyncObj__raftElectionDeadline = max(self._SyncObj__raftElectionDeadline, now + wait)
            self.outbox.send(
                follower.node_id,
                self.envelope.vote_reply(current, for_term=request.term, granted=granted, pre_vote=True),
            )
            return
        if not self.rejoin.grants:
            return  # it may have voted in that term already
        if self.cures.leader_stickiness and not request.transfer and self._hears_leader(now):
            return
        if request.term < current or (
            request.term == current and self._SyncObj__votedForNodeId == follower.node_id
        ):
            # An old candidate learns the term; one that lost its grant gets it again.
            granted = request.term == current and self._up_to_date(request)
            self.outbox.hold(
                follower.node_id, self.envelope.vote_reply(current, for_term=request.term, granted=granted)
            )
            return
        self._stock_receive(
            follower.node,
            {
                "type": "request_vote",
                "term": request.term,
                "last_log_term": request.last_term,
                "last_log_index": request.last_index,
            },
        )

    def _up_to_date(self, request: Any) -> bool:
        theirs = (request.last_term, request.last_index)
        return theirs >= (self.journal.last_term, self.journal.last_index)

    def _would_vote(self, follower: Follower, request: Any, now: float) -> bool:
        if not self.rejoin.grants:
            return False
        if request.term <= self._SyncObj__raftCurrentTerm or not self._up_to_date(request):
            return False
        if self.cures.leader_stickiness and self._hears_leader(now):
            return False
        ours = (self.journal.last_term, self.journal.last_index, self.node_id)
        theirs = (request.last_term, request.last_index, follower.node_id)
        return not self.pre_vote.outranks(now, ours, theirs)

    def _on_vote_reply(self, follower: Follower, frame: PeerFrame, now: float) -> None:
        reply = frame.vote_reply
        if reply.pre_vote:
            if reply.granted and self._SyncObj__raftState != _LEADER:
                self.pre_vote.grant(follower.node_id, reply.term)
            return
        current = self._SyncObj__raftCurrentTerm
        if not reply.granted or self._SyncObj__raftState != _CANDIDATE:
            return
        if (reply.term != current or frame.term != current) and self.cures.drop_stale_replies:
            return
        if (current, follower.node_id) in self._votes and self.cures.count_voters_once:
            return  # 11
        self._votes.add((current, follower.node_id))
        self._stock_receive(follower.node, {"type": "response_vote", "term": current})

    def _on_timeout_now(self, follower: Follower, frame: PeerFrame, now: float) -> None:
        if not self.rejoin.joining:
            self._stock_receive(follower.node, {"type": "timeout_now", "term": frame.term})

    def block_vote(self) -> None:
        """Grant no vote in the present term, as if it had been given to this node itself."""
        if self._SyncObj__votedForNodeId is None:
            self._SyncObj__votedForNodeId = self.node_id
            self.journal.setCurrentTerm(self._SyncObj__raftCurrentTerm, self.node_id)

    def leave_to_room(self) -> str | None:
        """A leader without room lets a follower that has some take over, if a majority has; its id."""
        roomy = [f for f in self.followers.values() if f.connected and not f.joining and not f.storage_low]
        quorum = (len(self.followers) + 1) // 2 + 1
        if not self.storage_low or len(roomy) < quorum:
            return None
        return next((f.node_id for f in roomy if self.transfer_leadership(f.node_id)), None)

    def transfer_leadership(self, node_id: str | None = None) -> str | None:
        """Ask a follower that has everything to stand at once; returns its id, None when there is none."""
        if not self.leading:
            return None
        last = self.journal.last_index
        for follower in self.followers.values():
            if (
                follower.connected
                and not follower.joining
                and self.match_index(follower) == last
                and node_id in (None, follower.node_id)
            ):
                self.outbox.send(follower.node_id, self.envelope.timeout_now(self.term))
                return follower.node_id
        return None

    def _send_stock(self, node: Node, message: dict[str, Any]) -> bool:
        """What PySyncObj sends itself: vote requests and votes. Both wait for the commit (6)."""
        kind = message["type"]
        if kind == "request_vote":
            if node.id in self.followers and self.followers[node.id].connected:
                frame = self.envelope.vote_request(
                    message["term"],
                    for_term=message["term"],
                    last_index=message["last_log_index"],
                    last_term=message["last_log_term"],
                    transfer=self._transfer_asked,
                )
                self.outbox.hold(node.id, frame)
        elif kind == "response_vote":
            frame = self.envelope.vote_reply(message["term"], for_term=message["term"], granted=True)
            self.outbox.hold(node.id, frame)
        else:
            raise InternalError(f"PySyncObj sent a message of type {kind}")
        return True

    def _SyncObj__setState(self, state: int) -> None:
        before = self._SyncObj__raftState
        self._SyncObj__raftState = state
        now = self.clock.monotonic()
        if state == _CANDIDATE:
            self._votes.clear()
            self.pre_vote.clear()
            # A vote takes a round trip, not an election timeout.
            wait = self.settings.election_min * (0.5 + 0.5 * self.rng.random())
            self._SyncObj__raftElectionDeadline = now + wait
            if self.emit is not None:
                self.emit(events.ElectionStarted(self._SyncObj__raftCurrentTerm + 1, False))
        if before == _LEADER and state != _LEADER:
            # PySyncObj's deadline dates from before it led.
            wait = self.settings.election_min
            wait += (self.settings.election_max - wait) * self.rng.random()
            self._SyncObj__raftElectionDeadline = now + wait
            self.snapshots.stop_sending()
            self.host.leadership_changed(False, now)
        if before != state and self.emit is not None:
            self.emit(events.RoleChanged(self._SyncObj__raftCurrentTerm, _ROLES[state]))

    def _SyncObj__onBecomeLeader(self) -> None:
        for follower in self.followers.values():
            follower.reset()
        self._stock_become_leader()
        self._commit_floor = self._SyncObj__raftCommitIndex
        self.host.leadership_changed(True, self.clock.monotonic())

    # -- the tick ----------------------------------------------------------------------

    def tick(self) -> None:
        """Elections, commit, apply, append, ship."""
        self._commit_floor = self._SyncObj__raftCommitIndex
        self.rejoin.tick(self.clock.monotonic())
        self.repair.tick(self.clock.monotonic())
        self._stock_tick(0.0)
        leader = self.leader_id
        if leader != self._announced_leader:
            self._announced_leader = leader
            if self.emit is not None:
                self.emit(events.LeaderChanged(self.term, leader))

    def _cap_commit(self) -> None:
        """9: the leader counted its own copy; it counts once it is durable.

        An entry of an older term is committed only under one of the current
        term, so a cap that falls on one takes back the whole step.
        """
        commit = self._SyncObj__raftCommitIndex
        durable = self.journal.durable_index
        if commit > durable and commit > self._commit_floor:
            floor = self._commit_floor
            if durable > floor and self.journal.term(durable) == self._SyncObj__raftCurrentTerm:
                floor = durable
            self._SyncObj__raftCommitIndex = floor
            self.journal.setRaftCommitIndex(floor)

    def _SyncObj__applyLogEntries(self) -> bool:
        """Apply what is committed, a bounded amount a tick; effects and applied index in one transaction."""
        if self._SyncObj__raftState == _LEADER and self.cures.leader_counts_durable:
            self._cap_commit()
        index = self._SyncObj__raftLastApplied
        last = min(self._SyncObj__raftCommitIndex, index + self.settings.apply_entries)
        if index >= last:
            return False
        journal = self.journal
        budget = self.settings.apply_bytes
        clock = self.clock.monotonic
        began = before = clock()
        until = began + self.settings.apply_time
        while index < last and budget > 0 and before <= until:
            index += 1
            try:
                command = journal.command(index)
            except DamagedRowError as damage:
                self.repair.want(damage, needed=True)
                break
            term = journal.term(index)
            results: list[log_pb2.OpResult] = []
            if command.kind == COMMAND:
                budget -= len(command.data)
                applied = self.machine.apply(self.store.writer(), index, command.data)
                results = applied.results
                self.applied_ops += len(results)
                self.touched |= applied.touched
            # 13: past the entry whatever it gave; only a failing store stops here.
            self._SyncObj__raftLastApplied = index
            journal.set_applied(index)
            self.applied_entries += 1
            after = clock()
            self.entry_apply_s = after - before
            before = after
            self.host.applied(index, term or 0, results)
        self.apply_s += before - began
        return False

    def _SyncObj__sendAppendEntries(self) -> None:
        """PySyncObj's timer fired, or it has just become leader: everybody is due a message."""
        self._SyncObj__newAppendEntriesTime = self.clock.monotonic() + self.settings.heartbeat
        self.shipper.beat = True

    def _checkCommandsToApply(self) -> None:
        """After the commit and apply of this tick: append what waits, and send at once."""
        now = self.clock.monotonic()
        self.host.append_proposals(now)
        if self._SyncObj__raftState == _LEADER:
            self.shipper.ship(now)

    def append(self, entry: bytes) -> int:
        """Append one command of ours; returns its index. Leader only."""
        index = self.journal.last_index + 1
        self.journal.add(Command(COMMAND, entry), index, self._SyncObj__raftCurrentTerm)
        return index

    def _SyncObj__tryLogCompaction(self) -> None:
        """Move the base of the log up; rows go a bounded number a turn, in turns that write anyway."""
        if not self.store.dirty:
            return
        journal = self.journal
        limit = self.settings.trim_rows_per_turn
        target = self._trim_target()
        if target > journal.base_index:
            self._sweeping = True
            try:
                visited = journal.trim(target, limit)
            except DamagedRowError as damage:
                self.repair.want(damage)
                return
            if self.emit is not None:
                self.emit(events.LogTrimmed(target, visited))
        elif self._sweeping:
            visited = journal.trim(journal.base_index, limit)
        else:
            return
        if visited < limit:
            self._sweeping = False

    def _trim_target(self) -> int:
        """How far the log can be let go: kept are a stretch for restarts and one more for laggards."""
        settings = self.settings
        journal = self.journal
        base = journal.base_index
        applied = min(journal.stored_applied, journal.durable_index)
        target = max(applied - settings.keep_entries, journal.index_behind(settings.keep_bytes))
        target = min(target, applied)
        if self._SyncObj__raftState == _LEADER:
            floor = max(
                applied - settings.keep_entries_for_laggards,
                journal.index_behind(settings.keep_bytes_for_laggards),
            )
            for follower in self.followers.values():
                target = min(target, max(floor, self.match_index(follower)))
        # In steps, so that the base is not written with every turn.
        return target if target - base >= min(settings.keep_entries, _TRIM_STEP) else base

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        raise InternalError("PySyncObj loads no state here")  # 4, 5

    def commit_store(self) -> None:
        """Make the open transaction durable."""
        if self.store.dirty:
            self.journal.before_commit()
            self.store.commit()
        self.journal.on_commit()

    def replaced(self) -> None:
        """The store holds a snapshot now: begin anew from what it says."""
        term = self._SyncObj__raftCurrentTerm
        self.journal.reload()
        if self.journal.getCurrentTerm() != term:
            raise InternalError("the snapshot changed this node's term")
        self.machine.reset()
        self.repair.replaced()
        self._SyncObj__raftLastApplied = self.journal.applied_index
        self._SyncObj__raftCommitIndex = self.journal.getRaftCommitIndex()
        self._sweeping = True
        with self.store.read() as reader:
            # Any partition may have changed.
            self.touched.update((topic, partition) for topic, partition, _ in scan_states(reader))
        if self.cures.fail_jumped_waiters:
            self.host.jumped(self.journal.applied_index)  # 22
