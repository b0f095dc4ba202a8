"""What a decorator makes of a function, and which it refuses."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from holdfast.client.handlers.breaker import Breaker
from holdfast.client.handlers.context import Context
from holdfast.client.handlers.errors import PayloadError
from holdfast.client.handlers.signature import CONTEXT, PAYLOAD, RECORD, TRANSACTION, Values, read
from holdfast.client.handlers.subscriber import Handler, Options, subscriber
from holdfast.client.retry import Retry
from holdfast.client.types import Record
from holdfast.errors import InvalidArgumentError
from holdfast.v1 import bus_pb2

from .kit import record


class Order(msgspec.Struct):
    id: int


ORDER, RECORD_1, TX = Order(1), record(1), object()
VALUES = Values(ORDER, RECORD_1, None, TX)


class Callee:
    async def __call__(self, order: Order, rec: Record) -> tuple[object, ...]:
        return order, rec

    async def method(self, order: Order, ctx: Context) -> tuple[object, ...]:
        return order, ctx


def payload_only(order: Order) -> Any:
    return (order,)


def by_type(r: Record, o: Order) -> Any:
    return r, o


def by_name(payload, record, ctx, tx):  # type: ignore[no-untyped-def]
    return payload, record, ctx, tx


def record_only(record: Record) -> Any:
    return (record,)


def with_defaults(
    order: Order, limit: int = 5, record: Record | None = None, *, c: Context, db: Any = 7
) -> Any:
    return order, limit, c, db


def positional_only(order: Order, record: Record, /) -> Any:
    return order, record


def written_elsewhere(order: Order, it: holdfast.Record) -> Any:  # type: ignore[name-defined]  # noqa: F821
    return order, it


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (payload_only, (ORDER,)),
        (by_type, (RECORD_1, ORDER)),
        (by_name, (ORDER, RECORD_1, None, TX)),
        (record_only, (RECORD_1,)),
        (with_defaults, (ORDER, 5, None, 7)),
        (positional_only, (ORDER, RECORD_1)),
        (written_elsewhere, (ORDER, RECORD_1)),
        (decorated(by_type), (RECORD_1, ORDER)),
        (functools.partial(with_defaults, limit=9), (ORDER, 9, None, 7)),
        (lambda value, record: (value, record), (ORDER, RECORD_1)),
    ],
)
def test_what_a_function_is_given(function: Callable[..., Any], given: tuple[object, ...]) -> None:
    signature = read(function)
    assert signature.call(function, VALUES) == given
    assert not signature.is_async


async def test_objects_and_methods() -> None:
    for function in (Callee(), Callee().method):
        signature = read(function)
        assert signature.is_async
        assert (await signature.call(function, VALUES))[0] is ORDER
        assert signature.payload is Order


def test_what_it_takes() -> None:
    assert [read(by_name).takes(what) for what in (PAYLOAD, RECORD, CONTEXT, TRANSACTION)] == [True] * 4
    assert not read(payload_only).takes(CONTEXT)
    assert read(with_defaults).takes(CONTEXT)
    assert read(record_only).payload is None


def test_a_transaction_by_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("holdfast.client.transaction")
    kind = type("Transaction", (), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def pay(order: Order, work: Any) -> Any:
        return order, work

    pay.__annotations__["work"] = kind
    assert read(pay).call(pay, VALUES) == (ORDER, TX)


def two_payloads(a: Order, b: dict[str, int]) -> None: ...
def two_records(order: Order, a: Record, record: Any = None, b: Record = RECORD_1) -> None: ...
def nothing() -> None: ...
def context_only(ctx: Context) -> None: ...
def any_number(order: Order, *more: Any) -> None: ...
def any_names(order: Order, **more: Any) -> None: ...
def unknown_type(order: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def yields(order: Order) -> Iterator[int]:
    yield 1


async def yields_async(order: Order) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (two_payloads, "'a' and 'b' could both be the payload"),
        (two_records, "'b' asks for the record a second time"),
        (nothing, "takes the payload, or the record"),
        (context_only, "takes the payload, or the record"),
        (any_number, r"\*more would be given nothing"),
        (any_names, r"\*more would be given nothing"),
        (unknown_type, "'Nowhere' of 'order' is not known"),
        (yields, "must not yield"),
        (yields_async, "must not yield"),
        (Order, "must be a function"),
        (3, "must be a function"),
        (max, "parameters cannot be read"),
    ],
)
def test_functions_that_cannot_be_handlers(function: Any, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text) as caught:
        subscriber("orders", group="billing")(function)
    assert caught.value.metadata["field"] == "handler"


def test_a_payload_given_apart() -> None:
    handler = subscriber("orders", group="billing", payload=Order)(unknown_type)
    assert handler.decode(b'{"id": 1}') == ORDER
    with pytest.raises(PayloadError):
        handler.decode(b"{}")


def test_bytes_when_nothing_is_said() -> None:
    assert subscriber("orders", group="billing")(by_name_without_tx).decode(b"\xff") == b"\xff"
    assert subscriber("orders", group="billing")(record_only).decode(b"\xff") == b"\xff"


def by_name_without_tx(payload, record):  # type: ignore[no-untyped-def]
    return payload, record


def test_a_decoder_of_ones_own() -> None:
    handler = subscriber("orders", group="billing", decode=lambda value: Order(int(value)))(payload_only)
    assert handler.decode(b"7") == Order(7)
    with pytest.raises(PayloadError):
        handler.decode(b"x")


def test_a_decorated_function_is_called_as_before() -> None:
    handler = subscriber("orders", group="billing")(payload_only)
    assert handler(ORDER) == (ORDER,)
    assert handler.__name__ == "payload_only"
    assert "payload_only" in repr(handler)
    again = subscriber("refunds", group="billing")(handler)
    assert again.function is payload_only
    assert again.options.topics == ("refunds",)
    assert isinstance(handler, Handler)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"topics": ()}, "topics"),
        ({"topics": ("",)}, "topics"),
        ({"topics": (3,)}, "topics"),
        ({"group": ""}, "group"),
        ({"semantics": "exactly-once"}, "semantics"),
        ({"ordering": "keys"}, "ordering"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"concurrency": 2.0}, "concurrency"),
        ({"concurrency": 4, "prefetch": 3}, "prefetch"),
        ({"max_unacked": 0}, "max_unacked"),
        ({"retry": 5}, "retry"),
        ({"breaker": True}, "breaker"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"ack_timeout": 4}, "ack_timeout"),
        ({"fatal": ("ValueError",)}, "fatal"),
        ({"classify": "x"}, "classify"),
        ({"decode": "x"}, "decode"),
        ({"retry": Retry(attempts=5)}, "dead_letter"),
        ({"dead_letter": "orders"}, "dead_letter"),
        ({"dead_letter": ""}, "dead_letter"),
        ({"start": 17}, "start"),
        ({"start": datetime(2024, 1, 1)}, "start"),
        ({"start": "now"}, "start"),
        ({"semantics": "at_most_once", "ordering": "key"}, "ordering"),
        ({"semantics": "at_most_once", "retry": Retry()}, "retry"),
        ({"semantics": "at_most_once", "dead_letter": "d"}, "dead_letter"),
        ({"semantics": "at_most_once", "breaker": Breaker()}, "breaker"),
        ({"payload": object()}, "payload"),
        ({"semantics": "exactly_once"}, "handler"),
    ],
)
def test_options_that_make_no_sense(given: dict[str, Any], field: str) -> None:
    everything = {"topics": ("orders",), "group": "billing", **given}
    with pytest.raises(InvalidArgumentError) as caught:
        subscriber(everything.pop("topics"), **everything)(payload_only)
    assert caught.value.metadata["field"] == field


def test_a_payload_nobody_takes() -> None:
    with pytest.raises(InvalidArgumentError, match="takes none"):
        subscriber("orders", group="billing", payload=Order)(record_only)


def test_a_transaction_needs_its_semantics() -> None:
    async def pay(order: Order, tx: Any) -> None: ...

    pay.__annotations__.pop("tx")
    with pytest.raises(InvalidArgumentError, match="exactly_once"):
        subscriber("orders", group="billing", payload=Order)(pay)
    subscriber("orders", group="billing", payload=Order, semantics="exactly_once")(pay)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"attempts": -1}, "retry.attempts"),
        ({"attempts": 1_001}, "retry.attempts"),
        ({"attempts": 1.5}, "retry.attempts"),
        ({"initial": 2.0, "maximum": 1.0}, "retry.initial"),
        ({"initial": -1.0}, "retry.initial"),
        ({"maximum": 8 * 86_400}, "retry.maximum"),
        ({"multiplier": 0.5}, "retry.multiplier"),
        ({"jitter": 2}, "retry.jitter"),
        ({"jitter": float("nan")}, "retry.jitter"),
    ],
)
def test_retries_that_make_no_sense(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Retry(**given)
    assert caught.value.metadata["field"] == field


def test_the_group_that_is_asked_for() -> None:
    asked = Options(
        topics=("orders", "eu-*"),
        group="billing",
        ordering="key",
        retry=Retry(attempts=5, initial=0.5, maximum=30, multiplier=1.5, jitter=0.2),
        dead_letter="billing.dead",
        ack_timeout=10,
        max_unacked=100,
        start=datetime(2024, 1, 1, tzinfo=UTC),
    ).definition()
    assert asked == bus_pb2.GroupDefinition(
        topics=["orders"],
        patterns=["eu-*"],
        semantics=bus_pb2.SEMANTICS_AT_LEAST_ONCE,
        ordering=bus_pb2.ORDERING_KEY,
        retry=bus_pb2.RetryPolicy(
            max_attempts=5, initial_ms=500, max_ms=30_000, multiplier_milli=1_500, jitter_permille=200
        ),
        dead_letter_topic="billing.dead",
        ack_timeout_ms=10_000,
        max_unacked=100,
        start=bus_pb2.Position(time_us=1_704_067_200_000_000),
    )


def test_what_is_not_said_is_left_open() -> None:
    asked = Options(topics=("orders",), group="billing").definition()
    for field in ("retry", "dead_letter_topic", "ack_timeout_ms", "max_unacked", "start"):
        assert not asked.HasField(field)  # type: ignore[arg-type]


def test_brokers_agree_with_what_is_asked() -> None:
    from holdfast.cluster.group_definition import check

    asked = Options(topics=("orders",), group="g", retry=Retry(attempts=3), dead_letter="d").definition()
    assert check(asked).max_attempts == 3


@pytest.mark.parametrize(
    ("given", "capacity"),
    [
        ({"concurrency": 8}, 1_000),
        ({"concurrency": 8, "ordering": "key"}, 16),
        ({"concurrency": 8, "ordering": "none"}, 16),
        ({"concurrency": 8, "semantics": "at_most_once"}, 16),
        ({"concurrency": 2_000}, 4_000),
        ({"concurrency": 8, "prefetch": 9}, 9),
    ],
)
def test_how_many_records_are_held(given: dict[str, Any], capacity: int) -> None:
    assert Options(topics=("orders",), group="g", **given).capacity == capacity
