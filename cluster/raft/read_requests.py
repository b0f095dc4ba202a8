"""Linearizable reads on their way: rounds on the leader, questions to it on a follower (20)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from holdfast.cluster.raft.answers import Answers
from holdfast.cluster.raft.messages import PeerFrame
from holdfast.cluster.raft.reads import Asked, Read, ReadBarriers, Round
from holdfast.cluster.raft.settings import EngineSettings
from holdfast.errors import DeadlineExceededError

if TYPE_CHECKING:
    from holdfast.cluster.raft.core import RaftCore

#: Pause before a leader that says it is none is asked again, seconds.
_ASK_AGAIN = 0.005


class ReadRequests:
    """Moves reads from one stage of ``ReadBarriers`` to the next."""

    def __init__(self, settings: EngineSettings, reads: ReadBarriers, answers: Answers) -> None:
        self._settings = settings
        self._reads = reads
        self._answers = answers
        self._core: RaftCore
        #: A round was answered, so that one may be confirmed.
        self.check_rounds = False
        #: The leader we know says that it is not: no use asking it without a pause.
        self.blocked_until = 0.0

    def attach(self, core: RaftCore) -> None:
        self._core = core

    @property
    def due(self) -> bool:
        """A leader has something to do here."""
        return bool(self._reads.fresh and self._core.ready_to_read) or self.check_rounds

    # -- the leader's side ---------------------------------------------------------

    def start_round(self) -> None:
        """Start a round for what has come, and confirm the reads whose round is answered."""
        core = self._core
        self.check_rounds = False
        reads = self._reads
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
            self._reads.confirmed.append((index, read))
        else:
            core = self._core
            core.outbox.send(read.origin, core.envelope.read_index_reply(core.term, read.request_id, index))

    def round_answered(self) -> None:
        if self._reads.rounds:
            self.check_rounds = True

    def on_request(self, node_id: str, request_id: int, now: float) -> None:
        # The peer keeps the deadline of its callers; this one only bounds our memory.
        deadline = now + 4 * self._settings.leader_wait
        self._reads.fresh.append(Read(None, deadline, now, node_id, request_id))

    # -- a follower's side ---------------------------------------------------------

    def ask(self, leader: str, request_id: int) -> bool:
        """Ask the leader for the index of all reads that wait; False when the link takes nothing."""
        reads = self._own()
        if not reads:
            return True
        core = self._core
        if core.outbox.send(leader, core.envelope.read_index_request(core.term, request_id)):
            self._reads.asked[request_id] = Asked(leader, reads)
            return True
        self._reads.fresh.extendleft(reversed(reads))
        return False

    def _own(self) -> list[Read]:
        """What our own callers wait for; peers that think we lead are told."""
        fresh = self._reads.fresh
        own: list[Read] = []
        while fresh:
            read = fresh.popleft()
            if read.origin is None:
                own.append(read)
            else:
                self._answers.fail_read(read, self._answers.no_leader())
        return own

    def on_reply(self, frame: PeerFrame, now: float) -> bool:
        """The leader's answer; False when it says that it does not lead."""
        reply = frame.read_index_reply
        asked = self._reads.asked.pop(reply.id, None)
        if asked is None:
            return True
        if reply.HasField("error"):
            # Nothing is lost by asking again; their deadlines bound it.
            self.blocked_until = now + _ASK_AGAIN
            self._reads.fresh.extend(asked.reads)
            return False
        self._reads.confirmed.extend((reply.index, read) for read in asked.reads)
        return True

    def give_up_waiting(self, patience: float, now: float) -> None:
        """No leader is known: end what has waited since before ``patience``, or for one of a peer."""
        fresh: deque[Read] = self._reads.fresh
        while fresh:
            read = fresh[0]
            if read.origin is None and read.queued_at > patience and read.deadline > now:
                break
            fresh.popleft()
            self._answers.fail_read(read, self._answers.no_leader())

    # -- both ------------------------------------------------------------------------

    def visible(self, index: int) -> None:
        """A store snapshot taken now shows everything up to ``index``."""
        for at, read in self._reads.visible(index):
            self._answers.read_done(read, at)

    def sweep(self, now: float) -> None:
        """End what is past its deadline."""
        fresh = self._reads.fresh
        while fresh and fresh[0].deadline <= now:
            self._fail_late(fresh.popleft())
        for read in self._reads.expired(now):
            self._fail_late(read)

    def _fail_late(self, read: Read) -> None:
        self._answers.fail_read(read, DeadlineExceededError("no leader confirmed the read in time"))
