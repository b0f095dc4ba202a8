"""What callers ask of the engine: operations and read barriers, here or by way of the leader.

Every request ends in exactly one answer: its result, or an error that says
whether anything was done. None outlives its deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.cluster import events
from holdfast.cluster.commands import carries_batches, check_op, encode_entry, entry_time_us
from holdfast.cluster.ports import Clock, EventSink
from holdfast.cluster.raft.answers import TOO_LATE, UNKNOWN_BY_NOW, Answers
from holdfast.cluster.raft.forwarding import ASK_AGAIN, Forwarding
from holdfast.cluster.raft.messages import PeerFrame
from holdfast.cluster.raft.proposals import ENTRY_OVERHEAD, Proposal, ProposalQueue, Waiters, Waiting
from holdfast.cluster.raft.read_requests import ReadRequests
from holdfast.cluster.raft.reads import Read, ReadBarriers
from holdfast.cluster.raft.settings import EngineSettings
from holdfast.cluster.results import Completed
from holdfast.errors import (
    DeadlineExceededError,
    HoldfastError,
    InternalError,
    InvalidArgumentError,
    RecordTooLargeError,
    StorageError,
    StorageFullError,
)
from holdfast.v1 import log_pb2, peer_pb2

if TYPE_CHECKING:
    from holdfast.cluster.raft.core import RaftCore

#: What an operation costs on disk beside its bytes: index rows, producer state.
_OP_OVERHEAD = 512


class Requests:
    """The queue, those in the log, those at the leader, and the reads. Implements ``core.Host``."""

    def __init__(self, settings: EngineSettings, clock: Clock, emit: EventSink | None) -> None:
        self._settings = settings
        self._clock = clock
        self._emit = emit
        self.queue = ProposalQueue(settings.max_proposals, settings.max_proposal_bytes)
        self.waiters = Waiters()
        self.reads = ReadBarriers()
        #: No room for records: appends are refused.
        self.storage_full = False
        #: Bytes that may be appended before the store has to be looked at again.
        self.room = 1 << 62
        self.appended_entries = 0
        self.appended_bytes = 0
        self.appended_ops = 0
        self._core: RaftCore
        self._uncommitted: list[tuple[int, int]] = []
        self._uncommitted_bytes = 0
        self._stamp = 0
        self._wall_offset: int | None = None
        self._next_sweep = 0.0
        self._answers = Answers(self.queue, emit)
        self._forwarding = Forwarding(settings, self.queue, self._answers)
        self._read_requests = ReadRequests(settings, self.reads, self._answers)

    def attach(self, core: RaftCore) -> None:
        self._core = core
        self._answers.attach(core)
        self._forwarding.attach(core)
        self._read_requests.attach(core)

    # -- from any thread ---------------------------------------------------------

    def propose(self, op: bytes, token: object, deadline: float) -> None:
        """Raises:
        OverloadedError: too much is under way.
        StorageFullError: no room for records on this node.
        RecordTooLargeError: larger than an entry may be.
        """
        self._admit(Proposal(op, token, deadline, self._clock.monotonic()))

    def _admit(self, proposal: Proposal) -> None:
        op = proposal.op
        try:
            if len(op) > self._settings.max_op_bytes:
                raise RecordTooLargeError(
                    f"an operation of {len(op)} bytes; the limit is {self._settings.max_op_bytes}"
                )
            # A follower that is full forwards: whether there is room is the leader's to say.
            if self.storage_full and self._core.leading and carries_batches(op):
                raise _full()
            self.queue.offer(proposal)
        except HoldfastError as error:
            if self._emit is not None:
                self._emit(events.ProposalRejected(error.reason))
            raise

    def read_barrier(self, token: object, deadline: float) -> None:
        self.reads.fresh.append(Read(token, deadline, self._clock.monotonic()))

    # -- the turn ---------------------------------------------------------------------

    def append_proposals(self, now: float) -> None:
        """Put what waits into the log (leader), or send it to the leader, or let it wait for one."""
        core = self._core
        if core.leading:
            self._settle_uncommitted(core.commit_index)
            if self.queue.waiting:
                self._append(now)
            if self.reads.fresh or self._read_requests.check_rounds:
                self._read_requests.start_round()
            return
        if self.queue.waiting or self.reads.fresh:
            leader = core.leader_id
            follower = None if leader is None else core.followers.get(leader)
            if follower is not None and follower.connected:
                self._ask_leader(follower.node_id, now)
            else:
                self._wait_for_leader(now)

    def _append(self, now: float) -> None:
        settings = self._settings
        waiting = self.queue.waiting
        budget = settings.turn_append_bytes
        while waiting and budget > 0 and self._uncommitted_bytes < settings.max_uncommitted_bytes:
            ops: list[bytes] = []
            batch: list[Proposal | None] = []
            size = 0
            while waiting and len(ops) < settings.entry_ops:
                proposal = waiting[0]
                length = len(proposal.op)
                if ops and size + length > settings.entry_bytes:
                    break
                waiting.popleft()
                if proposal.deadline <= now:
                    self._answers.fail(proposal, DeadlineExceededError(TOO_LATE))
                    continue
                cost = length + _OP_OVERHEAD
                if (cost > self.room or self.storage_full) and carries_batches(proposal.op):
                    # Until the next look: what comes after must not overtake it.
                    self.storage_full = True
                    self._answers.fail(proposal, _full())
                    continue
                self.room -= cost
                ops.append(proposal.op)
                batch.append(proposal)
                size += length
            first = batch[0] if batch else None
            if first is None:
                return
            self._stamp = max(self._stamp, self._wall(now))
            index = self._core.append(encode_entry(self._stamp, ops))
            # Other threads go on queueing meanwhile: by ``now`` the oldest of a later batch had not come yet.
            appended_at = now if self._emit is None else self._clock.monotonic()
            waiting_here = Waiting(self._core.term, appended_at, first.queued_at, size, batch)
            before = self.waiters.add(index, waiting_here)
            if before is not None:
                self._answers.unknown(before)
            self._uncommitted.append((index, size))
            self._uncommitted_bytes += size
            self.room -= ENTRY_OVERHEAD
            self.appended_entries += 1
            self.appended_bytes += size
            self.appended_ops += len(ops)
            budget -= size

    def _wall(self, now: float) -> int:
        """Wall time in microseconds; says so when it jumped against the monotonic clock."""
        wall = self._clock.wall_us()
        offset = wall - int(now * 1_000_000)
        if self._wall_offset is not None and self._emit is not None:
            jump = offset - self._wall_offset
            if abs(jump) >= self._settings.clock_jump_us:
                self._emit(events.ClockJumped(jump))
        self._wall_offset = offset
        return wall

    def _settle_uncommitted(self, commit: int) -> None:
        pending = self._uncommitted
        done = 0
        for index, size in pending:
            if index > commit:
                break
            self._uncommitted_bytes -= size
            done += 1
        if done:
            del pending[:done]

    def _ask_leader(self, leader: str, now: float) -> None:
        forwarding, reads = self._forwarding, self._read_requests
        if now < forwarding.blocked_until:
            return
        forwarding.forward(leader, now)
        if self.reads.fresh and now >= reads.blocked_until and not reads.ask(leader, forwarding.new_id()):
            forwarding.blocked_until = now + ASK_AGAIN

    def _wait_for_leader(self, now: float) -> None:
        """No leader is known: wait for a while, it may be there in a moment."""
        patience = now - self._settings.leader_wait
        waiting = self.queue.waiting
        while waiting:
            head = waiting[0]
            if head.origin is None and head.queued_at > patience and head.deadline > now:
                break
            waiting.popleft()
            self._answers.fail(head, self._answers.no_leader())
        self._read_requests.give_up_waiting(patience, now)

    # -- results ---------------------------------------------------------------------------

    def applied(self, index: int, term: int, results: list[log_pb2.OpResult]) -> None:
        waiting = self.waiters.pop(index)
        if waiting is None:
            return
        if waiting.term != term:
            # Another leader's entry is committed at this index, so ours never will be.
            for proposal in waiting.proposals:
                if proposal is not None:
                    self._answers.fail(proposal, self._answers.no_leader())
            return
        if len(results) != len(waiting.proposals):
            raise InternalError(f"entry {index} gave {len(results)} results for its operations")
        for at, proposal in enumerate(waiting.proposals):
            if proposal is not None:
                self._answers.answer(proposal, results[at], None, index)
        if self._emit is not None:
            apply_s = self._core.entry_apply_s
            self._emit(
                events.ProposalTimings(
                    index,
                    len(waiting.proposals),
                    waiting.size,
                    waiting.appended_at - waiting.queued_at,
                    self._clock.monotonic() - apply_s - waiting.appended_at,
                    apply_s,
                )
            )

    def take_completed(self) -> list[Completed]:
        """What is answered since the last call; answers to peers are sent by it."""
        return self._answers.take()

    def visible(self, index: int) -> None:
        """A store snapshot taken now shows everything up to ``index``."""
        self._read_requests.visible(index)

    # -- core.Host -------------------------------------------------------------------------------

    def round_answered(self) -> None:
        self._read_requests.round_answered()

    def leadership_changed(self, leading: bool, now: float) -> None:
        self._uncommitted.clear()
        self._uncommitted_bytes = 0
        self.reads.start_over()
        if not leading:
            self.waiters.give_up_at = now + self._settings.outcome_wait
            return
        self.waiters.give_up_at = None
        # Time never goes back along the log, whoever stamps it.
        for command in self._core.journal.last_commands(32):
            self._stamp = max(self._stamp, entry_time_us(command.data))
            break

    def link_lost(self, node_id: str) -> None:
        self._forwarding.link_lost(node_id)
        self.reads.start_over_with(node_id)

    def jumped(self, index: int) -> None:
        """22: a snapshot replaced the log up to ``index``; what waited there is not known."""
        for waiting in self.waiters.pop_until(index):
            self._answers.unknown(waiting, "a snapshot replaced the log here")

    def receive(self, node_id: str, kind: str, frame: PeerFrame, now: float) -> None:
        if kind == "forward_request":
            self._on_forward_request(node_id, frame.forward_request, now)
        elif kind == "forward_requests":
            for request in frame.forward_requests.requests:
                self._on_forward_request(node_id, request, now)
        elif kind == "forward_reply":
            self._forwarding.on_reply(frame.forward_reply, now)
        elif kind == "forward_replies":
            for reply in frame.forward_replies.replies:
                self._forwarding.on_reply(reply, now)
        elif kind == "read_index_request":
            self._read_requests.on_request(node_id, frame.read_index_request.id, now)
        elif kind == "read_index_reply" and not self._read_requests.on_reply(frame, now):
            self._forwarding.blocked_until = now + ASK_AGAIN

    def _on_forward_request(self, node_id: str, request: peer_pb2.ForwardRequest, now: float) -> None:
        deadline = now + 30.0
        proposal = Proposal(request.op, None, deadline, now, node_id, request.id)
        try:
            check_op(request.op)
            self._admit(proposal)
        except StorageError as error:
            self._answers.reply(node_id, request.id, None, InvalidArgumentError(str(error)), 0)
        except HoldfastError as error:
            self._answers.reply(node_id, request.id, None, error, 0)

    # -- deadlines ----------------------------------------------------------------------------

    def next_wakeup(self, now: float) -> float | None:
        """When something here is due; None when nothing waits."""
        core = self._core
        if core.leading:
            if self.queue.waiting and self._uncommitted_bytes < self._settings.max_uncommitted_bytes:
                return now
            if self._read_requests.due:
                return now
        elif self.queue.waiting or self.reads.fresh:
            leader = core.leader_id
            if leader in core.followers and core.followers[leader].connected:
                blocked = self._forwarding.blocked_until
                if not self.queue.waiting:
                    blocked = max(blocked, self._read_requests.blocked_until)
                return max(now, blocked)
        if self.queue.outstanding or self.reads.busy:
            return self._next_sweep
        return None

    def sweep(self, now: float) -> None:
        """End what is past its deadline; looked at a few times a second."""
        if now < self._next_sweep:
            return
        self._next_sweep = now + 0.05
        if not (self.queue.outstanding or self.reads.busy):
            return
        waiting_line = self.queue.waiting
        while waiting_line and waiting_line[0].deadline <= now:
            self._answers.fail(waiting_line.popleft(), DeadlineExceededError(TOO_LATE))
        for proposal in self.waiters.expired(now):
            self._answers.fail(proposal, DeadlineExceededError(UNKNOWN_BY_NOW))
        self._forwarding.sweep(now)
        give_up = self.waiters.give_up_at
        if give_up is not None and now >= give_up and not self._core.leading:
            for waiting in self.waiters.pop_all():
                self._answers.unknown(waiting)
        self._read_requests.sweep(now)


def _full() -> StorageFullError:
    return StorageFullError("no room left on the disk or in the quota of enough brokers; reads go on")
