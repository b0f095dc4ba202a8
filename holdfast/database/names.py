"""Names of tables."""

from __future__ import annotations

import re

from holdfast.errors import InvalidArgumentError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?")


def check_table(table: str) -> str:
    """The name, when it can stand in a statement as it is.

    Raises:
        InvalidArgumentError: it cannot.
    """
    if not isinstance(table, str) or _NAME.fullmatch(table) is None:
        raise InvalidArgumentError(
            f"table {table!r} must be a plain name, or schema.name", metadata={"field": "table"}
        )
    return table
