"""A leader's side of replication: acks, refusals, and who may take over."""

from __future__ import annotations

from typing import Any

from holdfast.cluster import events
from holdfast.cluster.raft.followers import Follower
from holdfast.cluster.raft.messages import COMMAND, Command, PeerFrame
from holdfast.cluster.raft.state import LEADER, RaftState


class Leading(RaftState):
    """Counts what followers have. ``shipping.py`` sends it."""

    def confirmed_round(self) -> int:
        """The newest round that a majority (self included) has answered."""
        rounds = sorted((f.answered_round for f in self.followers.values()), reverse=True)
        others_needed = (len(rounds) + 1) // 2
        return self.shipper.round if others_needed == 0 else rounds[others_needed - 1]

    def _on_append_reply(self, follower: Follower, frame: PeerFrame, now: float) -> None:
        if self._SyncObj__raftState != LEADER:
            return
        if frame.term != self._SyncObj__raftCurrentTerm and self.cures.drop_stale_replies:
            self._drop(follower.node_id, "earlier_term")  # 10
            return
        reply = frame.append_reply
        commit = self._SyncObj__raftCommitIndex
        if not reply.success or reply.match_index > commit or reply.match_index < self.journal.last_index:
            # Otherwise it says what two others have said: nothing to commit, nothing to send.
            self.stirred = True
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

    def _SyncObj__sendAppendEntries(self) -> None:
        """PySyncObj's timer fired, or it has just become leader: everybody is due a message."""
        self._SyncObj__newAppendEntriesTime = self.clock.monotonic() + self.settings.heartbeat
        self.shipper.beat = True

    def append(self, entry: bytes) -> int:
        """Append one command of ours; returns its index. Leader only."""
        index = self.journal.last_index + 1
        self.journal.add(Command(COMMAND, entry), index, self._SyncObj__raftCurrentTerm)
        return index
