"""What callers ask of the engine: operations and read barriers, here or by way of the leader.

Every request ends in exactly one answer: its result, or an error that says
whether anything was done. None outlives its deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from holdfast.cluster import events
from holdfast.cluster.commands import carries_batches, check_op, encode_entry, entry_time_us
from holdfast.cluster.ports import Clock, EventSink
from holdfast.cluster.raft.messages import PeerFrame, error_from_proto, forward_reply
from holdfast.cluster.raft.proposals import ENTRY_OVERHEAD, Proposal, ProposalQueue, Waiters, Waiting
from holdfast.cluster.raft.reads import Asked, Read, ReadBarriers, Round
from holdfast.cluster.raft.settings import EngineSettings
from holdfast.cluster.results import Completed
from holdfast.errors import (
    DeadlineExceededError,
    HoldfastError,
    InternalError,
    InvalidArgumentError,
    NoLeaderError,
    OutcomeUnknownError,
    RecordTooLargeError,
    StorageError,
    StorageFullError,
)
from holdfast.v1 import log_pb2, peer_pb2

if TYPE_CHECKING:
    from holdfast.cluster.raft.core import RaftCore

#: What an operation costs on disk beside its bytes: index rows, producer state.
_OP_OVERHEAD = 512
#: Pause before the same leader is asked again, seconds.
_ASK_AGAIN = 0.005


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
        self._forwarded: dict[int, tuple[Proposal, str]] = {}
        self._next_id = 0
        self._completed: list[Completed] = []
        self._answered: list[Proposal] = []
        self._replies: dict[str, list[peer_pb2.ForwardReply]] = {}
        self._uncommitted: list[tuple[int, int]] = []
        self._uncommitted_bytes = 0
        self._stamp = 0
        self._wall_offset: int | None = None
        self._check_rounds = False
        self._next_sweep = 0.0
        self._blocked_until = 0.0
        #: The leader we know says that it is not: no use asking it without a pause.
        self._reads_blocked_until = 0.0

    def attach(self, core: RaftCore) -> None:
        self._core = core
        self._next_id = core.rng.getrandbits(62)

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
            if self.reads.fresh or self._check_rounds:
                self._start_round(now)
            return
        if self.queue.waiting or self.reads.fresh:
            leader = core.leader_id
            follower = None if leader is None else core.followers.get(leader)
            if follower is not None and follower.connected:
                if now >= self._blocked_until:
                    self._forward(follower.node_id, now)
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
                    self._fail(proposal, DeadlineExceededError("the deadline passed; nothing was done"))
                    continue
                cost = length + _OP_OVERHEAD
                if (cost > self.room or self.storage_full) and carries_batches(proposal.op):
                    # Until the next look: what comes after must not overtake it.
                    self.storage_full = True
                    self._fail(proposal, _full())
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
                self._unknown(before)
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

    def _forward(self, leader: str, now: float) -> None:
        core = self._core
        waiting = self.queue.waiting
        while waiting:
            batch = self._forwardable(now)
            if not batch:
                break
            requests = [(self._new_id(), proposal.op) for proposal in batch]
            if not core.outbox.send(leader, core.envelope.forward(core.term, requests)):
                # Not sent, so not done: it waits for room on the link.
                waiting.extendleft(reversed(batch))
                self._blocked_until = now + _ASK_AGAIN
                break
            for (request_id, _), proposal in zip(requests, batch, strict=True):
                self._forwarded[request_id] = (proposal, leader)
        fresh = self.reads.fresh
        if fresh and now >= self._reads_blocked_until:
            reads = self._local_reads()
            if reads:
                request_id = self._new_id()
                if core.outbox.send(leader, core.envelope.read_index_request(core.term, request_id)):
                    self.reads.asked[request_id] = Asked(leader, reads)
                else:
                    fresh.extendleft(reversed(reads))
                    self._blocked_until = now + _ASK_AGAIN

    def _forwardable(self, now: float) -> list[Proposal]:
        """The next proposals of our own callers, one frame of them."""
        waiting = self.queue.waiting
        batch: list[Proposal] = []
        size = 0
        while waiting and len(batch) < self._settings.entry_ops and size < self._settings.entry_bytes:
            proposal = waiting.popleft()
            if proposal.origin is not None:
                self._fail(proposal, self._no_leader())
            elif proposal.deadline <= now:
                self._fail(proposal, DeadlineExceededError("the deadline passed; nothing was done"))
            else:
                batch.append(proposal)
                size += len(proposal.op)
        return batch

    def _local_reads(self) -> list[Read]:
        fresh = self.reads.fresh
        reads: list[Read] = []
        while fresh:
            read = fresh.popleft()
            if read.origin is None:
                reads.append(read)
            else:
                self._fail_read(read, self._no_leader())
        return reads

    def _wait_for_leader(self, now: float) -> None:
        """No leader is known: wait for a while, it may be there in a moment."""
        patience = now - self._settings.leader_wait
        waiting = self.queue.waiting
        while waiting:
            head = waiting[0]
            if head.origin is None and head.queued_at > patience and head.deadline > now:
                break
            waiting.popleft()
            self._fail(head, self._no_leader())
        fresh = self.reads.fresh
        while fresh:
            read = fresh[0]
            if read.origin is None and read.queued_at > patience and read.deadline > now:
                break
            fresh.popleft()
            self._fail_read(read, self._no_leader())

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _no_leader(self) -> NoLeaderError:
        leader = self._core.leader_id
        if leader is None or leader == self._core.node_id:
            return NoLeaderError("no leader is known; nothing was done")
        return NoLeaderError(f"the leader is {leader}; nothing was done", metadata={"leader": leader})

    # -- results ---------------------------------------------------------------------------

    def applied(self, index: int, term: int, results: list[log_pb2.OpResult]) -> None:
        waiting = self.waiters.pop(index)
        if waiting is None:
            return
        if waiting.term != term:
            # Another leader's entry is committed at this index, so ours never will be.
            for proposal in waiting.proposals:
                if proposal is not None:
                    self._fail(proposal, self._no_leader())
            return
        if len(results) != len(waiting.proposals):
            raise InternalError(f"entry {index} gave {len(results)} results for its operations")
        for at, proposal in enumerate(waiting.proposals):
            if proposal is not None:
                self._answer(proposal, results[at], None, index)
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
        if self._replies:
            core = self._core
            replies, self._replies = self._replies, {}
            for origin, batch in replies.items():
                core.outbox.send(origin, core.envelope.forward_replies(core.term, batch))
        if self._answered:
            self.queue.release(self._answered)
            self._answered.clear()
        completed, self._completed = self._completed, []
        return completed

    def _answer(
        self, proposal: Proposal, result: log_pb2.OpResult | None, error: HoldfastError | None, index: int
    ) -> None:
        self._answered.append(proposal)
        if proposal.origin is None:
            self._completed.append(Completed(proposal.token, result, error, index))
        else:
            self._reply(proposal.origin, proposal.request_id, result, error, index)

    def _reply(
        self,
        origin: str,
        request_id: int,
        result: log_pb2.OpResult | None,
        error: HoldfastError | None,
        index: int,
    ) -> None:
        self._replies.setdefault(origin, []).append(forward_reply(request_id, result, error, index))

    def _fail(self, proposal: Proposal, error: HoldfastError) -> None:
        if self._emit is not None:
            self._emit(events.ProposalRejected(error.reason))
        self._answer(proposal, None, error, 0)

    def _unknown(self, waiting: Waiting) -> None:
        for proposal in waiting.proposals:
            if proposal is not None:
                self._fail(proposal, OutcomeUnknownError("leadership moved before the outcome was known"))

    # -- reads -------------------------------------------------------------------------------

    def _start_round(self, now: float) -> None:
        core = self._core
        self._check_rounds = False
        reads = self.reads
        if reads.fresh and core.ready_to_read:
            if core.cures.confirm_reads:
                number = core.shipper.start_round()
                taken: list[Read] = []
                while reads.fresh:
                    taken.append(reads.fresh.popleft())
                reads.rounds.append(Round(number, core.commit_index, taken))
            else:
                while reads.fresh:
                    self._confirm(reads.fresh.popleft(), core.commit_index)
        if reads.rounds:
            confirmed = core.confirmed_round()
            while reads.rounds and reads.rounds[0].number <= confirmed:
                item = reads.rounds.popleft()
                for read in item.reads:
                    self._confirm(read, item.index)

    def _confirm(self, read: Read, index: int) -> None:
        if read.origin is None:
            self.reads.confirmed.append((index, read))
        else:
            core = self._core
            core.outbox.send(read.origin, core.envelope.read_index_reply(core.term, read.request_id, index))

    def _fail_read(self, read: Read, error: HoldfastError) -> None:
        if read.origin is None:
            self._completed.append(Completed(read.token, None, error, 0))
        else:
            core = self._core
            core.outbox.send(
                read.origin, core.envelope.read_index_reply(core.term, read.request_id, 0, error)
            )

    def visible(self, index: int) -> None:
        """A store snapshot taken now shows everything up to ``index``."""
        for at, read in self.reads.visible(index):
            self._completed.append(Completed(read.token, None, None, at))

    # -- core.Host -------------------------------------------------------------------------------

    def round_answered(self) -> None:
        if self.reads.rounds:
            self._check_rounds = True

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
        gone = [key for key, (_, leader) in self._forwarded.items() if leader == node_id]
        for key in gone:
            proposal, _ = self._forwarded.pop(key)
            self._fail(
                proposal,
                OutcomeUnknownError("the link to the leader broke before the outcome was known"),
            )
        self.reads.start_over_with(node_id)

    def jumped(self, index: int) -> None:
        """22: a snapshot replaced the log up to ``index``; what waited there is not known."""
        for waiting in self.waiters.pop_until(index):
            for proposal in waiting.proposals:
                if proposal is not None:
                    self._fail(proposal, OutcomeUnknownError("a snapshot replaced the log here"))

    def receive(self, node_id: str, kind: str, frame: PeerFrame, now: float) -> None:
        if kind == "forward_request":
            self._on_forward_request(node_id, frame.forward_request, now)
        elif kind == "forward_requests":
            for request in frame.forward_requests.requests:
                self._on_forward_request(node_id, request, now)
        elif kind == "forward_reply":
            self._on_forward_reply(frame.forward_reply, now)
        elif kind == "forward_replies":
            for reply in frame.forward_replies.replies:
                self._on_forward_reply(reply, now)
        elif kind == "read_index_request":
            request_id = frame.read_index_request.id
            # The peer keeps the deadline of its callers; this one only bounds our memory.
            deadline = now + 4 * self._settings.leader_wait
            self.reads.fresh.append(Read(None, deadline, now, node_id, request_id))
        elif kind == "read_index_reply":
            self._on_read_index_reply(frame, now)

    def _on_forward_request(self, node_id: str, request: peer_pb2.ForwardRequest, now: float) -> None:
        deadline = now + 30.0
        proposal = Proposal(request.op, None, deadline, now, node_id, request.id)
        try:
            check_op(request.op)
            self._admit(proposal)
        except StorageError as error:
            self._reply(node_id, request.id, None, InvalidArgumentError(str(error)), 0)
        except HoldfastError as error:
            self._reply(node_id, request.id, None, error, 0)

    def _on_forward_reply(self, reply: peer_pb2.ForwardReply, now: float) -> None:
        item = self._forwarded.pop(reply.id, None)
        if item is None:
            return  # its deadline passed
        proposal = item[0]
        if not reply.HasField("error"):
            try:
                result = log_pb2.OpResult.FromString(reply.result)
            except DecodeError:
                self._answer(proposal, None, OutcomeUnknownError("the leader's answer does not parse"), 0)
                return
            self._answer(proposal, result, None, reply.index)
        elif (
            reply.error.reason == NoLeaderError.reason
            and now < proposal.queued_at + self._settings.leader_wait
        ):
            # It leads no more, and did nothing: wait for the next leader here.
            self.queue.waiting.appendleft(proposal)
            self._blocked_until = now + _ASK_AGAIN
        else:
            self._answer(proposal, None, error_from_proto(reply.error), 0)

    def _on_read_index_reply(self, frame: PeerFrame, now: float) -> None:
        reply = frame.read_index_reply
        asked = self.reads.asked.pop(reply.id, None)
        if asked is None:
            return
        if reply.HasField("error"):
            self._reads_blocked_until = now + 0.005
        if reply.HasField("error"):
            # Nothing is lost by asking again; their deadlines bound it.
            self.reads.fresh.extend(asked.reads)
            self._blocked_until = now + _ASK_AGAIN
        else:
            self.reads.confirmed.extend((reply.index, read) for read in asked.reads)

    # -- deadlines ----------------------------------------------------------------------------

    def next_wakeup(self, now: float) -> float | None:
        """When something here is due; None when nothing waits."""
        core = self._core
        if core.leading:
            if self.queue.waiting and self._uncommitted_bytes < self._settings.max_uncommitted_bytes:
                return now
            if (self.reads.fresh and core.ready_to_read) or self._check_rounds:
                return now
        elif self.queue.waiting or self.reads.fresh:
            leader = core.leader_id
            if leader in core.followers and core.followers[leader].connected:
                blocked = self._blocked_until
                if not self.queue.waiting:
                    blocked = max(blocked, self._reads_blocked_until)
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
        waiting_line, fresh = self.queue.waiting, self.reads.fresh
        while waiting_line and waiting_line[0].deadline <= now:
            self._fail(waiting_line.popleft(), DeadlineExceededError("the deadline passed; nothing was done"))
        while fresh and fresh[0].deadline <= now:
            self._fail_read(fresh.popleft(), DeadlineExceededError("no leader confirmed the read in time"))
        for proposal in self.waiters.expired(now):
            self._fail(proposal, DeadlineExceededError("the deadline passed; the outcome is not known"))
        late = [key for key, (proposal, _) in self._forwarded.items() if proposal.deadline <= now]
        for key in late:
            proposal, _ = self._forwarded.pop(key)
            self._fail(proposal, DeadlineExceededError("the deadline passed; the outcome is not known"))
        give_up = self.waiters.give_up_at
        if give_up is not None and now >= give_up and not self._core.leading:
            for waiting in self.waiters.pop_all():
                self._unknown(waiting)
        for read in self.reads.expired(now):
            self._fail_read(read, DeadlineExceededError("no leader confirmed the read in time"))


def _full() -> StorageFullError:
    return StorageFullError("no room left on the disk or in the quota of enough brokers; reads go on")
