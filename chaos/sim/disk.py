"""A simulated disk: commits take time, fail, or are where the power goes; rows rot."""

from __future__ import annotations

import random
from typing import Literal

from holdfast.chaos.sim.world import NodeClock
from holdfast.errors import StorageError
from holdfast.storage.memory_store import MemoryStore, _View
from holdfast.storage.port import Table

#: What ``disk_free`` says when the disk is not full.
EMPTY_DISK = 1 << 62


class PowerCut(BaseException):
    """Raised inside a commit: the node loses power there."""


class DurableView(_View):
    """Rows by key as a restart after a power cut would find them; scans see what is not committed too."""

    __slots__ = ("_store",)

    def __init__(self, store: SimStore) -> None:
        super().__init__(store._tables)
        self._store = store

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._store.durable(table, key)

    def get_slice(self, table: Table, key: bytes, start: int, length: int) -> bytes | None:
        value = self._store.durable(table, key)
        return None if value is None else value[start : start + length]


class SimStore(MemoryStore):
    """A memory store with the faults of a disk. It survives its node's process.

    Attributes:
        fsync: a commit takes this long, seconds, uniformly from the range.
        power: ``cut_before`` and ``cut_after`` lose power in the next commit: nothing
            of it, or all of it, is on the disk.
        failing: the next commit's fsync fails; whether it reached the disk is random.
    """

    def __init__(self, clock: NodeClock, rng: random.Random, *, lying: bool = False) -> None:
        super().__init__(lose_unsynced=lying)
        self.sim_clock = clock
        self.sim_rng = rng
        self.fsync = (0.0002, 0.0006)
        self.commits = 0
        self.power: Literal["on", "cut_before", "cut_after"] = "on"
        self.failing = False

    def commit(self) -> None:
        if not self.dirty:
            super().commit()
            return
        if self.power == "cut_before":
            raise PowerCut
        if self.failing:
            self.failing = False
            if self.sim_rng.random() < 0.5:
                super().commit()
            raise StorageError("fsync failed: input/output error (simulated)")
        super().commit()
        self.commits += 1
        low, high = self.fsync
        self.sim_clock.lag += low + (high - low) * self.sim_rng.random()
        if self.power == "cut_after":
            raise PowerCut

    def durable_view(self) -> DurableView:
        """Reads by key what a power cut at this moment would leave."""
        return DurableView(self)

    def durable(self, table: Table, key: bytes) -> bytes | None:
        """What a restart after a power cut at this moment would find under the key."""
        for undo in (self._unsynced, self._shown, self._undo):
            for changed, name, old in undo:
                if name == key and changed is table:
                    return old
        return self._tables[table].values.get(key)

    def damage(self, table: Table, key: bytes, bit: int) -> bool:
        """Flip one bit of a stored row, behind everybody's back; False when the row is not there.

        Readers that are open keep what they see.
        """
        return not self._undo and not self._loose(table, key) and self.flip_bit(table, key, bit)

    def tear(self, table: Table, key: bytes, keep: int) -> bool:
        """Keep only the first bytes of a stored row; the rest reads as zeros."""
        value = self._tables[table].values.get(key)
        if not value or self._undo or self._loose(table, key):
            return False
        keep %= len(value)
        torn = value[:keep] + bytes(len(value) - keep)
        if torn == value:
            return False
        return self.spoil(table, key, torn)

    def _loose(self, table: Table, key: bytes) -> bool:
        """Whether the row has changed and is not on the disk yet."""
        return any(name == key and changed is table for changed, name, _ in self._shown)

    def keys(self, table: Table) -> list[bytes]:
        """The keys of a table, in order."""
        return self._tables[table].keys

    def wipe(self) -> None:
        """A new, empty disk."""
        fresh = SimStore(self.sim_clock, self.sim_rng)
        self.power_cut()
        for table, rows in fresh._tables.items():
            self._tables[table] = rows
        self._unsynced.clear()
        self._size = self._committed_size = 0
