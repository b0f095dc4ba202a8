"""The store port: ordered tables, one writer, consistent read snapshots.

Two implementations pass one contract suite: ``lmdb_store`` (what brokers run)
and ``memory_store`` (what the simulator runs; it can lose what was not
committed, as a power cut does).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Table(Enum):
    """The tables of one replication group; ``value`` is the name on disk.

    Keys are at most 511 bytes and ordered as bytes; integers in keys are
    big-endian so that byte order is numeric order. The row formats live in the
    module named.
    """

    META = "meta"  # identity.py, journal.py: format, cluster, node, term, vote, indexes
    JOURNAL = "journal"  # journal.py: log index -> term, kind, command (payload stored once)
    INDEX = "index"  # partitions.py: topic, partition, base offset -> where the batch lies
    REFS = "refs"  # partitions.py: log index -> batches of that entry still referenced
    TOPICS = "topics"  # topics.py
    PARTITIONS = "partitions"  # partitions.py: topic, partition -> start, next, bytes, digest
    PRODUCERS = "producers"  # producers.py: idempotence state
    GROUPS = "groups"  # groups.py
    OFFSETS = "offsets"  # groups.py: group, topic, partition -> committed offset
    FLOWS = "flows"  # flows.py: group, topic, partition -> fence, owner, what is settled and waits
    ACKS = "acks"  # acks.py: group, topic, partition, chunk -> bits of what is settled above the offset
    RETRIES = "retries"  # retries.py: group, topic, partition, offset -> attempts, due time, errors
    MEMBERS = "members"  # members.py: group, member -> its name and grace
    MARKS = "marks"  # marks.py: topic, digest of an idempotency key -> where its record is
    MARK_AGES = "mark_ages"  # marks.py: expiry, topic, digest
    CURSORS = "cursors"  # cursors.py: where sweeps stopped, and counts

    # Enum hashes by name in Python code; members are singletons, and every
    # store operation looks a table up in a dict.
    __hash__ = object.__hash__


#: Bounds on keys, checked by every store.
MAX_KEY_BYTES = 511


class Reader(Protocol):
    """A consistent view of the store. Results are copies, never views of the map."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...

    def get_slice(self, table: Table, key: bytes, start: int, length: int) -> bytes | None:
        """``length`` bytes of a value from ``start``, copying only those; None without the key."""
        ...

    def scan(
        self, table: Table, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows with ``start <= key < stop`` in key order (``reverse``: last first).

        Writing to the table while iterating is not allowed.
        """
        ...

    def scan_keys(
        self, table: Table, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[bytes]: ...

    def floor(self, table: Table, key: bytes) -> tuple[bytes, bytes] | None:
        """The row with the greatest key that is <= ``key``."""
        ...

    def count(self, table: Table) -> int: ...

    def last_key(self, table: Table) -> bytes | None:
        """The greatest key of the table; None when it is empty."""
        ...


class Writer(Reader, Protocol):
    """The one write transaction; it sees its own writes.

    After a write that raised, the transaction cannot be committed: abort it.

    Raises:
        holdfast.errors.StorageFullError: no room in the map, or on the disk.
        holdfast.errors.StorageError: any other failure of the store, an empty
            or overlong key included.
    """

    def put(self, table: Table, key: bytes, value: bytes) -> None: ...

    def append(self, table: Table, key: bytes, value: bytes) -> None:
        """``put`` of a key greater than all in the table: fills pages whole.

        Raises:
            holdfast.errors.StorageError: the key is out of order.
        """
        ...

    def delete(self, table: Table, key: bytes) -> bool:
        """True when the key was there."""
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """Space, in bytes."""

    used: int  # pages in use in the environment
    quota: int  # the bound Holdfast keeps below the map size
    disk_free: int  # free in the file system
    reusable: int = 0  # freed pages inside the environment: room without growing the file

    def room(self, reserve: int) -> int:
        """Bytes that fit quota and disk beside ``reserve``; negative when it does not fit itself.

        Freed pages count for the disk by half only: a large value needs a run
        of pages, and may not find one among the holes. For the same reason half
        of the reserve has to be free on the disk itself.
        """
        disk = min(self.disk_free + self.reusable // 2 - reserve, self.disk_free - reserve // 2)
        return min(self.quota - self.used - reserve, disk)

    def has_room(self, reserve: int) -> bool:
        """True when ``reserve`` more bytes fit both the quota and the disk, see ``room``."""
        return self.room(reserve) >= 0


class Staged(Protocol):
    """A fresh, empty environment being filled, to replace the store's whole content.

    Used by the thread that owns the store's writer.
    """

    def writer(self) -> Writer: ...

    def commit(self) -> None:
        """Make what was written durable in the fresh environment; it is not installed yet."""
        ...

    def install(self) -> None:
        """Commit, then replace the store's content in one atomic step.

        A crash leaves the old content or the new one, whole. Readers that are
        open keep what they see; the store's open transaction must be clean.
        """
        ...

    def discard(self) -> None:
        """Drop the fresh environment; nothing to do after ``install``."""
        ...


class Store(Protocol):
    """One environment. ``writer`` is used by one thread only; ``read`` by any."""

    def read(self) -> AbstractContextManager[Reader]:
        """A snapshot of what is shown; keep it short, never across an await."""
        ...

    def writer(self) -> Writer:
        """The open write transaction, begun on first use after a commit or abort."""
        ...

    @property
    def dirty(self) -> bool:
        """True when the open write transaction holds changes that are not durable."""
        ...

    def commit(self) -> None:
        """Make the open transaction durable (fsync), and show it; nothing to do when clean.

        Raises:
            holdfast.errors.StorageError: the commit failed. The caller must end
                the process: whether it reached the disk is not known.
        """
        ...

    def persist(self) -> None:
        """Make what the open transaction holds durable, and show it to readers that begin from now on.

        Cheaper than ``commit`` when little has changed.

        Raises:
            holdfast.errors.StorageError: as ``commit``.
        """
        ...

    def show(self) -> None:
        """Show what the open transaction holds to readers that begin from now on, durable or not.

        What a crash may take back is for readers who know it from elsewhere to be safe.

        Raises:
            holdfast.errors.StorageError: as ``commit``, which it does when much waits to be durable.
        """
        ...

    def abort(self) -> None:
        """Drop the open transaction, but for what is durable."""
        ...

    def usage(self) -> Usage:
        """Space as of the last commit; cheap, from any thread.

        Raises:
            holdfast.errors.StorageError: the disk does not answer.
        """
        ...

    def stage(self) -> Staged:
        """Begin replacing the whole content (a snapshot from another replica)."""
        ...

    def close(self) -> None: ...
