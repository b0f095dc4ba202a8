"""Delivery as a whole: every promise can be broken, histories can be long, and are kept in files."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from holdfast.chaos.checker import check, delivery
from holdfast.chaos.checker.delivery_events import Conditions, Handed, Told
from holdfast.chaos.checker.history import Event, History, Leader
from holdfast.chaos.checker.promises import DELIVERY

from . import (
    test_delivery_dead_letters,
    test_delivery_handed,
    test_delivery_membership,
    test_delivery_order,
    test_delivery_retries,
)
from .delivery_kit import (
    at_rest,
    calm,
    found,
    group,
    handed,
    joined,
    lag_read,
    letter,
    log,
    over,
    paused,
    redriven,
    restored,
    row,
    shape,
    silent,
    sought,
    told,
    transacted,
)

TABLES = (
    test_delivery_dead_letters,
    test_delivery_handed,
    test_delivery_membership,
    test_delivery_order,
    test_delivery_retries,
)


def test_every_promise_has_a_history_that_breaks_it() -> None:
    broken = {
        promise
        for table in TABLES
        for promises, _, _ in table.BROKEN.values()
        for promise in promises.split()
    }
    assert set(DELIVERY) <= broken


def test_every_promise_is_explained_where_it_is_judged() -> None:
    folder = Path(delivery.__file__).parent
    text = "\n".join(path.read_text() for path in sorted(folder.glob("*.py")))
    assert set(DELIVERY) <= set(re.findall(r"\*([a-z-]+)\*", text))


def test_a_file_of_these_events_reads_back(tmp_path: Path) -> None:
    events: list[Event] = [
        *(group(), *log("ab", "xy"), joined("a1", held=[1]), handed(0, 2, key="x", received=1.9), told(0, 3)),
        *(over("a1", 4), silent("a1", 5, 6), transacted("x", [0], 7, "A"), letter(0, 0), redriven(0, 1)),
        *(shape(5, {0: "a"}), paused("a1", 8), lag_read("n1", 9, 1), *at_rest(0, [(1, 2)], [row(0)]), calm()),
        *(sought(9, 1), restored(10, 0), Conditions(1.0)),
    ]
    path = tmp_path / "history.jsonl"
    History(events).save(path)
    assert History.load(path).events == events


def test_files_from_before_these_events_are_read(tmp_path: Path) -> None:
    lines = [
        '{"type":"Publish","client":"c","producer":"p","sequence":0,"topic":"t","value":"a","started":1.0,'
        '"key":null,"ended":2.0,"outcome":"ok","partition":0,"offset":0,"error":"","idempotent":true}',
        '{"type":"Delivered","client":"m","group":"g","session":"s","topic":"t","partition":0,"offset":0,'
        '"value":"a","at":3.0}',
        '{"type":"Leader","node":"n1","term":3,"at":1.0}',
    ]
    path = tmp_path / "history.jsonl"
    path.write_text("\n".join(lines) + "\n")
    events = History.load(path).events
    assert [type(event).__name__ for event in events] == ["Publish", "Delivered", "Leader"]
    assert events[2] == Leader("n1", 3, 1.0)


@pytest.mark.parametrize(
    "line", ['{"type":"Told","outcome":"perhaps"}', '{"type":"GroupDefined","group":"g"}']
)
def test_what_is_no_event_is_said(tmp_path: Path, line: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match="line 1"):
        History.load(path)


def test_of_a_group_that_was_not_defined_nothing_is_judged() -> None:
    assert found([*log("ab"), joined("a1"), handed(1, 2), handed(1, 3, "b1"), handed(0, 4), told(0, 5)]) == []


def long_history(records: int, ordering: str) -> History:
    """Each record is handed out and acknowledged, every tenth fails once first."""
    values = [f"v{number}" for number in range(records)]
    events: list[Event] = [
        group(ordering, initial_ms=0),
        *log(values, [f"k{number % 64}" for number in range(records)]),
    ]
    events.append(joined("a1"))
    now = 2.0
    for number, value in enumerate(values):
        for attempt in (1, 2) if number % 10 == 0 else (2,):
            charged = attempt if number % 10 == 0 else 1
            now += 0.01
            events.append(Handed("a", "g", "a1", "t", 0, number, value, now, f"k{number % 64}", charged))
            outcome = "ack" if attempt == 2 else "nack"
            events.append(
                Told("a", "g", "a1", "t", 0, number, outcome, now + 0.001, confirmed=now + 0.002)  # type: ignore[arg-type]
            )
    return History([*events, *at_rest(records)])


@pytest.mark.parametrize("ordering", ["key", "partition", "none"])
def test_it_is_fast_enough_for_long_histories(ordering: str) -> None:
    """Far from the true figures (about 2 s each), so that a busy machine does not fail it."""
    history = long_history(50_000, ordering)
    began = time.process_time()
    assert check(history) == []
    assert time.process_time() - began < 15
