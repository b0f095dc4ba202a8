"""Records that are published when, and only when, a database transaction commits.

::

    outbox = PostgresOutbox()

    with pool.connection() as conn, conn.transaction():
        conn.execute("INSERT INTO orders ...")
        outbox.put(conn, "orders", payload, key=customer)

    async with holdfast.connect("127.0.0.1:7450") as bus:
        await Relay(bus, outbox, connect=lambda: psycopg.connect(dsn)).run()

A row of a table is written in the user's own transaction; the relay publishes
rows under idempotency keys and deletes them once they are acknowledged. A relay
that is killed in between publishes them again, and the brokers know them.

Neither begins, commits or rolls back the user's transactions. Drivers are not
dependencies of the package: ``pip install 'holdfast[postgres]'`` or
``'holdfast[sqlalchemy]'``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.database.errors import DatabaseError
    from holdfast.outbox.postgres import PostgresOutbox
    from holdfast.outbox.relay import Relay
    from holdfast.outbox.sqlalchemy import SqlAlchemyOutbox
    from holdfast.outbox.sqlite import SqliteOutbox

__all__ = ["DatabaseError", "PostgresOutbox", "Relay", "SqlAlchemyOutbox", "SqliteOutbox"]

_HOMES = {
    "DatabaseError": "database.errors",
    "PostgresOutbox": "outbox.postgres",
    "Relay": "outbox.relay",
    "SqlAlchemyOutbox": "outbox.sqlalchemy",
    "SqliteOutbox": "outbox.sqlite",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'holdfast.outbox' has no attribute {name!r}")
    return getattr(import_module(f"holdfast.{home}"), name)
