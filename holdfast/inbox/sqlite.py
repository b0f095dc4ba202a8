"""The inbox in a SQLite file, by ``sqlite3``."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from holdfast.client.types import Record
from holdfast.inbox.errors import no_connection, no_transaction
from holdfast.inbox.marks import KEEP, TABLE, Marks, for_sqlite

#: Connections before Python 3.12 have no ``autocommit``; later ones have this value unless told otherwise.
_LEGACY = -1


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
            InboxError: not a connection of ``sqlite3``.
        """
        _checked(connection).execute(self._sql.create)

    def begin(self, connection: sqlite3.Connection, record: Record) -> bool:
        """Mark the record as handled in the present transaction; False: it was handled before.

        Raises:
            InboxError: the connection is in no transaction and would not begin one.
            sqlite3.OperationalError: somebody else is writing, and went on for longer than the timeout.
        """
        connection = _checked(connection)
        if not connection.in_transaction and _commits_by_itself(connection):
            raise no_transaction("execute BEGIN first, or leave isolation_level alone")
        return connection.execute(self._sql.begin, self.mark(record)).rowcount == 1

    def prune(
        self,
        connection: sqlite3.Connection,
        floors: Mapping[tuple[str, int], int],
        *,
        keep: float = KEEP,
    ) -> int:
        """Delete marks older than ``keep`` seconds below a group's offsets, as in ``Committed``; how many.

        Raises:
            InboxError: not a connection of ``sqlite3``.
            InvalidArgumentError: no such time.
        """
        connection = _checked(connection)
        return sum(
            connection.execute(self._sql.prune, values).rowcount for values in self.pruned(floors, keep)
        )


def _checked(connection: sqlite3.Connection) -> sqlite3.Connection:
    if not isinstance(connection, sqlite3.Connection):
        raise no_connection(connection, "a sqlite3.Connection")
    return connection


def _commits_by_itself(connection: sqlite3.Connection) -> bool:
    mode = getattr(connection, "autocommit", _LEGACY)
    return connection.isolation_level is None if mode == _LEGACY else bool(mode)
