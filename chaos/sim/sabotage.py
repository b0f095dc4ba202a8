"""Planted bugs: what the simulator must find, or it is worth nothing.

Each is the absence of something that keeps promises: a cure of the consensus
engine switched off (``cluster/raft/cures.py``), or a part of the broker, the
client or the disk replaced by a careless one for the length of a run.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from holdfast.chaos.sim.disk import SimStore
from holdfast.cluster.delivery.group import Group
from holdfast.cluster.delivery.members import Flow, Member
from holdfast.cluster.raft.core import RaftCore
from holdfast.cluster.raft.cures import ALL, Cures
from holdfast.cluster.state import append as state_append
from holdfast.cluster.state import machine as state_machine
from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.machine import Applied, StateMachine
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.services import keyed_publish
from holdfast.rpc.services.subscribe import SubscribeService
from holdfast.storage import groups, journal, marks, snapshot
from holdfast.storage.port import Reader, Table, Writer
from holdfast.v1 import log_pb2


@dataclass(frozen=True, slots=True)
class Sabotage:
    """One planted bug.

    Attributes:
        cures: of the engine, for the run.
        planted: the careless parts, in place while the context is open.
    """

    name: str
    summary: str
    cures: Cures = ALL
    planted: Callable[[], AbstractContextManager[None]] = nullcontext


NONE = Sabotage("", "nothing is planted")


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    inherited = name not in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


@contextmanager
def _both(one: AbstractContextManager[None], two: AbstractContextManager[None]) -> Iterator[None]:
    with one, two:
        yield


def _dedup_off() -> AbstractContextManager[None]:
    return _replaced(state_append, "check_sequence", lambda *_: None)


def _apply_by_chance() -> AbstractContextManager[None]:
    numbers = itertools.count()
    stock = StateMachine.apply

    def apply(self: StateMachine, w: Writer, index: int, entry: bytes) -> Applied:
        # Every machine stamps in its own way: what a local clock or a hash seed would do.
        number = vars_of.setdefault(id(self), next(numbers))
        if index % 7 == 0:
            entry = entry[:8] + bytes([entry[8] ^ (number % 4)]) + entry[9:]
        return stock(self, w, index, entry)

    vars_of: dict[int, int] = {}
    return _replaced(StateMachine, "apply", apply)


def _commit_before_delivery() -> AbstractContextManager[None]:
    stock = Group.delivered

    def delivered(self: Group, member: Member, flow: Flow, end: int, records: int) -> None:
        first = flow.window.next_offset
        stock(self, member, flow, end, records)
        if end > first:
            self.ack(member, flow.topic, flow.partition, first, end - 1)

    return _replaced(Group, "delivered", delivered)


def _offsets_go_back() -> AbstractContextManager[None]:
    stock = state_machine._HANDLERS["commit_offsets"]

    def commit(context: EntryContext, op: log_pb2.CommitOffsetsOp) -> log_pb2.OpResult:
        result = stock(context, op)
        for wanted in op.offsets:
            # Whoever comes last is right, though commits pass each other on the way.
            low = max(0, wanted.offset - 3)
            groups.commit_offset(context.w, op.group, wanted.topic_id, wanted.partition, low)
        return result

    return _replaced(state_machine, "_HANDLERS", {**state_machine._HANDLERS, "commit_offsets": commit})


def _start_at_the_end() -> AbstractContextManager[None]:
    stock = SubscribeService._opening

    def opening(self: SubscribeService, reader: Any, group: str, topic: str, key: Any, start: Any) -> Any:
        first, committed = stock(self, reader, group, topic, key, start)
        return (first if committed is None else first + 2), committed

    return _replaced(SubscribeService, "_opening", opening)


def _late_committer() -> AbstractContextManager[None]:
    """A group's committer is forgotten by a callback of its task, after what was due as it ended."""

    def commit_soon(self: SubscribeService, group: Group) -> None:
        if group not in self._committers and not self._closed:
            task = asyncio.create_task(self._commit_all(group))
            self._committers[group] = task
            task.add_done_callback(lambda _: self._committers.pop(group, None))

    return _replaced(SubscribeService, "_commit_soon", commit_soon)


def _local_reads() -> AbstractContextManager[None]:
    async def barrier(self: EngineBridge, timeout: float) -> int:
        self.check_open()
        return self.progress.visible_index

    return _replaced(EngineBridge, "barrier", barrier)


def _torn_commits() -> AbstractContextManager[None]:
    stock = SimStore.power_cut

    def power_cut(self: SimStore) -> None:
        # A part of the open transaction is on the disk: the order of tables, not of time.
        changes = self._shown + self._undo
        self._shown.clear()
        kept = [change for change in changes if change[0] is not Table.META]
        self._undo[:] = [change for change in changes if change[0] is Table.META]
        if len(kept) > 1:
            self._undo += kept[len(kept) // 2 :]
        stock(self)

    return _replaced(SimStore, "power_cut", power_cut)


def _lying_disk() -> AbstractContextManager[None]:
    stock = SimStore.commit

    def commit(self: SimStore) -> None:
        # fdatasync that returns at once: what it covers is durable one commit later.
        self._lose_unsynced = True
        self.sync()
        stock(self)

    return _replaced(SimStore, "commit", commit)


def _applied_apart() -> AbstractContextManager[None]:
    """The applied index is not always stored with the effects: after a restart entries run again."""
    stock = journal.set_applied

    def set_applied(w: Writer, index: int) -> None:
        stock(w, max(index - index % 5, journal.read_meta(w).base_index))

    return _replaced(journal, "set_applied", set_applied)


def _snapshot_without_producers() -> AbstractContextManager[None]:
    left = {table: number for table, number in snapshot._NUMBER.items() if table is not Table.PRODUCERS}
    return _replaced(snapshot, "_NUMBER", left)


def _late_fsync() -> AbstractContextManager[None]:
    """A leader's fsync goes on while it turns: then its own copy must not be counted at once.

    By itself this is no bug: the engine is told what is durable when it is.
    """
    #: Turns until the fsync is done, and the last log index that it covers.
    under_way: WeakKeyDictionary[RaftCore, tuple[int, int]] = WeakKeyDictionary()
    commit_stock, tick_stock = RaftCore.commit_store, RaftCore.tick

    def commit_store(self: RaftCore) -> None:
        store, log = self.store, self.journal
        assert isinstance(store, SimStore)
        store._lose_unsynced = self.leading
        if not self.leading:
            store.sync()
            under_way.pop(self, None)
        if not (self.leading and store.dirty):
            commit_stock(self)
            return
        left, _ = under_way.get(self, (2, 0))
        under_way[self] = (left, log.last_index)
        log.before_flush()
        store.commit()
        log.needs_commit = False

    def tick(self: RaftCore) -> None:
        left, covered = under_way.get(self, (0, 0))
        if covered and (left == 0 or not self.leading):
            del under_way[self]
            assert isinstance(self.store, SimStore)
            self.store.sync()
            self.journal.durable_index = min(covered, self.journal.last_index)
        elif covered:
            under_way[self] = (left - 1, covered)
        tick_stock(self)

    return _both(
        _both(
            _replaced(RaftCore, "commit_store", commit_store),
            _replaced(RaftCore, "persist_store", commit_store),
        ),
        _replaced(RaftCore, "tick", tick),
    )


def _ahead_unflushed() -> AbstractContextManager[None]:
    return _replaced(SimStore, "persist", SimStore.show)


def _marks_by_wall_clock() -> AbstractContextManager[None]:
    """Each node forgets idempotency keys by a clock of its own."""
    numbers = itertools.count()
    ahead_us: WeakKeyDictionary[StateMachine, int] = WeakKeyDictionary()
    now_ahead_us = 0
    apply_stock, read_stock = StateMachine.apply, marks.read

    def apply(self: StateMachine, w: Writer, index: int, entry: bytes) -> Applied:
        nonlocal now_ahead_us
        if self not in ahead_us:
            ahead_us[self] = 300_000 * (next(numbers) % 3)
        now_ahead_us = ahead_us[self]
        return apply_stock(self, w, index, entry)

    def read(r: Reader, topic_id: int, digest: bytes, now_us: int) -> marks.Mark | None:
        return read_stock(r, topic_id, digest, now_us + now_ahead_us)

    return _both(_replaced(StateMachine, "apply", apply), _replaced(marks, "read", read))


def _repair_forgets_keys() -> AbstractContextManager[None]:
    """What is left of a publish when its repeats are taken out loses its idempotency keys."""
    stock = keyed_publish._cut

    def cut(part: keyed_publish.Part, keep: list[int]) -> keyed_publish.Part:
        left = stock(part, keep)
        left.facts.ClearField("marks")
        return left

    return _replaced(keyed_publish, "_cut", cut)


def _checksums_off() -> AbstractContextManager[None]:
    return _replaced(journal, "_verified", _believe)


def _believe(index: int, value: bytes) -> journal.JournalRow:
    _, term, kind = journal._ROW.unpack_from(value)
    return journal.JournalRow(index, term, kind, value[journal.ROW_HEADER :])


def _cure(name: str) -> Sabotage:
    return Sabotage(
        name,
        f"the engine's cure {name} is off",
        cures=dataclasses.replace(ALL, **{name: False}),
        planted=_WITH.get(name, nullcontext),
    )


#: Cures that the order of a turn makes needless by itself: the order is disturbed with them.
_WITH: dict[str, Callable[[], AbstractContextManager[None]]] = {"leader_counts_durable": _late_fsync}


_PLANTED = (
    Sabotage("dedup_off", "retries are stored again", planted=_dedup_off),
    Sabotage("apply_by_chance", "applying an entry is not deterministic", planted=_apply_by_chance),
    Sabotage("commit_before_delivery", "offsets are committed when sent", planted=_commit_before_delivery),
    Sabotage("offsets_go_back", "a late commit overwrites a newer one", planted=_offsets_go_back),
    Sabotage("skip_at_start", "a session starts beyond the committed offset", planted=_start_at_the_end),
    Sabotage("late_committer", "an ack as a commit ends is not seen", planted=_late_committer),
    Sabotage("local_reads", "reads ask no leader", planted=_local_reads),
    Sabotage("torn_commits", "a power cut leaves half a transaction", planted=_torn_commits),
    Sabotage("lying_disk", "fsync returns before the data is on the disk", planted=_lying_disk),
    Sabotage("ahead_unflushed", "the write-ahead log is not flushed", planted=_ahead_unflushed),
    Sabotage("apply_twice", "the applied index is stored apart from its effects", planted=_applied_apart),
    Sabotage("snapshot_forgets", "a snapshot leaves producers out", planted=_snapshot_without_producers),
    Sabotage("checksums_off", "stored rows are believed", planted=_checksums_off),
    Sabotage("marks_by_wall_clock", "keys are forgotten by the node's clock", planted=_marks_by_wall_clock),
    Sabotage("repair_forgets_keys", "a mixed publish loses its new keys", planted=_repair_forgets_keys),
)

#: Every planted bug by name.
SABOTAGES: dict[str, Sabotage] = {
    sabotage.name: sabotage
    for sabotage in (*(_cure(field.name) for field in dataclasses.fields(Cures)), *_PLANTED)
}
