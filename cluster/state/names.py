"""Names of topics, groups and members."""

from __future__ import annotations

import re

from holdfast.errors import InvalidArgumentError

MAX_NAME = 249
_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_NAME}}}")
MAX_MEMBER_ID = 64
_MEMBER_ID = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_MEMBER_ID}}}")


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


#: What the names of the brokers' own groups start with: those that keep the lists of dead letters.
HIDDEN_PREFIX = "_dead/"


def check_group_name(name: str, *, field: str = "group") -> str:
    """A group's name inside the log: as ``check_name``, or that of a dead-letter topic's hidden group.

    Users cannot make a name with a slash: services call ``check_name``.

    Raises:
        InvalidArgumentError: it is neither; ``metadata["field"]`` is ``field``.
    """
    check_name(name.removeprefix(HIDDEN_PREFIX), what="group", field=field)
    return name


def is_hidden(group: str) -> bool:
    """Whether a group is the brokers' own."""
    return group.startswith(HIDDEN_PREFIX)


def check_member_id(member: str, *, field: str = "member_id") -> str:
    """A member's id, when it is 1 to 64 of [A-Za-z0-9._-].

    Raises:
        InvalidArgumentError: it is not; ``metadata["field"]`` is ``field``.
    """
    if _MEMBER_ID.fullmatch(member) is None:
        raise InvalidArgumentError(
            f"member id {member[:80]!r}: 1 to {MAX_MEMBER_ID} characters of A-Z a-z 0-9 . _ - are allowed",
            metadata={"field": field},
        )
    return member
