"""PySyncObj's consensus algorithm, with our journal, sender, apply and messages around it.

What stays PySyncObj's: terms and votes, the election, counting of copies, what
may be committed, stepping down. What is replaced or guarded is in the methods
below; each says which fault of the library it cures (the numbers are those of
``cluster/DESIGN.md``). All methods run on the engine's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.cluster import events
from holdfast.cluster.ports import (
    Clock,
    EventSink,
    PeerActive,
    PeerConnected,
    PeerDisconnected,
    PeerMessage,
    Randomness,
    Transport,
    TransportEvent,
)
from holdfast.cluster.raft import messages
from holdfast.cluster.raft.applying import Applying
from holdfast.cluster.raft.cures import Cures
from holdfast.cluster.raft.election import PreVote
from holdfast.cluster.raft.followers import Follower
from holdfast.cluster.raft.following import Following
from holdfast.cluster.raft.host import Host, MachineLike
from holdfast.cluster.raft.journal import StoreJournal
from holdfast.cluster.raft.leading import Leading
from holdfast.cluster.raft.messages import PeerFrame
from holdfast.cluster.raft.outbox import Outbox
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
from holdfast.cluster.raft.state import LEADER
from holdfast.cluster.raft.voting import Voting
from holdfast.storage.port import Store

#: A frame of a higher term makes its receiver step down. Not here: appends and
#: votes (PySyncObj's business) and questions that must not disturb.
_STEP_DOWN = frozenset({"append_reply", "vote_reply", "snapshot_reply", "join_reply"})


class RaftCore(Following, Leading, Voting, Applying):
    """One voter. Driven by ``receive`` and ``tick``; the engine commits and releases."""

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
        #: Something arrived that the tick may have to act upon; the engine lowers it.
        self.stirred = True
        self.touched: set[tuple[int, int]] = set()
        self.groups_changed: set[str] = set()
        #: The last entry that may have changed a topic, as far as anybody here has looked.
        self.topics_index = self.journal.applied_index
        #: Of the present turn.
        self.applied_ops = 0
        self.applied_entries = 0
        self.apply_s = 0.0
        #: Of the entry applied last.
        self.entry_apply_s = 0.0
        self._votes: set[tuple[int, str]] = set()
        self._heard_leader_at = float("-inf")
        self._leader_silent = False
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

    def next_wakeup(self, now: float) -> float:
        """When a tick is due though nothing arrives, on the engine's clock."""
        if self._SyncObj__raftState == LEADER:
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

    # -- inbound ---------------------------------------------------------------

    def on_event(self, event: TransportEvent, now: float) -> None:
        if isinstance(event, PeerMessage):
            self.receive(event.node_id, event.frame, now, event.commands)
            return
        self.stirred = True
        if isinstance(event, PeerConnected):
            self._connected(event, now)
        elif isinstance(event, PeerActive):
            self.link_active(event.node_id, now)
        else:
            self._disconnected(event, now)

    def receive(self, node_id: str, frame: PeerFrame, now: float, commands: Sequence[bytes] = ()) -> None:
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
        if kind != "append_reply":  # which may change nothing: its handler says
            self.stirred = True
        if frame.term > self._SyncObj__raftCurrentTerm and kind in _STEP_DOWN:
            self._adopt_term(follower, frame.term)
        handler = self._handlers.get(kind)
        if commands:
            self._on_append(follower, frame, now, commands)
        elif handler is None:
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
        if event.refused and event.node_id == self.last_leader_id and not self.leading:
            # A broken connection is news: no need to wait for silence.
            settings = self.settings
            delay = settings.broken_link_min
            delay += (settings.broken_link_max - delay) * self.rng.random()
            self._SyncObj__raftElectionDeadline = min(self._SyncObj__raftElectionDeadline, now + delay)
            self.pre_vote.clear()
        if self.emit is not None:
            self.emit(events.PeerLinkChanged(event.node_id, False, event.refused))

    # -- the tick --------------------------------------------------------------

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

    def _checkCommandsToApply(self) -> None:
        """After the commit and apply of this tick: append what waits, and send at once."""
        now = self.clock.monotonic()
        self.host.append_proposals(now)
        if self._SyncObj__raftState == LEADER:
            self.shipper.ship(now)
