"""The inbox in a SQLite file, by ``sqlite3``."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from holdfast.client.types import Record
from holdfast.database.sqlite import checked, in_transaction
from holdfast.inbox.marks import KEEP, TABLE, Marks, for_sqlite


class SqliteInbox(Marks):
    """Marks in the SQLite database that has the effects.

    Raises:
        InvalidArgumentError: a name makes no sense.
    """

    def __init__(self, consumer: str, *, table: str = TABLE) -> None:
        super().__init__(consumer, table=table)
        self._sql = for_sqlite(table)

    def create(self, connection: sqlite3.Connection) -> None:
        """Make the table unless it is there.

        Raises:
            DatabaseError: not a connection of ``sqlite3``.
        """
        checked(connection).execute(self._sql.create)

    def begin(self, connection: sqlite3.Connection, record: Record) -> bool:
        """Mark the record as handled in the present transaction; False: it was handled before.

        Raises:
            DatabaseError: the connection is in no transaction and would not begin one.
            sqlite3.OperationalError: somebody else is writing, and went on for longer than the timeout.
        """
        return in_transaction(connection).execute(self._sql.begin, self.mark(record)).rowcount == 1

    def prune(
        self,
        connection: sqlite3.Connection,
        floors: Mapping[tuple[str, int], int],
        *,
        keep: float = KEEP,
    ) -> int:
        """Delete marks older than ``keep`` seconds below a group's offsets, as in ``Committed``; how many.

        Raises:
            DatabaseError: not a connection of ``sqlite3``.
            InvalidArgumentError: no such time.
        """
        connection = checked(connection)
        return sum(
            connection.execute(self._sql.prune, values).rowcount for values in self.pruned(floors, keep)
        )
