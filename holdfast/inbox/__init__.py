"""Effects in a database, exactly once: the mark of a record that was handled commits with its effect.

::

    inbox = PostgresInbox("ledger")

    async def book(payment: Payment, record: holdfast.Record):
        async with pool.connection() as conn, conn.transaction():
            if await inbox.begin(conn, record):  # False: its transaction was committed before
                await conn.execute("UPDATE accounts ...")

A record may be delivered again after its transaction was committed and before
its acknowledgement was durable; its mark is there then, and nothing is done twice.
Two handlers of one record at the same time are kept apart by the mark's key: the
later one waits for the transaction of the earlier one.

The inbox never begins, commits or rolls back. Its drivers are not dependencies
of the package: ``pip install 'holdfast[postgres]'`` or ``'holdfast[sqlalchemy]'``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.database.errors import DatabaseError
    from holdfast.inbox.postgres import PostgresInbox
    from holdfast.inbox.sqlalchemy import SqlAlchemyInbox
    from holdfast.inbox.sqlite import SqliteInbox

__all__ = ["DatabaseError", "PostgresInbox", "SqlAlchemyInbox", "SqliteInbox"]

_HOMES = {
    "DatabaseError": "database.errors",
    "PostgresInbox": "inbox.postgres",
    "SqlAlchemyInbox": "inbox.sqlalchemy",
    "SqliteInbox": "inbox.sqlite",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'holdfast.inbox' has no attribute {name!r}")
    return getattr(import_module(f"holdfast.{home}"), name)
