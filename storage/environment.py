"""One LMDB environment: opened, shared by readers, closed when the last leaves.

An environment may be replaced under running readers (a snapshot is installed)
or closed under them (shutdown). LMDB gives no protection there: closing it
while another thread is inside a read is a crash. So readers are counted, and
whoever is last closes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb

from holdfast.errors import ClosedError, StorageError
from holdfast.storage.port import Table

#: Enough for every event-loop read and export of a broker at once.
_MAX_READERS = 512

Database = Any  # py-lmdb's handle of a named table; its class is private


class Environment:
    """An open LMDB environment with its tables.

    Default flags on purpose: each commit is fsynced, its meta page included.

    Raises:
        StorageError: it cannot be opened.
    """

    def __init__(self, path: Path, map_size: int) -> None:
        self.path = path
        self.map_size = map_size
        self._lock = threading.Lock()
        self._users = 0
        self._closing: Callable[[], None] | None = None
        self._closed = False
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.env: lmdb.Environment = lmdb.open(
                str(path),
                map_size=map_size,
                subdir=True,
                max_dbs=len(Table),
                max_readers=_MAX_READERS,
                # Recycled read transactions: a snapshot costs a microsecond.
                max_spare_txns=16,
                mode=0o640,
            )
            self.dbs: dict[Table, Database] = {
                table: self.env.open_db(table.value.encode()) for table in Table
            }
            self.page_size: int = self.env.stat()["psize"]
        except (lmdb.Error, OSError) as error:
            raise StorageError(f"cannot open the environment {path}: {error}") from error

    def enter(self) -> bool:
        """Count one reader in; False when the environment is on its way out."""
        with self._lock:
            if self._closing is not None or self._closed:
                return False
            self._users += 1
            return True

    def leave(self) -> None:
        """Count one reader out, and close when it was the last of a retired environment."""
        with self._lock:
            self._users -= 1
            last = self._users == 0 and self._closing is not None
        if last:
            self._close()

    def retire(self, after_close: Callable[[], None]) -> None:
        """Close as soon as no reader is left, then call ``after_close`` (once, on that thread).

        Raises:
            ClosedError: it has been retired before.
        """
        with self._lock:
            if self._closing is not None or self._closed:
                raise ClosedError(f"the environment {self.path} is closed")
            self._closing = after_close
            idle = self._users == 0
        if idle:
            self._close()

    def _close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            after_close = self._closing
        self.env.close()
        if after_close is not None:
            after_close()
