"""The store port in memory: for the simulator and for tests.

It keeps the port's contract (snapshots, one writer, atomic commits) and can
lose what a power cut loses. Tables are changed in place with an undo log, so a
commit costs nothing; a table is copied only when it is changed while a reader
holds it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from types import TracebackType

from holdfast.errors import ClosedError, StorageError, StorageFullError
from holdfast.storage.damage import damaged_row
from holdfast.storage.port import MAX_KEY_BYTES, Reader, Table, Usage, Writer

_UNBOUNDED = 1 << 62


class _Spoiled(bytes):
    """A value whose seal would not match: stands for the sealed row of a real store."""

    __slots__ = ()


class _Rows:
    """One table: a dict for the values, a sorted list for the order."""

    __slots__ = ("keys", "pins", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.keys: list[bytes] = []
        self.pins = 0  # open readers that see this object

    def clone(self) -> _Rows:
        twin = _Rows()
        twin.values = self.values.copy()
        twin.keys = self.keys.copy()
        return twin

    def set(self, key: bytes, value: bytes) -> bytes | None:
        old = self.values.get(key)
        if old is None:
            if not self.keys or key > self.keys[-1]:
                self.keys.append(key)
            else:
                insort(self.keys, key)
        self.values[key] = value
        return old

    def remove(self, key: bytes) -> bytes | None:
        old = self.values.pop(key, None)
        if old is not None:
            del self.keys[bisect_left(self.keys, key)]
        return old


_Tables = dict[Table, _Rows]
_Undo = list[tuple[Table, bytes, bytes | None]]


def _empty() -> _Tables:
    return {table: _Rows() for table in Table}


class _View(Reader):
    """Reading, common to snapshots and the writer."""

    __slots__ = ("_tables",)

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables

    def get(self, table: Table, key: bytes) -> bytes | None:
        value = self._tables[table].values.get(key)
        if value.__class__ is _Spoiled:
            raise damaged_row(table, key)
        return value

    def get_slice(self, table: Table, key: bytes, start: int, length: int) -> bytes | None:
        value = self.get(table, key)
        return None if value is None else value[start : start + length]

    def scan_keys(
        self, table: Table, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[bytes]:
        keys = self._tables[table].keys
        low = bisect_left(keys, start)
        high = len(keys) if stop is None else bisect_left(keys, stop)
        steps = range(high - 1, low - 1, -1) if reverse else range(low, high)
        for i in steps:
            yield keys[i]

    def scan(
        self, table: Table, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        values = self._tables[table].values
        for key in self.scan_keys(table, start, stop, reverse=reverse):
            value = values[key]
            if value.__class__ is _Spoiled:
                raise damaged_row(table, key)
            yield key, value

    def floor(self, table: Table, key: bytes) -> tuple[bytes, bytes] | None:
        rows = self._tables[table]
        at = bisect_right(rows.keys, key)
        if at == 0:
            return None
        found = rows.keys[at - 1]
        value = rows.values[found]
        if value.__class__ is _Spoiled:
            raise damaged_row(table, found)
        return found, value

    def count(self, table: Table) -> int:
        return len(self._tables[table].keys)

    def last_key(self, table: Table) -> bytes | None:
        keys = self._tables[table].keys
        return keys[-1] if keys else None


class _Snapshot:
    """Context manager of one read; pins the tables it sees."""

    __slots__ = ("_store", "_tables")

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._tables: _Tables = {}

    def __enter__(self) -> Reader:
        self._tables = self._store._pin()
        return _View(self._tables)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store._unpin(self._tables)


class _MemoryWriter(_View, Writer):
    __slots__ = ("_store",)

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store._tables)
        self._store = store

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self._store._put(table, key, value, ordered=False)

    def append(self, table: Table, key: bytes, value: bytes) -> None:
        self._store._put(table, key, value, ordered=True)

    def delete(self, table: Table, key: bytes) -> bool:
        return self._store._delete(table, key)


class MemoryStore:
    """``Store`` in memory.

    Args:
        quota_bytes: the bound ``usage`` reports.
        map_size: keys and values together beyond this raise StorageFullError,
            as LMDB's map does.
        lose_unsynced: model a disk that has not finished a commit's fsync: a
            commit is visible at once but survives ``power_cut`` only after
            ``sync``. Otherwise a commit is durable when it returns.

    Attributes:
        disk_free: what ``usage`` reports; set it to act out a full disk.
    """

    def __init__(
        self,
        *,
        quota_bytes: int = _UNBOUNDED,
        map_size: int = _UNBOUNDED,
        lose_unsynced: bool = False,
    ) -> None:
        self.disk_free = _UNBOUNDED
        self._quota = quota_bytes
        self._map_size = map_size
        self._lose_unsynced = lose_unsynced
        self._tables = _empty()
        self._undo: _Undo = []
        self._shown: _Undo = []  # to readers, and not durable
        self._touched: set[Table] = set()  # tables the open transaction changed
        self._before: _Tables = {}  # see _shown_view
        self._unsynced: _Undo = []
        self._size = 0
        self._committed_size = 0
        self._broken: str | None = None  # why the open transaction cannot be committed
        self._closed = False
        self._writer = _MemoryWriter(self)
        # Readers may be on other threads than the writer; what they pinned is
        # never changed, so the lock covers pinning and changing only.
        self._lock = threading.Lock()

    # -- Store ---------------------------------------------------------------

    def read(self) -> _Snapshot:
        return _Snapshot(self)

    def writer(self) -> Writer:
        self._check_open()
        return self._writer

    @property
    def dirty(self) -> bool:
        return bool(self._undo or self._shown)

    def commit(self) -> None:
        self._check_open()
        if self._broken is not None:
            raise StorageError(f"the transaction failed and must be aborted: {self._broken}")
        with self._lock:
            if self._lose_unsynced:
                self._unsynced.extend(self._shown)
                self._unsynced.extend(self._undo)
            self._shown.clear()
            self._undo.clear()
            self._before.clear()
            self._touched.clear()
            self._committed_size = self._size

    def persist(self) -> None:
        self.commit()

    def show(self) -> None:
        self._check_open()
        if self._broken is not None:
            raise StorageError(f"the transaction failed and must be aborted: {self._broken}")
        with self._lock:
            self._shown.extend(self._undo)
            self._undo.clear()
            self._before.clear()
            self._touched.clear()

    def abort(self) -> None:
        with self._lock:
            self._revert(self._undo)
            self._revert(self._shown)
            self._broken = None

    def usage(self) -> Usage:
        return Usage(self._committed_size, self._quota, self.disk_free)

    def stage(self) -> _StagedMemory:
        self._check_open()
        return _StagedMemory(self, MemoryStore(map_size=self._map_size))

    def close(self) -> None:
        if not self._closed:
            self.abort()
            self._closed = True

    # -- faults ----------------------------------------------------------------

    @property
    def at_risk(self) -> bool:
        """True when a power cut would lose something now."""
        return bool(self._undo or self._shown or self._unsynced)

    def sync(self) -> None:
        """The disk has finished every commit so far (with ``lose_unsynced``)."""
        with self._lock:
            self._unsynced.clear()

    def power_cut(self) -> None:
        """Lose what was not durable; the store is then as a restart finds it."""
        with self._lock:
            self._revert(self._undo)
            self._revert(self._shown)
            self._revert(self._unsynced)
            self._committed_size = self._size
            self._broken = None
            self._closed = False

    def flip_bit(self, table: Table, key: bytes, bit: int) -> bool:
        """Flip one bit of a stored value, behind everybody's back; False when there is no such row.

        ``bit`` counts from the value's first, modulo its size. The row of a table whose rows
        carry a seal fails to be read from then on, as it would in a real store. Readers that
        are open keep what they see.
        """
        value = self._tables[table].values.get(key)
        if not value:
            return False
        at = bit % (8 * len(value))
        spoiled = bytearray(value)
        spoiled[at // 8] ^= 1 << (at % 8)
        return self.spoil(table, key, bytes(spoiled))

    def spoil(self, table: Table, key: bytes, value: bytes) -> bool:
        """Put other bytes in the place of a stored value; False when that changes nothing.

        An open transaction may not have changed the table.
        """
        with self._lock:
            old = self._tables[table].values.get(key)
            if old is None or old == value or table in self._touched:
                return False
            self._own(table).set(key, value if table is Table.JOURNAL else _Spoiled(value))
            return True

    # -- for the views ---------------------------------------------------------

    def _pin(self) -> _Tables:
        with self._lock:
            self._check_open()
            tables = self._tables.copy()
            if self._undo:
                tables.update(self._shown_view())
            for rows in tables.values():
                rows.pins += 1
            return tables

    def _shown_view(self) -> _Tables:
        """The changed tables as they were: changes that are not shown lie in the live ones.

        Made once for the first reader; rare, because engines show what they have
        done before they let anyone read.
        """
        view = self._before
        missing = self._touched - view.keys()
        if missing:
            for table in missing:
                view[table] = self._tables[table].clone()
            for table, key, old in reversed(self._undo):
                if table not in missing:
                    continue
                if old is None:
                    view[table].remove(key)
                else:
                    view[table].set(key, old)
        return view

    def _unpin(self, tables: _Tables) -> None:
        with self._lock:
            for rows in tables.values():
                rows.pins -= 1

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the store is closed")

    def _own(self, table: Table) -> _Rows:
        """The table for changing: copied first when a reader sees it."""
        rows = self._tables[table]
        if rows.pins:
            rows = self._tables[table] = rows.clone()
        return rows

    def _put(self, table: Table, key: bytes, value: bytes, *, ordered: bool) -> None:
        self._check_open()
        if not 0 < len(key) <= MAX_KEY_BYTES:
            self._broken = f"key of {len(key)} bytes"
            raise StorageError(
                f"key of {len(key)} bytes in table {table.value}; 1 to {MAX_KEY_BYTES} allowed"
            )
        with self._lock:
            rows = self._own(table)
            if ordered and rows.keys and key <= rows.keys[-1]:
                self._broken = "append out of order"
                raise StorageError(f"append out of order to table {table.value}: key {key.hex()}")
            old = rows.values.get(key)
            size = self._size + len(value) + (len(key) if old is None else -len(old))
            if size > self._map_size:
                self._broken = "map full"
                raise StorageFullError(f"the map of {self._map_size} bytes is full")
            rows.set(key, bytes(value))
            self._undo.append((table, key, old))
            self._touched.add(table)
            self._size = size

    def _delete(self, table: Table, key: bytes) -> bool:
        self._check_open()
        with self._lock:
            if key not in self._tables[table].values:
                return False
            old = self._own(table).remove(key)
            assert old is not None
            self._undo.append((table, key, old))
            self._touched.add(table)
            self._size -= len(key) + len(old)
            return True

    def _revert(self, undo: _Undo) -> None:
        for table, key, old in reversed(undo):
            rows = self._own(table)
            if old is None:
                gone = rows.remove(key)
                self._size -= len(key) + len(gone or b"")
            else:
                now = rows.set(key, old)
                self._size += len(old) + (len(key) if now is None else -len(now))
        undo.clear()
        self._before.clear()
        self._touched.clear()

    def _replace(self, other: MemoryStore) -> None:
        with self._lock:
            self._check_open()
            if self.dirty:
                raise StorageError("cannot install a snapshot: the open transaction has changes")
            # In place, because the writer's view shares the dict.
            self._tables.update(other._tables)
            self._unsynced.clear()
            self._size = self._committed_size = other._size


class _StagedMemory:
    """Fresh content of a MemoryStore; see ``port.Staged``."""

    def __init__(self, store: MemoryStore, fresh: MemoryStore) -> None:
        self._store = store
        self._fresh = fresh

    def writer(self) -> Writer:
        return self._fresh.writer()

    def commit(self) -> None:
        self._fresh.commit()

    def install(self) -> None:
        self._fresh.commit()
        self._store._replace(self._fresh)
        self._fresh = MemoryStore()

    def discard(self) -> None:
        self._fresh = MemoryStore()
