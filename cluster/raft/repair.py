"""Damaged rows, fetched from another replica and written back.

A row is asked for by whoever met the damage: apply, a leader's shipping, a
snapshot's export, a reader, the scrub. Peers are asked one after the other,
the leader first. What comes is taken only when it cannot be anything else than
what was there:

* a log entry of the live log: the terms of the live log are known apart from
  the rows, and the same index and term is the same entry, committed or not;
* a log entry below the base: committed here, so what is committed elsewhere at its
  index is the same;
* an index row: it never changes once written, on any replica.

Other rows of the state change with every entry and cannot be taken from a
replica that stands elsewhere in the log. They are told about; apply stops at one
it needs.

A damaged entry above the commit index is not given up: its ack was counted,
perhaps by a leader that is gone, and a vote that denied it could lose it. The node
goes on claiming it, serves and applies nothing of it, and has it repaired. A leader that
cannot get back what it must ship or apply ends, so that another one leads.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import google_crc32c

from holdfast.cluster import events
from holdfast.cluster.raft.followers import Follower
from holdfast.cluster.raft.messages import NO_OP, Command, PeerFrame
from holdfast.cluster.results import Completed
from holdfast.errors import HoldfastError, OverloadedError, StorageError
from holdfast.storage import journal as rows
from holdfast.storage.damage import REPAIRABLE, START_OVER, DamagedRowError
from holdfast.storage.partitions import lacks_batch
from holdfast.storage.port import Table
from holdfast.v1 import peer_pb2

if TYPE_CHECKING:
    from holdfast.cluster.raft.core import RaftCore

logger = logging.getLogger(__name__)

_HEAD = struct.Struct(">QQB")

#: Rows wanted at a time; the scrub finds the others again.
MAX_WANTED = 1024
#: Of which are asked for: a row may be as large as an entry.
_MAX_ASKED = 4
#: Damage told about by other threads and not looked at yet.
_MAX_NEWS = 4096

_Key = tuple[Table, bytes]


@dataclass(slots=True)
class RepairCounters:
    """Since the start."""

    found: int = 0
    repaired: int = 0
    failed: int = 0
    #: Rows given to others.
    given: int = 0


@dataclass(slots=True)
class _Wanted:
    table: Table
    key: bytes
    request_id: int
    since: float
    next_at: float
    #: The log cannot go on here without it.
    needed: bool = False
    tries: int = 0
    failed: bool = False
    #: Callers that wait for it: token and deadline.
    waiting: list[tuple[object, float]] = field(default_factory=list)


class Repair:
    """What is damaged here and who has been asked for it. On the engine's thread, but for ``tell``."""

    def __init__(self, core: RaftCore) -> None:
        self._core = core
        self.counters = RepairCounters()
        self._wanted: dict[_Key, _Wanted] = {}
        #: Told about and not repairable: once each.
        self._hopeless: set[_Key] = set()
        self._news: deque[tuple[DamagedRowError, object | None, float]] = deque()
        self._repaired: list[object] = []
        self._led = False
        self._ended: list[Completed] = []

    # -- who meets damage --------------------------------------------------------

    def tell(self, damage: DamagedRowError, token: object | None = None, deadline: float = 0.0) -> None:
        """From any thread: have it repaired; with a token, its end is delivered as ``Completed``.

        Raises:
            OverloadedError: too much damage waits to be looked at.
        """
        if len(self._news) >= _MAX_NEWS:
            raise OverloadedError("too many damaged rows wait for repair; read from another replica")
        self._news.append((damage, token, deadline))

    def want(self, damage: DamagedRowError, *, needed: bool = False) -> None:
        """Have it repaired; ``needed``: the log cannot go on here without it."""
        wanted = self._add(damage)
        if wanted is not None and needed:
            wanted.needed = True

    def blocks(self, index: int) -> bool:
        """True while the entry at ``index`` is being repaired."""
        return bool(self._wanted) and (Table.JOURNAL, rows.row_key(index)) in self._wanted

    def _add(self, damage: DamagedRowError) -> _Wanted | None:
        core = self._core
        key = (damage.table, damage.key)
        known = self._wanted.get(key)
        if known is not None:
            return known
        repairable = damage.table in REPAIRABLE
        if not repairable and key in self._hopeless:
            return None
        if (len(self._wanted) if repairable else len(self._hopeless)) >= MAX_WANTED:
            return None
        self.counters.found += 1
        index = rows.index_of(damage.key) if damage.table is Table.JOURNAL else None
        logger.error("damage found: %s", damage)
        if core.emit is not None:
            core.emit(events.DamageFound(damage.table.value, index, repairable))
        if not repairable:
            self._hopeless.add(key)
            return None
        now = core.clock.monotonic()
        wanted = self._wanted[key] = _Wanted(damage.table, damage.key, core.rng.getrandbits(62) | 1, now, now)
        return wanted

    # -- time ------------------------------------------------------------------------

    def next_wakeup(self) -> float | None:
        """When something here is due; None when nothing is."""
        if self._news:
            return float("-inf")
        if not self._wanted:
            return None
        asked = list(self._wanted.values())[:_MAX_ASKED]
        due = min(wanted.next_at for wanted in asked)
        for wanted in self._wanted.values():
            for _, deadline in wanted.waiting:
                due = min(due, deadline)
        return due

    def tick(self, now: float) -> None:
        """Ask for what is wanted.

        Raises:
            StorageError: this leader cannot go on without a row that nobody has.
        """
        core = self._core
        while self._news:
            damage, token, deadline = self._news.popleft()
            well = (damage.table, damage.key) not in self._wanted and self._reads(damage.table, damage.key)
            # Read well: whoever told of it saw the store as it was before its repair.
            wanted = None if well else self._add(damage)
            if token is None:
                continue
            if well:
                self._repaired.append(token)
            elif wanted is None:
                self._ended.append(Completed(token, None, _unrepaired(damage), 0))
            else:
                wanted.waiting.append((token, deadline))
        if not self._wanted:
            return
        if core.leading and not self._led:
            # A new leader asks anew before it says that it cannot lead.
            for wanted in self._wanted.values():
                wanted.since, wanted.next_at, wanted.failed = now, now, False
        self._led = core.leading
        for wanted in list(self._wanted.values())[:_MAX_ASKED]:
            if wanted.next_at <= now and not self._is_well(wanted):
                self._ask(wanted, now)
        for wanted in list(self._wanted.values()):
            late = [token for token, deadline in wanted.waiting if deadline <= now]
            if late:
                wanted.waiting = [item for item in wanted.waiting if item[1] > now]
                self._end(late, StorageError("the damaged row was not repaired in time"))

    def _ask(self, wanted: _Wanted, now: float) -> None:
        core = self._core
        settings = core.settings
        alone = not core.followers
        if (alone or now >= wanted.since + settings.repair_deadline) and not self._may_go_on(wanted):
            del self._wanted[wanted.table, wanted.key]
            return
        wanted.next_at = now + (settings.repair_deadline if wanted.failed else settings.repair_retry)
        # Behind those not asked for yet.
        self._wanted[wanted.table, wanted.key] = self._wanted.pop((wanted.table, wanted.key), wanted)
        peers = [follower for follower in core.followers.values() if follower.connected]
        if not peers:
            return
        leader = core.leader_id
        peers.sort(key=lambda follower: (follower.node_id != leader, follower.node_id))
        peer = peers[wanted.tries % len(peers)]
        wanted.tries += 1
        request = peer_pb2.RowRequest(id=wanted.request_id)
        if wanted.table is Table.JOURNAL:
            request.index = rows.index_of(wanted.key)
            request.term = core.journal.term(request.index) or 0
        else:
            request.index_key = wanted.key
        core.outbox.send(peer.node_id, core.envelope.row_request(core.term, request))

    def _may_go_on(self, wanted: _Wanted) -> bool:
        """Nobody had it in time: whether it is asked for any longer."""
        core = self._core
        if not wanted.failed:
            wanted.failed = True
            self.counters.failed += 1
            logger.error("no other node has %s; this one goes on without it", _name(wanted))
            if core.emit is not None:
                core.emit(events.RepairFailed(wanted.table.value))
            self._end([token for token, _ in wanted.waiting], _unrepaired_here(wanted))
            wanted.waiting.clear()
        if wanted.needed and core.leading:
            raise StorageError(
                f"{_name(wanted)} is damaged on this leader and no node it reaches has it; another node "
                f"has to lead. When this goes on once all nodes run: {START_OVER}"
            )
        return wanted.needed

    def _is_well(self, wanted: _Wanted) -> bool:
        """True when nothing is to be repaired any more; who waits for it is told."""
        if not self._reads(wanted.table, wanted.key):
            return False
        self._done(wanted)
        return True

    def _reads(self, table: Table, key: bytes) -> bool:
        """True when the row can be read, or is rightly gone: truncated or trimmed."""
        writer = self._core.store.writer()
        try:
            if table is Table.JOURNAL:
                row = rows.read(writer, rows.index_of(key))
                return row is not None or not self._is_expected(key)
            value = writer.get(table, key)
            return table is not Table.INDEX or value is not None or not lacks_batch(writer, key)
        except DamagedRowError:
            return False

    def _is_expected(self, key: bytes) -> bool:
        journal = self._core.journal
        index = rows.index_of(key)
        if journal.base_index < index <= journal.last_index:
            return True
        return self._core.store.writer().get(Table.REFS, key) is not None

    # -- who has it ------------------------------------------------------------------------

    def on_request(self, follower: Follower, frame: PeerFrame, now: float) -> None:
        """Give a row that is known to be right; what is damaged here as well is asked for here."""
        core = self._core
        request = frame.row_request
        reply = peer_pb2.RowReply(id=request.id)
        try:
            if request.index_key:
                row = core.store.writer().get(Table.INDEX, request.index_key)
                if row is not None:
                    reply.found = True
                    reply.index_key, reply.index_row = request.index_key, row
                    reply.crc32c = google_crc32c.value(request.index_key + row)
            elif request.index:
                self._find_entry(request, reply)
        except DamagedRowError as damage:
            self.want(damage)
            reply = peer_pb2.RowReply(id=request.id)
        if reply.found:
            self.counters.given += 1
        core.outbox.send(follower.node_id, core.envelope.row_reply(core.term, reply))

    def _find_entry(self, request: peer_pb2.RowRequest, reply: peer_pb2.RowReply) -> None:
        core = self._core
        entry = core.journal.verified(request.index)
        if entry is None:
            return
        command, index, term = entry
        committed = index <= core.commit_index
        if not committed and term != request.term:
            return
        reply.found = True
        reply.committed = committed
        reply.index, reply.term, reply.kind, reply.command = index, term, command.kind, command.data
        reply.crc32c = _crc(index, term, command)

    def on_reply(self, follower: Follower, frame: PeerFrame, now: float) -> None:
        """Write back what was asked for, when it is that."""
        core = self._core
        reply = frame.row_reply
        table = Table.INDEX if reply.index_key else Table.JOURNAL
        key = reply.index_key or rows.row_key(reply.index)
        wanted = self._wanted.get((table, key))
        if not reply.found:
            for asked in self._wanted.values():
                if asked.request_id == reply.id:
                    # The next one at once, until all have been asked.
                    connected = sum(f.connected for f in core.followers.values())
                    if not asked.failed and asked.tries < connected:
                        asked.next_at = now
            return
        if wanted is None or wanted.request_id != reply.id or self._is_well(wanted):
            return
        if table is Table.INDEX:
            fits = google_crc32c.value(key + reply.index_row) == reply.crc32c
            if not fits:
                self._reject(wanted, follower)
                return
            core.store.writer().put(Table.INDEX, key, reply.index_row)
            if core.store.writer().get(Table.INDEX, key) != reply.index_row:
                raise StorageError(f"{_name(wanted)} cannot be read back; {START_OVER}")
            core.journal.needs_commit = True
        else:
            command = Command(reply.kind, reply.command)
            if not self._fits(reply, command):
                self._reject(wanted, follower)
                return
            core.journal.repair(reply.index, reply.term, command)
        self.counters.repaired += 1
        logger.warning("repaired %s from %s", _name(wanted), follower.node_id)
        if core.emit is not None:
            core.emit(events.RowRepaired(wanted.table.value, follower.node_id, now - wanted.since))
        self._done(wanted)

    def _fits(self, reply: peer_pb2.RowReply, command: Command) -> bool:
        """True when it can be no other entry than the one that was here."""
        if reply.kind > NO_OP or _crc(reply.index, reply.term, command) != reply.crc32c:
            return False
        journal = self._core.journal
        known = journal.term(reply.index)
        if known is not None:
            return known == reply.term
        return reply.committed and reply.index < journal.base_index

    def _reject(self, wanted: _Wanted, follower: Follower) -> None:
        logger.error("%s offered another row in the place of %s", follower.node_id, _name(wanted))
        if self._core.emit is not None:
            self._core.emit(events.FrameDropped(follower.node_id, "foreign_row"))

    # -- the end -------------------------------------------------------------------------------

    def _done(self, wanted: _Wanted) -> None:
        self._wanted.pop((wanted.table, wanted.key), None)
        self._repaired += [token for token, _ in wanted.waiting]

    def _end(self, tokens: list[object], error: HoldfastError) -> None:
        self._ended += [Completed(token, None, error, 0) for token in tokens]

    def take_ended(self) -> list[Completed]:
        """Callers to be told; asked when readers see what was written back."""
        if self._repaired:
            self._ended += [Completed(token, None, None, 0) for token in self._repaired]
            self._repaired.clear()
        ended, self._ended = self._ended, []
        return ended

    def replaced(self) -> None:
        """The whole state is another one now, received whole."""
        for wanted in list(self._wanted.values()):
            self._done(wanted)
        self._hopeless.clear()


def _crc(index: int, term: int, command: Command) -> int:
    crc: int = google_crc32c.extend(google_crc32c.value(command.data), _HEAD.pack(index, term, command.kind))
    return crc


def _name(wanted: _Wanted) -> str:
    if wanted.table is Table.JOURNAL:
        return f"log entry {rows.index_of(wanted.key)}"
    return f"index row {wanted.key.hex()}"


def _unrepaired_here(wanted: _Wanted) -> StorageError:
    return StorageError(f"{_name(wanted)} is damaged and no other node has it; read from another replica")


def _unrepaired(damage: DamagedRowError) -> StorageError:
    return StorageError(f"{damage}; read from another replica", metadata=damage.metadata)
