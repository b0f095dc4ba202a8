"""The store port on LMDB: what brokers run.

One thread writes: everything of an engine turn goes into one transaction with
one fsync (``lmdb_write``). Any thread reads: a read is a snapshot, and what it
returns is copied, because LMDB's buffers die with the transaction (``lmdb_view``).
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import lmdb

from holdfast.errors import ClosedError, StorageError, UnavailableError
from holdfast.storage.damage import START_OVER
from holdfast.storage.environment import Environment
from holdfast.storage.lmdb_view import UNSEALED, View
from holdfast.storage.lmdb_write import WriteSide
from holdfast.storage.overlay import OverlaidView, Overlay
from holdfast.storage.port import Reader, Staged, Table, Usage, Writer
from holdfast.storage.write_ahead import EPOCH

logger = logging.getLogger(__name__)

#: Address space, not disk or memory; set once, because it cannot grow under readers.
DEFAULT_MAP_SIZE = 1 << 40


#: Each is as long as a commit at least.
_TRIES = 1000


class _Snapshot:
    """Context manager of one read transaction."""

    __slots__ = ("_environment", "_store", "_txn", "base")

    def __init__(self, store: LmdbStore) -> None:
        self._store = store
        self._environment: Environment | None = None
        self._txn: Any = None
        #: Of LMDB alone.
        self.base: View

    def __enter__(self) -> Reader:
        side = self._store._enter()
        self._environment = environment = side.environment
        try:
            overlay = self._begin(side)
        except lmdb.Error as error:
            environment.leave()
            raise StorageError(f"cannot begin a read: {error}") from error
        except StorageError:
            environment.leave()
            raise
        self.base = View(self._txn, environment.dbs)
        version = overlay.version
        return OverlaidView(self.base, overlay, version) if version else self.base

    def _begin(self, side: WriteSide) -> Overlay:
        """Begin a transaction; the overlay of the commit that it sees.

        Raises:
            StorageError: it sees a commit that this process has not made.
        """
        for _ in range(_TRIES):
            overlays = side.overlays
            self._txn = txn = side.environment.env.begin(buffers=True)
            epoch_row = bytes(txn.get(EPOCH, b""))
            for overlay in overlays:
                if overlay is not None and overlay.epoch_row == epoch_row:
                    return overlay
            # Two commits since the look at the overlays.
            txn.abort()
        self._txn = None
        raise StorageError(f"another process has written {side.environment.path}; {START_OVER}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._environment is not None
        self._txn.abort()
        # py-lmdb gives the slot in the reader table back when the transaction object
        # goes, and the caller may keep the view: a coroutine that waits does.
        self.base.let_go()
        self._txn = None
        self._environment.leave()


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
        self._reserved_after = -1
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
        self._side.commit()
        self._reserve_ahead()

    def persist(self) -> None:
        if self._closed:
            raise ClosedError("the store is closed")
        self._side.persist()
        self._reserve_ahead()

    def show(self) -> None:
        if self._closed:
            raise ClosedError("the store is closed")
        self._side.show()

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
        with (snapshot := _Snapshot(self)):
            return snapshot.base.raw(table, key)

    def seal_rows(self) -> None:
        """Seal every small row, in the open transaction: the step from format 1 to 2."""
        self.writer()
        writer = self._side.opened
        for table in Table:
            if table is not UNSEALED:
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
        self._side.close()
        with self._removing:
            removers = list(self._removers)
        for remover in removers:
            remover.join()
        self._side.environment.retire(self._housing.closed)

    def _enter(self) -> WriteSide:
        while True:
            side = self._side
            if side.failed is not None:
                # For whoever reads here: others serve what this one cannot any more.
                raise UnavailableError(f"the broker is ending; use another one: {side.failed}")
            if side.environment.enter():
                return side
            if self._closed:
                raise ClosedError("the store is closed")
            # A snapshot took over between the two lines above: enter that one.

    def _reserve_ahead(self) -> None:
        """Terms, votes, deletions and acks go on being written when the disk is full to the last byte."""
        if not self._ahead or self._side.commits == self._reserved_after:
            return
        self._reserved_after = self._side.commits
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
            side.in_use()
        except BaseException as error:
            # A restart may open the old environment or the new one: neither may
            # be written or removed by this process any more.
            self._side.fail(f"installing a snapshot failed; end the process and start again: {error}")
            raise
        self._side.close()
        old = self._side.environment
        self._side = side
        self._reserved_to = 0
        self._reserved_after = -1
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
