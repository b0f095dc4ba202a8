"""The inbox in the database of a SQLAlchemy 2 session: PostgreSQL or SQLite, whatever the driver."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, overload

from holdfast.client.types import Record
from holdfast.database.sqlalchemy import check_transaction, execute, of_dialect, through
from holdfast.inbox.marks import KEEP, TABLE, Marks, for_postgres, for_sqlite

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from holdfast.database.sqlalchemy import Async, Sync


class SqlAlchemyInbox(Marks):
    """Marks in the database that has the effects, through the session they go through.

    With a ``Session`` or ``Connection`` the methods return what they say; with an ``AsyncSession`` or
    ``AsyncConnection``, an awaitable of it.

    Raises:
        InvalidArgumentError: a name makes no sense.
    """

    def __init__(self, consumer: str, *, table: str = TABLE) -> None:
        super().__init__(consumer, table=table)
        self._sql = {"postgresql": for_postgres(table), "sqlite": for_sqlite(table)}

    @overload
    def create(self, session: Sync) -> None: ...
    @overload
    def create(self, session: Async) -> Awaitable[None]: ...
    def create(self, session: Sync | Async) -> Awaitable[None] | None:
        """Make the table unless it is there, in the session's transaction.

        Raises:
            DatabaseError: no session of SQLAlchemy's, or another database.
        """

        def work(connection: Connection) -> None:
            connection.exec_driver_sql(of_dialect(connection, self._sql).create)

        return through(session, work)

    @overload
    def begin(self, session: Sync, record: Record) -> bool: ...
    @overload
    def begin(self, session: Async, record: Record) -> Awaitable[bool]: ...
    def begin(self, session: Sync | Async, record: Record) -> bool | Awaitable[bool]:
        """Mark the record as handled in the session's transaction; False: it was handled before.

        Raises:
            DatabaseError: the session is in AUTOCOMMIT.
            sqlalchemy.exc.DBAPIError: the database refused.
        """
        mark = self.mark(record)

        def work(connection: Connection) -> bool:
            statements = of_dialect(connection, self._sql)
            check_transaction(connection)
            return execute(connection, statements.begin, mark) == 1

        return through(session, work)

    @overload
    def prune(self, session: Sync, floors: Mapping[tuple[str, int], int], *, keep: float = KEEP) -> int: ...
    @overload
    def prune(
        self, session: Async, floors: Mapping[tuple[str, int], int], *, keep: float = KEEP
    ) -> Awaitable[int]: ...
    def prune(
        self, session: Sync | Async, floors: Mapping[tuple[str, int], int], *, keep: float = KEEP
    ) -> int | Awaitable[int]:
        """Delete marks older than ``keep`` seconds below a group's offsets, as in ``Committed``; how many.

        Raises:
            DatabaseError: no session of SQLAlchemy's, or another database.
            InvalidArgumentError: no such time.
        """
        every = list(self.pruned(floors, keep))

        def work(connection: Connection) -> int:
            statements = of_dialect(connection, self._sql)
            return sum(execute(connection, statements.prune, values) for values in every)

        return through(session, work)
