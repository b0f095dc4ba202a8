"""A slow, endless pass over everything stored: damage is found while another replica still has the row.

No thread and no timer of its own: whoever drives it calls ``step`` when it says
that one is due. A step is one short read transaction of a bounded number of bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.cluster import events
from holdfast.cluster.ports import EventSink
from holdfast.errors import StorageError
from holdfast.storage import journal
from holdfast.storage.damage import START_OVER, DamagedRowError
from holdfast.storage.port import Reader, Store, Table

logger = logging.getLogger(__name__)

KIB = 1024

#: A small row costs time, not bytes: it counts as so many.
_ROW_BYTES = 2 * KIB
_TABLES = tuple(Table)
#: What every key of a table follows.
_FIRST = b""
#: A base that no entry is above.
_UNKNOWN = 1 << 64


@dataclass(slots=True)
class ScrubCounters:
    """Since the start."""

    rows: int = 0
    bytes: int = 0
    damaged: int = 0
    #: How often everything has been read.
    passes: int = 0


class Scrub:
    """Reads every row of every table in turn and has what is damaged repaired.

    Args:
        store: read in short snapshots.
        tell: told of each damaged row; ``Engine.repair``. Raises HoldfastError
            when it takes none now: the next pass finds the row again.
        rate: bytes a second, a small row counted as 2 KiB.
        step_bytes: about what one step reads; one row may be larger.
    """

    def __init__(
        self,
        store: Store,
        tell: Callable[[DamagedRowError], object],
        *,
        rate: int,
        step_bytes: int = 256 * KIB,
        emit: EventSink | None = None,
    ) -> None:
        if rate <= 0 or step_bytes <= 0:
            raise ValueError("a scrub reads something")
        self.counters = ScrubCounters()
        self._store = store
        self._tell = tell
        self._rate = rate
        self._step_bytes = step_bytes
        self._emit = emit
        self._table = 0
        self._start = _FIRST
        #: The log entry seen last.
        self._index = 0

    def step(self, now: float) -> float:
        """Read on; when the next step is due, on the clock of ``now`` (seconds).

        Raises:
            StorageError: a table cannot be read at all; the next step goes on with the next one.
        """
        counters = self.counters
        before = (counters.rows, counters.bytes, counters.damaged, counters.passes)
        cost = 0
        try:
            with self._store.read() as reader:
                base = _base(reader)
                while cost < self._step_bytes and counters.passes == before[3]:
                    cost += self._read(reader, base, self._step_bytes - cost)
        except StorageError:
            self._next_table()
            raise
        if self._emit is not None:
            rows, size, damaged, passes = before
            self._emit(
                events.ScrubStepped(
                    counters.rows - rows,
                    counters.bytes - size,
                    counters.damaged - damaged,
                    counters.passes > passes,
                )
            )
        return now + max(cost, _ROW_BYTES) / self._rate

    def _read(self, reader: Reader, base: int, budget: int) -> int:
        """Read on in the present table, to its end or until ``budget`` is used up; what it cost."""
        table = _TABLES[self._table]
        counters = self.counters
        cost = 0
        try:
            for key, value in reader.scan(table, self._start):
                self._pass(table, key)
                counters.rows += 1
                counters.bytes += len(key) + len(value)
                cost += max(_ROW_BYTES, len(value))
                if table is Table.JOURNAL:
                    self._check_entry(key, value, base)
                elif table is Table.REFS and reader.get_slice(Table.JOURNAL, key, 0, 0) is None:
                    self._found(journal.missing(journal.index_of(key)))
                if cost >= budget:
                    return cost
        except DamagedRowError as damage:
            self._pass(table, damage.key)
            self._found(damage)
            return cost + _ROW_BYTES
        self._next_table()
        return cost

    def _pass(self, table: Table, key: bytes) -> None:
        if key < self._start:
            raise StorageError(f"the keys of table {table.value} are out of order: {START_OVER}")
        self._start = key + b"\x00"

    def _check_entry(self, key: bytes, value: bytes, base: int) -> None:
        index = journal.index_of(key)
        expected = max(self._index, base) + 1
        if index > expected:
            self._found(journal.missing(expected))
        self._index = index
        try:
            journal.check_value(key, value)
        except DamagedRowError as damage:
            self._found(damage)

    def _found(self, damage: DamagedRowError) -> None:
        self.counters.damaged += 1
        self._tell(damage)

    def _next_table(self) -> None:
        self._start = _FIRST
        self._index = 0
        self._table += 1
        if self._table == len(_TABLES):
            self._table = 0
            self.counters.passes += 1


def _base(reader: Reader) -> int:
    try:
        return journal.read_meta(reader).base_index
    except DamagedRowError:
        return _UNKNOWN  # found when its table is read
