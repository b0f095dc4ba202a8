"""Tables, goals, chart, and their places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.compare.chart import chart
from benchmarks.compare.document import Document, Machine
from benchmarks.compare.goals import GOALS, goals
from benchmarks.compare.report import BEGIN, END, embedded, report
from benchmarks.compare.table import number, ratio, tables

from ..machine import MACHINE
from .runs import cell, document, failed

_README = Path("README.md")
_SVG = "{http://www.w3.org/2000/svg}"


def _rates(ours: float, theirs: float) -> Document:
    return document(
        (0, "holdfast", "pipelined-100", cell(rate=ours, records=1_000_000)),
        (0, "nats", "pipelined-100", cell(rate=theirs, records=1_000_000)),
        (0, "etcd", "pipelined-100", failed("not offered by this system")),
    )


def test_holdfast_is_one_and_the_others_are_multiples() -> None:
    lines = tables(_rates(400_000.0, 40_000.0))
    assert "| **Holdfast — fsynced on a majority** | 400,000 (1.00) |" in lines
    assert "| NATS <R3> — no fsync | 40,000 (0.10) |" in lines


def test_a_cell_without_a_figure_says_why_below_the_table() -> None:
    lines = tables(_rates(4.0, 2.0))
    assert "| etcd — fsynced on a majority | none (1) |" in lines
    assert "(1) etcd, pipelined-100: not offered by this system  " in lines


def test_without_holdfast_there_are_no_ratios() -> None:
    lines = tables(document((0, "nats", "pipelined-100", cell(rate=5.0, records=1))))
    assert "| NATS <R3> — no fsync | 5.00 |" in lines
    assert "| **Holdfast — fsynced on a majority** | - |" in lines


def test_a_row_of_some_workloads_stands_in_their_tables_only(tmp_path: Path) -> None:
    run = document(
        (0, "nats", "pipelined-100", cell(rate=5.0, records=1)),
        (0, "etcd", "sequential", cell(p50=1.0, p99=2.0)),
    )
    run.systems["nats"] = replace(run.systems["nats"], workloads=frozenset({"pipelined-100"}))
    heads = [line for line in tables(run) if line.startswith(("###", "| NATS"))]
    assert heads == [
        "### Pipelined publish, 100 B, 1 KiB and 10 KiB",
        "| NATS <R3> — no fsync | 5.00 |",
        "### Publish one after another, 100 B",
        *heads[3:],
    ]
    assert chart(run).count("NATS") == 1
    run.write(tmp_path / "run.json")
    assert Document.read(tmp_path / "run.json") == run


@pytest.mark.parametrize("peer", ["rabbitmq-stream", "rabbitmq-stream-sub"])
def test_goals_of_the_stream_are_judged_against_both_ways_to_publish(peer: str) -> None:
    run = document(
        (0, "holdfast", "pipelined-100", cell(rate=10.0, records=1)),
        (0, peer, "pipelined-100", cell(rate=5.0, records=1)),
    )
    run.systems[peer] = replace(run.systems["nats"])
    met = [line for line in goals(run) if "pipelined publish, 100 B" in line and "| met |" in line]
    assert len(met) == 1
    assert ("sub-entries" in met[0]) == peer.endswith("sub")


def test_rounds_that_differ_are_told() -> None:
    cells = [(i, "nats", "pipelined-100", cell(rate=r, records=1)) for i, r in enumerate((9.0, 10.0, 12.0))]
    assert "Rounds differ by at most 30% of the median (NATS <R3>, 100 B).  " in tables(
        document(*cells, rounds=3)
    )


@pytest.mark.parametrize(
    ("value", "text"), [(812_657.4, "812,657"), (41.234, "41.2"), (2.346, "2.35"), (0.0, "0.00")]
)
def test_numbers_have_the_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("share", "text"), [(12.3, "12"), (1.0, "1.00"), (0.25, "0.25"), (0.0123, "0.012")])
def test_ratios_have_two_digits_that_count(share: float, text: str) -> None:
    assert ratio(share, 1.0) == text


def _verdict(run: Document, goal: str) -> str:
    (line,) = [line for line in goals(run) if goal in line]
    return line.split("|")[-2].strip()


@pytest.mark.parametrize(("ours", "verdict"), [(100.0, "met"), (99.0, "**NOT MET**")])
def test_a_goal_is_a_multiple_of_a_peer(ours: float, verdict: str) -> None:
    assert _verdict(_rates(ours, 10.0), "NATS JetStream (no fsync)") == verdict


def test_a_goal_without_its_peer_is_open() -> None:
    assert _verdict(_rates(100.0, 10.0), "2 times RabbitMQ stream (no fsync)") == "-"


@pytest.mark.parametrize(("ours", "verdict"), [(5.0, "met"), (6.0, "**NOT MET**")])
def test_latency_is_compared_with_peers_that_fsync(ours: float, verdict: str) -> None:
    half = {"p50": 1.0, "rate": 10.0}
    run = document(
        (0, "holdfast", "latency-half", cell(p99=ours, **half)),
        (0, "nats", "latency-half", cell(p99=1.0, **half)),
        (0, "etcd", "latency-half", cell(p99=5.0, **half)),
    )
    assert _verdict(run, "every peer with fsync") == verdict


def test_a_goal_is_a_share_of_the_machine() -> None:
    run = document((0, "holdfast", "pipelined-1k", cell(megabytes=120.0, rate=1.0, records=1)))
    assert _verdict(run, "fdatasync bandwidth") == "met"  # 60 % of 600 / 3


def test_all_goals_are_listed() -> None:
    assert sum("not measured in this run" in line for line in goals(document())) == len(GOALS)


def test_the_chart_is_well_formed_and_shows_who_does_not_fsync() -> None:
    root = ElementTree.fromstring(chart(_rates(400_000.0, 40_000.0)))
    bars = {rect.get("class"): rect for rect in root.iter(f"{_SVG}rect")}
    assert set(bars) == {"bar us", "bar loose"}
    assert float(bars["bar us"].get("width", "0")) > 9 * float(bars["bar loose"].get("width", "0"))
    texts = [text.text for text in root.iter(f"{_SVG}text")]
    assert {"Holdfast", "NATS JetStream, no fsync", "etcd", "none", "400,000"} <= set(texts)
    assert "prefers-color-scheme: dark" in (root.findtext(f"{_SVG}style") or "")


def test_the_report_tells_versions_and_who_is_missing() -> None:
    text = report(_rates(2.0, 1.0))
    assert "2 cores" in text
    assert "* Holdfast: 0.1" in text
    assert "* not compared: kafka: no java" in text


def test_the_report_stands_between_its_markers() -> None:
    old = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert embedded(old, "new\n", _README) == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_without_markers_nothing_is_replaced(text: str) -> None:
    with pytest.raises(ValueError, match="needs one line"):
        embedded(text, "new", _README)


def test_a_run_is_read_back_as_written(tmp_path: Path) -> None:
    run = _rates(2.0, 1.0)
    run.write(tmp_path / "some" / "run.json")
    assert Document.read(tmp_path / "some" / "run.json") == run


def test_the_machine_is_the_median_of_its_moments() -> None:
    moments = [replace(MACHINE, load=float(i), sync_ms=ms) for i, ms in enumerate((0.3, 0.1, 0.9))]
    assert Machine.median(moments) == replace(MACHINE, load=0.0, sync_ms=0.3)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"rounds": "three"}')
    with pytest.raises(ValueError, match=r"run\.json"):
        Document.read(tmp_path / "run.json")
