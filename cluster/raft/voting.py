"""Elections: who is asked, who is granted what, and what becoming or ceasing to be a leader means."""

from __future__ import annotations

from typing import Any

from pysyncobj.node import Node

from holdfast.cluster import events
from holdfast.cluster.raft.followers import Follower
from holdfast.cluster.raft.messages import PeerFrame
from holdfast.cluster.raft.state import CANDIDATE, LEADER, ROLES, RaftState
from holdfast.errors import InternalError


class Voting(RaftState):
    """PySyncObj runs the election; this decides when it may, and carries its messages."""

    _votes: set[tuple[int, str]]
    _transfer_asked: bool

    def _adopt_term(self, follower: Follower, term: int) -> None:
        """Step down to a higher term without granting anything."""
        self.stirred = True
        self._stock_receive(
            follower.node,
            {"type": "request_vote", "term": term, "last_log_term": -1, "last_log_index": 0},
        )

    def _SyncObj__connectedToAnyone(self) -> bool:
        """PySyncObj asks this when its election deadline has passed: may it stand? (21)"""
        self._leader_silent = True
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
        leader = self.last_leader_id
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
        if self._SyncObj__raftState == LEADER:
            return True
        leader = self.last_leader_id
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
            if reply.granted and self._SyncObj__raftState != LEADER:
                self.pre_vote.grant(follower.node_id, reply.term)
            return
        current = self._SyncObj__raftCurrentTerm
        if not reply.granted or self._SyncObj__raftState != CANDIDATE:
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
        if state == CANDIDATE:
            self._votes.clear()
            self.pre_vote.clear()
            # A vote takes a round trip, not an election timeout.
            wait = self.settings.election_min * (0.5 + 0.5 * self.rng.random())
            self._SyncObj__raftElectionDeadline = now + wait
            if self.emit is not None:
                self.emit(events.ElectionStarted(self._SyncObj__raftCurrentTerm + 1, False))
        if before == LEADER and state != LEADER:
            # PySyncObj's deadline dates from before it led.
            wait = self.settings.election_min
            wait += (self.settings.election_max - wait) * self.rng.random()
            self._SyncObj__raftElectionDeadline = now + wait
            self.snapshots.stop_sending()
            self.host.leadership_changed(False, now)
        if before != state and self.emit is not None:
            self.emit(events.RoleChanged(self._SyncObj__raftCurrentTerm, ROLES[state]))

    def _SyncObj__onBecomeLeader(self) -> None:
        for follower in self.followers.values():
            follower.reset()
        self._stock_become_leader()
        self._commit_floor = self._SyncObj__raftCommitIndex
        self.host.leadership_changed(True, self.clock.monotonic())
