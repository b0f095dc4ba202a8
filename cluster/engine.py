"""The engine: consensus, log, state machine and store, one turn at a time on one thread.

A turn takes everything that waits: frames of peers, proposals, timers. It ends
with at most one fsync of the store; acks and votes leave after it, and readers see
what it has applied.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.cluster import events
from holdfast.cluster.ports import Clock, EventSink, Randomness, Transport
from holdfast.cluster.raft.core import RaftCore
from holdfast.cluster.raft.cures import ALL, Cures
from holdfast.cluster.raft.host import MachineLike
from holdfast.cluster.raft.repair import RepairCounters
from holdfast.cluster.raft.requests import Requests
from holdfast.cluster.raft.settings import EngineSettings
from holdfast.cluster.results import EngineStatus, PeerStatus, Progress, ResultSink
from holdfast.errors import UnavailableError
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Store

__all__ = ["Engine", "EngineSettings"]

# PySyncObj compares times strictly: wake just after a deadline, not at it.
_TICK = 0.0001
# A stopping leader waits at most so many turns of so many seconds for its successor.
_HAND_OVER_TURNS = 50
_HAND_OVER_TURN = 0.005


class Engine:
    """One voter of one replication group.

    ``propose``, ``read_barrier``, ``status``, ``stop`` are for any thread;
    the rest belongs to the engine's. After an I/O error or a proof of
    divergence the engine is over: ``failed`` is set, nothing held is released,
    and the process should end.
    """

    def __init__(
        self,
        *,
        settings: EngineSettings,
        node_id: str,
        members: Sequence[str],
        store: Store,
        transport: Transport,
        clock: Clock,
        rng: Randomness,
        machine: MachineLike,
        sink: ResultSink,
        events: EventSink | None = None,
        cures: Cures = ALL,
    ) -> None:
        if node_id not in members:
            raise ValueError(f"{node_id} is not one of the members {', '.join(members)}")
        self._settings = settings
        self._store = store
        self._transport = transport
        self._clock = clock
        self._sink = sink
        self._emit = events
        self._requests = Requests(settings, clock, events)
        self.core = RaftCore(
            settings=settings,
            node_id=node_id,
            members=members,
            store=store,
            transport=transport,
            clock=clock,
            rng=rng,
            machine=machine,
            host=self._requests,
            cures=cures,
            emit=events,
        )
        self._requests.attach(self.core)
        self.failed: BaseException | None = None
        self._stopping = False
        self._started = False
        self._idle = False
        self._visible = self.core.applied_index
        self._next_usage = float("-inf")
        self._next_leave = float("-inf")
        self._full = False
        # With less room than two turns can take, it is measured every turn.
        self._near_full = 2 * (settings.turn_append_bytes + settings.max_op_bytes)
        self._delivered: tuple[object, ...] = ()
        self._again = False
        #: Taken since the last turn that did something.
        self._frames = 0

    # -- any thread ------------------------------------------------------------

    def propose(self, op: bytes, token: object, deadline: float) -> None:
        """Put an operation (framed by ``commands.encode_op``) into the replicated log.

        Its end is delivered to the sink as ``Completed`` with ``token``, at the
        latest about when ``deadline`` (seconds of the engine's clock) passes. On
        a follower it is forwarded to the leader.

        Raises:
            OverloadedError: too many operations, or bytes, are under way.
            StorageFullError: no room for records.
            RecordTooLargeError: the operation is larger than an entry may be.
            UnavailableError: the engine has stopped.
        """
        if self._stopping or self.failed is not None:
            raise UnavailableError("the broker is stopping; use another one")
        self._requests.propose(op, token, deadline)
        if self._idle:
            self._transport.wake()

    def read_barrier(self, token: object, deadline: float) -> None:
        """Find the log index a linearizable read must see; delivered once it is visible here.

        Raises:
            UnavailableError: the engine has stopped.
        """
        if self._stopping or self.failed is not None:
            raise UnavailableError("the broker is stopping; use another one")
        self._requests.read_barrier(token, deadline)
        if self._idle:
            self._transport.wake()

    def repair(self, damage: DamagedRowError, token: object | None = None, deadline: float = 0.0) -> None:
        """Have a damaged row fetched from another node; what found it goes on meanwhile.

        With a ``token`` its end is delivered to the sink as ``Completed``, with
        neither result nor error once the row can be read, at the latest about
        when ``deadline`` (seconds of the engine's clock) passes.

        Raises:
            OverloadedError: too much damage waits.
            UnavailableError: the engine has stopped.
        """
        if self._stopping or self.failed is not None:
            raise UnavailableError("the broker is stopping; use another one")
        self.core.repair.tell(damage, token, deadline)
        if self._idle:
            self._transport.wake()

    @property
    def repairs(self) -> RepairCounters:
        """Damage found and repaired since the start."""
        return self.core.repair.counters

    def status(self) -> EngineStatus:
        """A moment of the engine; cheap."""
        core = self.core
        leader = core.leader_id
        peers = tuple(
            PeerStatus(
                follower.node_id, follower.connected, core.match_index(follower) if core.leading else 0
            )
            for follower in core.followers.values()
        )
        full = self._full or self._requests.storage_full
        return EngineStatus(
            node_id=core.node_id,
            role=core.role,
            term=core.term,
            leader_id=leader,
            commit_index=core.commit_index,
            applied_index=core.applied_index,
            visible_index=self._visible,
            first_log_index=core.journal.base_index + 1,
            last_log_index=core.journal.last_index,
            durable_index=core.journal.durable_index,
            peers=peers,
            accepting_writes=leader is not None and not full and self.failed is None,
            pending_proposals=self._requests.queue.outstanding,
            joining=core.rejoin.joining,
        )

    def waits_below(self, index: int) -> bool:
        """Whether a caller waits for the outcome of an entry at or below ``index``; for the simulator."""
        return self._requests.waiters.waits_below(index)

    def stop(self) -> None:
        """Make ``run`` return after its turn."""
        self._stopping = True
        self._transport.wake()

    # -- the engine's thread -------------------------------------------------------

    def start(self) -> None:
        """Open the links; ``run`` does it when it has not been done."""
        if not self._started:
            self._started = True
            self._transport.start()

    def run(self) -> None:
        """Turn until stopped.

        Raises:
            HoldfastError: the store failed, or replicas have diverged.
        """
        self.start()
        try:
            while not self._stopping:
                self.turn(1.0)
            self._hand_over()
            # What was applied and shown since the last commit needs no second applying.
            self.core.commit_store()
        finally:
            self.core.snapshots.stop_sending()
            self.core.snapshots.stop_receiving()
            self._transport.close()

    def _hand_over(self) -> None:
        """A leader that stops lets a follower take over first, rather than be missed."""
        core = self.core
        asked = None
        for _ in range(_HAND_OVER_TURNS):
            if not core.leading:
                return
            if asked is None:
                asked = core.transfer_leadership()
                if asked is None and not any(f.connected for f in core.followers.values()):
                    return
            self.turn(_HAND_OVER_TURN)

    def next_wakeup(self, now: float) -> float:
        """When a turn is due though nothing arrives, on the engine's clock."""
        if self._again:
            return now
        due = self.core.next_wakeup(now) + _TICK
        waiting = self._requests.next_wakeup(now)
        if waiting is not None and waiting < due:
            due = waiting
        repair = self.core.repair.next_wakeup()
        if repair is not None and repair < due:
            due = repair
        return max(due, now)

    def turn(self, timeout: float) -> None:
        """One turn; waits up to ``timeout`` seconds when there is nothing to do.

        Raises:
            HoldfastError: the engine is over, see the class.
        """
        try:
            self._turn(timeout)
        except BaseException as error:
            self.failed = error
            if self._emit is not None:
                self._emit(events.EngineFailed(str(error)))
            raise

    def _turn(self, timeout: float) -> None:
        clock = self._clock.monotonic
        core, requests = self.core, self._requests
        now = clock()
        wait = min(timeout, self.next_wakeup(now) - now) if timeout > 0 else 0.0
        self._again = False
        if wait > 0:
            self._idle = True
            # A request that came before the flag was up has woken nobody.
            due = requests.next_wakeup(now)
            if due is not None:
                wait = max(0.0, min(wait, due - now))
        arrived = self._transport.poll(wait)
        self._idle = False

        began = clock()
        if began >= self._next_usage or requests.room < self._near_full or core.room < self._near_full:
            self._check_room(began)
        for event in arrived:
            core.on_event(event, began)
        self._frames += len(arrived)
        if arrived and not core.stirred and self.next_wakeup(began) > began:
            return  # the last of three acks, when two were enough
        core.stirred = False
        requests.sweep(began)
        store, journal, settings = self._store, core.journal, self._settings
        flushed = False
        flush_s = 0.0
        if journal.needs_commit and not core.leading:
            # The leader waits for the ack; nobody waits for what is applied here.
            before = clock()
            core.persist_store()
            flushed = True
            core.outbox.release(core.term)
            flush_s = clock() - before
        core.tick()

        ticked = clock()
        tick_s = ticked - began - flush_s
        if store.dirty or journal.applied_index != self._visible:
            # What is applied is durable on a majority: readers need not wait for this disk.
            core.show_store()
        self._visible = journal.applied_index
        if settings.early_results:
            self._report(completed=requests)
        if journal.needs_commit:
            before = clock()
            core.persist_store()
            flushed = True
            flush_s += clock() - before
        core.outbox.release(core.term)
        if flushed and core.leading and not core.followers:
            self._again = core.commit_index < journal.durable_index
        if not settings.early_results:
            self._report(completed=requests)
        if self._emit is not None and (arrived or flushed or requests.appended_ops or core.applied_ops):
            self._emit(
                events.TurnCompleted(
                    self._frames,
                    requests.appended_ops,
                    requests.appended_entries,
                    requests.appended_bytes,
                    core.applied_entries,
                    core.applied_ops,
                    flushed,
                    tick_s,
                    core.apply_s,
                    flush_s,
                )
            )
        self._frames = 0
        requests.appended_ops = requests.appended_entries = requests.appended_bytes = 0
        core.applied_ops = core.applied_entries = 0
        core.apply_s = 0.0

    def _report(self, completed: Requests) -> None:
        """Tell what is visible now, and whatever ended since."""
        core = self.core
        completed.visible(self._visible)
        ended = completed.take_completed() + core.repair.take_ended()
        state = (self._visible, core.term, core.role, core.leader_id)
        if ended or state != self._delivered:
            self._delivered = state
            touched: frozenset[tuple[int, int]] = frozenset()
            if core.touched:
                touched = frozenset(core.touched)
                core.touched.clear()
            changed: frozenset[str] = frozenset()
            if core.groups_changed:
                changed = frozenset(core.groups_changed)
                core.groups_changed.clear()
            self._sink.deliver(ended, self._progress(touched, changed))

    def _progress(
        self, touched: frozenset[tuple[int, int]] = frozenset(), groups: frozenset[str] = frozenset()
    ) -> Progress:
        core = self.core
        return Progress(
            core.applied_index,
            core.commit_index,
            core.term,
            core.role,
            core.leader_id,
            touched,
            self._visible,
            core.topics_index,
            groups,
        )

    def _check_room(self, now: float) -> None:
        """Refuse appends before the store itself fails; take them again with some room to spare."""
        settings = self._settings
        self._next_usage = now + settings.usage_interval
        usage = self._store.usage()
        reserve = settings.storage_reserve
        full = not usage.has_room(reserve + reserve // 8 if self._full else reserve)
        self.core.storage_low = full
        requests = self._requests
        requests.room = usage.room(reserve)
        requests.storage_full = full or self.core.quorum_is_full()
        if full != self._full:
            self._full = full
            if self._emit is not None:
                self._emit(events.StorageFull(full, usage.used, usage.quota, usage.disk_free))
        follower_reserve = settings.follower_reserve
        self.core.room = usage.room(follower_reserve)
        self.core.no_room = not usage.has_room(
            follower_reserve + follower_reserve // 8 if self.core.no_room else follower_reserve
        )
        if full and now >= self._next_leave and self.core.leave_to_room() is not None:
            # It has the time to stand before it is asked again.
            self._next_leave = now + settings.election_max
