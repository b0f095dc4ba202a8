"""What cannot be done with a connection."""

from __future__ import annotations

from holdfast.errors import FailedPreconditionError


class DatabaseError(FailedPreconditionError):
    """The connection cannot be used for that; the message says what to change."""


def no_transaction(hint: str) -> DatabaseError:
    """The connection commits each statement by itself."""
    return DatabaseError(
        "the connection is in autocommit and in no transaction: nothing would be kept together; " + hint
    )


def no_driver(name: str, extra: str) -> DatabaseError:
    """The driver is not installed."""
    return DatabaseError(f"{name} is not installed: pip install 'holdfast[{extra}]'")


def no_connection(given: object, wanted: str) -> DatabaseError:
    """Something else was given."""
    return DatabaseError(f"{type(given).__module__}.{type(given).__qualname__} is not {wanted}")
