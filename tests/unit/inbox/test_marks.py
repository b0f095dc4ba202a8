"""Which record a mark stands for, and what an inbox refuses."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import holdfast.inbox
from holdfast import headers as names
from holdfast.client.types import Record
from holdfast.cluster.delivery.dead_letters import Death, make, read, redriven
from holdfast.cluster.delivery.dead_letters import Plain as Stored
from holdfast.errors import HoldfastError, InvalidArgumentError
from holdfast.inbox import DatabaseError, PostgresInbox, SqlAlchemyInbox, SqliteInbox

INBOXES: list[Any] = [SqliteInbox, PostgresInbox, SqlAlchemyInbox]
REDRIVEN = {
    names.REDRIVE_GROUP: b"ledger",
    names.REDRIVE_TOPIC: b"payments",
    names.REDRIVE_PARTITION: b"3",
    names.REDRIVE_OFFSET: b"17",
    names.REDRIVE_APPEND_US: b"99",
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
    assert place(REDRIVEN) == ("payments", 3, 17, 99)


def test_what_brokers_redrive() -> None:
    """A record that dies twice: as brokers write its headers, and as the inbox reads them."""
    stored = Stored(b"k", b"v", 0, (("mine", b"x"),))
    for offset, append_us in ((17, 99), (40, 500)):
        death = Death(
            group="ledger",
            topic="payments",
            partition=3,
            offset=offset,
            append_time_us=append_us,
            attempts=5,
            first_failed_us=0,
        )
        letter = make(stored, death)
        assert place(dict(letter.headers)) == ("redone", 1, 5, 1_000), "a dead letter is a record of its own"
        stored = redriven(read(letter), for_group=True)
        assert place(dict(stored.headers)) == ("payments", 3, 17, 99)


@pytest.mark.parametrize("broken", [{names.REDRIVE_OFFSET: b"x"}, {names.REDRIVE_TOPIC: b"\xff"}])
def test_headers_that_say_nothing_are_left_alone(broken: dict[str, bytes]) -> None:
    assert place(REDRIVEN | broken) == ("redone", 1, 5, 1_000)
    assert place({k: v for k, v in REDRIVEN.items() if k not in broken}) == ("redone", 1, 5, 1_000)


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
        with pytest.raises(DatabaseError, match=r"builtins\.object is not"):
            call()


def test_the_drivers_are_only_imported_on_use() -> None:
    code = (
        "import sys\n"
        "from holdfast.inbox import DatabaseError, PostgresInbox, SqlAlchemyInbox\n"
        "inboxes = PostgresInbox('a'), SqlAlchemyInbox('a')\n"
        "assert 'psycopg' not in sys.modules and 'sqlalchemy' not in sys.modules\n"
        "sys.modules['psycopg'] = sys.modules['sqlalchemy'] = None\n"  # imports of them fail
        "for inbox, extra in zip(inboxes, ('postgres', 'sqlalchemy')):\n"
        "    try:\n"
        "        inbox.create(object())\n"
        "    except DatabaseError as error:\n"
        "        assert f'holdfast[{extra}]' in str(error)\n"
        "    else:\n"
        "        raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_names() -> None:
    for name in holdfast.inbox.__all__:
        assert getattr(holdfast.inbox, name).__name__ == name
    assert not hasattr(holdfast.inbox, "nonsense")
    assert issubclass(DatabaseError, HoldfastError)
    assert not DatabaseError("x").retriable
