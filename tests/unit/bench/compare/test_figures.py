"""Figures are taken from the cells of all rounds."""

from __future__ import annotations

from benchmarks.compare.figures import FIGURES, GROUPS, reasons, values
from benchmarks.compare.workloads import WORKLOADS

from .runs import cell, document, failed


def test_a_figure_is_the_median_of_the_rounds_with_its_range() -> None:
    run = document(*[(i, "nats", "pipelined-100", cell(rate=r, records=1)) for i, r in enumerate((5, 1, 2))])
    value = values(run)["nats", "pipelined-100"]
    assert (value.value, value.low, value.high) == (2, 1, 5)


def test_failovers_of_all_rounds_are_pooled() -> None:
    run = document(
        (0, "nats", "failover", cell(samples=[10.0, 20.0, 90.0])),
        (1, "nats", "failover", cell(samples=[30.0])),
    )
    found = values(run)
    assert found["nats", "failover"].value == 25.0
    assert found["nats", "failover.worst"].value == 90.0


def test_costs_count_client_and_nodes_per_million_records() -> None:
    run = document((0, "nats", "pipelined-100", cell(rate=1.0, records=2_000_000)))
    found = values(run)
    assert found["nats", "cpu"].value == 2.0  # 1 s + 3 s over two millions
    assert found["nats", "written"].value == 500 / 2_000_000
    assert found["nats", "memory"].value == 7.0


def test_a_failed_round_leaves_the_others_and_its_reason() -> None:
    run = document(
        (0, "nats", "pipelined-100", failed("it broke")),
        (1, "nats", "pipelined-100", cell(rate=3.0, records=1)),
    )
    assert values(run)["nats", "pipelined-100"].value == 3.0
    assert reasons(run) == {("nats", "pipelined-100"): "it broke"}


def test_a_note_stands_beside_the_figure() -> None:
    run = document((0, "nats", "failover", cell(samples=[1.0]) | {"note": "fewer kills"}))
    assert values(run)["nats", "failover"].value == 1.0
    assert reasons(run) == {("nats", "failover"): "fewer kills"}


def test_a_publisher_that_was_behind_is_told() -> None:
    figures = {"p50": 1.0, "p99": 2.0, "rate": 100.0}
    run = document(
        (0, "nats", "latency-half", cell(kept=0.63, **figures)),
        (0, "etcd", "latency-half", cell(kept=0.99, **figures)),
    )
    assert reasons(run) == {
        ("nats", "latency-half"): "the client published no more than 63% of the rate",
    }


def test_every_figure_belongs_to_a_workload_and_every_workload_has_one() -> None:
    assert {figure.workload for figure in FIGURES.values()} == set(WORKLOADS)
    assert {figure.group for figure in FIGURES.values()} == set(GROUPS)
