"""The whole state as a stream, and the stream as a fresh environment.

A replica that is too far behind for the log gets everything: the state as one
read transaction sees it, and of the journal just the rows the state refers to.
What is the receiver's own (identity, term and vote) is not in the stream.

The stream is a magic, then frames: length and CRC-32C (u32, big-endian), then
the payload. The first frame says what the snapshot covers, frames of rows
follow, table by table in key order, and the last frame counts the rows. Frames
need not match the pieces in which the stream is carried.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c
import msgspec

from holdfast.errors import StorageError
from holdfast.storage import identity, journal, membership
from holdfast.storage.port import Reader, Staged, Store, Table

#: Of the stream. Its rows are without seals; version 2 has index rows with a hash, version 3 more tables.
STREAM_VERSION = 3
_READS = frozenset((1, 2, 3))

_MAGIC = b"HFSNAP\x00\x01"
_FRAME = struct.Struct(">II")
_ROW = struct.Struct(">BHI")  # table, length of key, length of value
_HEAD = struct.Struct(">BIQQ")  # kind, format version, last index, last term; then the cluster id
_ROWS = b"R"
_TAIL = struct.Struct(">BQ")  # kind, number of rows
_KIND_HEAD = ord("H")
_KIND_ROWS = _ROWS[0]
_KIND_TAIL = ord("T")

# Numbers are part of the stream's format: never reused.
_NUMBER: dict[Table, int] = {
    Table.JOURNAL: 1,
    Table.INDEX: 2,
    Table.REFS: 3,
    Table.TOPICS: 4,
    Table.PARTITIONS: 5,
    Table.PRODUCERS: 6,
    Table.GROUPS: 7,
    Table.OFFSETS: 8,
    Table.FLOWS: 9,
    Table.ACKS: 10,
    Table.RETRIES: 11,
    Table.MEMBERS: 12,
    Table.MARKS: 13,
    Table.MARK_AGES: 14,
    Table.CURSORS: 15,
}
_TABLE = {number: table for table, number in _NUMBER.items()}

#: Payload of a frame, about; one larger row makes a larger frame.
CHUNK_BYTES = 1 << 20
#: A frame larger than this is refused before it is buffered.
_MAX_FRAME = 1 << 28
#: Received bytes per commit into the fresh environment.
_COMMIT_BYTES = 8 << 20


class SnapshotPoint(msgspec.Struct, frozen=True, gc=False):
    """The last log entry a snapshot covers."""

    last_index: int
    last_term: int


def point(r: Reader) -> SnapshotPoint:
    """What ``export`` of this reader covers: everything applied.

    Raises:
        StorageError: the journal does not know the applied entry.
    """
    applied = journal.read_meta(r).applied_index
    term = journal.verified_term(r, applied)
    if term is None:
        raise StorageError(f"the applied entry {applied} is not in the log")
    return SnapshotPoint(applied, term)


def export(r: Reader, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The stream, in pieces of about ``chunk_bytes``.

    The reader has to stay open until the last piece has been taken.

    Raises:
        StorageError: the store lacks a row its state refers to.
    """
    covers = point(r)
    own = identity.read_identity(r)
    cluster = b"" if own is None else own[1].encode()
    head = _HEAD.pack(_KIND_HEAD, STREAM_VERSION, covers.last_index, covers.last_term) + cluster
    yield _MAGIC + _frame([head])
    rows = 0
    parts: list[bytes] = [_ROWS]
    size = 0
    for table, key, value in _rows(r, covers.last_index):
        parts += (_ROW.pack(_NUMBER[table], len(key), len(value)), key, value)
        size += _ROW.size + len(key) + len(value)
        rows += 1
        if size >= chunk_bytes:
            yield _frame(parts)
            parts = [_ROWS]
            size = 0
    if size:
        yield _frame(parts)
    yield _frame([_TAIL.pack(_KIND_TAIL, rows)])


class Importer:
    """Fills a fresh environment from the stream and installs it.

    On the thread that owns the store's writer. ``feed`` the pieces in order,
    then ``install``; or ``discard``.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._staged: Staged | None = store.stage()
        self._buffer = bytearray()
        self._started = False
        self._covers: SnapshotPoint | None = None
        self._rows = 0
        self._uncommitted = 0
        self._complete = False

    @property
    def complete(self) -> bool:
        """True when the whole stream has been received."""
        return self._complete

    @property
    def covers(self) -> SnapshotPoint | None:
        """What the snapshot covers; None until its first frame is there."""
        return self._covers

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream.

        Raises:
            StorageError: the stream is damaged, foreign or too long; the
                importer has discarded everything.
            StorageFullError: no room; likewise.
        """
        if self._staged is None:
            raise StorageError("the snapshot has been installed or discarded")
        try:
            self._buffer += data
            self._take_frames(self._staged)
        except BaseException:
            self.discard()
            raise

    def install(self) -> SnapshotPoint:
        """Replace the store's content in one atomic step; durable on return.

        Term, vote, membership and identity stay the store's own. Any cache of the store's
        content has to be dropped afterwards.

        Raises:
            StorageError: the stream is not complete, or older than the store's
                state; the store is as it was.
        """
        staged, covers = self._staged, self._covers
        if staged is None:
            raise StorageError("the snapshot has been installed or discarded")
        try:
            if not self._complete or covers is None:
                raise StorageError("the snapshot is not complete")
            self._adopt(staged, covers)
            staged.install()
        except BaseException:
            self.discard()
            raise
        self._staged = None
        return covers

    def discard(self) -> None:
        """Drop what was received; nothing to do after ``install``."""
        staged, self._staged = self._staged, None
        self._buffer.clear()
        if staged is not None:
            staged.discard()

    def _adopt(self, staged: Staged, covers: SnapshotPoint) -> None:
        """Carry over what is the receiver's own."""
        with self._store.read() as r:
            own = identity.read_identity(r)
            meta = journal.read_meta(r)
            membership.carry(r, staged.writer())
        if covers.last_index < meta.applied_index:
            raise StorageError(
                f"the snapshot covers entry {covers.last_index}, "
                f"but the state is at {meta.applied_index} already"
            )
        w = staged.writer()
        if own is not None:
            identity.write_identity(w, own[1], own[2])
        journal.set_term_and_vote(w, meta.term, meta.voted_for)
        journal.set_base(w, covers.last_index, covers.last_term)

    def _take_frames(self, staged: Staged) -> None:
        buffer = self._buffer
        if not self._started:
            if len(buffer) < len(_MAGIC):
                return
            if not buffer.startswith(_MAGIC):
                raise StorageError("not a snapshot of this format")
            del buffer[: len(_MAGIC)]
            self._started = True
        at = 0
        while len(buffer) - at >= _FRAME.size:
            length, crc = _FRAME.unpack_from(buffer, at)
            if not 0 < length <= _MAX_FRAME:
                raise StorageError(f"a snapshot frame of {length} bytes")
            end = at + _FRAME.size + length
            if end > len(buffer):
                break
            payload = bytes(buffer[at + _FRAME.size : end])
            if google_crc32c.value(payload) != crc:
                raise StorageError("a snapshot frame is damaged: CRC-32C does not match")
            self._take(staged, payload)
            at = end
        del buffer[:at]
        if self._complete and buffer:
            raise StorageError("the snapshot goes on after its end")

    def _take(self, staged: Staged, payload: bytes) -> None:
        kind = payload[0]
        if self._complete:
            raise StorageError("the snapshot goes on after its end")
        if kind == _KIND_HEAD and self._covers is None:
            self._take_head(payload)
        elif kind == _KIND_ROWS and self._covers is not None:
            self._take_rows(staged, payload)
        elif kind == _KIND_TAIL and self._covers is not None and len(payload) == _TAIL.size:
            rows = _TAIL.unpack(payload)[1]
            if rows != self._rows:
                raise StorageError(f"the snapshot holds {self._rows} rows, its end counts {rows}")
            self._complete = True
        else:
            raise StorageError("a snapshot frame out of place")

    def _take_head(self, payload: bytes) -> None:
        if len(payload) < _HEAD.size:
            raise StorageError("the snapshot's first frame is cut short")
        _, version, index, term = _HEAD.unpack_from(payload)
        cluster = payload[_HEAD.size :].decode(errors="replace")
        if version not in _READS:
            raise StorageError(f"a snapshot of format version {version}; this program reads {STREAM_VERSION}")
        with self._store.read() as r:
            own = identity.read_identity(r)
        if own is not None and cluster and own[1] != cluster:
            raise StorageError(f"a snapshot of cluster {cluster!r}; this is {own[1]!r}")
        self._covers = SnapshotPoint(index, term)

    def _take_rows(self, staged: Staged, payload: bytes) -> None:
        w = staged.writer()
        at = 1
        while at < len(payload):
            if at + _ROW.size > len(payload):
                raise StorageError("a snapshot frame ends inside a row")
            number, key_length, value_length = _ROW.unpack_from(payload, at)
            at += _ROW.size
            middle, end = at + key_length, at + key_length + value_length
            table = _TABLE.get(number)
            if table is None or end > len(payload):
                raise StorageError("a snapshot row is of no known table or too long")
            w.append(table, payload[at:middle], payload[middle:end])
            self._rows += 1
            at = end
        self._uncommitted += len(payload)
        if self._uncommitted >= _COMMIT_BYTES:
            # Bounds the memory of the open transaction.
            staged.commit()
            self._uncommitted = 0


def _rows(r: Reader, last_index: int) -> Iterator[tuple[Table, bytes, bytes]]:
    for table in _NUMBER:
        if table is Table.JOURNAL:
            for key in r.scan_keys(Table.REFS):
                if key > journal.row_key(last_index):
                    raise StorageError(f"the state refers to a log entry that is not there: {key.hex()}")
                # Looked at before it goes: another replica takes it for good.
                yield table, key, journal.verified_value(r, key)
        else:
            for key, value in r.scan(table):
                yield table, key, value


def _frame(parts: list[bytes]) -> bytes:
    payload = b"".join(parts)
    return b"".join((_FRAME.pack(len(payload), google_crc32c.value(payload)), payload))
