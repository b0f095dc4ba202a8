"""A leader's appends to its followers: windows, batches, heartbeats, rounds.

Replaces PySyncObj's sender, which sends the whole in-flight window again after
every ack (2) and slices the whole tail of the log for every message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from holdfast.cluster.raft.followers import Follower
from holdfast.cluster.raft.messages import PeerFrame
from holdfast.storage.damage import DamagedRowError

if TYPE_CHECKING:
    from holdfast.cluster.raft.core import RaftCore


class _Made(NamedTuple):
    """A frame of entries for whoever is at the same index."""

    frame: PeerFrame
    commands: Sequence[bytes]
    upto: int
    size: int


class Shipper:
    """Sends what each follower lacks, as far as its window allows."""

    def __init__(self, core: RaftCore) -> None:
        self._core = core
        #: Every follower is due a message, entries or not.
        self.beat = False
        #: Grows with each round; echoed by followers, it dates their replies.
        self.round = 1
        self._commit_since: float | None = None

    def start_round(self) -> int:
        """A new round; it goes out with the next ``ship`` of the same turn."""
        self.round += 1
        return self.round

    def next_wakeup(self) -> float | None:
        """When a commit index that nobody was told of has to go out."""
        if self._commit_since is None:
            return None
        return self._commit_since + self._core.settings.commit_notice

    def ship(self, now: float) -> None:
        """Send to every connected follower. Called once a tick, after the append."""
        core = self._core
        journal = core.journal
        last = journal.last_index
        commit = core.commit_index
        beat, self.beat = self.beat, False
        notice = self.next_wakeup()
        if notice is not None and now >= notice:
            self._commit_since = None
            tell_commit = True
        else:
            tell_commit = False
        # Followers that keep up are at the same index: one frame serves all.
        made: dict[int, _Made] = {}
        idle: list[Follower] = []
        hungry: list[Follower] = []
        for follower in core.followers.values():
            if not follower.connected:
                continue
            next_index = core.next_index(follower)
            if next_index <= journal.base_index:
                core.snapshots.feed(follower, now, beat)
                continue
            core.snapshots.not_needed(follower)
            wants = next_index <= last and now >= follower.paused_until and follower.can_send(core.settings)
            (hungry if wants else idle).append(follower)
        told = list(hungry)
        stuck = [follower for follower in hungry if core.repair.blocks(core.next_index(follower))]
        if stuck:
            hungry = [follower for follower in hungry if follower not in stuck]
            idle += stuck
            told = list(hungry)
        # In turns, so that the same frame goes out to all in a row: the
        # transport encodes it once.
        while hungry:
            hungry = [follower for follower in hungry if self._entries(follower, last, now, made)]
        for follower in idle:
            if beat or follower.sent_round < self.round or (tell_commit and follower.told_commit < commit):
                self._empty(follower, core.next_index(follower), commit)
        if any(follower.told_commit < commit for follower in (*idle, *told)):
            if self._commit_since is None:
                self._commit_since = now
        else:
            self._commit_since = None

    def _entries(self, follower: Follower, last: int, now: float, made: dict[int, _Made]) -> bool:
        """Send one frame of entries; True when another may follow it at once."""
        core = self._core
        next_index = core.next_index(follower)
        item = made.get(next_index)
        if item is None:
            try:
                item = made[next_index] = self._frame(next_index, last)
            except DamagedRowError as damage:
                # Nothing of it leaves; signs of life go on until it is repaired.
                core.repair.want(damage, needed=True)
                return False
        upto, size = item.upto, item.size
        if item.commands:
            went = core.outbox.send_append(follower.node_id, item.frame, item.commands)
        else:
            went = core.outbox.send(follower.node_id, item.frame)
        if not went:
            return False
        follower.sent_round = self.round
        follower.told_commit = core.commit_index
        if follower.probing:
            # Next moves on when the probe is answered.
            follower.probe_sent = True
            return False
        follower.sent(upto, size, now)
        core.set_next_index(follower, upto + 1)
        return upto < last and follower.can_send(core.settings)

    def _frame(self, first: int, last: int) -> _Made:
        core = self._core
        settings = core.settings
        entries = core.journal.batch(first, last, settings.message_entries, settings.message_bytes)
        size = sum(len(entry[0].data) for entry in entries)
        apart = size >= settings.apart_bytes
        frame = core.envelope.append(
            core.term,
            prev_index=first - 1,
            prev_term=core.journal.term(first - 1) or 0,
            commit_index=core.commit_index,
            round_number=self.round,
            entries=entries,
            apart=apart,
        )
        commands = [entry[0].data for entry in entries] if apart else ()
        return _Made(frame, commands, entries[-1][1], size + 32 * len(entries))

    def _empty(self, follower: Follower, next_index: int, commit: int) -> None:
        core = self._core
        frame = core.envelope.append(
            core.term,
            prev_index=next_index - 1,
            prev_term=core.journal.term(next_index - 1) or 0,
            commit_index=commit,
            round_number=self.round,
        )
        if core.outbox.send(follower.node_id, frame):
            follower.sent_round = self.round
            follower.told_commit = commit
