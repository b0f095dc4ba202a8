"""Names of topics and groups."""

from __future__ import annotations

import re

from holdfast.errors import InvalidArgumentError

MAX_NAME = 249
_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_NAME}}}")


def check_name(name: str, *, what: str, field: str) -> str:
    """The name, when it is 1 to 249 of [A-Za-z0-9._-] and not "." or "..".

    Raises:
        InvalidArgumentError: it is not; ``metadata["field"]`` is ``field``.
    """
    if _NAME.fullmatch(name) is None or name in (".", ".."):
        shown = name if len(name) <= 64 else name[:64] + "..."
        raise InvalidArgumentError(
            f"{what} name {shown!r}: 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ - are allowed",
            metadata={"field": field},
        )
    return name
