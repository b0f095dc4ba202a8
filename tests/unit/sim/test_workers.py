"""Members of a defined group whose handlers fail, stop and die, judged over whole runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import msgspec
import pytest

from holdfast.chaos.checker.delivery_events import Handed, SessionOver, Told
from holdfast.chaos.sim.plan import make_plan
from holdfast.chaos.sim.run import Run, run
from holdfast.chaos.sim.sabotage import NONE
from holdfast.cluster.delivery.flow import Flow
from holdfast.cluster.delivery.runs import Range
from holdfast.storage import retries
from holdfast.storage.port import Writer

#: By key, in order, in no order, at most once; leaders change under all of them.
SEEDS = (1, 7, 32, 41, 57, 246, 263, 291)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_members_are_promised_holds(seed: int) -> None:
    assert run(replace(make_plan(seed), guests=("workers",))).violations == ()


def test_members_fail_and_die_and_come_back() -> None:
    """A run that asks nothing of the group would pass as well."""
    told: Counter[str] = Counter()
    handed = deaths = 0
    for seed in SEEDS:
        began = Run(replace(make_plan(seed), guests=("workers",)), NONE)
        began.execute()
        began.front.close()
        told.update(event.outcome for event in began.history.events if isinstance(event, Told))
        handed += sum(isinstance(event, Handed) for event in began.history.events)
        deaths += sum(isinstance(e, SessionOver) and not e.known for e in began.history.events)
    assert handed > 200
    assert deaths > 0
    assert {"ack", "nack", "park", "reject", "release"} <= set(told)


def test_a_run_with_workers_is_the_same_again() -> None:
    plan = replace(make_plan(7), guests=("workers",))
    assert run(plan).trace == run(plan).trace


def test_claims_that_are_not_looked_at_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them a new leader gives a second member what a first one still works on."""

    def hold(self: Flow, *_: object) -> list[Range]:
        return []

    monkeypatch.setattr(Flow, "hold", hold)
    found = {
        violation.promise
        for seed in (32, 57, 246)
        for violation in run(replace(make_plan(seed), guests=("workers",))).violations
    }
    assert found & {"key-overlap", "partition-order"}


def test_failures_that_are_forgotten_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that waits is remembered by every replica, with its attempts."""
    stock = retries.write

    def write(w: Writer, flow: bytes, offset: int, row: retries.RetryRow) -> None:
        stock(w, flow, offset, msgspec.structs.replace(row, attempts=0))

    monkeypatch.setattr(retries, "write", write)
    found = {
        violation.promise
        for seed in SEEDS
        for violation in run(replace(make_plan(seed), guests=("workers",))).violations
    }
    assert "attempts-regress" in found
