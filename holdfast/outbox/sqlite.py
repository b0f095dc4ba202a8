"""The outbox in a SQLite file, by ``sqlite3``."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from holdfast.client.inputs import HeadersInput
from holdfast.database.sqlite import checked, in_transaction
from holdfast.outbox.rows import TABLE, Dialect, Rows, dialect_for_sqlite


class SqliteOutbox(Rows):
    """Records to be published, in the SQLite database that has what they tell of.

    Raises:
        InvalidArgumentError: the table's name makes no sense.
    """

    def __init__(self, *, table: str = TABLE) -> None:
        super().__init__(table=table)
        self._only = dialect_for_sqlite(table)

    def create(self, connection: sqlite3.Connection) -> None:
        """Make the table unless it is there.

        Raises:
            DatabaseError: not a connection of ``sqlite3``.
        """
        checked(connection).execute(self._only.create)

    def put(
        self,
        connection: sqlite3.Connection,
        topic: str,
        value: bytes,
        *,
        key: bytes | str | None = None,
        headers: HeadersInput = None,
        idempotency_key: bytes | str | None = None,
        timestamp: datetime | int | None = None,
    ) -> None:
        """Publish a record once the present transaction is committed. Arguments as of ``Client.publish``.

        Raises:
            InvalidArgumentError, RecordTooLargeError: it could not be published.
            DatabaseError: the connection is in no transaction and would not begin one.
        """
        row = self.row(topic, value, key, headers, idempotency_key, timestamp)
        in_transaction(connection).execute(self._put_sql, row)

    def _dialect(self, connection: Any) -> Dialect:
        checked(connection)
        return self._only

    def _query(self, connection: Any, text: str, values: Mapping[str, Any]) -> list[Any]:
        cursor = connection.cursor()
        cursor.row_factory = None  # whatever rows the connection's owner likes
        return list(cursor.execute(text, values).fetchall())

    def _change(self, connection: Any, text: str, values: Mapping[str, Any]) -> None:
        connection.execute(text, values)
