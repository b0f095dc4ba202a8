"""Sessions and connections of SQLAlchemy 2, imported on use: whoever hands over a session has it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from holdfast.database.errors import DatabaseError, no_connection, no_driver, no_transaction

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

    Sync: TypeAlias = Session | Connection
    Async: TypeAlias = AsyncSession | AsyncConnection

_T = TypeVar("_T")
_S = TypeVar("_S")


def of_dialect(connection: Connection, known: Mapping[str, _S]) -> _S:
    """What is known of the connection's kind of database.

    Raises:
        DatabaseError: nothing.
    """
    found = known.get(connection.dialect.name)
    if found is None:
        raise DatabaseError(f"{connection.dialect.name}: this is for {' and '.join(known)}")
    return found


def through(session: object, work: Callable[[Connection], _T]) -> _T | Awaitable[_T]:
    """Do it on the session's connection, at once or as an awaitable.

    Raises:
        DatabaseError: it is no session of SQLAlchemy's, or there is no SQLAlchemy.
    """
    try:
        from sqlalchemy import Connection  # noqa: PLC0415
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


def execute(connection: Connection, text: str, values: Mapping[str, Any]) -> int:
    """Execute a statement with ``:name`` parameters; how many rows it changed."""
    from sqlalchemy import text as statement  # noqa: PLC0415

    return connection.execute(statement(text), values).rowcount


def check_transaction(connection: Connection) -> None:
    """
    Raises:
        DatabaseError: each statement would be committed by itself.
    """
    raw = connection.connection.dbapi_connection
    by_itself = raw is not None and connection.dialect.detect_autocommit_setting(raw)
    # With SQLite's driver told not to begin transactions, an event of the engine's may have begun one.
    if by_itself and not getattr(raw, "in_transaction", False):
        raise no_transaction("use an engine or session without isolation_level='AUTOCOMMIT'")
