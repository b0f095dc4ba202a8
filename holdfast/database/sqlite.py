"""Connections of sqlite3."""

from __future__ import annotations

import sqlite3

from holdfast.database.errors import no_connection, no_transaction

#: Connections before Python 3.12 have no ``autocommit``; later ones have this value unless told otherwise.
_LEGACY = -1


def checked(connection: sqlite3.Connection) -> sqlite3.Connection:
    """It, when it is one.

    Raises:
        DatabaseError: it is something else.
    """
    if not isinstance(connection, sqlite3.Connection):
        raise no_connection(connection, "a sqlite3.Connection")
    return connection


def in_transaction(connection: sqlite3.Connection) -> sqlite3.Connection:
    """A connection in a transaction, or one that begins it with the next change.

    Raises:
        DatabaseError: each statement would be committed by itself.
    """
    if not checked(connection).in_transaction and _commits_by_itself(connection):
        raise no_transaction("execute BEGIN first, or leave isolation_level alone")
    return connection


def _commits_by_itself(connection: sqlite3.Connection) -> bool:
    mode = getattr(connection, "autocommit", _LEGACY)
    return connection.isolation_level is None if mode == _LEGACY else bool(mode)
