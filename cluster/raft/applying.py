"""From committed to applied, and the log let go of behind it."""

from __future__ import annotations

from holdfast.cluster import events
from holdfast.cluster.raft.messages import COMMAND
from holdfast.cluster.raft.state import LEADER, RaftState
from holdfast.errors import InternalError
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.partitions import scan_states
from holdfast.v1 import log_pb2

#: Entries the base of the log moves by, about.
_TRIM_STEP = 256


class Applying(RaftState):
    """Commit index, state machine, trimming, and the jump that a snapshot makes."""

    _sweeping: bool

    @property
    def _may_apply(self) -> bool:
        applied = self._SyncObj__raftLastApplied
        return self._SyncObj__raftCommitIndex > applied and not self.repair.blocks(applied + 1)

    def _cap_commit(self) -> None:
        """9: the leader counted its own copy; it counts once it is durable.

        An entry of an older term is committed only under one of the current
        term, so a cap that falls on one takes back the whole step.
        """
        commit = self._SyncObj__raftCommitIndex
        durable = self.journal.durable_index
        if commit > durable and commit > self._commit_floor:
            floor = self._commit_floor
            if durable > floor and self.journal.term(durable) == self._SyncObj__raftCurrentTerm:
                floor = durable
            self._SyncObj__raftCommitIndex = floor
            self.journal.setRaftCommitIndex(floor)

    def _SyncObj__applyLogEntries(self) -> bool:
        """Apply what is committed, a bounded amount a tick; effects and applied index in one transaction."""
        if self._SyncObj__raftState == LEADER and self.cures.leader_counts_durable:
            self._cap_commit()
        index = self._SyncObj__raftLastApplied
        last = min(self._SyncObj__raftCommitIndex, index + self.settings.apply_entries)
        if index >= last:
            return False
        journal = self.journal
        budget = self.settings.apply_bytes
        clock = self.clock.monotonic
        began = before = clock()
        until = began + self.settings.apply_time
        while index < last and budget > 0 and before <= until:
            index += 1
            try:
                command = journal.command(index)
            except DamagedRowError as damage:
                self.repair.want(damage, needed=True)
                break
            term = journal.term(index)
            results: list[log_pb2.OpResult] = []
            if command.kind == COMMAND:
                budget -= len(command.data)
                applied = self.machine.apply(self.store.writer(), index, command.data)
                results = applied.results
                self.applied_ops += len(results)
                self.touched |= applied.touched
                self.groups_changed |= applied.groups_changed
                if applied.topics_changed:
                    self.topics_index = index
            # 13: past the entry whatever it gave; only a failing store stops here.
            self._SyncObj__raftLastApplied = index
            journal.set_applied(index)
            self.applied_entries += 1
            after = clock()
            self.entry_apply_s = after - before
            before = after
            self.host.applied(index, term or 0, results)
        self.apply_s += before - began
        return False

    def _SyncObj__tryLogCompaction(self) -> None:
        """Move the base of the log up; rows go a bounded number a turn, in turns that write anyway."""
        if not self.store.dirty:
            return
        journal = self.journal
        limit = self.settings.trim_rows_per_turn
        target = self._trim_target()
        if target > journal.base_index:
            self._sweeping = True
            try:
                visited = journal.trim(target, limit)
            except DamagedRowError as damage:
                self.repair.want(damage)
                return
            if self.emit is not None:
                self.emit(events.LogTrimmed(target, visited))
        elif self._sweeping:
            visited = journal.trim(journal.base_index, limit)
        else:
            return
        if visited < limit:
            self._sweeping = False

    def _trim_target(self) -> int:
        """How far the log can be let go: kept are a stretch for restarts and one more for laggards."""
        settings = self.settings
        journal = self.journal
        base = journal.base_index
        applied = min(journal.stored_applied, journal.durable_index)
        target = max(applied - settings.keep_entries, journal.index_behind(settings.keep_bytes))
        target = min(target, applied)
        if self._SyncObj__raftState == LEADER:
            floor = max(
                applied - settings.keep_entries_for_laggards,
                journal.index_behind(settings.keep_bytes_for_laggards),
            )
            for follower in self.followers.values():
                target = min(target, max(floor, self.match_index(follower)))
        # In steps, so that the base is not written with every turn.
        return target if target - base >= min(settings.keep_entries, _TRIM_STEP) else base

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        raise InternalError("PySyncObj loads no state here")  # 4, 5

    def replaced(self) -> None:
        """The store holds a snapshot now: begin anew from what it says."""
        term = self._SyncObj__raftCurrentTerm
        self.journal.reload()
        if self.journal.getCurrentTerm() != term:
            raise InternalError("the snapshot changed this node's term")
        self.machine.reset()
        self.repair.replaced()
        self.topics_index = self.journal.applied_index
        self._SyncObj__raftLastApplied = self.journal.applied_index
        self._SyncObj__raftCommitIndex = self.journal.getRaftCommitIndex()
        self._sweeping = True
        with self.store.read() as reader:
            # Any partition may have changed.
            self.touched.update((topic, partition) for topic, partition, _ in scan_states(reader))
        if self.cures.fail_jumped_waiters:
            self.host.jumped(self.journal.applied_index)  # 22
