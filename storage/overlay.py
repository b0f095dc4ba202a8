"""Rows that were changed since the last commit of LMDB, for readers.

The writer's transaction stays open over many turns (see ``write_ahead``), and LMDB shows
its readers what is committed only. What they have to see beyond that is kept here: per
row its versions, oldest first. One thread takes changes in, any thread reads: a reader
sees the version that was the last one when it began, whatever comes after.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import Final

from holdfast.storage.lmdb_view import UNSEALED, View
from holdfast.storage.port import Reader, Table
from holdfast.storage.seal import SEAL_BYTES
from holdfast.storage.write_ahead import Change, Kind, pack_epoch


class _Missing:
    """Not changed since the commit: LMDB has it, or nobody."""


MISSING: Final = _Missing()

#: Of one row: (version, what is stored then; None: it is deleted).
_Versions = list[tuple[int, bytes | None]]


class Overlay:
    """What follows commit ``epoch``.

    Attributes:
        epoch_row: the row of LMDB that says so, empty before the first commit.
        version: the last one taken in; 0: nothing was.
    """

    __slots__ = ("_keys", "_rows", "epoch_row", "version")

    def __init__(self, epoch: int) -> None:
        self.epoch_row = pack_epoch(epoch) if epoch else b""
        self.version = 0
        self._rows: dict[Table, dict[bytes, _Versions]] = {table: {} for table in Table}
        self._keys: dict[Table, list[bytes]] = {table: [] for table in Table}

    def take(self, changes: Iterable[Change]) -> None:
        """Show these changes to readers that begin from now on."""
        version = self.version + 1
        for kind, table, key, value in changes:
            stored = value if kind is Kind.PUT else None
            rows = self._rows[table]
            versions = rows.get(key)
            if versions is None:
                rows[key] = [(version, stored)]
                keys = self._keys[table]
                if not keys or key > keys[-1]:
                    keys.append(key)
                else:
                    insort(keys, key)
            elif versions[-1][0] == version:
                versions[-1] = (version, stored)
            else:
                versions.append((version, stored))
        self.version = version  # last: until here nobody looks at them

    def get(self, table: Table, key: bytes, version: int) -> bytes | _Missing | None:
        """The row as of ``version``, without its seal; None when it was deleted."""
        for since, stored in reversed(self._rows[table].get(key, ())):
            if since <= version:
                return stored if stored is None or table is UNSEALED else stored[:-SEAL_BYTES]
        return MISSING

    def keys(self, table: Table, start: bytes, stop: bytes | None) -> list[bytes]:
        """Keys that were changed, of any version, in order: ``start <= key < stop``."""
        keys = self._keys[table].copy()  # in one step: the writer may add to it
        low = bisect_left(keys, start)
        return keys[low:] if stop is None else keys[low : bisect_left(keys, stop)]


class OverlaidView(Reader):
    """A snapshot of LMDB with one version of the overlay upon it."""

    __slots__ = ("_base", "_overlay", "_version")

    def __init__(self, base: View, overlay: Overlay, version: int) -> None:
        self._base = base
        self._overlay = overlay
        self._version = version

    def get(self, table: Table, key: bytes) -> bytes | None:
        found = self._overlay.get(table, key, self._version)
        return self._base.get(table, key) if isinstance(found, _Missing) else found

    def get_slice(self, table: Table, key: bytes, start: int, length: int) -> bytes | None:
        found = self._overlay.get(table, key, self._version)
        if isinstance(found, _Missing):
            return self._base.get_slice(table, key, start, length)
        return None if found is None else found[start : start + length]

    def scan(
        self, table: Table, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        changed = self._changed(table, start, stop, reverse=reverse)
        below = self._base.scan(table, start, stop, reverse=reverse)
        row = next(below, None)
        for key, found in changed:
            while row is not None and (row[0] > key if reverse else row[0] < key):
                yield row
                row = next(below, None)
            if row is not None and row[0] == key:
                row = next(below, None)
            if found is not None:
                yield key, found
        if row is not None:
            yield row
        yield from below

    def scan_keys(
        self, table: Table, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[bytes]:
        changed = self._changed(table, start, stop, reverse=reverse)
        below = self._base.scan_keys(table, start, stop, reverse=reverse)
        lower = next(below, None)
        for key, found in changed:
            while lower is not None and (lower > key if reverse else lower < key):
                yield lower
                lower = next(below, None)
            if lower == key:
                lower = next(below, None)
            if found is not None:
                yield key
        if lower is not None:
            yield lower
        yield from below

    def _changed(
        self, table: Table, start: bytes, stop: bytes | None, *, reverse: bool
    ) -> Iterator[tuple[bytes, bytes | None]]:
        """Rows that differ from the base, in the order of the scan."""
        keys = self._overlay.keys(table, start, stop)
        for key in reversed(keys) if reverse else keys:
            found = self._overlay.get(table, key, self._version)
            if not isinstance(found, _Missing):
                yield key, found

    def floor(self, table: Table, key: bytes) -> tuple[bytes, bytes] | None:
        changed = self._changed(table, b"", key + b"\x00", reverse=True)
        above = next(((at, found) for at, found in changed if found is not None), None)
        below = self._base.floor(table, key)
        while below is not None and not isinstance(
            self._overlay.get(table, below[0], self._version), _Missing
        ):
            if above is not None and above[0] >= below[0]:
                return above
            below = next(self._base.scan(table, b"", below[0], reverse=True), None)
        if above is None or below is None:
            return above or below
        return max(above, below)

    def count(self, table: Table) -> int:
        count = self._base.count(table)
        for key, found in self._changed(table, b"", None, reverse=False):
            count += (found is not None) - self._base.has(table, key)
        return count

    def last_key(self, table: Table) -> bytes | None:
        return next(self.scan_keys(table, reverse=True), None)
