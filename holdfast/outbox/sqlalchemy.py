"""The outbox in the database of a SQLAlchemy 2 session: PostgreSQL or SQLite, whatever the driver."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, overload

from holdfast.client.inputs import HeadersInput
from holdfast.database.sqlalchemy import check_transaction, execute, of_dialect, through
from holdfast.outbox.rows import TABLE, Dialect, Rows, dialect_for_postgres, dialect_for_sqlite

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from holdfast.database.sqlalchemy import Async, Sync


class SqlAlchemyOutbox(Rows):
    """Records to be published, in the database of a session and through it.

    With a ``Session`` or ``Connection`` the methods return what they say; with an ``AsyncSession`` or
    ``AsyncConnection``, an awaitable of it. The relay's is a ``Connection``: ``connect=engine.connect``.

    Raises:
        InvalidArgumentError: the table's name makes no sense.
    """

    def __init__(self, *, table: str = TABLE) -> None:
        super().__init__(table=table)
        self._dialects = {"postgresql": dialect_for_postgres(table), "sqlite": dialect_for_sqlite(table)}

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
            connection.exec_driver_sql(self._dialect(connection).create)

        return through(session, work)

    @overload
    def put(
        self,
        session: Sync,
        topic: str,
        value: bytes,
        *,
        key: bytes | str | None = None,
        headers: HeadersInput = None,
        idempotency_key: bytes | str | None = None,
        timestamp: datetime | int | None = None,
    ) -> None: ...
    @overload
    def put(
        self,
        session: Async,
        topic: str,
        value: bytes,
        *,
        key: bytes | str | None = None,
        headers: HeadersInput = None,
        idempotency_key: bytes | str | None = None,
        timestamp: datetime | int | None = None,
    ) -> Awaitable[None]: ...
    def put(
        self,
        session: Sync | Async,
        topic: str,
        value: bytes,
        *,
        key: bytes | str | None = None,
        headers: HeadersInput = None,
        idempotency_key: bytes | str | None = None,
        timestamp: datetime | int | None = None,
    ) -> Awaitable[None] | None:
        """Publish a record once the session's transaction is committed. Arguments as of ``Client.publish``.

        Raises:
            InvalidArgumentError, RecordTooLargeError: it could not be published.
            DatabaseError: the session is in AUTOCOMMIT.
        """
        row = self.row(topic, value, key, headers, idempotency_key, timestamp)

        def work(connection: Connection) -> None:
            self._dialect(connection)
            check_transaction(connection)
            execute(connection, self._put_sql, row)

        return through(session, work)

    def _dialect(self, connection: Any) -> Dialect:
        return of_dialect(connection, self._dialects)

    def _query(self, connection: Any, text: str, values: Mapping[str, Any]) -> list[Any]:
        from sqlalchemy import text as statement  # noqa: PLC0415

        return list(connection.execute(statement(text), values).fetchall())

    def _change(self, connection: Any, text: str, values: Mapping[str, Any]) -> None:
        execute(connection, text, values)
