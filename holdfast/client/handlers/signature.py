"""A handler's parameters, read once: which is the payload, the record, the context, the transaction."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, NamedTuple

from holdfast.client.handlers.context import Context
from holdfast.client.types import Record
from holdfast.errors import InvalidArgumentError

#: What a parameter may be, as places in the values of a call.
PAYLOAD, RECORD, CONTEXT, TRANSACTION = range(4)

_BY_NAME = {
    "record": RECORD,
    "context": CONTEXT,
    "ctx": CONTEXT,
    "transaction": TRANSACTION,
    "tx": TRANSACTION,
}
#: Of annotations that are only imported for type checkers.
_BY_WRITTEN = {"Record": RECORD, "Context": CONTEXT, "Transaction": TRANSACTION}
_TEXT = {PAYLOAD: "payload", RECORD: "record", CONTEXT: "context", TRANSACTION: "transaction"}
#: By name, so that a handler without one does not pay for it.
_TRANSACTION_CLASS = ("holdfast.client.transaction", "Transaction")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Values(NamedTuple):
    """What a handler can be given; PAYLOAD, RECORD, CONTEXT and TRANSACTION are its places."""

    payload: Any
    record: Record
    context: Context | None = None
    transaction: Any = None


class Signature(NamedTuple):
    """How a handler is called.

    Attributes:
        positional: places in ``Values``, one per positional argument.
        keyword: the same, by the names of parameters that are named in the call.
        payload: the payload's type as annotated; None when there is no annotation, or no payload.
        is_async: it is a coroutine function; others run in threads.
    """

    positional: tuple[int, ...]
    keyword: dict[str, int]
    payload: Any
    is_async: bool

    def takes(self, what: int) -> bool:
        """Whether the handler has a parameter for this."""
        return what in self.positional or what in self.keyword.values()

    def call(self, function: Callable[..., Any], values: Values) -> Any:
        """Call the handler with what it takes."""
        positional = [values[place] for place in self.positional]
        if not self.keyword:
            return function(*positional)
        return function(*positional, **{name: values[place] for name, place in self.keyword.items()})


def read(function: Callable[..., Any], *, payload_given: bool = False) -> Signature:
    """How to call this function.

    A parameter annotated ``Record``, ``Context`` or ``Transaction`` is given that; without an annotation
    its name decides (``record``, ``context`` or ``ctx``, ``transaction`` or ``tx``). The one that is left is
    given the payload. Any others must have defaults, and keep them.

    Args:
        payload_given: the payload's type was said apart from the signature.

    Raises:
        InvalidArgumentError: it cannot be called as a handler.
    """
    if not callable(function) or isinstance(function, type):
        raise _wrong(function, "a handler must be a function")
    plain = inspect.isroutine(function) or isinstance(function, functools.partial)
    called: Callable[..., Any] = function if plain else type(function).__call__.__get__(function)
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise _wrong(function, "a handler must not yield: that it returns is what settles the record")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise _wrong(function, f"its parameters cannot be read ({error}): wrap it in a function") from error
    hints = _hints(called)
    names: dict[int, str] = {}
    for parameter in parameters:
        place = _place(function, parameter, hints.get(parameter.name))
        if place is None:
            continue
        if place not in names:
            names[place] = parameter.name
        elif place == PAYLOAD:
            raise _wrong(
                function,
                f"{names[place]!r} and {parameter.name!r} could both be the payload: annotate the others as "
                "Record, Context or Transaction, or give them defaults",
            )
        else:
            raise _wrong(function, f"{parameter.name!r} asks for the {_TEXT[place]} a second time")
    if PAYLOAD not in names and RECORD not in names:
        raise _wrong(function, "a handler takes the payload, or the record, or both")
    payload = hints.get(names[PAYLOAD]) if PAYLOAD in names else None
    if isinstance(payload, str) and not payload_given:
        raise _wrong(
            function,
            f"the annotation {payload!r} of {names[PAYLOAD]!r} is not known where the handler is defined: "
            "define the type in the module, or give payload=",
        )
    positional, keyword = _plan(parameters, {name: place for place, name in names.items()})
    return Signature(positional, keyword, payload, inspect.iscoroutinefunction(called))


def _place(function: object, parameter: inspect.Parameter, hint: Any) -> int | None:
    """What the parameter is given; None: its default."""
    if parameter.kind in _VARIADIC:
        raise _wrong(function, f"*{parameter.name} would be given nothing: name what the handler takes")
    if hint is Record:
        return RECORD
    if hint is Context:
        return CONTEXT
    if (getattr(hint, "__module__", ""), getattr(hint, "__qualname__", "")) == _TRANSACTION_CLASS:
        return TRANSACTION
    if hint is None:
        place = _BY_NAME.get(parameter.name)
    elif isinstance(hint, str):
        place = _BY_WRITTEN.get(hint.rpartition(".")[2])
    else:
        place = None
    if place is None and parameter.default is inspect.Parameter.empty:
        return PAYLOAD
    return place


def _plan(
    parameters: Iterable[inspect.Parameter], places: dict[str, int]
) -> tuple[tuple[int, ...], dict[str, int]]:
    positional: list[int] = []
    keyword: dict[str, int] = {}
    by_name = False
    for parameter in parameters:
        if parameter.name not in places:
            by_name = True  # what follows a default that stays can only be named
        elif by_name or parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            keyword[parameter.name] = places[parameter.name]
        else:
            positional.append(places[parameter.name])
    return tuple(positional), keyword


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations as types; those that cannot be found stay as they are written."""
    inner = inspect.unwrap(function.func if isinstance(function, functools.partial) else function)
    found: dict[str, Any] = {}
    for name, written in getattr(inner, "__annotations__", {}).items():
        alone = SimpleNamespace(__annotations__={name: written})
        try:
            hints = typing.get_type_hints(alone, getattr(inner, "__globals__", {}), include_extras=True)
        except Exception:  # noqa: BLE001  (annotations are expressions: they can raise anything)
            hints = {name: written}
        found |= hints
    return found


def _wrong(function: object, what: str) -> InvalidArgumentError:
    name = getattr(function, "__qualname__", None) or repr(function)
    return InvalidArgumentError(f"handler {name}: {what}", metadata={"field": "handler"})
