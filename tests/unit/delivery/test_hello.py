"""The first message of a subscription: what is wrong with it is named."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.cluster.delivery.hello import MAX_CONCURRENCY, MAX_HOLDING, check_start
from holdfast.cluster.group_definition import DAY_MS
from holdfast.errors import InvalidArgumentError, LimitExceededError, ProtocolVersionError
from holdfast.v1 import bus_pb2


def start(**fields: Any) -> bus_pb2.SubscribeStart:
    return bus_pb2.SubscribeStart(**{"group": "g", "member_id": "m", "protocol": 2, **fields})


def test_what_is_absent() -> None:
    hello = check_start(start(), max_credits=10)
    assert (hello.group, hello.member, hello.concurrency, hello.grace_ms) == ("g", "m", 1, None)
    assert (hello.definition, hello.start, hello.topics, hello.holding) == (None, None, (), ())


def test_what_is_there() -> None:
    held = bus_pb2.Holding(topic="t", partition=1, base=5, runs=[0, 2, 3, 1])
    hello = check_start(
        start(topics=["b", "a"], static_grace_ms=0, concurrency=7, credits=10, holding=[held]), max_credits=10
    )
    assert (hello.topics, hello.grace_ms, hello.concurrency, hello.credits) == (("a", "b"), 0, 7, 10)
    assert hello.holding[0].ranges == ((5, 7), (10, 11))


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("group", {"group": ""}),
        ("group", {"group": "_dead/t"}),
        ("member_id", {"member_id": ""}),
        ("member_id", {"member_id": "x" * 65}),
        ("member_id", {"member_id": "a/b"}),
        ("concurrency", {"concurrency": MAX_CONCURRENCY + 1}),
        ("static_grace_ms", {"static_grace_ms": DAY_MS + 1}),
        ("topics", {"topics": ["a b"]}),
        ("topics", {"topics": ["a"], "definition": bus_pb2.GroupDefinition(topics=["b"])}),
        ("holding", {"holding": [bus_pb2.Holding(topic="t", runs=[0, MAX_HOLDING + 1])]}),
        ("runs", {"holding": [bus_pb2.Holding(topic="t", runs=[0])]}),
    ],
)
def test_what_is_refused(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_start(start(**fields), max_credits=10)
    assert caught.value.metadata["field"] == field


def test_a_long_name_is_cut() -> None:
    """As its row has it: otherwise the row would never be as it should be."""
    assert check_start(start(consumer_name="n" * 100_000), max_credits=10).name == "n" * 200


def test_another_protocol() -> None:
    with pytest.raises(ProtocolVersionError) as caught:
        check_start(start(protocol=3), max_credits=10)
    assert caught.value.metadata == {"supported": "0,2"}


def test_too_many_credits() -> None:
    with pytest.raises(LimitExceededError, match="11 credits"):
        check_start(start(credits=11), max_credits=10)
