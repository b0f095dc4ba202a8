"""Reading from one LMDB transaction, a snapshot's or the writer's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import lmdb

from holdfast.errors import ClosedError, StorageError
from holdfast.storage.damage import START_OVER, damaged_row
from holdfast.storage.environment import Database
from holdfast.storage.port import Reader, Table
from holdfast.storage.seal import SEAL_BYTES, SEED, seal, unsealed

#: Its rows carry a CRC of their own, because they are read in slices.
UNSEALED = Table.JOURNAL


def _over(*_: object) -> NoReturn:
    raise ClosedError("this read is over; begin another one")


class View(Reader):
    """All reads of the port; nothing it returns is a view of the map."""

    __slots__ = ("_cursor", "_dbs", "_get", "_stat")

    def __init__(self, txn: Any, dbs: dict[Table, Database]) -> None:
        # `txn` hands out memoryviews (buffers=True), so that a slice of a large
        # value copies that slice only. None of them leaves this class.
        self._dbs = dbs
        self._get = txn.get
        self._cursor = txn.cursor
        self._stat = txn.stat

    def let_go(self) -> None:
        """The transaction is over: hold on to nothing of it."""
        self._get = self._cursor = self._stat = _over

    def get(self, table: Table, key: bytes) -> bytes | None:
        try:
            value = self._get(key, None, self._dbs[table])
        except lmdb.BadValsizeError:
            return None  # no such key can have been written
        except lmdb.Error as error:
            raise read_error(table, error) from error
        if value is None:
            return None
        stored = bytes(value)
        if table is UNSEALED:
            return stored
        # As ``unsealed``, without the call: apply reads often.
        content = stored[:-SEAL_BYTES]
        if seal(key + content, SEED[table]) != stored[-SEAL_BYTES:]:
            raise damaged_row(table, key)
        return content

    def get_slice(self, table: Table, key: bytes, start: int, length: int) -> bytes | None:
        if table is not UNSEALED:
            whole = self.get(table, key)
            return None if whole is None else whole[start : start + length]
        try:
            value = self._get(key, None, self._dbs[table])
        except lmdb.BadValsizeError:
            return None  # no such key can have been written
        except lmdb.Error as error:
            raise read_error(table, error) from error
        return None if value is None else bytes(value[start : start + length])

    def has(self, table: Table, key: bytes) -> bool:
        """Whether there is such a row; it is not looked at."""
        return self.raw(table, key) is not None

    def raw(self, table: Table, key: bytes) -> bytes | None:
        """The row as it lies there."""
        try:
            value = self._get(key, None, self._dbs[table])
        except lmdb.Error as error:
            raise read_error(table, error) from error
        return None if value is None else bytes(value)

    def scan(
        self, table: Table, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        try:
            cursor = self._placed(table, start, stop, reverse)
            if cursor is None:
                return
            rows = cursor.iterprev() if reverse else cursor.iternext()
            for view, value in rows:
                key = bytes(view)
                if key < start if reverse else stop is not None and key >= stop:
                    return
                yield key, bytes(value) if table is UNSEALED else unsealed(table, key, bytes(value))
        except lmdb.Error as error:
            raise read_error(table, error) from error

    def scan_keys(
        self, table: Table, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[bytes]:
        try:
            cursor = self._placed(table, start, stop, reverse)
            if cursor is None:
                return
            rows = cursor.iterprev(values=False) if reverse else cursor.iternext(values=False)
            for view in rows:
                key = bytes(view)
                if key < start if reverse else stop is not None and key >= stop:
                    return
                yield key
        except lmdb.Error as error:
            raise read_error(table, error) from error

    def floor(self, table: Table, key: bytes) -> tuple[bytes, bytes] | None:
        try:
            cursor = self._cursor(self._dbs[table])
            above = cursor.set_range(key)
            found = (cursor.key() == key or cursor.prev()) if above else cursor.last()
            if not found:
                return None
            at, value = bytes(cursor.key()), bytes(cursor.value())
        except lmdb.Error as error:
            raise read_error(table, error) from error
        return at, value if table is UNSEALED else unsealed(table, at, value)

    def count(self, table: Table) -> int:
        try:
            entries: int = self._stat(self._dbs[table])["entries"]
        except lmdb.Error as error:
            raise read_error(table, error) from error
        return entries

    def last_key(self, table: Table) -> bytes | None:
        try:
            cursor = self._cursor(self._dbs[table])
            return bytes(cursor.key()) if cursor.last() else None
        except lmdb.Error as error:
            raise read_error(table, error) from error

    def _placed(self, table: Table, start: bytes, stop: bytes | None, reverse: bool) -> Any | None:
        """A cursor on the first row of a scan, or None when there is none."""
        cursor = self._cursor(self._dbs[table])
        if not reverse:
            found = cursor.set_range(start) if start else cursor.first()
        elif stop is not None and cursor.set_range(stop):
            found = cursor.prev()
        else:
            found = cursor.last()
        return cursor if found else None


def read_error(table: Table, error: lmdb.Error) -> StorageError:
    return StorageError(f"reading table {table.value} failed: {error}; {START_OVER}")
