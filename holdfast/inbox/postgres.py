"""The inbox in PostgreSQL, by psycopg 3."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, overload

from holdfast.client.types import Record
from holdfast.database.postgres import check_transaction, is_async, plain, tuple_rows
from holdfast.inbox.marks import KEEP, TABLE, Marks, for_postgres

if TYPE_CHECKING:
    from holdfast.database.postgres import Async, Sync


class PostgresInbox(Marks):
    """Marks in the PostgreSQL database that has the effects.

    With a connection of psycopg's the methods return what they say; with an asynchronous one, an
    awaitable of it.

    Raises:
        InvalidArgumentError: a name makes no sense.
    """

    def __init__(self, consumer: str, *, table: str = TABLE) -> None:
        super().__init__(consumer, table=table)
        self._sql = for_postgres(table).for_psycopg()

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
            return self._create(connection)
        with plain(connection).cursor() as cursor:
            cursor.execute(self._sql.create)
        return None

    @overload
    def begin(self, connection: Sync, record: Record) -> bool: ...
    @overload
    def begin(self, connection: Async, record: Record) -> Awaitable[bool]: ...
    def begin(self, connection: Sync | Async, record: Record) -> bool | Awaitable[bool]:
        """Mark the record as handled in the present transaction; False: it was handled before.

        Waits while another transaction that has begun with the record is open.

        Raises:
            DatabaseError: the connection is in autocommit, outside of ``transaction()``.
            psycopg.Error: the database refused; at REPEATABLE READ and above also when another
                transaction has handled the record meanwhile.
        """
        mark = self.mark(record)
        if is_async(connection):
            return self._begin(connection, mark)
        check_transaction(connection)
        with plain(connection).cursor(row_factory=tuple_rows()) as cursor:
            cursor.execute(self._sql.begin + _RETURNING, mark)
            return cursor.fetchone() is not None

    @overload
    def prune(
        self, connection: Sync, floors: Mapping[tuple[str, int], int], *, keep: float = KEEP
    ) -> int: ...
    @overload
    def prune(
        self, connection: Async, floors: Mapping[tuple[str, int], int], *, keep: float = KEEP
    ) -> Awaitable[int]: ...
    def prune(
        self, connection: Sync | Async, floors: Mapping[tuple[str, int], int], *, keep: float = KEEP
    ) -> int | Awaitable[int]:
        """Delete marks older than ``keep`` seconds below a group's offsets, as in ``Committed``; how many.

        Raises:
            DatabaseError: not a connection of psycopg's.
            InvalidArgumentError: no such time.
        """
        every = list(self.pruned(floors, keep))
        if is_async(connection):
            return self._prune(connection, every)
        gone = 0
        with plain(connection).cursor(row_factory=tuple_rows()) as cursor:
            for values in every:
                cursor.execute(self._sql.prune + _RETURNING, values)
                gone += len(cursor.fetchall())
        return gone

    async def _create(self, connection: Async) -> None:
        async with connection.cursor() as cursor:
            await cursor.execute(self._sql.create)

    async def _begin(self, connection: Async, mark: dict[str, Any]) -> bool:
        check_transaction(connection)
        async with connection.cursor(row_factory=tuple_rows()) as cursor:
            await cursor.execute(self._sql.begin + _RETURNING, mark)
            return await cursor.fetchone() is not None

    async def _prune(self, connection: Async, every: list[dict[str, Any]]) -> int:
        gone = 0
        async with connection.cursor(row_factory=tuple_rows()) as cursor:
            for values in every:
                await cursor.execute(self._sql.prune + _RETURNING, values)
                gone += len(await cursor.fetchall())
        return gone


#: A count of rows is not known yet within a pipeline; rows are.
_RETURNING = " RETURNING 1"
