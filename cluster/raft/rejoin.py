"""A node whose store was empty at its start may have had a past: what it may do before it knows.

It may have confirmed entries and given votes, and has forgotten both. Until it
is known that this can do no harm, it is *joining*: it takes appends and
snapshots, and neither votes nor stands. The argument is in
``cluster/DESIGN.md``, *A node that has forgotten*; the steps are:

1. It asks every member for its term. Before all have answered (and enough of
   them are full voters) its replies to a leader are marked *uncounted*: no
   entry is committed, no read round confirmed, no leader kept in office by
   them, because it might have promised itself to a newer term.
2. Then it has adopted the highest term, and its replies count.
3. Once it has everything up to a commit index that the leader of its term
   named after step 2, it is a full voter; in its present term it votes for
   nobody, because it may have voted in it.

At the birth of a cluster there is no past: when everybody says so, or a
majority does and the rest is silent for a while, a node is a voter at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.cluster import events
from holdfast.cluster.raft.followers import Follower
from holdfast.cluster.raft.messages import PeerFrame
from holdfast.storage import membership
from holdfast.storage.journal import FIRST_BASE_INDEX
from holdfast.storage.membership import Membership

if TYPE_CHECKING:
    from holdfast.cluster.raft.core import RaftCore


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a member said last."""

    term: int
    fresh: bool
    joined: bool


class Rejoin:
    """This node's own joining, and its answers to others that join."""

    def __init__(self, core: RaftCore) -> None:
        self._core = core
        with core.store.read() as reader:
            found = membership.read(reader)
        #: The mark is written with the first transaction of the engine's thread.
        self._unmarked = found is None
        self._membership = found or Membership.NEW
        self._forgets = core.cures.joining_does_not_vote
        #: No vote, no candidacy.
        self.joining = self._forgets and self._membership is not Membership.JOINED
        #: What this node confirms counts for nothing yet.
        self.uncounted = self.joining
        self._answers: dict[str, _Answer] = {}
        #: The term and the commit index that its leader named after ``uncounted`` ended.
        self._confirmed: tuple[int, int] | None = None
        self._began_at: float | None = None
        self._next_query = 0.0

    @property
    def fresh(self) -> bool:
        """Never a term, never an entry, and no word of a cluster that has any."""
        journal = self._core.journal
        return (
            self._membership is not Membership.REJOINING
            and self._core.term == 0
            and journal.last_index == journal.base_index == FIRST_BASE_INDEX
        )

    @property
    def grants(self) -> bool:
        """May it vote for others? Of two members the other one has all that was ever committed."""
        return not self.joining or (not self.uncounted and len(self._core.followers) == 1)

    # -- the node that joins ------------------------------------------------------

    def connected(self, follower: Follower, now: float) -> None:
        """A link is up: ask at once. Comes before any frame of that link."""
        self._begin(now)
        if self.joining:
            self._ask(follower)

    def tick(self, now: float) -> None:
        """Ask again what is due, and see whether the joining is over."""
        self._begin(now)
        if not self.joining:
            return
        if now >= self._next_query:
            self._next_query = now + self._core.settings.join_query
            for follower in self._core.followers.values():
                if follower.connected:
                    self._ask(follower)
        self._settle(now)

    def next_wakeup(self) -> float:
        """When a joining node asks again, or has waited long enough."""
        return self._next_query

    def _begin(self, now: float) -> None:
        if self._began_at is not None:
            return
        self._began_at = now
        if self._unmarked:
            self._unmarked = False
            self._mark(Membership.NEW if self._forgets else Membership.JOINED)
        if self.joining and self._core.emit is not None:
            self._core.emit(events.JoiningBegan(self._membership is Membership.REJOINING))

    def _ask(self, follower: Follower) -> None:
        core = self._core
        core.outbox.send(follower.node_id, core.envelope.join_query(core.term, core.envelope.boot_id))

    def on_reply(self, follower: Follower, frame: PeerFrame, now: float) -> None:
        """One member's answer; a higher term in it has been adopted already."""
        core = self._core
        reply = frame.join_reply
        if not self.joining or reply.nonce != core.envelope.boot_id:
            return
        self._answers[follower.node_id] = _Answer(frame.term, reply.fresh, reply.joined)
        if not reply.fresh and self._membership is Membership.NEW:
            self._mark(Membership.REJOINING)
        if reply.commit_index and frame.term == core.term and not self.uncounted:
            self._confirmed = (frame.term, reply.commit_index)
        self._settle(now)

    def _settle(self, now: float) -> None:
        core = self._core
        if not core.followers or self._is_birth(now):
            self._joined(born=True)
            return
        if self.uncounted and self._knows_all_terms():
            self.uncounted = False
            # It may have voted in this term.
            core.block_vote()
            if core.emit is not None:
                core.emit(events.JoiningCounts(core.term))
            # Ask for the commit index at once.
            self._next_query = now
        if self.uncounted or self._confirmed is None:
            return
        term, index = self._confirmed
        if term == core.term and core.commit_index >= index:
            core.block_vote()
            self._joined(born=False)

    def _is_birth(self, now: float) -> bool:
        """Nobody knows of a past; a majority says so, and the others are there or were waited for."""
        if not self.fresh or not all(answer.fresh for answer in self._answers.values()):
            return False
        members = len(self._core.followers) + 1
        fresh = len(self._answers) + 1
        if fresh == members:
            return True
        waited = self._began_at is not None and now >= self._began_at + self._core.settings.birth_wait
        return fresh * 2 > members and waited

    def _knows_all_terms(self) -> bool:
        """All others have answered, and every majority has somebody in it who forgot nothing."""
        members = len(self._core.followers) + 1
        remember = sum(answer.joined for answer in self._answers.values())
        return len(self._answers) + 1 == members and remember > members - (members // 2 + 1)

    def _joined(self, *, born: bool) -> None:
        core = self._core
        self.joining = self.uncounted = False
        self._mark(Membership.JOINED)
        if core.emit is not None:
            core.emit(events.Joined(born, core.term, core.commit_index))

    def _mark(self, mark: Membership) -> None:
        self._membership = mark
        membership.write(self._core.store.writer(), mark)
        # Votes and acks wait for the commit that holds it.
        self._core.journal.needs_commit = True

    # -- the others ---------------------------------------------------------------

    def on_query(self, follower: Follower, frame: PeerFrame, now: float) -> None:
        """Tell a joining node where this one stands.

        The link belongs to the asker's present run by now: whatever an earlier
        one confirmed counts no more, so the commit index covers all that it
        ever helped to commit. The answer waits for the commit: what it says is
        not taken back by a crash.
        """
        core = self._core
        reply = core.envelope.join_reply(
            core.term,
            nonce=frame.join_query.nonce,
            fresh=self.fresh,
            joined=not self.joining,
            commit_index=core.commit_index if core.ready_to_read else 0,
        )
        core.outbox.hold(follower.node_id, reply)
