"""Values, keys and headers as callers may write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from holdfast.errors import InvalidArgumentError
from holdfast.records import Headers

HeaderValue: TypeAlias = bytes | str
HeadersInput: TypeAlias = Mapping[str, HeaderValue] | Sequence[tuple[str, HeaderValue]] | None


def to_bytes(value: object, field: str) -> bytes:
    """A private copy of anything bytes-like.

    Raises:
        InvalidArgumentError: it is something else.
    """
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    hint = ": encode it first" if isinstance(value, str) else ""
    raise InvalidArgumentError(
        f"{field} must be bytes, not {type(value).__name__}{hint}", metadata={"field": field}
    )


def to_key(key: object, field: str = "key") -> bytes:
    """A key's bytes; text is encoded as UTF-8.

    Raises:
        InvalidArgumentError: it is neither text nor bytes.
    """
    if isinstance(key, str):
        return _utf8(key, field)
    return to_bytes(key, field)


def to_headers(headers: HeadersInput, extra: Headers | None = None) -> Headers | None:
    """Headers as pairs; those of ``extra`` are added unless the caller gave the name.

    Raises:
        InvalidArgumentError: not names and values.
    """
    if not headers:
        return extra
    pairs: Iterable[tuple[str, HeaderValue]] = headers.items() if isinstance(headers, Mapping) else headers
    found: list[tuple[str, bytes]] = []
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise InvalidArgumentError(
                "headers must be a mapping, or pairs, of names and values", metadata={"field": "headers"}
            )
        name, value = pair
        _utf8(name, "headers")
        found.append(
            (name, _utf8(value, "headers") if isinstance(value, str) else to_bytes(value, "headers"))
        )
    if extra:
        names = {name for name, _ in found}
        found += [pair for pair in extra if pair[0] not in names]
    return tuple(found)


def _utf8(text: str, field: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"{field} is not valid Unicode: {error}", metadata={"field": field}
        ) from error
