"""The write-ahead log of one environment: small transactions made durable without a commit.

A commit of LMDB writes a dozen pages, wherever pages are free, and waits for two flushes, data and
then the meta page. A record here is one flush of a few hundred bytes at the next place of a file
whose blocks are all written already. The transaction stays open meanwhile; its commit, ten or a
thousand records later, makes all of them obsolete at once.

The file is ``ahead.wal`` beside ``data.mdb``. Records lie one after the other from its beginning::

    u32 CRC-32C of all that follows
    4 bytes "HFWA"
    u32 length of the body
    u64 epoch: the number of the commit that the changes follow
    u32 number of the record within the epoch, from 0
    body: changes, each u8 kind, u8 table, u16 length of the key, u32 length of the value, key, value

all integers big-endian. The environment counts its commits itself, in a row of LMDB's main
database (``EPOCH``). With each commit the epoch ends and records begin at the file's beginning
again: what lies behind them belongs to an older epoch, which nobody asks for any more.

A record that a crash cut short fails its CRC, and was not acknowledged. One that fails although a
later record of its epoch is whole was not cut short: that is damage, and the store is not opened.
As in any log of this kind, damage to the very last record cannot be told from a crash.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from holdfast.errors import StorageError, StorageFullError
from holdfast.storage.damage import START_OVER
from holdfast.storage.port import Table

#: Changes of more bytes than this, keys and values, are committed: they are written once then, not twice.
AHEAD_CHANGES = 64 << 10
#: Bytes of the file. A record that does not fit any more makes a commit instead.
AHEAD_FILE = 1 << 20

#: Key of the row that counts commits; its value is made by ``pack_epoch``.
EPOCH = b"epoch"

_NAME = "ahead.wal"
_CRC = struct.Struct(">I")
_MAGIC = b"HFWA"
_HEAD = struct.Struct(">4sIQI")
_CHANGE = struct.Struct(">BBHI")
_HEADER = _CRC.size + _HEAD.size
_EPOCH = struct.Struct(">QI")
#: Numbered by their place: only ever added to.
_TABLES = tuple(Table)
_NUMBERS = {table: number for number, table in enumerate(_TABLES)}


class Kind(IntEnum):
    """What became of a row."""

    PUT = 0
    DELETE = 1


class Change(NamedTuple):
    """One row written, its seal included, or deleted."""

    kind: Kind
    table: Table
    key: bytes
    value: bytes


def pack_epoch(epoch: int) -> bytes:
    return _EPOCH.pack(epoch, google_crc32c.value(epoch.to_bytes(8)))


def unpack_epoch(row: bytes | None) -> int:
    """The epoch of a row as ``pack_epoch`` made it; 0 without one.

    Raises:
        StorageError: the row is damaged.
    """
    if row is None:
        return 0
    if len(row) == _EPOCH.size:
        epoch: int
        epoch, crc = _EPOCH.unpack(row)
        if google_crc32c.value(epoch.to_bytes(8)) == crc:
            return epoch
    raise StorageError(f"the number of the last commit is damaged; {START_OVER}")


class Changes:
    """What a transaction has changed and is not durable yet.

    Attributes:
        list: in order.
        size: bytes of keys and values.
        shown: how many of them readers see.
        shown_size: bytes of those.
    """

    __slots__ = ("list", "shown", "shown_size", "size")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.list: list[Change] = []
        self.size = 0
        self.shown = 0
        self.shown_size = 0

    def note(self, kind: Kind, table: Table, key: bytes, value: bytes) -> None:
        self.size += len(key) + len(value)
        self.list.append(Change(kind, table, key, value))


class WriteAhead:
    """The file of one environment; used by the thread that writes.

    Raises:
        StorageError: the file cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._epoch = 0
        self._number = 0
        self._end = 0
        self._path = folder / _NAME
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise StorageError(f"cannot open {self._path}: {error}") from error

    def recover(self, epoch: int) -> list[Change]:
        """The changes that follow commit ``epoch``, in their order.

        Raises:
            StorageError: a record is damaged, of a newer version, or follows a later commit, which
            the disk has lost.
        """
        return list(self._read(epoch))

    def start(self, epoch: int) -> None:
        """Commit ``epoch`` is done: what is here is obsolete, and records begin anew."""
        self._epoch, self._number, self._end = epoch, 0, 0

    def prepare(self) -> None:
        """Write every block of the file once, so that a flush of one has nothing else to write.

        Raises:
            StorageFullError: no room for it.
            StorageError: the disk fails.
        """
        try:
            if os.fstat(self._fd).st_size != AHEAD_FILE:
                os.pwrite(self._fd, bytes(AHEAD_FILE), 0)
                os.ftruncate(self._fd, AHEAD_FILE)
            # Also when it was there: whoever made it may have ended before this.
            os.fsync(self._fd)
            # Else the cache keeps the file as one piece, and counts all of it as written with each record.
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise (StorageFullError if full else StorageError)(
                f"cannot prepare {self._path}: {error}"
            ) from error

    @property
    def holds(self) -> bool:
        """Whether there are records since the last commit."""
        return self._number > 0

    def append(self, changes: Sequence[Change]) -> bool:
        """Make ``changes`` durable; False when there is no room for them, and nothing was done.

        Raises:
            OSError: the disk failed. Whether they are durable is not known.
        """
        body = b"".join(
            part
            for kind, table, key, value in changes
            for part in (_CHANGE.pack(kind, _NUMBERS[table], len(key), len(value)), key, value)
        )
        if self._end + _HEADER + len(body) > AHEAD_FILE:
            return False
        sealed = _HEAD.pack(_MAGIC, len(body), self._epoch, self._number) + body
        record = _CRC.pack(google_crc32c.value(sealed)) + sealed
        if os.pwrite(self._fd, record, self._end) != len(record):
            raise OSError(f"a record of {len(record)} bytes was cut short")
        os.fdatasync(self._fd)
        self._end += len(record)
        self._number += 1
        return True

    def close(self) -> None:
        os.close(self._fd)

    def _read(self, epoch: int) -> Iterator[Change]:
        try:
            data = os.pread(self._fd, AHEAD_FILE, 0)
        except OSError as error:
            raise StorageError(f"cannot read {self._path}: {error}") from error
        at = number = 0
        while (record := _record_at(data, at)) is not None:
            found, place, body, end = record
            if found > epoch:
                raise StorageError(
                    f"{self._path} follows commit {found}, and the last one in the store "
                    f"is {epoch}: the disk has lost a commit; {START_OVER}"
                )
            if (found, place) != (epoch, number):
                return
            yield from _changes(data, body, end)
            at, number = end, number + 1
        if _goes_on(data, at, epoch, number):
            raise StorageError(f"{self._path} is damaged in record {number}; {START_OVER}")


def _record_at(data: bytes, at: int) -> tuple[int, int, int, int] | None:
    """Epoch, number, begin and end of the body of the record there; None when it is not whole."""
    if at + _HEADER > len(data):
        return None
    (crc,) = _CRC.unpack_from(data, at)
    _, length, epoch, number = _HEAD.unpack_from(data, at + _CRC.size)
    end = at + _HEADER + length
    if end > len(data) or google_crc32c.value(data[at + _CRC.size : end]) != crc:
        return None
    return epoch, number, at + _HEADER, end


def _goes_on(data: bytes, at: int, epoch: int, number: int) -> bool:
    """Whether a whole record of the epoch after record ``number`` lies anywhere behind ``at``."""
    hit = data.find(_MAGIC, at + _CRC.size)
    while hit >= 0:
        record = _record_at(data, hit - _CRC.size)
        if record is not None and record[0] == epoch and record[1] > number:
            return True
        hit = data.find(_MAGIC, hit + 1)
    return False


def _changes(data: bytes, at: int, end: int) -> Iterator[Change]:
    while at < end:
        kind, table, key_length, value_length = _CHANGE.unpack_from(data, at)
        key = at + _CHANGE.size
        value = key + key_length
        at = value + value_length
        if table >= len(_TABLES):
            raise StorageError(
                "the write-ahead log is of a newer version of Holdfast; use that, or a newer one"
            )
        yield Change(Kind(kind), _TABLES[table], data[key:value], data[value:at])
