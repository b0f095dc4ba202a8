"""What is wrong with a stored row, in one error: which row, and what can be done."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.errors import StorageError
from holdfast.storage.port import Table

#: What helps when a replica's own bytes cannot be trusted any more.
START_OVER = (
    "stop this node, empty its data directory and start it again: it catches up from the others; "
    "then have its disk looked at"
)

#: Tables whose rows can be taken from another replica: they never change once written.
REPAIRABLE = frozenset((Table.JOURNAL, Table.INDEX))


class DamagedRowError(StorageError):
    """A stored row is not what was written: it is never served, shipped or applied.

    Log entries, and index rows, can be fetched from another replica.

    Attributes:
        table: where it is.
        key: of the row.
    """

    def __init__(
        self, table: Table, key: bytes, what: str, *, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(what, metadata=metadata)
        self.table = table
        self.key = key


def damaged_row(table: Table, key: bytes) -> DamagedRowError:
    """A row whose seal does not match."""
    what = f"the row {key.hex()} of table {table.value} is damaged on this node"
    return DamagedRowError(table, key, what if table in REPAIRABLE else f"{what}: {START_OVER}")
