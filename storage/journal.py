"""The replicated log's rows, and what a node must remember about consensus.

``JOURNAL`` maps a log index to term, kind and command. It is append-only and
holds every payload byte once: index rows of partitions point into it. So a row
has two owners. The log needs rows above its *base*; the state needs rows that
``REFS`` counts. Moving the base up drops the rows nobody refers to; the others
stay until retention drops their last batch.

The base stands for everything up to it: ``base_index`` and ``base_term`` are
those of the last entry the log has let go. A fresh store has base index 1,
term 0: the entry every node of a new cluster starts from, which is no row.

Nothing here knows a consensus message; the functions work on any Reader or
Writer of the port.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum

import google_crc32c
import msgspec

from holdfast.errors import StorageError
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Reader, Table, Writer


class EntryKind(IntEnum):
    """What a row's command is."""

    COMMAND = 0  # an entry of operations
    NO_OP = 1  # a new leader's first entry; empty


# Row value: CRC-32C, term, kind, then the command. The CRC covers the command,
# then index, term and kind, so that a row in the wrong place is found out too.
_ROW = struct.Struct(">IQB")
_SEAL = struct.Struct(">QQB")
_U64 = struct.Struct(">Q")
_BASE = struct.Struct(">QQ")

#: Bytes before the command in a row's value.
ROW_HEADER = _ROW.size

_VOTE = b"raft.vote"  # term, then the node voted for
_COMMIT = b"raft.commit"
_APPLIED = b"raft.applied"
_BASE_KEY = b"raft.base"
_RUNS = b"raft.runs"  # of the live log: first index and term of each run of equal terms
_SWEPT = b"raft.swept"  # up to here rows nobody refers to have been deleted

#: The log of a fresh store ends here: the entry before the first row.
FIRST_BASE_INDEX = 1
FIRST_BASE_TERM = 0


class JournalRow(msgspec.Struct, frozen=True, gc=False):
    """One entry of the log."""

    index: int
    term: int
    kind: int
    command: bytes


class RaftMeta(msgspec.Struct, frozen=True, gc=False):
    """What a node remembers: the vote, and how far its log and state go."""

    term: int
    voted_for: str | None
    commit_index: int
    applied_index: int
    base_index: int
    base_term: int
    last_index: int


def row_key(index: int) -> bytes:
    """Key of the entry at ``index``, in ``JOURNAL`` and in ``REFS``."""
    return _U64.pack(index)


def append(w: Writer, index: int, term: int, kind: int, command: bytes) -> None:
    """Add the entry after the last one.

    Raises:
        StorageError: ``index`` is not last index + 1.
    """
    last = _last_index(w)
    if index != last + 1:
        raise StorageError(f"log entry {index} does not follow the last one, {last}")
    crc = google_crc32c.extend(google_crc32c.value(command), _SEAL.pack(index, term, kind))
    w.append(Table.JOURNAL, _U64.pack(index), b"".join((_ROW.pack(crc, term, kind), command)))


def read(r: Reader, index: int) -> JournalRow | None:
    """The entry at ``index``; None when there is no such row.

    A row at or below the base may or may not be there still.

    Raises:
        DamagedRowError: the row is damaged.
    """
    value = r.get(Table.JOURNAL, _U64.pack(index))
    return None if value is None else _verified(index, value)


def expect(r: Reader, index: int) -> JournalRow:
    """The entry at ``index``, which has to be there.

    Raises:
        DamagedRowError: it is damaged, or missing.
    """
    row = read(r, index)
    if row is None:
        raise missing(index)
    return row


def missing(index: int) -> DamagedRowError:
    """A row that has to be there is not."""
    return DamagedRowError(
        Table.JOURNAL,
        _U64.pack(index),
        f"log entry {index} is missing from the store",
        metadata={"log_index": str(index)},
    )


def verified_value(r: Reader, key: bytes) -> bytes:
    """A row's value as stored, its CRC checked.

    Raises:
        DamagedRowError: it is damaged, or missing.
    """
    (index,) = _U64.unpack(key)
    value = r.get(Table.JOURNAL, key)
    if value is None:
        raise missing(index)
    _verified(index, value)
    return value


def check_value(key: bytes, value: bytes) -> None:
    """
    Raises:
        DamagedRowError: the CRC of a row's value does not match.
    """
    _verified(index_of(key), value)


def verified_term(r: Reader, index: int) -> int | None:
    """``read_term``, with the row's CRC checked: its term is covered.

    Raises:
        DamagedRowError: the row is damaged.
    """
    row = read(r, index)
    return read_term(r, index) if row is None else row.term


def index_of(key: bytes) -> int:
    """The log index of a row's key."""
    index: int = _U64.unpack(key)[0]
    return index


def rewrite(w: Writer, row: JournalRow) -> None:
    """Put back a row that was damaged or missing, as another replica has it.

    Raises:
        StorageError: it cannot be read back.
    """
    crc = google_crc32c.extend(google_crc32c.value(row.command), _SEAL.pack(row.index, row.term, row.kind))
    key = _U64.pack(row.index)
    w.put(Table.JOURNAL, key, b"".join((_ROW.pack(crc, row.term, row.kind), row.command)))
    if read(w, row.index) != row:
        raise missing(row.index)


def _verified(index: int, value: bytes) -> JournalRow:
    if len(value) < ROW_HEADER:
        raise _damaged(index, f"only {len(value)} bytes")
    crc, term, kind = _ROW.unpack_from(value)
    command = value[ROW_HEADER:]
    if crc != google_crc32c.extend(google_crc32c.value(command), _SEAL.pack(index, term, kind)):
        raise _damaged(index, "CRC-32C does not match")
    return JournalRow(index, term, kind, command)


def _damaged(index: int, what: str) -> DamagedRowError:
    return DamagedRowError(
        Table.JOURNAL,
        _U64.pack(index),
        f"log entry {index} is damaged: {what}",
        metadata={"log_index": str(index)},
    )


def read_term(r: Reader, index: int) -> int | None:
    """Term of the entry at ``index``, the base included; None when not known."""
    head = r.get_slice(Table.JOURNAL, _U64.pack(index), 0, ROW_HEADER)
    if head is not None:
        return _term_of(head, index)
    base_index, base_term = _read_base(r)
    return base_term if index == base_index else None


def scan_terms(r: Reader, first: int, last: int) -> Iterator[tuple[int, int]]:
    """(index, term) of the rows from ``first`` to ``last``, both inclusive."""
    for key in r.scan_keys(Table.JOURNAL, _U64.pack(first), _U64.pack(last + 1)):
        head = r.get_slice(Table.JOURNAL, key, 0, ROW_HEADER)
        (index,) = _U64.unpack(key)
        yield index, _term_of(head or b"", index)


def truncate_from(w: Writer, index: int) -> int:
    """Delete the entries from ``index`` on; returns how many.

    Raises:
        StorageError: an entry that is committed, applied or below the base
            would go: acknowledged data.
    """
    floor = max(_read_u64(w, _COMMIT), _read_u64(w, _APPLIED), _read_base(w)[0])
    if index <= floor:
        raise StorageError(f"refusing to truncate the log from {index}: entries up to {floor} are committed")
    doomed = list(w.scan_keys(Table.JOURNAL, _U64.pack(index)))
    for key in reversed(doomed):
        w.delete(Table.JOURNAL, key)
    return len(doomed)


def trim_to(w: Writer, base_index: int, base_term: int, limit: int) -> int:
    """Move the base up and delete rows at or below it that the state does not refer to.

    The base moves at once; rows are visited ``limit`` at a time, so that one
    transaction frees a bounded number of pages. A lower ``base_index`` than the
    present one leaves the base and goes on deleting.

    Returns:
        How many rows were visited, deleted or kept for their batches. Less
        than ``limit``: done.

    Raises:
        StorageError: the new base is not applied yet, or its term is not that
            of the log's entry.
    """
    old_base = _read_base(w)[0]
    if base_index > old_base:
        if base_index > _read_u64(w, _APPLIED):
            raise StorageError(f"cannot trim the log to {base_index}: not applied yet")
        if verified_term(w, base_index) != base_term:
            raise StorageError(f"cannot trim the log to {base_index}: it is not an entry of term {base_term}")
        w.put(Table.META, _BASE_KEY, _BASE.pack(base_index, base_term))
    else:
        base_index = old_base
    swept = _read_u64(w, _SWEPT)
    if swept >= base_index or limit <= 0:
        return 0
    visited: list[bytes] = []
    for key in w.scan_keys(Table.JOURNAL, _U64.pack(swept + 1), _U64.pack(base_index + 1)):
        visited.append(key)
        if len(visited) == limit:
            break
    for key in visited:
        if w.get(Table.REFS, key) is None:
            w.delete(Table.JOURNAL, key)
    reached = _U64.unpack(visited[-1])[0] if len(visited) == limit else base_index
    w.put(Table.META, _SWEPT, _U64.pack(reached))
    return len(visited)


def read_meta(r: Reader) -> RaftMeta:
    """All of it; the commit index never exceeds what the log holds."""
    vote = r.get(Table.META, _VOTE)
    term, voted_for = 0, None
    if vote is not None:
        (term,) = _U64.unpack_from(vote)
        voted_for = vote[8:].decode() or None
    base_index, base_term = _read_base(r)
    last_index = _last_index(r)
    commit_index = min(_read_u64(r, _COMMIT), last_index)
    applied_index = _read_u64(r, _APPLIED)
    if applied_index > last_index:
        raise StorageError(f"the log ends at {last_index}, but entry {applied_index} has been applied")
    return RaftMeta(term, voted_for, commit_index, applied_index, base_index, base_term, last_index)


def set_term_and_vote(w: Writer, term: int, vote: str | None) -> None:
    """Remember the term and, in it, the vote.

    Raises:
        StorageError: the term goes back, or another vote in the same term.
    """
    old = w.get(Table.META, _VOTE)
    if old is not None:
        (old_term,) = _U64.unpack_from(old)
        old_vote = old[8:].decode() or None
        if term < old_term or (term == old_term and old_vote is not None and vote != old_vote):
            raise StorageError(
                f"refusing to change the vote of term {old_term} for {old_vote} to term {term} for {vote}"
            )
    w.put(Table.META, _VOTE, _U64.pack(term) + (vote or "").encode())


def read_term_runs(r: Reader) -> list[tuple[int, int]] | None:
    """(first index, term) of the runs of equal terms above the base, as last written.

    Later entries continue the last run; the first ones may be below the base by now.
    None in a store that was filled without them.
    """
    value = r.get(Table.META, _RUNS)
    return None if value is None else list(_BASE.iter_unpack(value))


def set_term_runs(w: Writer, runs: Iterable[tuple[int, int]]) -> None:
    """Remember where terms begin: so that no term is ever taken from a row that may be damaged."""
    w.put(Table.META, _RUNS, b"".join(_BASE.pack(start, term) for start, term in runs))


def set_commit(w: Writer, index: int) -> None:
    """Remember the commit index."""
    w.put(Table.META, _COMMIT, _U64.pack(index))


def set_applied(w: Writer, index: int) -> None:
    """Remember the applied index, in the same transaction as its effects."""
    w.put(Table.META, _APPLIED, _U64.pack(index))


def set_base(w: Writer, index: int, term: int) -> None:
    """Start the log at ``index``: for filling a fresh environment from a snapshot.

    Base, commit and applied index become ``index``.

    Raises:
        StorageError: there are entries above it.
    """
    last = w.last_key(Table.JOURNAL)
    if last is not None and _U64.unpack(last)[0] > index:
        raise StorageError(f"cannot start the log at {index}: it goes on to {_U64.unpack(last)[0]}")
    packed = _U64.pack(index)
    w.put(Table.META, _BASE_KEY, _BASE.pack(index, term))
    w.put(Table.META, _SWEPT, packed)
    w.put(Table.META, _COMMIT, packed)
    w.put(Table.META, _APPLIED, packed)


def drop_unreferenced(w: Writer, index: int) -> None:
    """The state's last reference to a row is gone: delete it if the log let it go too."""
    if index <= _read_base(w)[0]:
        w.delete(Table.JOURNAL, _U64.pack(index))


def _term_of(head: bytes, index: int) -> int:
    if len(head) < ROW_HEADER:
        raise _damaged(index, f"only {len(head)} bytes")
    term: int = _ROW.unpack_from(head)[1]
    return term


def _read_base(r: Reader) -> tuple[int, int]:
    value = r.get(Table.META, _BASE_KEY)
    if value is None:
        return FIRST_BASE_INDEX, FIRST_BASE_TERM
    base_index, base_term = _BASE.unpack(value)
    return base_index, base_term


def _read_u64(r: Reader, key: bytes) -> int:
    """A stored index; everything starts at the first base."""
    value = r.get(Table.META, key)
    return FIRST_BASE_INDEX if value is None else _U64.unpack(value)[0]


def _last_index(r: Reader) -> int:
    base_index = _read_base(r)[0]
    last = r.last_key(Table.JOURNAL)
    # The rows still kept at the end of the table may all be below the base.
    return base_index if last is None else max(base_index, _U64.unpack(last)[0])
