"""The circuit breaker, by virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.client.handlers.breaker import MAX_REST, Breaker, Circuit, State
from holdfast.errors import InvalidArgumentError


def opened(at: float = 0.0, **settings: Any) -> Circuit:
    circuit = Circuit(Breaker(failures=1, **settings))
    assert circuit.failed(at)
    return circuit


def test_so_many_failures_in_time_open_it() -> None:
    circuit = Circuit(Breaker(failures=3, within=10.0, rest=5.0))
    assert not circuit.failed(0.0)
    assert not circuit.failed(9.0)
    assert not circuit.failed(10.5), "the first lies too far back"
    assert circuit.failed(19.0), "9, 10.5 and 19 lie within ten seconds"
    assert circuit.state is State.OPEN


def test_a_success_between_them_counts_anew() -> None:
    circuit = Circuit(Breaker(failures=2))
    assert not circuit.failed(0.0)
    assert not circuit.succeeded()
    assert not circuit.failed(1.0)
    assert circuit.failed(2.0)


def test_it_rests_then_lets_one_try() -> None:
    circuit = opened(100.0, rest=15.0)
    assert not circuit.tick(114.9)
    assert circuit.state is State.OPEN
    assert circuit.tick(115.0)
    assert circuit.state is State.HALF_OPEN
    assert not circuit.tick(116.0), "told once"
    assert circuit.succeeded()
    assert circuit.state is State.CLOSED


def test_while_it_is_open_nothing_counts() -> None:
    circuit = opened(0.0, rest=15.0)
    assert not circuit.failed(14.0)
    assert not circuit.succeeded()
    assert circuit.tick(15.0), "neither put it off nor closed it"


def test_a_trial_that_fails_doubles_the_rest_up_to_five_minutes() -> None:
    circuit = opened(0.0, rest=15.0)
    now, rests = 0.0, []
    for _ in range(7):
        rest = circuit.rest
        assert not circuit.tick(now + rest - 0.001)
        now += rest
        assert circuit.tick(now)
        assert circuit.failed(now)
        rests.append(rest)
    assert rests == [15.0, 30.0, 60.0, 120.0, 240.0, MAX_REST, MAX_REST]


def test_after_a_success_the_first_rest_is_short_again() -> None:
    circuit = opened(0.0, rest=15.0)
    assert circuit.tick(15.0)
    assert circuit.failed(15.0)
    assert circuit.tick(45.0)
    assert circuit.succeeded()
    assert circuit.failed(50.0)
    assert circuit.rest == 15.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("failures", 0),
        ("failures", 1.5),
        ("failures", True),
        ("within", 0.0),
        ("within", float("nan")),
        ("rest", 0.0),
        ("rest", 301.0),
        ("rest", float("nan")),
    ],
)
def test_settings_that_make_no_sense(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Breaker(**{field: value})
    assert caught.value.metadata["field"] == f"breaker.{field}"
