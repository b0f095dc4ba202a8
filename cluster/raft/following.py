"""A follower's side of replication: what becomes of an append, and what is answered."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.cluster import events
from holdfast.cluster.raft import messages
from holdfast.cluster.raft.followers import Follower
from holdfast.cluster.raft.inbound import LogConflictError, examine
from holdfast.cluster.raft.messages import PeerFrame
from holdfast.cluster.raft.proposals import ENTRY_OVERHEAD
from holdfast.cluster.raft.state import FOLLOWER, LEADER, RaftState


class Following(RaftState):
    """Takes a leader's appends."""

    def _on_append(
        self, follower: Follower, frame: PeerFrame, now: float, commands: Sequence[bytes] = ()
    ) -> None:
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
            append, messages.entries_of(append, commands), journal, self._SyncObj__raftCommitIndex, self.cures
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
        if term == current and self._SyncObj__raftState == LEADER:
            raise LogConflictError(f"{follower.node_id} leads in term {term}, as this node does")
        self._hear_leader(now)
        return True

    def _hear_leader(self, now: float) -> None:
        self._heard_leader_at = now
        self._leader_silent = False
        self.pre_vote.clear()

    def link_active(self, node_id: str, now: float) -> None:
        """Part of a large frame has come: a sign of life, though no message is complete.

        On a slow link a frame may take longer than an election timeout, and
        every answer waits behind the frame it answers. Moves timers only.
        """
        follower = self.followers.get(node_id)
        if follower is None or follower.link_fresh:
            return
        if self._SyncObj__raftState == LEADER:
            if not follower.joining:
                self.answered(follower, 0, now)
            return
        leads = node_id == self.last_leader_id and self._SyncObj__raftState == FOLLOWER
        if not leads or now - self._heard_leader_at < self.settings.heartbeat:
            return
        self._hear_leader(now)
        self.note_leader(follower, self._SyncObj__raftCurrentTerm)
        reply = self.envelope.append_reply(
            self._SyncObj__raftCurrentTerm,
            success=False,
            storage_low=self.storage_low,
            uncounted=self.rejoin.uncounted,
            joining=self.rejoin.joining,
        )
        self.outbox.hold(node_id, reply)

    def note_leader(self, follower: Follower, term: int, claimed_commit: int = 0) -> None:
        """Let PySyncObj take note of a leader, and nothing else.

        3: a snapshot chunk says nothing about our log, so it moves no commit index.
        """
        commit = 0 if self.cures.snapshot_commit_zero else claimed_commit
        self._stock_receive(follower.node, {"type": "append_entries", "term": term, "commit_index": commit})

    def _SyncObj__sendNextNodeIdx(self, *_: object, **__: object) -> None:
        """PySyncObj's own ack is not sent: the verdict knows what was really confirmed (1)."""
