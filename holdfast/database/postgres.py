"""Connections of psycopg 3, imported on use: whoever hands over a connection has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, cast

from holdfast.database.errors import no_connection, no_driver, no_transaction

if TYPE_CHECKING:
    import psycopg

    Sync: TypeAlias = psycopg.Connection[Any]
    Async: TypeAlias = psycopg.AsyncConnection[Any]


def is_async(connection: Any) -> TypeGuard[Async]:
    """Whether it is an asynchronous connection; else it is one of the other kind.

    Raises:
        DatabaseError: neither, or there is no psycopg.
    """
    try:
        import psycopg  # noqa: PLC0415
    except ImportError as error:
        raise no_driver("psycopg", "postgres") from error
    if isinstance(connection, psycopg.AsyncConnection):
        return True
    if isinstance(connection, psycopg.Connection):
        return False
    raise no_connection(connection, "a connection of psycopg 3")


def plain(connection: Sync | Async) -> Sync:
    """It is none of the asynchronous kind."""
    return cast("Sync", connection)


def check_transaction(connection: Any) -> None:
    """
    Raises:
        DatabaseError: each statement would be committed by itself.
    """
    from psycopg.pq import TransactionStatus  # noqa: PLC0415

    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        raise no_transaction("call it within `with connection.transaction():`")


def tuple_rows() -> Any:
    """Whatever rows the connection's owner likes."""
    from psycopg.rows import tuple_row  # noqa: PLC0415

    return tuple_row
