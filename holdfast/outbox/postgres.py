"""The outbox in PostgreSQL, by psycopg 3."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, overload

from holdfast.client.inputs import HeadersInput
from holdfast.database.postgres import check_transaction, is_async, plain, tuple_rows
from holdfast.database.styles import for_psycopg
from holdfast.outbox.rows import TABLE, Dialect, Rows, dialect_for_postgres

if TYPE_CHECKING:
    from holdfast.database.postgres import Async, Sync


class PostgresOutbox(Rows):
    """Records to be published, in the PostgreSQL database that has what they tell of.

    With a connection of psycopg's the methods return what they say; with an asynchronous one, an
    awaitable of it. The relay's connection is of the first kind.

    Raises:
        InvalidArgumentError: the table's name makes no sense.
    """

    def __init__(self, *, table: str = TABLE) -> None:
        super().__init__(table=table)
        self._only = dialect_for_postgres(table)
        self._put_sql = for_psycopg(self._put_sql)

    @overload
    def create(self, connection: Sync) -> None: ...
    @overload
    def create(self, connection: Async) -> Awaitable[None]: ...
    def create(self, connection: Sync | Async) -> Awaitable[None] | None:
        """Make the table unless it is there; several may do so at once.

        Raises:
            DatabaseError: not a connection of psycopg's.
        """
        if is_async(connection):
            return _execute(connection, self._only.create, None)
        plain(connection).execute(self._only.create)
        return None

    @overload
    def put(
        self,
        connection: Sync,
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
        connection: Async,
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
        connection: Sync | Async,
        topic: str,
        value: bytes,
        *,
        key: bytes | str | None = None,
        headers: HeadersInput = None,
        idempotency_key: bytes | str | None = None,
        timestamp: datetime | int | None = None,
    ) -> Awaitable[None] | None:
        """Publish a record once the present transaction is committed. Arguments as of ``Client.publish``.

        Raises:
            InvalidArgumentError, RecordTooLargeError: it could not be published.
            DatabaseError: the connection is in autocommit, outside of ``transaction()``.
        """
        row = self.row(topic, value, key, headers, idempotency_key, timestamp)
        asynchronous = is_async(connection)
        check_transaction(connection)
        if asynchronous:
            return _execute(connection, self._put_sql, row)
        plain(connection).execute(self._put_sql, row)
        return None

    def _dialect(self, connection: Any) -> Dialect:
        return self._only

    def _query(self, connection: Any, text: str, values: Mapping[str, Any]) -> list[Any]:
        with connection.cursor(row_factory=tuple_rows()) as cursor:
            return list(cursor.execute(for_psycopg(text), values).fetchall())

    def _change(self, connection: Any, text: str, values: Mapping[str, Any]) -> None:
        connection.execute(for_psycopg(text), values)


async def _execute(connection: Any, text: str, values: Mapping[str, Any] | None) -> None:
    await connection.execute(text, values)
