"""Writing to one LMDB environment: the open transaction, its commits, and what is written ahead of them."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from typing import Any, NoReturn

import lmdb

from holdfast.errors import ClosedError, StorageError, StorageFullError
from holdfast.storage.environment import Environment
from holdfast.storage.lmdb_view import UNSEALED, View, read_error
from holdfast.storage.overlay import Overlay
from holdfast.storage.port import MAX_KEY_BYTES, Table, Writer
from holdfast.storage.seal import SEED, seal
from holdfast.storage.write_ahead import (
    AHEAD_CHANGES,
    AHEAD_FILE,
    EPOCH,
    Change,
    Changes,
    Kind,
    WriteAhead,
    pack_epoch,
    unpack_epoch,
)

logger = logging.getLogger(__name__)

_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))

_SEALED_AT_ONCE = 10_000

#: Both meta pages and the main table's.
_FIXED_PAGES = 3


def _is_full(error: lmdb.Error) -> bool:
    return isinstance(error, lmdb.MapFullError) or getattr(error, "code", None) in _NO_SPACE


class LmdbWriter(View, Writer):
    __slots__ = ("_delete", "_note", "_put", "changed", "changes", "failed", "txn")

    def __init__(self, environment: Environment) -> None:
        try:
            self.txn: Any = environment.env.begin(write=True, buffers=True)
        except lmdb.Error as error:
            raise StorageError(f"cannot begin a write transaction: {error}") from error
        super().__init__(self.txn, environment.dbs)
        self._put = self.txn.put
        self._delete = self.txn.delete
        self.changed = False
        #: Since the last record of the write-ahead log.
        self.changes = Changes()
        self._note = self.changes.note
        self.failed: str | None = None

    def replay(self, changes: Iterable[Change]) -> None:
        """Change again what the write-ahead log says was changed."""
        self.changed = True
        for kind, table, key, value in changes:
            try:
                if kind is Kind.PUT:
                    self._put(key, value, True, True, False, self._dbs[table])
                else:
                    self._delete(key, b"", self._dbs[table])
            except lmdb.Error as error:
                self._fail(table, key, error)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self.changed = True
        if table is not UNSEALED:
            value += seal(key + value, SEED[table])
        try:
            self._put(key, value, True, True, False, self._dbs[table])
        except lmdb.Error as error:
            self._fail(table, key, error)
        self._note(Kind.PUT, table, key, value)

    def append(self, table: Table, key: bytes, value: bytes) -> None:
        self.changed = True
        if table is not UNSEALED:
            value += seal(key + value, SEED[table])
        try:
            placed = self._put(key, value, True, True, True, self._dbs[table])
        except lmdb.Error as error:
            self._fail(table, key, error)
        if not placed:  # LMDB does not raise on a key out of order
            self.failed = "append out of order"
            raise StorageError(f"append out of order to table {table.value}: key {key.hex()}")
        self._note(Kind.PUT, table, key, value)

    def delete(self, table: Table, key: bytes) -> bool:
        try:
            gone: bool = self._delete(key, b"", self._dbs[table])
        except lmdb.Error as error:
            self._fail(table, key, error)
        if gone:
            self.changed = True
            self._note(Kind.DELETE, table, key, b"")
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
                raise read_error(table, error) from error
            if not rows:
                return
            for key, value in rows:
                self.put(table, key, value)
            self.changes.clear()  # they are committed, and not written ahead
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

    __slots__ = (
        "_ahead",
        "_counted",
        "_epoch",
        "_failed",
        "_staged",
        "_writer",
        "commits",
        "environment",
        "overlays",
    )

    def __init__(self, environment: Environment, *, staged: bool = False) -> None:
        self.environment = environment
        self._staged = staged
        self._writer: LmdbWriter | None = None
        self._failed: str | None = None
        self.commits = 0
        self._counted = (-1, 0)  # after so many commits, so many pages in use
        #: Commits of this environment since it was made, as its row says.
        self._epoch = 0
        self._ahead: WriteAhead | None = None
        #: Of the last commit, and of the one that is being made. Read at once, as a pair.
        self.overlays: tuple[Overlay, Overlay | None] = (Overlay(0), None)
        if not staged:
            self._open_ahead()

    def _open_ahead(self) -> None:
        """Begin to write ahead, after whatever an earlier process made durable so."""
        self._ahead = ahead = WriteAhead(self.environment.path)
        try:
            with self.environment.env.begin() as txn:
                self._epoch = unpack_epoch(txn.get(EPOCH))
            changes = ahead.recover(self._epoch)
            if changes:
                self._writer = LmdbWriter(self.environment)
                self._writer.replay(changes)
                self.commit()
            ahead.start(self._epoch)
            self.overlays = (Overlay(self._epoch), None)
            ahead.prepare()
        except StorageFullError as error:
            if self._writer is not None:
                raise
            # Every transaction is committed then, as it would be without.
            logger.info("nothing is written ahead of commits: %s", error)
            self.close_ahead()
        except lmdb.Error as error:
            raise StorageError(f"cannot read the number of the last commit: {error}") from error

    @property
    def failed(self) -> str | None:
        """Why a commit failed; nothing may be read or written any more."""
        return self._failed

    def used_pages(self) -> int:
        """Pages in use as of the last commit, those of the free list aside.

        Counted when asked, not with every commit: a look at each table costs more than it writes.
        """
        commits = self.commits
        if self._counted[0] != commits:
            # Kept under the number of commits before the look: one meanwhile makes it stale.
            self._counted = (commits, _used_pages(self.environment))
        return self._counted[1]

    @property
    def dirty(self) -> bool:
        return self._writer is not None and bool(self._writer.changes.list)

    @property
    def _uncommitted(self) -> bool:
        if self._writer is not None and self._writer.changed:
            return True
        return self._ahead is not None and self._ahead.holds

    def writer(self) -> Writer:
        writer = self._writer
        if writer is None:
            if self._failed is not None:
                raise StorageError(self._failed)
            writer = self._writer = LmdbWriter(self.environment)
            if self._ahead is not None and self._ahead.holds:
                # A transaction was dropped that was durable in part.
                writer.replay(self._ahead.recover(self._epoch))
        return writer

    @property
    def opened(self) -> LmdbWriter:
        """The open transaction, begun by ``writer``."""
        if self._writer is None:
            raise ClosedError("no write transaction is open")
        return self._writer

    def commit(self) -> None:
        if self._failed is not None:
            raise StorageError(self._failed)
        if not self._uncommitted:
            return
        self.writer()
        writer = self.opened
        if writer.failed is not None:
            raise StorageError(f"the transaction failed and must be aborted: {writer.failed}")
        self._writer = None
        # Readers that find the commit done find what belongs to it, too.
        self.overlays = (self.overlays[0], Overlay(self._epoch + 1))
        try:
            writer.txn.put(EPOCH, pack_epoch(self._epoch + 1))
            writer.txn.commit()
        except lmdb.Error as error:
            # LMDB calls a write that was cut short by a full disk an I/O error.
            if self._staged and (_is_full(error) or getattr(error, "code", None) == errno.EIO):
                raise StorageFullError(f"no room for the snapshot: {error}") from error
            # Whether it reached the disk is not known, and a retry of the fsync
            # may succeed falsely: the process has to end.
            self.fail(f"a commit failed; end the process and start again: {error}")
            raise StorageError(self._failed or "") from error
        self.commits += 1
        self._epoch += 1
        self.overlays = (self.overlays[1] or Overlay(self._epoch), None)
        if self._ahead is not None:
            self._ahead.start(self._epoch)

    def persist(self) -> None:
        """See ``Store.persist``."""
        if self._failed is not None:
            raise StorageError(self._failed)
        writer, ahead = self._writer, self._ahead
        if writer is not None and not writer.changes.list:
            return
        if (
            writer is None
            or ahead is None
            or writer.failed is not None
            or writer.changes.size > AHEAD_CHANGES
        ):
            self.commit()
            return
        try:
            done = ahead.append(writer.changes.list)
        except OSError as error:
            # As with a commit: whether it reached the disk is not known.
            self.fail(f"writing ahead failed; end the process and start again: {error}")
            raise StorageError(self._failed or "") from error
        if not done:
            self.commit()
            return
        self.show()
        writer.changes.clear()

    def show(self) -> None:
        """See ``Store.show``."""
        if self._failed is not None:
            raise StorageError(self._failed)
        writer = self._writer
        if writer is None or not writer.changed:
            return
        changes = writer.changes
        if changes.shown_size > AHEAD_FILE or writer.failed is not None:
            self.commit()
        elif changes.shown < len(changes.list):
            self.overlays[0].take(changes.list[changes.shown :])
            changes.shown = len(changes.list)
            changes.shown_size = changes.size

    def close(self) -> None:
        """The environment is not written any more."""
        self._drop()
        self.close_ahead()

    def close_ahead(self) -> None:
        """Nothing is written ahead any more."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def fail(self, why: str) -> None:
        """Refuse everything from now on."""
        self._failed = why

    def in_use(self) -> None:
        """The environment is the store's now."""
        self._staged = False
        self._open_ahead()

    def _drop(self) -> bool:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.txn.abort()
        return writer is not None

    def abort(self) -> None:
        if self._drop():
            overlay = Overlay(self._epoch)
            if self._ahead is not None and self._ahead.holds:
                overlay.take(self._ahead.recover(self._epoch))
            self.overlays = (overlay, None)
