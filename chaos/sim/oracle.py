"""What must hold at every moment, whatever the faults: checked while the simulation runs.

Clients' promises are judged afterwards from the history (``chaos.checker``).
Here is what only somebody who sees all nodes at once can know: that a leader
was elected by votes that are on disks, that what is committed is on a majority
of them, that a healthy leader is left alone.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import xxhash

from holdfast.chaos.checker.consensus import Consensus
from holdfast.chaos.checker.history import History, Leader, Violation
from holdfast.chaos.sim.cluster import SimCluster, SimNode
from holdfast.chaos.sim.promises import violation
from holdfast.cluster import events
from holdfast.cluster.raft.messages import NO_OP
from holdfast.cluster.results import Role
from holdfast.errors import StorageError
from holdfast.storage import journal
from holdfast.v1 import peer_pb2

_TRACE = struct.Struct(">dQQQQ")
#: A deposed leader that a follower of the new one has heard from is told at once, seconds.
_TOLD_WITHIN = 0.5
#: A node that reaches no majority for this long has no business raising its term, seconds.
_ALONE_FOR = 0.5
#: What was under way when the network was last changed has arrived after so many seconds...
_UNDER_WAY = 0.5
#: ...and a refusal has been looked at, though both ends wait for their disks.
_REFUSAL_IN_MIND = 4.0


class Oracle:
    """A ``cluster.Watch`` that judges, keeps the timeline and the trace.

    Args:
        history: where leaders are noted.
        note: the timeline.
    """

    def __init__(self, cluster: SimCluster, history: History, note: Callable[[str, str], None]) -> None:
        self._cluster = cluster
        self._history = history
        self._note = note
        self.consensus = Consensus()
        self.violations: list[Violation] = []
        self.trace = 0
        self._quorum = len(cluster.ids) // 2 + 1
        self._applied: dict[str, int] = {}
        self._jumped: dict[str, int] = {}
        self._commit: dict[str, tuple[int, int]] = {}
        self._heard: dict[tuple[str, str], float] = {}
        #: Deposed leader -> (term, told since, by whom).
        self._stale: dict[str, tuple[int, float, str]] = {}
        #: Leader, follower -> term and connection, highest log index sent, how often not in order.
        self._shipped: dict[tuple[str, str], tuple[tuple[int, int], int, int]] = {}
        #: Leader, follower -> when the follower refused something last.
        self._refused: dict[tuple[str, str], float] = {}
        self._disturbed = 0.0
        cluster.network.taps.append(self._frame)

    def disturbed(self) -> None:
        """The network or a node has just been changed: what should happen soon may take longer."""
        self._disturbed = self._cluster.world.now
        self._stale.clear()

    def all_violations(self) -> list[Violation]:
        return self.violations + self.consensus.violations

    def _violate(self, promise: str, detail: str) -> None:
        self.violations.append(violation(promise, detail, self._cluster.world.now))

    # -- cluster.Watch ------------------------------------------------------------------

    def started(self, node: SimNode) -> None:
        assert node.engine is not None
        self.disturbed()
        self._commit.pop(node.node_id, None)
        self._applied[node.node_id] = node.engine.core.applied_index
        self.consensus.restarted(node.node_id, node.engine.core.applied_index)
        self._note("start", node.node_id)

    def crashed(self, node: SimNode) -> None:
        self.disturbed()
        self._commit.pop(node.node_id, None)
        self._note("down", node.node_id if node.failure is None else f"{node.node_id}: {node.failure}")

    def applying(self, node: SimNode, index: int, entry: bytes) -> None:
        assert node.engine is not None
        log = node.engine.core.journal
        now = self._cluster.world.now
        for skipped in range(self._applied.get(node.node_id, index - 1) + 1, index):
            # What a leader begins its term with holds no operation, and is not handed to the machine.
            if log.command(skipped).kind == NO_OP:
                self.consensus.applied(node.node_id, skipped, log.term(skipped) or 0, b"no-op", now)
        self._applied[node.node_id] = index
        digest = xxhash.xxh3_64_digest(entry)
        self.consensus.applied(node.node_id, index, log.term(index) or 0, digest, now)

    def event(self, node: SimNode, event: object) -> None:
        if isinstance(event, events.RoleChanged):
            self._note("role", f"{node.node_id} {event.role.name.lower()} in term {event.term}")
            if event.role is Role.LEADER:
                self._elected(node, event.term)
        elif isinstance(event, events.ElectionStarted):
            if not event.pre_vote:
                self._stands(node, event.term)
        elif isinstance(event, events.SnapshotInstalled):
            self._applied[node.node_id] = event.last_index
            self.consensus.jumped(node.node_id, event.last_index)
            self._note("snapshot", f"{node.node_id} installed, up to {event.last_index}")
            self._jumped[node.node_id] = event.last_index
        elif isinstance(event, events.SnapshotSent):
            self._taken_for_installed(node, event.peer_id, event.last_index)
        elif isinstance(event, events.LogTruncated):
            self._note("truncated", f"{node.node_id} from {event.from_index} of {event.last_index}")
        elif isinstance(event, events.EngineFailed):
            self._note("failed", f"{node.node_id}: {event.reason}")

    def turned(self, node: SimNode) -> None:
        engine = node.engine
        now = self._cluster.world.now
        if engine is None:
            return
        core = engine.core
        jumped = self._jumped.pop(node.node_id, None)
        if jumped is not None and engine.waits_below(jumped):
            self._violate(
                "waiter-hangs",
                f"{node.node_id} has taken a snapshot up to {jumped}; callers still wait for older entries",
            )
        commit, term = core.commit_index, core.term
        self.trace = zlib.crc32(
            _TRACE.pack(now, commit, term, core.applied_index, core.journal.last_index), self.trace
        )
        if core.leading:
            before, in_term = self._commit.get(node.node_id, (0, 0))
            if commit != before or term != in_term:
                self._commit[node.node_id] = (commit, term)
                if commit != before:
                    self._committed(node, commit)
            stale = self._stale.get(node.node_id)
            if stale is not None:
                self._lingers(node, stale, now)
        elif self._stale:
            self._stale.pop(node.node_id, None)

    # -- what is judged ------------------------------------------------------------------

    def _elected(self, node: SimNode, term: int) -> None:
        assert node.engine is not None
        log = node.engine.core.journal
        now = self._cluster.world.now
        self._history.add(Leader(node.node_id, term, now))
        self.consensus.elected(node.node_id, term, now, log.term)
        if self._quorum == 1:
            return  # one voter has nobody to promise anything
        votes = 0
        for voter in self._cluster.nodes.values():
            try:
                held = journal.read_meta(voter.store.durable_view())
            except StorageError:
                votes += 1  # damaged on purpose: nobody knows any more
                continue
            # Who has voted since in a later term may well have voted in this one.
            votes += held.term > term or (held.term, held.voted_for) == (term, node.node_id)
        if votes < self._quorum:
            self._violate(
                "durable-vote",
                f"{node.node_id} leads in term {term}, and {votes} votes for it are on disks",
            )

    def _committed(self, node: SimNode, index: int) -> None:
        assert node.engine is not None
        term = node.engine.core.journal.term(index)
        if term is None:
            return
        holders = [each.node_id for each in self._cluster.nodes.values() if _holds(each, index, term)]
        self.consensus.committed(
            node.node_id, index, term, self._cluster.world.now, holders, len(self._cluster.ids)
        )

    def _taken_for_installed(self, leader: SimNode, follower: str, index: int) -> None:
        """A snapshot counts as installed when it is on the follower's disk, not when it was sent."""
        target = self._cluster.nodes[follower]
        if target.wiped:
            return  # what it had is gone, or on its way
        try:
            meta = journal.read_meta(target.store.durable_view())
        except StorageError:
            return  # damaged on purpose
        if meta.base_index < index and meta.last_index < index:
            self._violate(
                "snapshot-not-there",
                f"{leader.node_id} takes {follower} to have everything up to {index} by a snapshot, and"
                f" its log ends at {meta.last_index}",
            )

    def _stands(self, node: SimNode, term: int) -> None:
        """A node that has been cut off from a majority asks nobody to vote: it cannot win."""
        cluster = self._cluster
        if cluster.world.now - self._disturbed < _ALONE_FOR or cluster.network.troubled:
            return
        reached = 1 + sum(
            cluster.network.passes(node.node_id, other) and cluster.network.passes(other, node.node_id)
            for other in cluster.ids
            if other != node.node_id
        )
        if reached < self._quorum:
            self._violate(
                "term-inflation",
                f"{node.node_id} stands for term {term}, and it has reached {reached} nodes"
                f" for {cluster.world.now - self._disturbed:.1f} s",
            )

    def _frame(self, sender: str, receiver: str, frame: peer_pb2.PeerFrame) -> peer_pb2.PeerFrame:
        kind = frame.WhichOneof("body")
        if kind == "append":
            self._append_sent(sender, receiver, frame.term)
            if frame.append.entries:
                self._entries_sent(sender, receiver, frame)
        elif kind == "snapshot_reply" or (kind == "append_reply" and not frame.append_reply.success):
            # A refusal, or a snapshot that is there: the leader begins anew somewhere.
            self._refused[receiver, sender] = self._cluster.world.now
        elif kind == "vote_reply" and frame.vote_reply.granted and not frame.vote_reply.pre_vote:
            self._vote_sent(sender, receiver, frame.vote_reply.term)
        return frame

    def _entries_sent(self, sender: str, receiver: str, frame: peer_pb2.PeerFrame) -> None:
        """Entries go over a connection once, unless the follower has refused something.

        But for the first ones: whether they join its log has to be known before more is sent.
        """
        network = self._cluster.network
        now = self._cluster.world.now
        if (
            network.keep_frames
            or network.troubled
            or now - self._disturbed < _UNDER_WAY
            or now - self._refused.get((sender, receiver), 0.0) < _REFUSAL_IN_MIND
        ):
            # A refusal may arrive, of something sent before.
            self._shipped.pop((sender, receiver), None)
            return
        place = (frame.term, network.connection(sender, receiver))
        first, last = frame.append.entries[0].index, frame.append.entries[-1].index
        known, highest, again = self._shipped.get((sender, receiver), (place, 0, 0))
        if known != place:
            highest = again = 0
        if first <= highest:
            again += 1
            if again > 1:
                self._violate(
                    "sent-again",
                    f"{sender} sends {receiver} the entries from {first} again, of which it has sent those"
                    f" up to {highest} over this connection",
                )
        self._shipped[sender, receiver] = (place, max(last, highest), again)

    def _append_sent(self, sender: str, receiver: str, term: int) -> None:
        cluster = self._cluster
        self._heard[receiver, sender] = cluster.world.now
        target = cluster.nodes[receiver]
        if sender in self._stale or target.engine is None or target.paused:
            return
        if (
            target.engine.core.term > term
            and target.busy_until <= cluster.world.now
            and not cluster.network.troubled
            and cluster.network.passes(sender, receiver)
            and cluster.network.passes(receiver, sender)
        ):
            self._stale[sender] = (term, cluster.world.now, receiver)

    def _lingers(self, node: SimNode, stale: tuple[int, float, str], now: float) -> None:
        term, since, by = stale
        assert node.engine is not None
        network = self._cluster.network
        apart = not (network.passes(by, node.node_id) and network.passes(node.node_id, by))
        if node.engine.core.term != term or apart:
            # Apart: the answer may have been lost to a cut that came just after; the next one is noted again.
            del self._stale[node.node_id]
        elif now - since > _TOLD_WITHIN and not network.troubled:
            del self._stale[node.node_id]
            self._violate(
                "stale-leader-lingers",
                f"{node.node_id} leads on in term {term}, {now - since:.2f} s after {by} heard of it"
                " and knew a higher one",
            )

    def _vote_sent(self, voter: str, candidate: str, term: int) -> None:
        """A voter that hears a live leader has no reason to help another depose it."""
        cluster = self._cluster
        now = cluster.world.now
        settings = cluster.settings
        if now - self._disturbed < settings.election_max or cluster.network.troubled:
            return
        leader = cluster.leader()
        if leader is None or leader.engine is None or leader.node_id in (voter, candidate):
            return
        if leader.engine.core.term >= term or leader.busy_until > now or self.handing_over:
            return
        heard = self._heard.get((voter, leader.node_id), 0.0)
        if now - heard < settings.election_min / 2 and cluster.network.passes(leader.node_id, voter):
            self._violate(
                "healthy-leader-deposed",
                f"{voter} votes for {candidate} in term {term}, {now - heard:.3f} s after it heard"
                f" the leader {leader.node_id}, which is well",
            )

    #: Set while a leader has been told to hand over.
    handing_over = False


def _holds(node: SimNode, index: int, term: int) -> bool:
    """Whether the entry survives a power cut of the node now, or did before its disk was replaced."""
    if node.wiped and index <= node.lost_index:
        return True
    view = node.store.durable_view()
    try:
        held = journal.read_term(view, index)
        if held is None:
            return journal.read_meta(view).base_index >= index
        # Of another term, or no longer readable, which is an error.
        return held == term or journal.expect(view, index).term == term
    except StorageError:
        return True  # damaged on purpose, after it was written
