"""Command lines, the catalog, and the order of things."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from benchmarks.compare import command, runner, worker
from benchmarks.compare.runner import rotated, with_needed
from benchmarks.compare.workloads import WORKLOADS
from benchmarks.compare.workloads.context import Parameters, one_line
from benchmarks.peers import catalog, holdfast
from benchmarks.peers.system import Client, Cluster, Unsupported


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosystem", "sequential", "--addresses", "a:1"],
        ["holdfast", "noworkload", "--addresses", "a:1"],
        ["holdfast", "sequential"],
        ["holdfast", "sequential", "--addresses", "a:1", "--parameters", "{"],
        ["holdfast", "sequential", "--addresses", "a:1", "--parameters", '{"seconds": "x"}'],
    ],
)
def test_a_worker_refuses_what_makes_no_sense(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        worker.parse(arguments)
    assert ended.value.code == 2
    assert "usage: python -m benchmarks.compare.worker" in capsys.readouterr().err


def test_a_worker_takes_parameters() -> None:
    found = worker.parse(["nats", "sequential", "--addresses", "a:1", "--parameters", '{"times": 3}'])
    assert found.parameters.times == 3
    assert found.parameters.seconds == 4.0


def test_a_reason_is_one_line_of_the_first_error() -> None:
    group = BaseExceptionGroup("several", [ExceptionGroup("inner", [OSError("\n no \nroute")])])
    assert one_line(group) == "OSError: no"
    assert one_line(TimeoutError()) == "TimeoutError"
    assert one_line(Unsupported()) == "not offered by this system"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--systems", "holdfast,nosuch"],
        ["--workloads", ""],
        ["--rounds", "0"],
        ["--rounds", "many"],
        ["--directory", "/no/such/folder"],
    ],
)
def test_the_comparison_refuses_what_makes_no_sense(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.parse(arguments)
    assert ended.value.code == 2


def test_quick_is_one_round() -> None:
    assert (command.parse([]).rounds, command.parse([]).failovers) == (3, 20)
    quick = command.parse(["--quick"])
    assert (quick.rounds, quick.failovers) == (1, 2)


def test_systems_keep_the_order_of_the_catalog(tmp_path: Path) -> None:
    found = command.parse(["--systems", "redis,holdfast", "--directory", str(tmp_path)])
    assert found.systems == ["holdfast", "redis"]


def test_a_system_without_its_library_is_told_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> type[Cluster]:
        raise ImportError("No module named 'pika'")

    monkeypatch.setattr(command, "cluster_class", absent)
    systems, missing = command.available(["rabbitmq-stream"])
    assert systems == {}
    assert "pika" in missing["rabbitmq-stream"]


def test_nothing_to_compare_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "available", lambda wanted: ({}, {"nats": "not installed"}))
    assert command.main(["--systems", "nats"]) == 2


def test_workloads_bring_what_they_need() -> None:
    assert with_needed(["replay-1k"]) == ["pipelined-1k", "replay-1k"]
    assert with_needed(["group", "latency-half"]) == ["pipelined-100", "mixed", "latency-half", "group"]
    for name, workload in WORKLOADS.items():
        if workload.needs:
            assert list(WORKLOADS).index(workload.needs) < list(WORKLOADS).index(name)


def test_every_round_begins_with_another_system() -> None:
    assert [rotated(["a", "b", "c"], number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_a_row_runs_what_is_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Part(holdfast.Cluster):
        workloads = frozenset({"pipelined-1k", "replay-1k"})

    monkeypatch.setattr(runner, "cluster_class", {"all": holdfast.Cluster, "part": Part}.__getitem__)
    plan = runner.Plan(["all", "part"], ["sequential", "pipelined-1k"], 1, Parameters(), 1, tmp_path)
    assert plan.of("all") == ["sequential", "pipelined-1k"]
    assert plan.of("part") == ["pipelined-1k"]


def test_the_workloads_of_a_row_are_there_with_those_they_need() -> None:
    for name in catalog.SYSTEMS:
        try:
            its = catalog.cluster_class(name).workloads
        except ImportError:
            continue
        if its is not None:
            assert set(with_needed(list(its))) == its <= set(WORKLOADS)


def test_every_system_has_a_label_for_the_chart() -> None:
    assert list(catalog.LABELS) == list(catalog.SYSTEMS)


def test_the_catalog_names_modules_that_exist() -> None:
    for module in catalog.SYSTEMS.values():
        assert importlib.util.find_spec(module) is not None, module


def test_holdfast_is_in_the_catalog() -> None:
    assert catalog.cluster_class("holdfast") is holdfast.Cluster
    assert isinstance(catalog.make_client("holdfast", ["127.0.0.1:1"]), Client)
    assert all(cluster.name == name for name, cluster in holdfast.CLUSTERS.items())
