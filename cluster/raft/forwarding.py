"""Operations by way of the leader: what a follower sends there, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from holdfast.cluster.raft.answers import TOO_LATE, UNKNOWN_BY_NOW, Answers
from holdfast.cluster.raft.messages import error_from_proto
from holdfast.cluster.raft.proposals import Proposal, ProposalQueue
from holdfast.cluster.raft.settings import EngineSettings
from holdfast.errors import DeadlineExceededError, NoLeaderError, OutcomeUnknownError
from holdfast.v1 import log_pb2, peer_pb2

if TYPE_CHECKING:
    from holdfast.cluster.raft.core import RaftCore

#: Pause before the same leader is asked again, seconds.
ASK_AGAIN = 0.005


class Forwarding:
    """A follower's side. Ids begin at random: an answer to an earlier run is none to this one."""

    def __init__(self, settings: EngineSettings, queue: ProposalQueue, answers: Answers) -> None:
        self._settings = settings
        self._queue = queue
        self._answers = answers
        self._core: RaftCore
        self._forwarded: dict[int, tuple[Proposal, str]] = {}
        self._next_id = 0
        #: Nothing is sent to the leader before.
        self.blocked_until = 0.0

    def attach(self, core: RaftCore) -> None:
        self._core = core
        self._next_id = core.rng.getrandbits(62)

    def new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def forward(self, leader: str, now: float) -> None:
        """Send what waits."""
        core = self._core
        waiting = self._queue.waiting
        while waiting:
            batch = self._next_batch(now)
            if not batch:
                break
            requests = [(self.new_id(), proposal.op) for proposal in batch]
            if not core.outbox.send(leader, core.envelope.forward(core.term, requests)):
                # Not sent, so not done: it waits for room on the link.
                waiting.extendleft(reversed(batch))
                self.blocked_until = now + ASK_AGAIN
                break
            for (request_id, _), proposal in zip(requests, batch, strict=True):
                self._forwarded[request_id] = (proposal, leader)

    def _next_batch(self, now: float) -> list[Proposal]:
        """The next proposals of our own callers, one frame of them."""
        waiting = self._queue.waiting
        batch: list[Proposal] = []
        size = 0
        while waiting and len(batch) < self._settings.entry_ops and size < self._settings.entry_bytes:
            proposal = waiting.popleft()
            if proposal.origin is not None:
                self._answers.fail(proposal, self._answers.no_leader())
            elif proposal.deadline <= now:
                self._answers.fail(proposal, DeadlineExceededError(TOO_LATE))
            else:
                batch.append(proposal)
                size += len(proposal.op)
        return batch

    def on_reply(self, reply: peer_pb2.ForwardReply, now: float) -> None:
        item = self._forwarded.pop(reply.id, None)
        if item is None:
            return  # its deadline passed
        answer = self._answers.answer
        proposal = item[0]
        if not reply.HasField("error"):
            try:
                result = log_pb2.OpResult.FromString(reply.result)
            except DecodeError:
                answer(proposal, None, OutcomeUnknownError("the leader's answer does not parse"), 0)
                return
            answer(proposal, result, None, reply.index)
        elif (
            reply.error.reason == NoLeaderError.reason
            and now < proposal.queued_at + self._settings.leader_wait
        ):
            # It leads no more, and did nothing: wait for the next leader here.
            self._queue.waiting.appendleft(proposal)
            self.blocked_until = now + ASK_AGAIN
        else:
            answer(proposal, None, error_from_proto(reply.error), 0)

    def link_lost(self, node_id: str) -> None:
        gone = [key for key, (_, leader) in self._forwarded.items() if leader == node_id]
        for key in gone:
            proposal, _ = self._forwarded.pop(key)
            self._answers.fail(
                proposal,
                OutcomeUnknownError("the link to the leader broke before the outcome was known"),
            )

    def sweep(self, now: float) -> None:
        """End what is past its deadline."""
        late = [key for key, (proposal, _) in self._forwarded.items() if proposal.deadline <= now]
        for key in late:
            proposal, _ = self._forwarded.pop(key)
            self._answers.fail(proposal, DeadlineExceededError(UNKNOWN_BY_NOW))
