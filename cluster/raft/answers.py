"""The one answer each request gets: to our own callers, or back to the peer that forwarded it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.cluster import events
from holdfast.cluster.ports import EventSink
from holdfast.cluster.raft.messages import forward_reply
from holdfast.cluster.raft.proposals import Proposal, ProposalQueue, Waiting
from holdfast.cluster.raft.reads import Read
from holdfast.cluster.results import Completed
from holdfast.errors import HoldfastError, NoLeaderError, OutcomeUnknownError
from holdfast.v1 import log_pb2, peer_pb2

if TYPE_CHECKING:
    from holdfast.cluster.raft.core import RaftCore

#: A deadline that passed before anything was appended, and one that passed after.
TOO_LATE = "the deadline passed; nothing was done"
UNKNOWN_BY_NOW = "the deadline passed; the outcome is not known"


class Answers:
    """Collects a turn's answers; ``take`` hands over the callers' and sends the peers'."""

    def __init__(self, queue: ProposalQueue, emit: EventSink | None) -> None:
        self._queue = queue
        self._emit = emit
        self._core: RaftCore
        self._completed: list[Completed] = []
        self._answered: list[Proposal] = []
        self._replies: dict[str, list[peer_pb2.ForwardReply]] = {}

    def attach(self, core: RaftCore) -> None:
        self._core = core

    def take(self) -> list[Completed]:
        """What is answered since the last call; answers to peers are sent by it."""
        if self._replies:
            core = self._core
            replies, self._replies = self._replies, {}
            for origin, batch in replies.items():
                core.outbox.send(origin, core.envelope.forward_replies(core.term, batch))
        if self._answered:
            self._queue.release(self._answered)
            self._answered.clear()
        completed, self._completed = self._completed, []
        return completed

    def answer(
        self, proposal: Proposal, result: log_pb2.OpResult | None, error: HoldfastError | None, index: int
    ) -> None:
        self._answered.append(proposal)
        if proposal.origin is None:
            self._completed.append(Completed(proposal.token, result, error, index))
        else:
            self.reply(proposal.origin, proposal.request_id, result, error, index)

    def reply(
        self,
        origin: str,
        request_id: int,
        result: log_pb2.OpResult | None,
        error: HoldfastError | None,
        index: int,
    ) -> None:
        """Answer a peer whose request was never queued here."""
        self._replies.setdefault(origin, []).append(forward_reply(request_id, result, error, index))

    def fail(self, proposal: Proposal, error: HoldfastError) -> None:
        if self._emit is not None:
            self._emit(events.ProposalRejected(error.reason))
        self.answer(proposal, None, error, 0)

    def unknown(self, waiting: Waiting, why: str = "leadership moved before the outcome was known") -> None:
        """All of an entry: it may be applied by another leader, or never."""
        for proposal in waiting.proposals:
            if proposal is not None:
                self.fail(proposal, OutcomeUnknownError(why))

    def fail_read(self, read: Read, error: HoldfastError) -> None:
        if read.origin is None:
            self._completed.append(Completed(read.token, None, error, 0))
        else:
            core = self._core
            core.outbox.send(
                read.origin, core.envelope.read_index_reply(core.term, read.request_id, 0, error)
            )

    def read_done(self, read: Read, index: int) -> None:
        """One of our callers may read: the store shows everything up to ``index``."""
        self._completed.append(Completed(read.token, None, None, index))

    def no_leader(self) -> NoLeaderError:
        leader = self._core.leader_id
        if leader is None or leader == self._core.node_id:
            return NoLeaderError("no leader is known; nothing was done")
        return NoLeaderError(f"the leader is {leader}; nothing was done", metadata={"leader": leader})
