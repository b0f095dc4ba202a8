"""Decoding values into what handlers take."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

from holdfast.client.handlers.errors import PayloadError
from holdfast.client.handlers.payloads import decoder_for, guarded
from holdfast.errors import InvalidArgumentError

T = TypeVar("T")


class Struct(msgspec.Struct):
    id: int
    note: str = ""


@dataclasses.dataclass
class Plain:
    id: int
    at: datetime | None = None


class Typed(TypedDict):
    id: int


class Model(pydantic.BaseModel):
    id: int = pydantic.Field(gt=0)


@pydantic.dataclasses.dataclass
class Strict:
    id: Annotated[int, pydantic.Field(gt=0)]


@dataclasses.dataclass
class Holds:
    models: list[Model]


class Tree(msgspec.Struct):
    id: int
    below: list[Tree] = []


class Box(msgspec.Struct, Generic[T]):
    held: T


class Odd:
    """Nothing that JSON has."""


@dataclasses.dataclass
class HoldsOdd:
    odd: Odd


@pytest.mark.parametrize(
    ("kind", "value", "payload"),
    [
        (bytes, b"\xff\x00", b"\xff\x00"),
        (str, "ä".encode(), "ä"),
        (dict, b'{"id": 1}', {"id": 1}),
        (list[int], b"[1, 2]", [1, 2]),
        (int, b"7", 7),
        (Any, b'[null, "x"]', [None, "x"]),
        (Struct, b'{"id": 1, "more": 2}', Struct(1)),
        (Plain, b'{"id": 1, "at": "2024-01-01T00:00:00"}', Plain(1, datetime(2024, 1, 1))),
        (Typed, b'{"id": 1}', {"id": 1}),
        (Struct | None, b"null", None),
        (Literal["a", "b"], b'"a"', "a"),
        (Annotated[int, msgspec.Meta(gt=0)], b"1", 1),
        (Tree, b'{"id": 1, "below": [{"id": 2}]}', Tree(1, [Tree(2)])),
        (Box[Struct], b'{"held": {"id": 1}}', Box(Struct(1))),
        (Model, b'{"id": 1}', Model(id=1)),
        (Strict, b'{"id": 1}', Strict(id=1)),
        (list[Model], b'[{"id": 1}]', [Model(id=1)]),
        (Model | None, b"null", None),
        (Holds, b'{"models": [{"id": 1}]}', Holds([Model(id=1)])),
        (Annotated[int, pydantic.Field(gt=0)], b"1", 1),
    ],
)
def test_types(kind: Any, value: bytes, payload: Any) -> None:
    decoded = decoder_for(kind)(value)
    assert decoded == payload
    assert type(decoded) is type(payload)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (str, b"\xff", "not UTF-8"),
        (dict, b"", "truncated"),
        (dict, b"[1]", "Expected `object`"),
        (Struct, b'{"id": "1"}', "$.id"),
        (Struct, b"\x00\x01", "malformed"),
        (Any, b"[" * 100_000, "too deeply"),
        (Annotated[int, msgspec.Meta(gt=0)], b"0", ">= 1"),
        (Model, b'{"id": 0}', "id: Input should be greater than 0"),
        (Model, b"{", "Invalid JSON"),
        (Strict, b'{"id": 0}', "id: Input should be greater than 0"),
        (list[Model], b'[{"id": 1}, {"id": -1}]', "1.id"),
        (Holds, b'{"models": [{"id": 0}]}', "models.0.id"),
        (Annotated[int, pydantic.Field(gt=0)], b"0", "greater than 0"),
    ],
)
def test_a_value_that_does_not_parse(kind: Any, value: bytes, text: str) -> None:
    with pytest.raises(PayloadError, match=text.replace("$", r"\$").replace(".", r"\.")) as caught:
        decoder_for(kind)(value)
    assert len(str(caught.value)) <= 180


def test_errors_do_not_quote_the_value() -> None:
    secret = b'{"id": "s3cret"}'
    for kind in (Struct, Model):
        with pytest.raises(PayloadError) as caught:
            decoder_for(kind)(secret)
        assert "s3cret" not in str(caught.value)


def test_many_errors_are_counted() -> None:
    with pytest.raises(PayloadError, match="and 7 more"):
        decoder_for(list[Model])(b"[" + b",".join([b"1"] * 10) + b"]")


@pytest.mark.parametrize("kind", [Odd, list[Odd], HoldsOdd, Odd | None, dict[str, HoldsOdd], Callable, 3])
def test_types_nothing_can_be_decoded_into(kind: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        decoder_for(kind)
    assert caught.value.metadata["field"] == "payload"


def test_a_decoder_of_ones_own() -> None:
    assert guarded(lambda value: int(value, 16))(b"ff") == 255
    with pytest.raises(PayloadError, match="ValueError: invalid literal"):
        guarded(lambda value: int(value, 16))(b"no")

    def short(value: bytes) -> Any:
        raise MemoryError

    with pytest.raises(MemoryError):
        guarded(short)(b"")


def test_pydantic_is_only_imported_for_its_own_types() -> None:
    code = (
        "import sys\n"
        "from holdfast.client.handlers.payloads import decoder_for\n"
        "sys.modules['pydantic'] = None\n"  # an import of it fails
        "assert decoder_for(dict)(b'{}') == {}\n"
        "assert decoder_for(list[int])(b'[1]') == [1]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
