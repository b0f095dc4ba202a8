"""Whole-state transfer to a follower that the log no longer reaches (3, 4, 5, 17, 18, 19).

The leader reads the state from one read transaction and sends it in chunks,
each with the snapshot's id, its offset and a CRC, within a window of bytes that
the follower's replies move on. Chunks sent and not yet acknowledged are kept
(that is the window), so that a lost one is sent again. The follower fills a
fresh environment beside its own and installs it in one step; what it answers
before that keeps the leader in office but counts for nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import google_crc32c

from holdfast.cluster import events
from holdfast.cluster.raft.followers import Follower
from holdfast.cluster.raft.messages import PeerFrame
from holdfast.errors import InternalError, StorageError, StorageFullError
from holdfast.storage import snapshot
from holdfast.storage.damage import REPAIRABLE, DamagedRowError
from holdfast.storage.port import Reader, Store
from holdfast.v1 import peer_pb2

if TYPE_CHECKING:
    from holdfast.cluster.raft.core import RaftCore


class _Sending:
    """One snapshot on its way to one follower."""

    def __init__(self, store: Store, snapshot_id: int, now: float, chunk_bytes: int) -> None:
        self.snapshot_id = snapshot_id
        self.began = now
        self.progress_at = now
        #: When what is not acknowledged was sent again; that is no progress.
        self.resent_at = now
        self._context: AbstractContextManager[Reader] | None = store.read()
        reader = self._context.__enter__()
        #: Taken from the state and not acknowledged yet: (offset, data, last).
        self.kept: deque[tuple[int, bytes, bool]] = deque()
        self.kept_bytes = 0
        self.taken = 0
        #: The next chunk to send has this offset.
        self.send_at = 0
        #: The follower has everything below.
        self.confirmed = 0
        self.exhausted = False
        try:
            self.covers = snapshot.point(reader)
            self._pieces = _cut(snapshot.export(reader, chunk_bytes=chunk_bytes), chunk_bytes)
            self._ahead = next(self._pieces)
        except BaseException:
            self.close()
            raise

    def more(self) -> None:
        """Take one more chunk from the state."""
        data = self._ahead
        try:
            self._ahead = next(self._pieces)
        except StopIteration:
            self.exhausted = True
            self.close()
        self.kept.append((self.taken, data, self.exhausted))
        self.kept_bytes += len(data)
        self.taken += len(data)

    def acked(self, next_offset: int) -> bool:
        """Forget what has arrived; False when the follower wants what is no longer kept."""
        kept = self.kept
        while kept and kept[0][0] + len(kept[0][1]) <= next_offset and not kept[0][2]:
            self.kept_bytes -= len(kept.popleft()[1])
        oldest = kept[0][0] if kept else self.taken
        return oldest <= next_offset

    def close(self) -> None:
        """Let go of the read transaction."""
        context, self._context = self._context, None
        if context is not None:
            context.__exit__(None, None, None)


def _cut(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Pieces of at most ``size``: one row may be large, and a heartbeat waits behind each chunk."""
    for piece in pieces:
        for at in range(0, len(piece), size):
            yield piece[at : at + size]


class _Receiving:
    """One snapshot on its way in."""

    def __init__(self, store: Store, leader: str, chunk: peer_pb2.SnapshotChunk) -> None:
        self.leader = leader
        self.snapshot_id = chunk.snapshot_id
        self.importer = snapshot.Importer(store)
        self.next_offset = 0


class Snapshots:
    """Sending to several followers, receiving from one leader."""

    def __init__(self, core: RaftCore) -> None:
        self._core = core
        self._sending: dict[str, _Sending] = {}
        self._receiving: _Receiving | None = None
        self._retry_at: dict[str, float] = {}

    # -- leader's side -----------------------------------------------------------

    def feed(self, follower: Follower, now: float, beat: bool) -> None:
        """Send what the window allows; with ``beat`` at least a sign of life."""
        try:
            sent = self._feed(follower, now)
        except DamagedRowError as damage:
            # Not handed on as good: repaired first, or read from another leader.
            self._abandon(follower, now, str(damage))
            core = self._core
            core.repair.want(damage)
            if damage.table not in REPAIRABLE:
                core.transfer_leadership()
            sent = False
        except StorageError as error:
            # 19: the follower keeps what it has and the log goes on to the
            # others; the state is read anew after a while.
            self._abandon(follower, now, str(error))
            sent = False
        if not sent and (beat or follower.sent_round < self._core.shipper.round):
            self._sign_of_life(follower, self._sending.get(follower.node_id))

    def _feed(self, follower: Follower, now: float) -> bool:
        """True when something was sent, or cannot be now.

        Raises:
            StorageError: the state could not be read.
        """
        core = self._core
        settings = core.settings
        sending = self._sending.get(follower.node_id)
        if sending is None:
            if now < self._retry_at.get(follower.node_id, 0.0):
                return False
            sending = self._sending[follower.node_id] = _Sending(
                core.store, core.rng.getrandbits(62) | 1, now, settings.snapshot_chunk_bytes
            )
        if now - sending.progress_at > settings.snapshot_stall:
            # A read transaction pins pages: it is not kept for a follower that takes nothing.
            self._abandon(follower, now, "the follower makes no progress")
            return False
        if (
            sending.kept
            and sending.send_at > 0
            and now - max(sending.progress_at, sending.resent_at) > settings.snapshot_retry
        ):
            # Something got lost: send what is not acknowledged again.
            sending.send_at = sending.kept[0][0]
            sending.resent_at = now
        sent = False
        for offset, data, last in list(sending.kept):
            if offset >= sending.send_at:
                if not self._send(follower, sending, offset, data, last):
                    return True
                sending.send_at = offset + len(data)
                sent = True
        while (
            not sending.exhausted
            and sending.kept_bytes < settings.snapshot_window_bytes
            and len(sending.kept) < settings.window_messages
        ):
            sending.more()
            offset, data, last = sending.kept[-1]
            if not self._send(follower, sending, offset, data, last):
                return True
            sending.send_at = offset + len(data)
            sent = True
        return sent

    def _send(self, follower: Follower, sending: _Sending, offset: int, data: bytes, last: bool) -> bool:
        core = self._core
        chunk = peer_pb2.SnapshotChunk(
            snapshot_id=sending.snapshot_id,
            offset=offset,
            crc32c=google_crc32c.value(data),
            data=data,
            last=last,
            last_index=sending.covers.last_index,
            last_term=sending.covers.last_term,
            round=core.shipper.round,
            store_bytes=0 if offset else core.store.usage().used,
        )
        if not core.outbox.send(follower.node_id, core.envelope.snapshot_chunk(core.term, chunk)):
            return False
        follower.sent_round = core.shipper.round
        follower.told_commit = core.commit_index
        return True

    def _sign_of_life(self, follower: Follower, sending: _Sending | None) -> None:
        core = self._core
        chunk = peer_pb2.SnapshotChunk(round=core.shipper.round)
        if sending is not None:
            chunk.snapshot_id = sending.snapshot_id
        if core.outbox.send(follower.node_id, core.envelope.snapshot_chunk(core.term, chunk)):
            follower.sent_round = core.shipper.round
            follower.told_commit = core.commit_index

    def on_reply(self, follower: Follower, frame: PeerFrame, now: float) -> None:
        """A follower's progress, or the end."""
        core = self._core
        if not core.leading or (frame.term != core.term and core.cures.drop_stale_replies):
            return
        reply = frame.snapshot_reply
        if not reply.uncounted:
            core.answered(follower, reply.round, now)
        sending = self._sending.get(follower.node_id)
        if sending is None or reply.snapshot_id != sending.snapshot_id:
            return
        if reply.installed:
            self._drop(follower)
            if core.emit is not None:
                core.emit(
                    events.SnapshotSent(
                        follower.node_id, sending.covers.last_index, sending.taken, now - sending.began
                    )
                )
            core.follower_has(follower, sending.covers.last_index, now, counts=not reply.uncounted)
        elif reply.refused:
            self._abandon(follower, now, "refused")
        elif not sending.acked(reply.next_offset):
            self._abandon(follower, now, "the follower begins anew")
        elif reply.next_offset > sending.confirmed:
            sending.confirmed = reply.next_offset
            sending.progress_at = now

    def _abandon(self, follower: Follower, now: float, reason: str) -> None:
        self._drop(follower)
        self._retry_at[follower.node_id] = now + self._core.settings.snapshot_retry
        if self._core.emit is not None:
            self._core.emit(events.SnapshotAborted(follower.node_id, reason))

    def _drop(self, follower: Follower) -> None:
        sending = self._sending.pop(follower.node_id, None)
        if sending is not None:
            sending.close()

    def not_needed(self, follower: Follower) -> None:
        """The log reaches the follower after all: a late ack came while its snapshot was on the way."""
        if self._sending:
            self._drop(follower)

    def link_lost(self, follower: Follower) -> None:
        """What was under way to or from this peer begins anew on a new link."""
        self._drop(follower)
        receiving = self._receiving
        if receiving is not None and receiving.leader == follower.node_id:
            self.stop_receiving()

    def stop_sending(self) -> None:
        """Leadership is lost, or the engine ends."""
        for sending in self._sending.values():
            sending.close()
        self._sending.clear()

    def stop_receiving(self) -> None:
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            receiving.importer.discard()

    # -- follower's side --------------------------------------------------------------

    def heard_append(self, leader: str) -> None:
        """Another node leads now, or the log suffices: what was half received is of no use."""
        receiving = self._receiving
        if receiving is not None and receiving.leader != leader:
            self.stop_receiving()

    def on_chunk(self, follower: Follower, frame: PeerFrame, now: float) -> None:
        """Take a chunk in order; install after the last one."""
        core = self._core
        if not core.heed_leader(follower, frame.term, now):
            return
        chunk = frame.snapshot_chunk
        core.note_leader(follower, frame.term, chunk.last_index)
        reply = peer_pb2.SnapshotReply(
            snapshot_id=chunk.snapshot_id, round=chunk.round, uncounted=core.rejoin.uncounted
        )
        if chunk.snapshot_id and chunk.last_index:
            if (
                chunk.last_index <= core.journal.base_index
                or core.journal.term(chunk.last_index) == chunk.last_term
            ):
                # Applied here, or our log has that very entry: we have all the snapshot covers.
                self.stop_receiving()
                reply.installed = True
            else:
                self._take(follower, chunk, reply)
        elif self._receiving is not None and self._receiving.snapshot_id == chunk.snapshot_id:
            reply.next_offset = self._receiving.next_offset
        core.outbox.hold(follower.node_id, core.envelope.snapshot_reply(core.term, reply))

    def _take(self, follower: Follower, chunk: peer_pb2.SnapshotChunk, reply: peer_pb2.SnapshotReply) -> None:
        core = self._core
        checked = core.cures.check_snapshot_chunks
        receiving = self._receiving
        if receiving is None or (receiving.snapshot_id != chunk.snapshot_id and checked):
            if chunk.offset != 0 and checked:
                return  # next_offset 0: from the beginning
            self.stop_receiving()
            try:
                self._check_room(chunk.store_bytes)
                receiving = self._receiving = _Receiving(core.store, follower.node_id, chunk)
            except StorageFullError:
                reply.refused = True
                return
        if checked and (
            chunk.offset != receiving.next_offset or google_crc32c.value(chunk.data) != chunk.crc32c
        ):
            # 17: what is missing or damaged is asked for again.
            reply.next_offset = receiving.next_offset
            return
        try:
            self._check_room(len(chunk.data))
            receiving.importer.feed(chunk.data)
            receiving.next_offset += len(chunk.data)
            reply.next_offset = receiving.next_offset
            if chunk.last:
                self._install(receiving, chunk)
                reply.installed = True
        except StorageFullError:
            self.stop_receiving()
            reply.refused = True
        except StorageError as error:
            # 4: it was whole on the way, so what was read from it is wrong.
            self.stop_receiving()
            if core.cures.halt_on_bad_snapshot:
                raise
            reply.installed = True
            core.note_problem(f"snapshot: {error}")

    def _check_room(self, size: int) -> None:
        """The state in use shares the disk with the one that comes: its reserve is not for this.

        Raises:
            StorageFullError: it would be touched.
        """
        free = self._core.store.usage().disk_free
        if free < size + self._core.settings.follower_reserve:
            raise StorageFullError(f"{free} bytes free on the disk; a snapshot of {size} does not fit")

    def _install(self, receiving: _Receiving, chunk: peer_pb2.SnapshotChunk) -> None:
        core = self._core
        if receiving.importer.covers != snapshot.SnapshotPoint(chunk.last_index, chunk.last_term):
            raise StorageError("the snapshot does not cover what its chunks say")
        # The present transaction (a new term, perhaps) goes first: install
        # carries term and vote over from what is committed.
        core.commit_store()
        receiving.importer.install()
        self._receiving = None
        core.replaced()
        if core.emit is not None:
            core.emit(events.SnapshotInstalled(chunk.last_index, receiving.next_offset))
        if core.journal.base_index != chunk.last_index:
            raise InternalError("the installed snapshot is not the one received")

    # -- timers ---------------------------------------------------------------------------

    def next_wakeup(self) -> float | None:
        """When a transfer needs a look though nothing arrived."""
        if not self._sending:
            return None
        retry = self._core.settings.snapshot_retry
        return min(max(s.progress_at, s.resent_at) for s in self._sending.values()) + retry
