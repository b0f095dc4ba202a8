"""Definitions of groups: defaults, what is refused and by which field, conflicts, pauses between attempts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cluster.group_definition import (
    Definition,
    Ordering,
    Semantics,
    backoff_ms,
    check,
    conflict,
    fixed_conflict,
    to_message,
)
from holdfast.errors import InvalidArgumentError
from holdfast.v1 import bus_pb2


def message(**fields: Any) -> bus_pb2.GroupDefinition:
    fields.setdefault("topics", ["orders"])
    retry = {name: fields.pop(name) for name in list(fields) if name in _RETRY}
    made = bus_pb2.GroupDefinition(**fields)
    if retry:
        made.retry.CopyFrom(bus_pb2.RetryPolicy(**retry))
    return made


_RETRY = frozenset(f.name for f in bus_pb2.RetryPolicy.DESCRIPTOR.fields)


def test_what_is_absent_is_the_default() -> None:
    assert check(message()) == Definition(topics=("orders",))
    full = check(
        message(
            topics=["b", "a", "b"],
            patterns=["x*"],
            semantics=bus_pb2.SEMANTICS_EXACTLY_ONCE,
            ordering=bus_pb2.ORDERING_KEY,
            max_attempts=5,
            initial_ms=10,
            max_ms=20,
            multiplier_milli=1_500,
            jitter_permille=0,
            ack_timeout_ms=5_000,
            dead_letter_topic="dead",
            start=bus_pb2.Position(time_us=7),
            max_unacked=1,
            max_retrying=2,
            max_lease_ms=3,
        )
    )
    assert (full.topics, full.semantics, full.ordering) == (("a", "b"), Semantics.EXACTLY_ONCE, Ordering.KEY)
    assert (full.max_attempts, full.start_us, full.max_lease_ms) == (5, 7, 3)


definitions = st.builds(
    Definition,
    topics=st.sets(st.sampled_from(("a", "b", "c")), min_size=1).map(lambda s: tuple(sorted(s))),
    patterns=st.sets(st.sampled_from(("x*", "y?")), max_size=2).map(lambda s: tuple(sorted(s))),
    semantics=st.sampled_from((Semantics.AT_LEAST_ONCE, Semantics.EXACTLY_ONCE)),
    ordering=st.sampled_from(Ordering),
    max_attempts=st.integers(0, 1_000),
    initial_ms=st.integers(0, 1_000),
    max_ms=st.integers(1_000, 604_800_000),
    multiplier_milli=st.integers(1_000, 10_000),
    jitter_permille=st.integers(0, 1_000),
    ack_timeout_ms=st.integers(5_000, 86_400_000),
    dead_letter_topic=st.just("dead"),
    max_unacked=st.integers(1, 200_000),
    max_retrying=st.integers(1, 16_384),
    max_lease_ms=st.integers(0, 604_800_000),
    start_latest=st.booleans(),
)


@given(definitions)
def test_a_definition_survives_its_message(definition: Definition) -> None:
    assert check(to_message(definition)) == definition
    assert conflict(to_message(definition), definition) is None


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"topics": []}, "topics"),
        ({"topics": ["a/b"]}, "topics"),
        ({"topics": [f"t{i}" for i in range(65)]}, "topics"),
        ({"patterns": ["[a]"]}, "patterns"),
        ({"patterns": [f"t{i}*" for i in range(9)]}, "patterns"),
        ({"semantics": 9}, "semantics"),
        ({"ordering": 9}, "ordering"),
        ({"max_attempts": 1_001, "dead_letter_topic": "d"}, "retry.max_attempts"),
        ({"max_attempts": 1}, "dead_letter_topic"),
        ({"initial_ms": 2_000, "max_ms": 1_000}, "retry.initial_ms"),
        ({"max_ms": 7 * 86_400_000 + 1}, "retry.max_ms"),
        ({"multiplier_milli": 999}, "retry.multiplier_milli"),
        ({"jitter_permille": 1_001}, "retry.jitter_permille"),
        ({"ack_timeout_ms": 4_999}, "ack_timeout_ms"),
        ({"dead_letter_topic": "orders"}, "dead_letter_topic"),
        ({"patterns": ["dead.*"], "dead_letter_topic": "dead.orders"}, "dead_letter_topic"),
        ({"dead_letter_topic": "no/name"}, "dead_letter_topic"),
        ({"start": bus_pb2.Position(offset=4)}, "start"),
        ({"start": bus_pb2.Position(time_us=-1)}, "start"),
        ({"max_unacked": 0}, "max_unacked"),
        ({"max_retrying": 16_385}, "max_retrying"),
        ({"max_lease_ms": 7 * 86_400_000 + 1}, "max_lease_ms"),
        ({"semantics": bus_pb2.SEMANTICS_AT_MOST_ONCE, "ordering": bus_pb2.ORDERING_KEY}, "ordering"),
        (
            {"semantics": bus_pb2.SEMANTICS_AT_MOST_ONCE, "max_attempts": 2, "dead_letter_topic": "d"},
            "retry.max_attempts",
        ),
        ({"semantics": bus_pb2.SEMANTICS_AT_MOST_ONCE, "dead_letter_topic": "d"}, "dead_letter_topic"),
    ],
)
def test_what_is_refused_names_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check(message(**fields))
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize(
    ("asked", "field", "has", "wants"),
    [
        ({"semantics": bus_pb2.SEMANTICS_EXACTLY_ONCE}, "semantics", "at_least_once", "exactly_once"),
        ({"ordering": bus_pb2.ORDERING_NONE}, "ordering", "key", "none"),
        ({"topics": ["orders", "more"]}, "topics", "orders", "more,orders"),
        ({"patterns": ["x*"]}, "patterns", "", "x*"),
        ({"max_attempts": 4}, "retry.max_attempts", "5", "4"),
        ({"ack_timeout_ms": 6_000}, "ack_timeout_ms", "30000", "6000"),
        ({"dead_letter_topic": "other"}, "dead_letter_topic", "dead", "other"),
        ({"start": bus_pb2.Position(latest=True)}, "start", "earliest", "latest"),
    ],
)
def test_a_conflict_names_the_field_and_both_sides(
    asked: dict[str, Any], field: str, has: str, wants: str
) -> None:
    definition = Definition(
        topics=("orders",), ordering=Ordering.KEY, max_attempts=5, dead_letter_topic="dead"
    )
    error = conflict(message(**asked), definition)
    assert error is not None
    assert error.metadata == {"field": field, "group_has": has, "asked": wants}
    assert field in str(error)
    assert not error.retriable


def test_what_is_not_set_agrees_with_anything() -> None:
    definition = Definition(topics=("a",), ordering=Ordering.KEY, max_attempts=5, dead_letter_topic="dead")
    assert conflict(bus_pb2.GroupDefinition(), definition) is None
    assert conflict(message(topics=["a"], max_attempts=5), definition) is None


def test_a_redefinition_may_change_all_but_two_fields() -> None:
    has = Definition(topics=("a",))
    assert fixed_conflict(Definition(topics=("b",), max_unacked=1), has) is None
    for changed, field in (
        (Definition(topics=("a",), semantics=Semantics.EXACTLY_ONCE), "semantics"),
        (Definition(topics=("a",), ordering=Ordering.NONE), "ordering"),
    ):
        error = fixed_conflict(changed, has)
        assert error is not None
        assert error.metadata["field"] == field


def test_patterns() -> None:
    definition = Definition(topics=("a",), patterns=("eu.*", "us-?"))
    read = [name for name in ("a", "b", "eu.", "eu.x", "xeu.x", "us-1", "us-12") if definition.reads(name)]
    assert read == ["a", "eu.", "eu.x", "us-1"]
    assert not Definition(patterns=("a.b",)).reads("axb")


def test_pauses_grow_up_to_their_bound() -> None:
    definition = Definition(topics=("a",), initial_ms=100, max_ms=1_000, jitter_permille=0)
    assert [backoff_ms(definition, b"", n) for n in range(1, 8)] == [100, 200, 400, 800, 1000, 1000, 1000]
    assert backoff_ms(Definition(topics=("a",), initial_ms=0), b"", 9) == 0


@given(definitions, st.binary(max_size=40), st.integers(1, 1_000))
def test_jitter_is_the_record_s_own_and_bounded(definition: Definition, identity: bytes, n: int) -> None:
    wait = backoff_ms(definition, identity, n)
    assert wait == backoff_ms(definition, identity, n)
    middle = backoff_ms(msgspec.structs.replace(definition, jitter_permille=0), identity, n)
    assert abs(wait - middle) <= middle * definition.jitter_permille / 1_000 + 1
    assert 0 <= middle <= definition.max_ms


def test_jitter_differs_between_records() -> None:
    definition = Definition(topics=("a",))
    found = {backoff_ms(definition, b"%d" % i, 1) for i in range(100)}
    assert len(found) > 50
    # A change of these is a change of what replicas work out.
    assert [backoff_ms(definition, b"record", n) for n in (1, 2, 3, 10)] == [1036, 1843, 4384, 60000]
