"""Definitions of groups as users write them, and as the wire has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast.client.groups import from_definition, from_retry, to_definition, to_place
from holdfast.errors import InvalidArgumentError
from holdfast.v1 import bus_pb2, groups_pb2


def test_a_definition_says_what_it_says_and_no_more() -> None:
    definition = holdfast.GroupDefinition(
        topics=["orders"],
        ordering="key",
        retry=holdfast.Retry(attempts=5, initial=1.0, maximum=60.0),
        dead_letter="orders.dead",
    )
    message = bus_pb2.GroupDefinition(
        topics=["orders"], ordering=bus_pb2.ORDERING_KEY, dead_letter_topic="orders.dead"
    )
    message.retry.max_attempts = 5
    message.retry.initial_ms = 1_000
    message.retry.max_ms = 60_000
    assert to_definition(definition) == message
    assert to_definition(holdfast.GroupDefinition()) == bus_pb2.GroupDefinition()
    assert from_definition(bus_pb2.GroupDefinition()) == holdfast.GroupDefinition(topics=(), patterns=())


def test_every_field() -> None:
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    message = to_definition(
        holdfast.GroupDefinition(
            topics="one",
            patterns=("eu.*", "us-?"),
            semantics="exactly_once",
            retry=holdfast.Retry(multiplier=1.5, jitter=0.25),
            ack_timeout=7.5,
            max_lease=3600,
            start=at,
            max_unacked=7,
            max_retrying=9,
        )
    )
    assert (list(message.topics), list(message.patterns)) == (["one"], ["eu.*", "us-?"])
    assert message.semantics == bus_pb2.SEMANTICS_EXACTLY_ONCE
    assert (message.retry.multiplier_milli, message.retry.jitter_permille) == (1_500, 250)
    assert (message.ack_timeout_ms, message.max_lease_ms) == (7_500, 3_600_000)
    assert (message.max_unacked, message.max_retrying) == (7, 9)
    assert from_definition(message).start == at


milliseconds = st.none() | st.integers(0, 1 << 31).map(lambda ms: ms / 1_000)
counts = st.none() | st.integers(0, 1 << 31)
names = st.lists(st.sampled_from(["a", "b"]), max_size=2).map(tuple)
definitions = st.builds(
    holdfast.GroupDefinition,
    topics=names,
    patterns=names,
    semantics=st.sampled_from([None, "at_least_once", "at_most_once", "exactly_once"]),
    ordering=st.sampled_from([None, "partition", "key", "none"]),
    retry=st.builds(
        holdfast.Retry,
        attempts=st.none() | st.integers(0, 1_000),
        initial=st.none() | st.integers(0, 9_999).map(lambda ms: ms / 1_000),
        maximum=st.none() | st.integers(9_999, 604_800_000).map(lambda ms: ms / 1_000),
        multiplier=st.none() | st.integers(1_000, 10_000).map(lambda milli: milli / 1_000),
        jitter=st.none() | st.integers(0, 1_000).map(lambda permille: permille / 1_000),
    ),
    ack_timeout=milliseconds,
    max_lease=milliseconds,
    dead_letter=st.sampled_from([None, "", "dead"]),
    start=st.sampled_from([None, "earliest", "latest", datetime(2026, 1, 1, tzinfo=UTC)]),
    max_unacked=counts,
    max_retrying=counts,
)


@given(definitions)
def test_a_definition_comes_back(definition: holdfast.GroupDefinition) -> None:
    assert from_definition(to_definition(definition)) == definition


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"topics": 5}, "topics"),
        ({"topics": [5]}, "topics"),
        ({"patterns": [b"x"]}, "patterns"),
        ({"semantics": "once"}, "semantics"),
        ({"ordering": 1}, "ordering"),
        ({"retry": 5}, "retry"),
        ({"ack_timeout": 1e9}, "ack_timeout"),
        ({"max_lease": float("inf")}, "max_lease"),
        ({"dead_letter": 1}, "dead_letter"),
        ({"start": 4}, "start"),
        ({"start": datetime(2026, 1, 1)}, "start"),  # without a time zone
        ({"max_unacked": True}, "max_unacked"),
        ({"max_retrying": 1 << 32}, "max_retrying"),
    ],
)
def test_what_is_no_definition_names_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        to_definition(holdfast.GroupDefinition(**fields))
    assert caught.value.metadata["field"] == field


def test_a_definition_is_asked_for() -> None:
    with pytest.raises(InvalidArgumentError):
        to_definition({"topics": ["t"]})  # type: ignore[arg-type]


def test_a_record_that_waits() -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    us = int(at.timestamp()) * 1_000_000
    message = groups_pb2.Retry(
        place=groups_pb2.RetryPlace(topic="t", partition=1, offset=7),
        attempts=2,
        losses=1,
        parked=True,
        first_failed_us=us,
        errors=[groups_pb2.AttemptError(time_us=us + 1_000_000, error="no price")],
    )
    record = from_retry(message)
    assert record == holdfast.RetryingRecord(
        topic="t",
        partition=1,
        offset=7,
        attempts=2,
        losses=1,
        parked=True,
        due_at=None,
        first_failed_at=at,
        errors=((at + timedelta(seconds=1), "no price"),),
    )
    assert to_place(record) == to_place(("t", 1, 7)) == message.place
    message.due_us = 1 << 62
    assert from_retry(message).due_at == datetime.max.replace(tzinfo=UTC), "no calendar reaches it"


@pytest.mark.parametrize("place", [(), ("t", 1), ("t", -1, 0), ("t", 0, 1 << 64), (1, 2, 3), 5])
def test_what_is_no_place(place: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        to_place(place)
    assert caught.value.metadata["field"] == "places"
