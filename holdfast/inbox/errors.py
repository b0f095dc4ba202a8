"""What an inbox refuses."""

from __future__ import annotations

from holdfast.errors import FailedPreconditionError


class InboxError(FailedPreconditionError):
    """The mark could not be kept with the effect; the message says what to change."""


def no_transaction(hint: str) -> InboxError:
    """The connection commits each statement by itself."""
    return InboxError(
        "the connection is in autocommit and in no transaction: the mark would not go with its effect; "
        + hint
    )


def no_driver(name: str, extra: str) -> InboxError:
    """The driver is not installed."""
    return InboxError(f"{name} is not installed: pip install 'holdfast[{extra}]'")


def no_connection(given: object, wanted: str) -> InboxError:
    """Something else was given."""
    return InboxError(f"{type(given).__module__}.{type(given).__qualname__} is not {wanted}")
