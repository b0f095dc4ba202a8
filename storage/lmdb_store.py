"""The store port on LMDB: what brokers run.

One thread writes: everything of an engine turn goes into one transaction with
one fsync. Any thread reads: a read is a snapshot, and what it returns is
copied, because LMDB's buffers die with the transaction.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import lmdb

from holdfast.errors import ClosedError, StorageError, StorageFullError, UnavailableError
from holdfast.storage.damage import START_OVER, damaged_row
from holdfast.storage.environment import Database, Environment
from holdfast.storage.port import MAX_KEY_BYTES, Reader, Staged, Table, Usage, Writer
from holdfast.storage.seal import SEAL_BYTES, SEED, seal, unsealed

logger = logging.getLogger(__name__)

#: Address space, not disk or memory; set once, because it cannot grow under readers.
DEFAULT_MAP_SIZE = 1 << 40

_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))


def _is_full(error: lmdb.Error) -> bool:
    return isinstance(error, lmdb.MapFullError) or getattr(error, "code", None) in _NO_SPACE


def _over(*_: object) -> NoReturn:
    raise ClosedError("this read is over; begin another one")


#: Its rows carry a CRC of their own, because they are read in slices.
_UNSEALED = Table.JOURNAL

_SEALED_AT_ONCE = 10_000

#: Both meta pages and the main table's.
_FIXED_PAGES = 3


class _View(Reader):
    """Reading, common to snapshots and the writer."""

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
            raise _read_error(table, error) from error
        if value is None:
            return None
        stored = bytes(value)
        if table is _UNSEALED:
            return stored
        # As ``unsealed``, without the call: apply reads often.
        content = stored[:-SEAL_BYTES]
        if seal(key + content, SEED[table]) != stored[-SEAL_BYTES:]:
            raise damaged_row(table, key)
        return content

    def get_slice(self, table: Table, key: bytes, start: int, length: int) -> bytes | None:
        if table is not _UNSEALED:
            whole = self.get(table, key)
            return None if whole is None else whole[start : start + length]
        try:
            value = self._get(key, None, self._dbs[table])
        except lmdb.BadValsizeError:
            return None  # no such key can have been written
        except lmdb.Error as error:
            raise _read_error(table, error) from error
        return None if value is None else bytes(value[start : start + length])

    def raw(self, table: Table, key: bytes) -> bytes | None:
        """The row as it lies there."""
        try:
            value = self._get(key, None, self._dbs[table])
        except lmdb.Error as error:
            raise _read_error(table, error) from error
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
                yield key, bytes(value) if table is _UNSEALED else unsealed(table, key, bytes(value))
        except lmdb.Error as error:
            raise _read_error(table, error) from error

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
            raise _read_error(table, error) from error

    def floor(self, table: Table, key: bytes) -> tuple[bytes, bytes] | None:
        try:
            cursor = self._cursor(self._dbs[table])
            above = cursor.set_range(key)
            found = (cursor.key() == key or cursor.prev()) if above else cursor.last()
            if not found:
                return None
            at, value = bytes(cursor.key()), bytes(cursor.value())
        except lmdb.Error as error:
            raise _read_error(table, error) from error
        return at, value if table is _UNSEALED else unsealed(table, at, value)

    def count(self, table: Table) -> int:
        try:
            entries: int = self._stat(self._dbs[table])["entries"]
        except lmdb.Error as error:
            raise _read_error(table, error) from error
        return entries

    def last_key(self, table: Table) -> bytes | None:
        try:
            cursor = self._cursor(self._dbs[table])
            return bytes(cursor.key()) if cursor.last() else None
        except lmdb.Error as error:
            raise _read_error(table, error) from error

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


def _read_error(table: Table, error: lmdb.Error) -> StorageError:
    return StorageError(f"reading table {table.value} failed: {error}; {START_OVER}")


class _Snapshot:
    """Context manager of one read transaction."""

    __slots__ = ("_environment", "_store", "_txn", "_view")

    def __init__(self, store: LmdbStore) -> None:
        self._store = store
        self._environment: Environment | None = None
        self._txn: Any = None
        self._view: _View | None = None

    def __enter__(self) -> _View:
        self._environment = environment = self._store._enter()
        try:
            self._txn = txn = environment.env.begin(buffers=True)
        except lmdb.Error as error:
            environment.leave()
            raise StorageError(f"cannot begin a read: {error}") from error
        self._view = view = _View(txn, environment.dbs)
        return view

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._environment is not None
        assert self._view is not None
        self._txn.abort()
        # py-lmdb gives the slot in the reader table back when the transaction object
        # goes, and the caller may keep the view: a coroutine that waits does.
        self._view.let_go()
        self._txn = None
        self._environment.leave()


class _LmdbWriter(_View, Writer):
    __slots__ = ("_delete", "_put", "changed", "failed", "txn")

    def __init__(self, environment: Environment) -> None:
        try:
            self.txn: Any = environment.env.begin(write=True, buffers=True)
        except lmdb.Error as error:
            raise StorageError(f"cannot begin a write transaction: {error}") from error
        super().__init__(self.txn, environment.dbs)
        self._put = self.txn.put
        self._delete = self.txn.delete
        self.changed = False
        self.failed: str | None = None

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self.changed = True
        if table is not _UNSEALED:
            value += seal(key + value, SEED[table])
        try:
            self._put(key, value, True, True, False, self._dbs[table])
        except lmdb.Error as error:
            self._fail(table, key, error)

    def append(self, table: Table, key: bytes, value: bytes) -> None:
        self.changed = True
        if table is not _UNSEALED:
            value += seal(key + value, SEED[table])
        try:
            placed = self._put(key, value, True, True, True, self._dbs[table])
        except lmdb.Error as error:
            self._fail(table, key, error)
        if not placed:  # LMDB does not raise on a key out of order
            self.failed = "append out of order"
            raise StorageError(f"append out of order to table {table.value}: key {key.hex()}")

    def delete(self, table: Table, key: bytes) -> bool:
        try:
            gone: bool = self._delete(key, b"", self._dbs[table])
        except lmdb.Error as error:
            self._fail(table, key, error)
        if gone:
            self.changed = True
        return gone

    def _fail(self, table: Table, key: bytes, error: lmdb.Error) -> NoReturn:
        self.failed = str(error)
        if _is_full(error):
            raise StorageFullError(f"no room to write table {table.value}: {error}") from error
        if not 0 < len(key) <= MAX_KEY_BYTES:
            raise StorageError(
                f"key of {len(key)} bytes in table {table.value}; 1 to {MAX_KEY_BYTES} allowed"
            ) from error
        raise StorageError(f"writing table {table.value} failed: {error}") from error

    def seal_rows(self, table: Table) -> None:
        """Give the rows of a table written before there were seals theirs."""
        db = self._dbs[table]
        last: bytes | None = None
        while True:
            rows: list[tuple[bytes, bytes]] = []
            try:
                cursor = self._cursor(db)
                found = cursor.first() if last is None else cursor.set_range(last + b"\x00")
                while found and len(rows) < _SEALED_AT_ONCE:
                    rows.append((bytes(cursor.key()), bytes(cursor.value())))
                    found = cursor.next()
            except lmdb.Error as error:
                raise _read_error(table, error) from error
            if not rows:
                return
            for key, value in rows:
                self.put(table, key, value)
            last = rows[-1][0]


def _used_pages(environment: Environment) -> int:
    try:
        with environment.env.begin() as txn:
            stats = [txn.stat(db) for db in environment.dbs.values()]
    except lmdb.Error as error:
        raise StorageError(f"cannot count the pages in use: {error}") from error
    return _FIXED_PAGES + sum(
        stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats
    )


class WriteSide:
    """The write transaction of one environment; used by one thread.

    ``staged``: the environment is not in use yet, so that a full disk is no
    reason to end the process.
    """

    __slots__ = ("_commits", "_counted", "_failed", "_staged", "_writer", "environment")

    def __init__(self, environment: Environment, *, staged: bool = False) -> None:
        self.environment = environment
        self._staged = staged
        self._writer: _LmdbWriter | None = None
        self._failed: str | None = None
        self._commits = 0
        self._counted = (-1, 0)  # after so many commits, so many pages in use

    @property
    def failed(self) -> str | None:
        """Why a commit failed; nothing may be read or written any more."""
        return self._failed

    def used_pages(self) -> int:
        """Pages in use as of the last commit, those of the free list aside.

        Counted when asked, not with every commit: a look at each table costs more than it writes.
        """
        commits = self._commits
        if self._counted[0] != commits:
            # Kept under the number of commits before the look: one meanwhile makes it stale.
            self._counted = (commits, _used_pages(self.environment))
        return self._counted[1]

    @property
    def dirty(self) -> bool:
        return self._writer is not None and self._writer.changed

    def writer(self) -> Writer:
        writer = self._writer
        if writer is None:
            if self._failed is not None:
                raise StorageError(self._failed)
            writer = self._writer = _LmdbWriter(self.environment)
        return writer

    @property
    def opened(self) -> _LmdbWriter:
        """The open transaction, begun by ``writer``."""
        if self._writer is None:
            raise ClosedError("no write transaction is open")
        return self._writer

    def commit(self) -> None:
        writer = self._writer
        if writer is None or not writer.changed:
            if self._failed is not None:
                raise StorageError(self._failed)
            return
        if writer.failed is not None:
            raise StorageError(f"the transaction failed and must be aborted: {writer.failed}")
        self._writer = None
        try:
            writer.txn.commit()
        except lmdb.Error as error:
            # LMDB calls a write that was cut short by a full disk an I/O error.
            if self._staged and (_is_full(error) or getattr(error, "code", None) == errno.EIO):
                raise StorageFullError(f"no room for the snapshot: {error}") from error
            # Whether it reached the disk is not known, and a retry of the fsync
            # may succeed falsely: the process has to end.
            self.fail(f"a commit failed; end the process and start again: {error}")
            raise StorageError(self._failed or "") from error
        self._commits += 1

    def fail(self, why: str) -> None:
        """Refuse everything from now on."""
        self._failed = why

    def in_use(self) -> None:
        """The environment is the store's now."""
        self._staged = False

    def abort(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.txn.abort()


class Housing:
    """Where a store's environments live; ``identity.DataDirectory`` is the real one."""

    def fresh(self) -> Path:
        """Path of a new environment that no restart would open."""
        raise StorageError("this store has no data directory to stage a snapshot in")

    def switch(self, path: Path) -> None:
        """Make ``path`` the environment a restart opens: durable and atomic."""
        raise StorageError("this store has no data directory to install a snapshot in")

    def remove(self, path: Path) -> None:
        """An environment is closed and not wanted any more."""

    def closed(self) -> None:
        """The store is closed and its files are no longer in use."""


class LmdbStore:
    """``Store`` on LMDB.

    Args:
        path: directory of the environment; made when missing.
        quota_bytes: bound on pages in use that ``usage`` reports.
        map_size: address space for the map, above any quota; fixed while open.
        housing: gives snapshots a place; without it ``stage`` raises StorageError.
        ahead_bytes: disk taken beyond the end of the data, so that what must be
            written still can be when others have filled the disk; 0: none.

    Raises:
        StorageError: the environment cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        quota_bytes: int,
        map_size: int = DEFAULT_MAP_SIZE,
        housing: Housing | None = None,
        ahead_bytes: int = 0,
    ) -> None:
        self._quota = quota_bytes
        self._map_size = map_size
        self._housing = housing or Housing()
        self._side = WriteSide(Environment(path, map_size))
        self._closed = False
        self._ahead = ahead_bytes
        self._reserved_to = 0
        self._removers: list[threading.Thread] = []
        self._removing = threading.Lock()
        self._reserve_ahead()

    @property
    def path(self) -> Path:
        """Directory of the environment in use."""
        return self._side.environment.path

    @property
    def page_size(self) -> int:
        return self._side.environment.page_size

    def read(self) -> _Snapshot:
        return _Snapshot(self)

    def writer(self) -> Writer:
        if self._closed:
            raise ClosedError("the store is closed")
        return self._side.writer()

    @property
    def dirty(self) -> bool:
        return self._side.dirty

    def commit(self) -> None:
        if self._closed:
            raise ClosedError("the store is closed")
        dirty = self._side.dirty
        self._side.commit()
        if dirty:
            self._reserve_ahead()

    def abort(self) -> None:
        self._side.abort()

    def usage(self) -> Usage:
        side = self._side
        page = side.environment.page_size
        if not side.environment.enter():
            raise ClosedError("the store is closed")
        try:
            used = side.used_pages() * page
            extent = (side.environment.env.info()["last_pgno"] + 1) * page
        finally:
            side.environment.leave()
        return Usage(used, self._quota, self._disk_free(), max(0, extent - used))

    def stored(self, table: Table, key: bytes) -> bytes | None:
        """The bytes of a row as they lie there, seal included and not looked at."""
        with _Snapshot(self) as reader:
            return reader.raw(table, key)

    def seal_rows(self) -> None:
        """Seal every small row, in the open transaction: the step from format 1 to 2."""
        self.writer()
        writer = self._side.opened
        for table in Table:
            if table is not _UNSEALED:
                writer.seal_rows(table)

    def stage(self) -> Staged:
        if self._closed:
            raise ClosedError("the store is closed")
        environment = Environment(self._housing.fresh(), self._map_size)
        return _StagedLmdb(self, WriteSide(environment, staged=True))

    def close(self) -> None:
        """Drop the open transaction and close once no reader is left."""
        if self._closed:
            return
        self._closed = True
        self._side.abort()
        with self._removing:
            removers = list(self._removers)
        for remover in removers:
            remover.join()
        self._side.environment.retire(self._housing.closed)

    def _enter(self) -> Environment:
        while True:
            side = self._side
            if side.failed is not None:
                # For whoever reads here: others serve what this one cannot any more.
                raise UnavailableError(f"the broker is ending; use another one: {side.failed}")
            if side.environment.enter():
                return side.environment
            if self._closed:
                raise ClosedError("the store is closed")
            # A snapshot took over between the two lines above: enter that one.

    def _reserve_ahead(self) -> None:
        """Terms, votes, deletions and acks go on being written when the disk is full to the last byte."""
        if not self._ahead:
            return
        environment = self._side.environment
        extent = (environment.env.info()["last_pgno"] + 1) * environment.page_size
        if extent + self._ahead // 2 <= self._reserved_to:
            return
        try:
            file = os.open(environment.path / "data.mdb", os.O_RDWR | os.O_CLOEXEC)
            try:
                os.posix_fallocate(file, extent, self._ahead)
            finally:
                os.close(file)
        except OSError as error:
            # Without it the store works as well, until the disk is full.
            logger.debug("no room reserved beyond the data: %s", error)
            # Not with every commit: again when about as much has been written.
            self._reserved_to = extent + self._ahead // 2 + (1 << 20)
        else:
            self._reserved_to = extent + self._ahead

    def _disk_free(self) -> int:
        # Not remembered: a fast writer fills what was free a moment ago.
        try:
            stat = os.statvfs(self.path)
        except OSError as error:
            raise StorageError(f"the disk does not say how much room it has: {error}") from error
        return stat.f_bavail * stat.f_frsize

    def _check_switch(self) -> None:
        if self._closed:
            raise ClosedError("the store is closed")
        if self._side.dirty:
            raise StorageError("cannot install a snapshot: the open transaction has changes")

    def _switch(self, side: WriteSide) -> None:
        self._side.abort()
        try:
            self._housing.switch(side.environment.path)
        except BaseException as error:
            # A restart may open the old environment or the new one: neither may
            # be written or removed by this process any more.
            self._side.fail(f"installing a snapshot failed; end the process and start again: {error}")
            raise
        side.in_use()
        old = self._side.environment
        self._side = side
        self._reserved_to = 0
        old.retire(lambda: self._remove_later(old.path))

    def _remove_later(self, path: Path) -> None:
        # Unlinking gigabytes takes a while, and the last reader may have been
        # on the event loop. The last readers of two environments may leave at once.
        with self._removing:
            self._removers = [t for t in self._removers if t.is_alive()]
            remover = threading.Thread(target=self._housing.remove, args=(path,), daemon=True)
            remover.start()
            self._removers.append(remover)


class _StagedLmdb:
    """A fresh environment next to the one in use; see ``port.Staged``."""

    def __init__(self, store: LmdbStore, side: WriteSide) -> None:
        self._store = store
        self._side: WriteSide | None = side

    def writer(self) -> Writer:
        return self._open().writer()

    def commit(self) -> None:
        self._open().commit()

    def install(self) -> None:
        side = self._open()
        self._store._check_switch()
        side.commit()
        # From here on `discard` must not remove it: it may be the one in use.
        self._side = None
        self._store._switch(side)

    def discard(self) -> None:
        side, self._side = self._side, None
        if side is not None:
            side.abort()
            path = side.environment.path
            side.environment.retire(lambda: self._store._remove_later(path))

    def _open(self) -> WriteSide:
        if self._side is None:
            raise ClosedError("the snapshot has been installed or discarded")
        return self._side
