"""A simulated disk: commits take time, fail, or are where the power goes; rows rot."""

from __future__ import annotations

import random
from typing import Literal

from holdfast.chaos.sim.world import NodeClock
from holdfast.errors import StorageError
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Table

#: What ``disk_free`` says when the disk is not full.
EMPTY_DISK = 1 << 62


class PowerCut(BaseException):
    """Raised inside a commit: the node loses power there."""


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

    def durable(self, table: Table, key: bytes) -> bytes | None:
        """What a restart after a power cut at this moment would find under the key."""
        for undo in (self._unsynced, self._undo):
            for changed, name, old in undo:
                if name == key and changed is table:
                    return old
        return self._tables[table].values.get(key)

    def damage(self, table: Table, key: bytes, bit: int) -> bool:
        """Flip one bit of a stored row, behind everybody's back; False when the row is not there.

        Readers that are open keep what they see.
        """
        value = self._tables[table].values.get(key)
        if not value or self._undo:
            return False
        at = bit % (8 * len(value))
        spoiled = bytearray(value)
        spoiled[at // 8] ^= 1 << (at % 8)
        self._own(table).set(key, bytes(spoiled))
        return True

    def tear(self, table: Table, key: bytes, keep: int) -> bool:
        """Keep only the first bytes of a stored row; the rest reads as zeros."""
        value = self._tables[table].values.get(key)
        if not value or self._undo:
            return False
        keep %= len(value)
        torn = value[:keep] + bytes(len(value) - keep)
        if torn == value:
            return False
        self._own(table).set(key, torn)
        return True

    def wipe(self) -> None:
        """A new, empty disk."""
        fresh = SimStore(self.sim_clock, self.sim_rng)
        self.power_cut()
        for table, rows in fresh._tables.items():
            self._tables[table] = rows
        self._unsynced.clear()
        self._size = self._committed_size = 0
