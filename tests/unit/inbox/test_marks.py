"""Which record a mark stands for, and what an inbox refuses."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import holdfast.inbox
from holdfast.client.types import Record
from holdfast.errors import HoldfastError, InvalidArgumentError
from holdfast.inbox import InboxError, PostgresInbox, SqlAlchemyInbox, SqliteInbox

INBOXES: list[Any] = [SqliteInbox, PostgresInbox, SqlAlchemyInbox]
DEAD = {
    "holdfast-redrive-group": b"ledger",
    "holdfast-dead-topic": b"payments",
    "holdfast-dead-partition": b"3",
    "holdfast-dead-offset": b"17",
    "holdfast-dead-append-us": b"99",
}


def record(headers: dict[str, bytes]) -> Record:
    return Record("redone", 1, 5, None, b"", 0, 1_000, tuple(headers.items()))


def place(headers: dict[str, bytes]) -> tuple[Any, ...]:
    mark = SqliteInbox("ledger").mark(record(headers))
    assert mark["consumer"] == "ledger"
    return mark["topic"], mark["part"], mark["off"], mark["append_us"]


def test_a_record_is_known_by_its_place_and_time_of_append() -> None:
    assert place({}) == ("redone", 1, 5, 1_000)
    assert place({"traceparent": b"x"}) == ("redone", 1, 5, 1_000)


def test_a_redriven_one_by_those_it_had_at_first() -> None:
    assert place(DEAD) == ("payments", 3, 17, 99)


def test_a_dead_letter_itself_is_a_record_of_its_own() -> None:
    """Two groups may have given up the same record: whoever reads the dead letters has two."""
    assert place({k: v for k, v in DEAD.items() if k != "holdfast-redrive-group"}) == ("redone", 1, 5, 1_000)


@pytest.mark.parametrize("broken", [{"holdfast-dead-offset": b"x"}, {"holdfast-dead-topic": b"\xff"}])
def test_headers_that_say_nothing_are_left_alone(broken: dict[str, bytes]) -> None:
    assert place(DEAD | broken) == ("redone", 1, 5, 1_000)
    assert place({k: v for k, v in DEAD.items() if k not in broken}) == ("redone", 1, 5, 1_000)


@pytest.mark.parametrize("inbox", INBOXES)
@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"consumer": ""}, "consumer"),
        ({"consumer": "x" * 250}, "consumer"),
        ({"consumer": 3}, "consumer"),
        ({"consumer": "c", "table": "a b"}, "table"),
        ({"consumer": "c", "table": "x; DROP TABLE y"}, "table"),
        ({"consumer": "c", "table": "a.b.c"}, "table"),
        ({"consumer": "c", "table": "1a"}, "table"),
    ],
)
def test_names_that_make_no_sense(inbox: Any, given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        inbox(**given)
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize("inbox", INBOXES)
def test_something_that_is_no_connection(inbox: Any) -> None:
    made = inbox("ledger")
    for call in (
        lambda: made.create(object()),
        lambda: made.begin(object(), record({})),
        lambda: made.prune(object(), {("t", 0): 1}),
    ):
        with pytest.raises(InboxError, match=r"builtins\.object is not"):
            call()


def test_the_drivers_are_only_imported_on_use() -> None:
    code = (
        "import sys\n"
        "from holdfast.inbox import InboxError, PostgresInbox, SqlAlchemyInbox\n"
        "inboxes = PostgresInbox('a'), SqlAlchemyInbox('a')\n"
        "assert 'psycopg' not in sys.modules and 'sqlalchemy' not in sys.modules\n"
        "sys.modules['psycopg'] = sys.modules['sqlalchemy'] = None\n"  # imports of them fail
        "for inbox, extra in zip(inboxes, ('postgres', 'sqlalchemy')):\n"
        "    try:\n"
        "        inbox.create(object())\n"
        "    except InboxError as error:\n"
        "        assert f'holdfast[{extra}]' in str(error)\n"
        "    else:\n"
        "        raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_names() -> None:
    for name in holdfast.inbox.__all__:
        assert getattr(holdfast.inbox, name).__name__ == name
    assert not hasattr(holdfast.inbox, "nonsense")
    assert issubclass(InboxError, HoldfastError)
    assert not InboxError("x").retriable
