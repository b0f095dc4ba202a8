"""The report is well-formed, needs nothing from elsewhere and holds the facts."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from holdfast.chaos.checker import Tally
from holdfast.chaos.checker.history import Fault, History, Publish, Violation
from holdfast.chaos.checker.history import Outcome as Ended
from holdfast.chaos.drills.plot import Timeline, bands, draw, quantile
from holdfast.chaos.drills.report import render
from holdfast.chaos.drills.stage import Outcome


def outcome(*, broken: bool = False, acks: int = 40) -> Outcome:
    history = History()
    for number in range(acks):
        publish = Publish("c", "p", number, "t", f"v{number}", number * 0.1)
        publish.ended, publish.outcome = number * 0.1 + 0.02, Ended.OK
        history.add(publish)
    history.add(Fault("kill", "n1", 1.0, 2.0, 'kill -9 <of> the "leader" & more'))
    history.add(Fault("pause", "n2", 1.5, None))
    found = Outcome("leader-kill", history=history, nodes=("n1", "n2", "n3"), took=5.0, recovery_ms=123.4)
    found.tally = Tally(acked=acks, lost=1 if broken else 0, duplicated=0, unknown=3, failed=0)
    found.seen = [(0.1 * n, "n1", 1) for n in range(10)] + [(2 + 0.1 * n, "n3", 2) for n in range(10)]
    found.logs = [(1.0, "n1", "first\nsecond <b>"), (2.0, "n1", "second <b>\nthird"), (2.0, "n2", "")]
    if broken:
        found.violations.append(Violation("lost-record", "v7 <gone>", 3.5))
    return found


def page(found: Outcome, **more: str) -> str:
    facts = {"summary": "what & why", "command": "make drill NAME=leader-kill", "began": "today"}
    return render(found, **{**facts, **more})


@pytest.mark.parametrize("found", [outcome(), outcome(broken=True), outcome(acks=0)])
def test_it_is_well_formed(found: Outcome) -> None:
    text = page(found)
    assert text.startswith("<!DOCTYPE html>\n")
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))


def test_it_is_self_contained() -> None:
    text = page(outcome(broken=True))
    for foreign in ("http:", "https:", "<script", "<link", "<img", "@import", "url(", "src="):
        assert foreign not in text


def test_it_is_readable_on_dark_and_light() -> None:
    assert "prefers-color-scheme: dark" in page(outcome())


def test_it_holds_the_facts() -> None:
    text = page(outcome())
    assert "drill leader-kill: acked=40 lost=0 duplicated=0 unknown=3 recovery_ms=123" in text
    assert "passed" in text
    assert "No promise was broken" in text
    assert "make drill NAME=leader-kill" in text
    assert "kill -9 &lt;of&gt; the" in text
    assert "kill n1" in text
    assert "n3 leads term 2" in text
    assert "20.0 / 20.0 / 20.0" in text


def test_it_shows_violations_and_how_to_judge_again() -> None:
    text = page(outcome(broken=True), history_file="drill-reports/x.jsonl")
    assert "FAILED" in text
    assert "<b>lost-record</b> v7 &lt;gone&gt;" in text
    assert "python -m holdfast.chaos.checker drill-reports/x.jsonl" in text


def test_log_lines_are_shown_once() -> None:
    text = page(outcome())
    assert text.count("second &lt;b&gt;") == 1
    assert "third" in text


def test_leading_is_shown_as_bands() -> None:
    looks = [(0.0, "n1", 1), (0.1, "n1", 1), (0.2, "n2", 2), (3.0, "n1", 1), (3.1, "n1", 3)]
    assert bands(looks) == [
        ("n1", 1, 0.0, 0.1), ("n2", 2, 0.2, 0.2), ("n1", 1, 3.0, 3.0), ("n1", 3, 3.1, 3.1)
    ]  # fmt: skip


def test_nothing_at_all_can_be_drawn() -> None:
    ElementTree.fromstring(draw(Timeline([], [], [], [], 0.0)))


def test_quantiles() -> None:
    assert quantile([], 0.5) == 0.0
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile(list(map(float, range(1, 101))), 0.99) == 99.0
    assert quantile([1.0, 9.0], 1.0) == 9.0
