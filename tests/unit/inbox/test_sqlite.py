"""Inboxes in real SQLite files, by sqlite3 and by SQLAlchemy."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from holdfast.client.types import Record
from holdfast.database.sqlalchemy import of_dialect
from holdfast.errors import InvalidArgumentError
from holdfast.inbox import DatabaseError, SqlAlchemyInbox, SqliteInbox


def record(offset: int, *, append_us: int = 1_000, headers: tuple[tuple[str, bytes], ...] = ()) -> Record:
    return Record("payments", 2, offset, None, b"", 0, append_us, headers)


class Opened(Protocol):
    """A connection or session, and how one is opened."""

    inbox: Any

    def open(self) -> Any: ...


class Plain:
    """sqlite3."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inbox = SqliteInbox("ledger")
        self._opened: list[Any] = []

    def open(self) -> Any:
        self._opened.append(sqlite3.connect(self.path, timeout=0.05))
        return self._opened[-1]

    def close(self) -> None:
        for each in self._opened:
            each.close()


class Alchemy(Plain):
    """SQLAlchemy on the same driver."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.inbox: Any = SqlAlchemyInbox("ledger")
        self.engine = sqlalchemy.create_engine(f"sqlite:///{path}", connect_args={"timeout": 0.05})

    def open(self) -> Any:
        self._opened.append(Session(self.engine))
        return self._opened[-1]

    def close(self) -> None:
        super().close()
        self.engine.dispose()


@pytest.fixture(params=[Plain, Alchemy])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made = request.param(tmp_path / "db")
    connection = made.open()
    made.inbox.create(connection)
    made.inbox.create(connection)  # there already
    connection.commit()
    yield made
    made.close()


def test_a_record_is_begun_once(database: Any) -> None:
    connection, inbox = database.open(), database.inbox
    assert inbox.begin(connection, record(1)) is True
    assert inbox.begin(connection, record(1)) is False, "within the transaction, too"
    connection.commit()
    assert inbox.begin(connection, record(1)) is False
    assert inbox.begin(connection, record(2)) is True
    connection.commit()
    assert inbox.begin(database.open(), record(2)) is False


def test_a_mark_goes_with_its_transaction(database: Any) -> None:
    connection, inbox = database.open(), database.inbox
    assert inbox.begin(connection, record(1))
    connection.rollback()
    assert inbox.begin(connection, record(1)), "its effect was not kept, so it is done again"
    connection.commit()
    assert not inbox.begin(connection, record(1))


def test_every_consumer_has_marks_of_its_own(database: Any) -> None:
    connection = database.open()
    other = type(database.inbox)("audit")
    assert database.inbox.begin(connection, record(1))
    assert other.begin(connection, record(1))


def test_a_topic_made_anew_begins_anew(database: Any) -> None:
    connection, inbox = database.open(), database.inbox
    assert inbox.begin(connection, record(0, append_us=1_000))
    assert inbox.begin(connection, record(0, append_us=2_000)), "another record of this offset"
    assert not inbox.begin(connection, record(0, append_us=2_000))
    connection.commit()
    assert not inbox.begin(connection, record(0, append_us=2_000))


def test_two_at_once_do_not_both_begin(database: Any) -> None:
    first, second = database.open(), database.open()
    assert database.inbox.begin(first, record(1))
    with pytest.raises((sqlite3.OperationalError, sqlalchemy.exc.OperationalError), match="locked"):
        database.inbox.begin(second, record(1))
    second.rollback()
    first.commit()
    assert not database.inbox.begin(second, record(1))


def test_prune_deletes_what_is_settled_and_old(database: Any) -> None:
    connection, inbox = database.open(), database.inbox
    other = type(inbox)("audit")
    for offset in range(5):
        assert inbox.begin(connection, record(offset))
        assert other.begin(connection, record(offset))
    floors = {("payments", 2): 3, ("payments", 0): 100, ("orders", 2): 100}
    assert inbox.prune(connection, floors) == 0, "a day has not passed"
    assert inbox.prune(connection, floors, keep=0) == 3
    connection.commit()
    assert [inbox.begin(connection, record(offset)) for offset in range(5)] == [True] * 3 + [False] * 2
    assert not other.begin(connection, record(0))
    assert inbox.prune(connection, {}) == 0
    with pytest.raises(InvalidArgumentError):
        inbox.prune(connection, floors, keep=-1)


def test_a_table_of_another_name(tmp_path: Path) -> None:
    inbox = SqliteInbox("ledger", table="main.handled")
    connection = sqlite3.connect(tmp_path / "db")
    inbox.create(connection)
    assert inbox.begin(connection, record(1))
    assert connection.execute("SELECT count(*) FROM handled").fetchone() == (1,)
    connection.close()


def test_sqlite3_that_commits_by_itself_is_refused(tmp_path: Path) -> None:
    inbox = SqliteInbox("ledger")
    connection = sqlite3.connect(tmp_path / "db", isolation_level=None)
    inbox.create(connection)
    with pytest.raises(DatabaseError, match="execute BEGIN first"):
        inbox.begin(connection, record(1))
    connection.execute("BEGIN")
    assert inbox.begin(connection, record(1))
    connection.execute("ROLLBACK")
    connection.execute("BEGIN")
    assert inbox.begin(connection, record(1)), "the refused one left nothing"
    connection.close()


def test_sqlalchemy_that_commits_by_itself_is_refused(tmp_path: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'db'}", isolation_level="AUTOCOMMIT")
    inbox = SqlAlchemyInbox("ledger")
    with engine.connect() as connection:
        inbox.create(connection)
        with pytest.raises(DatabaseError, match="AUTOCOMMIT"):
            inbox.begin(connection, record(1))
    engine.dispose()


def test_sqlalchemy_on_another_database_is_refused() -> None:
    engine = sqlalchemy.create_mock_engine("mysql://", lambda *_: None)
    with pytest.raises(DatabaseError, match="mysql: this is for postgresql and sqlite"):
        of_dialect(engine, SqlAlchemyInbox("ledger")._sql)  # type: ignore[arg-type]
