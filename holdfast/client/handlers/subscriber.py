"""What a handler is: a function, the group whose records it is called with, and how."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar

from holdfast.client.handlers import signature
from holdfast.client.handlers.breaker import Breaker
from holdfast.client.handlers.classify import OwnRule
from holdfast.client.handlers.payloads import Decoder, decoder_for, guarded
from holdfast.client.positions import to_position
from holdfast.client.retry import Retry
from holdfast.errors import InvalidArgumentError
from holdfast.v1 import bus_pb2

P = ParamSpec("P")
R = TypeVar("R")

Ordering: TypeAlias = Literal["partition", "key", "none"]
Semantics: TypeAlias = Literal["at_least_once", "at_most_once", "exactly_once"]

_ORDERINGS = {
    "partition": bus_pb2.ORDERING_PARTITION,
    "key": bus_pb2.ORDERING_KEY,
    "none": bus_pb2.ORDERING_NONE,
}
_SEMANTICS = {
    "at_least_once": bus_pb2.SEMANTICS_AT_LEAST_ONCE,
    "at_most_once": bus_pb2.SEMANTICS_AT_MOST_ONCE,
    "exactly_once": bus_pb2.SEMANTICS_EXACTLY_ONCE,
}
_MAX_CONCURRENCY = 10_000
_DAY = 86_400.0
#: Records held per member: one partition after another is worked through, so they come in bulk ...
_PREFETCH_IN_ORDER = 1_000
#: ... or one for each that is at work.
_PREFETCH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a handler is called; every field is a keyword of the decorator.

    Attributes:
        topics: names, or patterns of ``*`` and ``?``.
        group: whose member the handler is.
        payload: what the record's value is decoded into; None: as the parameter is annotated, else bytes.
        decode: does the decoding itself; for values that are not JSON.
        semantics: when a record counts as handled.
        ordering: what is handled in order, one at a time.
        concurrency: calls at once.
        prefetch: records held here, those at work included; None: two for each call at once, or 1,000
            when partitions are worked through in order.
        retry: None: as the group has it.
        dead_letter: the topic of records that cannot be handled.
        create_dead_letter: make that topic when it is not there.
        timeout: seconds a call may take; None: any time.
        breaker: None: none.
        fatal: exceptions after which a record is not tried again.
        classify: one's own rule for exceptions; None from it leaves one to the others.
        ack_timeout: seconds of silence after which brokers take the records back; None: as the group has it.
        start: where the group begins in the topics it is made with.
        max_unacked: records of a partition between the first unsettled one and the last handed out.

    Raises:
        InvalidArgumentError: ``metadata["field"]`` names what makes no sense.
    """

    topics: tuple[str, ...]
    group: str
    payload: Any = None
    decode: Callable[[bytes], Any] | None = None
    semantics: Semantics = "at_least_once"
    ordering: Ordering = "partition"
    concurrency: int = 1
    prefetch: int | None = None
    retry: Retry | None = None
    dead_letter: str | None = None
    create_dead_letter: bool = True
    timeout: float | None = None
    breaker: Breaker | None = None
    fatal: tuple[type[BaseException], ...] = ()
    classify: OwnRule | None = None
    ack_timeout: float | None = None
    start: Literal["earliest", "latest"] | datetime | None = None
    max_unacked: int | None = None

    def __post_init__(self) -> None:
        _require(bool(self.topics) and all(_is_name(t) for t in self.topics), "topics", "must name topics")
        _require(_is_name(self.group), "group", "must be a name")
        _require(self.semantics in _SEMANTICS, "semantics", f"must be one of {', '.join(_SEMANTICS)}")
        _require(self.ordering in _ORDERINGS, "ordering", f"must be one of {', '.join(_ORDERINGS)}")
        _require(_is_count(self.concurrency), "concurrency", f"must be 1 to {_MAX_CONCURRENCY}")
        if self.prefetch is not None:
            enough = _is_count(self.prefetch, 100_000) and self.prefetch >= self.concurrency
            _require(enough, "prefetch", "must be at least concurrency, and at most 100000")
        if self.max_unacked is not None:
            _require(_is_count(self.max_unacked, 200_000), "max_unacked", "must be 1 to 200000")
        _require(self.retry is None or isinstance(self.retry, Retry), "retry", "must be a Retry")
        _require(self.breaker is None or isinstance(self.breaker, Breaker), "breaker", "must be a Breaker")
        if self.timeout is not None:
            _require(0 < self.timeout < math.inf, "timeout", "must be more than 0 seconds")
        if self.ack_timeout is not None:
            _require(5 <= self.ack_timeout <= _DAY, "ack_timeout", "must be 5 seconds to a day")
        exceptions = all(isinstance(e, type) and issubclass(e, BaseException) for e in self.fatal)
        _require(exceptions, "fatal", "must be exception classes")
        _require(self.classify is None or callable(self.classify), "classify", "must be a function")
        _require(self.decode is None or callable(self.decode), "decode", "must be a function")
        if self.start is not None:
            known = isinstance(self.start, datetime) or self.start in ("earliest", "latest")
            _require(known, "start", "must be earliest, latest or a time")
        self._check_dead_letter()
        if self.semantics == "at_most_once":
            self._check_at_most_once()

    def _check_dead_letter(self) -> None:
        if self.dead_letter is None:
            needed = self.retry is not None and bool(self.retry.attempts)
            _require(not needed, "dead_letter", "is missing: that is where records go after retry.attempts")
            return
        _require(_is_name(self.dead_letter), "dead_letter", "must name a topic")
        _require(self.dead_letter not in self.topics, "dead_letter", "is one of the topics the handler reads")

    def _check_at_most_once(self) -> None:
        """Records are settled before they come: there is nothing to hand back, nor for a key to wait for."""
        text = "needs another semantics than at_most_once"
        _require(self.ordering != "key", "ordering", f"by key {text}")
        _require(self.retry is None, "retry", text)
        _require(self.dead_letter is None, "dead_letter", text)
        _require(self.breaker is None, "breaker", text)

    @property
    def capacity(self) -> int:
        """Records held here at most, those at work included."""
        if self.prefetch is not None:
            return self.prefetch
        in_bulk = self.ordering == "partition" and self.semantics != "at_most_once"
        return max(_PREFETCH * self.concurrency, _PREFETCH_IN_ORDER if in_bulk else 0)

    def definition(self) -> bus_pb2.GroupDefinition:
        """The group as brokers are asked for it: what is not said here is left as it is there.

        Raises:
            InvalidArgumentError: ``start`` is no place to start at.
        """
        made = bus_pb2.GroupDefinition(
            topics=[topic for topic in self.topics if not _is_pattern(topic)],
            patterns=[topic for topic in self.topics if _is_pattern(topic)],
            semantics=_SEMANTICS[self.semantics],
            ordering=_ORDERINGS[self.ordering],
        )
        if self.retry is not None:
            made.retry.CopyFrom(self.retry.message())
        if self.dead_letter is not None:
            made.dead_letter_topic = self.dead_letter
        if self.ack_timeout is not None:
            made.ack_timeout_ms = round(self.ack_timeout * 1_000)
        if self.max_unacked is not None:
            made.max_unacked = self.max_unacked
        if self.start is not None:
            made.start.CopyFrom(to_position(self.start, "start"))
        return made


class Handler(Generic[P, R]):
    """A function and how it is called with records. Made by ``subscriber``; can be called as before.

    Attributes:
        function: what was decorated.
        options: how it is called.
        signature: what it takes.
        decode: from a record's value to the payload; raises PayloadError.
        name: for logs.

    Raises:
        InvalidArgumentError: the function cannot be called with records, or not so.
    """

    def __init__(self, function: Callable[P, R], options: Options) -> None:
        # Several subscribers on one function are so many handlers of it.
        self.function: Callable[P, R] = function.function if isinstance(function, Handler) else function
        function = self.function
        self.options = options
        self.signature = signature.read(
            function, payload_given=options.payload is not None or options.decode is not None
        )
        self.decode: Decoder = self._decoder()
        self.name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"
        if options.semantics == "exactly_once":
            # A thread could not end its transaction on the loop that it belongs to.
            _require(self.signature.is_async, "handler", "of an exactly_once group must be async")
        elif self.signature.takes(signature.TRANSACTION):
            text = 'takes a transaction: give semantics="exactly_once", or open one with bus.transaction()'
            _require(False, "handler", text)
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<handler {self.name} of {self.options.group}>"

    def _decoder(self) -> Decoder:
        if self.options.decode is not None:
            return guarded(self.options.decode)
        if not self.signature.takes(signature.PAYLOAD):
            if self.options.payload is not None:
                _require(False, "payload", f"is given, but {self.function!r} takes none")
            return decoder_for(bytes)
        kind = self.options.payload
        if kind is None:
            kind = self.signature.payload
        return decoder_for(bytes if kind is None else kind)


@dataclass(frozen=True, slots=True)
class Subscribe:
    """The decorator; see ``subscriber``."""

    options: Options = field(repr=False)
    on_made: Callable[[Handler[Any, Any]], None] | None = None

    def __call__(self, function: Callable[P, R]) -> Handler[P, R]:
        handler = Handler(function, self.options)
        if self.on_made is not None:
            self.on_made(handler)
        return handler


def subscriber(
    topics: str | Sequence[str],
    *,
    group: str,
    payload: Any = None,
    decode: Callable[[bytes], Any] | None = None,
    semantics: Semantics = "at_least_once",
    ordering: Ordering = "partition",
    concurrency: int = 1,
    prefetch: int | None = None,
    retry: Retry | None = None,
    dead_letter: str | None = None,
    create_dead_letter: bool = True,
    timeout: float | None = None,
    breaker: Breaker | None = None,
    fatal: type[BaseException] | Sequence[type[BaseException]] = (),
    classify: OwnRule | None = None,
    ack_timeout: float | None = None,
    start: Literal["earliest", "latest"] | datetime | None = None,
    max_unacked: int | None = None,
    on_made: Callable[[Handler[Any, Any]], None] | None = None,
) -> Subscribe:
    """A decorator: calls the function with the records of a group. Arguments are those of ``Options``.

    ::

        @subscriber("orders", group="billing", ordering="key", concurrency=64)
        async def bill(order: Order, record: Record) -> None: ...

    Raises:
        InvalidArgumentError: here, or when it decorates: what makes no sense is told before anything runs.
    """
    options = Options(
        topics=(topics,) if isinstance(topics, str) else tuple(topics),
        group=group,
        payload=payload,
        decode=decode,
        semantics=semantics,
        ordering=ordering,
        concurrency=concurrency,
        prefetch=prefetch,
        retry=retry,
        dead_letter=dead_letter,
        create_dead_letter=create_dead_letter,
        timeout=timeout,
        breaker=breaker,
        fatal=(fatal,) if isinstance(fatal, type) else tuple(fatal),
        classify=classify,
        ack_timeout=ack_timeout,
        start=start,
        max_unacked=max_unacked,
    )
    options.definition()
    return Subscribe(options, on_made)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name)


def _is_pattern(topic: str) -> bool:
    return "*" in topic or "?" in topic


def _is_count(number: object, most: int = _MAX_CONCURRENCY) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= most


def _require(holds: bool, field: str, what: str) -> None:
    if not holds:
        raise InvalidArgumentError(f"{field} {what}", metadata={"field": field})
