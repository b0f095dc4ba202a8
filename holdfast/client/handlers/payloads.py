"""From a record's value to what a handler takes.

JSON, decoded by msgspec into structs, dataclasses, typed dictionaries and what
they hold; by pydantic where a type is pydantic's. ``bytes`` and ``str`` pass
as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, get_args

import msgspec

from holdfast.client.handlers.errors import PayloadError
from holdfast.errors import InvalidArgumentError

#: Raises PayloadError when the bytes are not what they should be.
Decoder: TypeAlias = Callable[[bytes], Any]

#: Characters of an error that are told.
_TOLD = 180
#: Errors of pydantic's that are told.
_TOLD_ERRORS = 3


def decoder_for(kind: Any) -> Decoder:
    """A decoder of values into this type.

    Raises:
        InvalidArgumentError: nothing can be decoded into it.
    """
    if kind is bytes:
        return _as_bytes
    if kind is str:
        return _as_text
    if any(map(_is_pydantic, _parts(kind))):
        return _pydantic_decoder(kind)
    try:
        info = msgspec.inspect.type_info(kind)
        customs = {custom.cls for custom in _customs(info)}
        if any(map(_is_pydantic, customs)):
            return _pydantic_decoder(kind)
        if customs:
            raise TypeError(f"{', '.join(sorted(_name(custom) for custom in customs))} has no form in JSON")
        decode = msgspec.json.Decoder(kind).decode
    except Exception as error:
        raise InvalidArgumentError(
            f"payload: cannot decode JSON into {_name(kind)}: {error}; take a msgspec.Struct, a dataclass, "
            "a pydantic model, dict, list, str or bytes, or give decode=",
            metadata={"field": "payload"},
        ) from error
    return guarded(decode)


def guarded(decode: Callable[[bytes], Any]) -> Decoder:
    """A decoder whose every failure is a PayloadError: a value that does not parse never will."""

    def decoded(value: bytes) -> Any:
        try:
            return decode(value)
        except (PayloadError, MemoryError):
            raise
        except Exception as error:
            raise PayloadError(_told(error)) from error

    return decoded


def _as_bytes(value: bytes) -> bytes:
    return value


def _as_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise PayloadError(f"not UTF-8: {error.reason} at byte {error.start}") from error


def _pydantic_decoder(kind: Any) -> Decoder:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415  (the user's type has brought it)

    try:
        validate = TypeAdapter(kind).validate_json
    except Exception as error:
        raise InvalidArgumentError(
            f"payload: pydantic cannot decode into {_name(kind)}: {error}", metadata={"field": "payload"}
        ) from error

    def decoded(value: bytes) -> Any:
        try:
            return validate(value)
        except ValidationError as error:
            # Its own text quotes the value, which is nobody's business.
            told = [
                f"{'.'.join(map(str, each['loc'])) or 'value'}: {each['msg']}"
                for each in error.errors(include_url=False, include_context=False, include_input=False)
            ]
            more = f" (and {len(told) - _TOLD_ERRORS} more)" if len(told) > _TOLD_ERRORS else ""
            raise PayloadError(("; ".join(told[:_TOLD_ERRORS]) + more)[:_TOLD]) from error

    return guarded(decoded)


def _is_pydantic(kind: Any) -> bool:
    """Whether pydantic defines what this type, or what annotates one, means."""
    if hasattr(kind, "__pydantic_validator__") or hasattr(kind, "__get_pydantic_core_schema__"):
        return True
    return any(
        (getattr(each, "__module__", None) or "").partition(".")[0] == "pydantic"
        for each in (kind, type(kind))
    )


def _parts(kind: Any) -> Iterator[Any]:
    """A type and those it is written with: of ``list[Order] | None`` all four."""
    yield kind
    for part in get_args(kind):
        yield from _parts(part)


def _customs(info: Any, seen: set[int] | None = None) -> Iterator[msgspec.inspect.CustomType]:
    """The types within a type that msgspec does not know, or would only half honour: pydantic's."""
    seen = set() if seen is None else seen
    if isinstance(info, msgspec.inspect.CustomType):
        yield info
    elif isinstance(info, list | tuple):
        for each in info:
            yield from _customs(each, seen)
    elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
        if id(info) in seen:
            return  # a type that holds itself
        seen.add(id(info))
        if isinstance(info, msgspec.inspect.DataclassType) and _is_pydantic(info.cls):
            yield msgspec.inspect.CustomType(info.cls)
            return
        for field in info.__struct_fields__:
            yield from _customs(getattr(info, field), seen)


def _told(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = " ".join(str(error)[:1_000].split())
    if isinstance(error, msgspec.MsgspecError):
        return text[:_TOLD]
    return f"{type(error).__name__}: {text}"[:_TOLD]


def _name(kind: Any) -> str:
    return kind.__qualname__ if isinstance(kind, type) and not get_args(kind) else str(kind)
