"""The inbox in the database of a SQLAlchemy 2 session: PostgreSQL or SQLite, whatever the driver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from holdfast.client.types import Record
from holdfast.inbox.errors import InboxError, no_connection, no_driver, no_transaction
from holdfast.inbox.marks import KEEP, TABLE, Marks, Statements, for_postgres, for_sqlite

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

    Sync: TypeAlias = Session | Connection
    Async: TypeAlias = AsyncSession | AsyncConnection

_T = TypeVar("_T")


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
            InboxError: no session of SQLAlchemy's, or another database.
        """

        def work(connection: Connection) -> None:
            connection.exec_driver_sql(self._statements(connection).create)

        return _through(session, work)

    @overload
    def begin(self, session: Sync, record: Record) -> bool: ...
    @overload
    def begin(self, session: Async, record: Record) -> Awaitable[bool]: ...
    def begin(self, session: Sync | Async, record: Record) -> bool | Awaitable[bool]:
        """Mark the record as handled in the session's transaction; False: it was handled before.

        Raises:
            InboxError: the session is in AUTOCOMMIT.
            sqlalchemy.exc.DBAPIError: the database refused.
        """
        mark = self.mark(record)

        def work(connection: Connection) -> bool:
            statements = self._statements(connection)
            _check_transaction(connection)
            return _execute(connection, statements.begin, mark) == 1

        return _through(session, work)

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
            InboxError: no session of SQLAlchemy's, or another database.
            InvalidArgumentError: no such time.
        """
        every = list(self.pruned(floors, keep))

        def work(connection: Connection) -> int:
            statements = self._statements(connection)
            return sum(_execute(connection, statements.prune, values) for values in every)

        return _through(session, work)

    def _statements(self, connection: Connection) -> Statements:
        found = self._sql.get(connection.dialect.name)
        if found is None:
            raise InboxError(f"{connection.dialect.name}: inboxes are for {' and '.join(self._sql)}")
        return found


def _through(session: object, work: Callable[[Connection], _T]) -> _T | Awaitable[_T]:
    """Do it on the session's connection, at once or as an awaitable."""
    try:
        from sqlalchemy import Connection  # noqa: PLC0415  (not a dependency: who has a session has it)
        from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession  # noqa: PLC0415
        from sqlalchemy.orm import Session  # noqa: PLC0415
    except ImportError as error:
        raise no_driver("SQLAlchemy 2", "sqlalchemy") from error
    if isinstance(session, AsyncSession):
        return session.run_sync(lambda plain: work(plain.connection()))
    if isinstance(session, AsyncConnection):
        return session.run_sync(work)
    if isinstance(session, Session):
        return work(session.connection())
    if isinstance(session, Connection):
        return work(session)
    raise no_connection(session, "a session or connection of SQLAlchemy 2")


def _execute(connection: Connection, text: str, values: dict[str, Any]) -> int:
    from sqlalchemy import text as statement  # noqa: PLC0415

    return connection.execute(statement(text), values).rowcount


def _check_transaction(connection: Connection) -> None:
    raw = connection.connection.dbapi_connection
    by_itself = raw is not None and connection.dialect.detect_autocommit_setting(raw)
    # With SQLite's driver told not to begin transactions, an event of the engine's may have begun one.
    if by_itself and not getattr(raw, "in_transaction", False):
        raise no_transaction("use an engine or session without isolation_level='AUTOCOMMIT'")
