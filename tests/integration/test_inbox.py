"""Effects exactly once: consumers that are killed, and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg import IsolationLevel
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import holdfast
from holdfast.chaos import postgres
from holdfast.client.types import Record
from holdfast.inbox import DatabaseError, PostgresInbox, SqlAlchemyInbox, SqliteInbox

WORKER = Path(__file__).with_name("inbox_worker.py")
RECORDS = 60


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    if postgres.find() is None:
        pytest.skip(f"inbox in PostgreSQL: {postgres.MISSING}")
    with postgres.Postgres() as running:
        yield running


@pytest.fixture
def clean(server: postgres.Postgres) -> postgres.Postgres:
    with psycopg.connect(server.dsn) as connection:
        for table in ("holdfast_inbox", "effects", "totals"):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
        PostgresInbox("ledger").create(connection)
    return server


def record(offset: int, append_us: int = 1_000) -> Record:
    return Record("payments", 0, offset, None, b"", 0, append_us)


# -- killed consumers ---------------------------------------------------------------------


def run(kind: str, target: str, folder: Path, die: str, kill_after: int, *more: str) -> int:
    """One life of the worker: killed once it has committed ``kill_after`` records, if it gets so far."""
    command = [sys.executable, str(WORKER), kind, target, str(folder / "acked"), str(RECORDS), die, *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for number, _ in enumerate(process.stdout, 1):
            if number == kill_after:
                process.kill()
        return process.wait(60)


def effects(kind: str, target: str) -> tuple[list[int], int]:
    statements = "SELECT off FROM effects ORDER BY off", "SELECT total FROM totals"
    if "postgres" in target or kind == "postgres":
        target = target.replace("+psycopg", "")
        with psycopg.connect(target) as connection:
            rows, totals = (connection.execute(text).fetchall() for text in statements)
    else:
        plain = sqlite3.connect(target.removeprefix("sqlite:///"))
        rows, totals = (plain.execute(text).fetchall() for text in statements)
        plain.close()
    return [off for (off,) in rows], totals[0][0]


def lives(kind: str, target: str, folder: Path, *more: str) -> None:
    """Kill it at every kind of moment until it comes to its end."""
    drawn = random.Random(5)
    assert run(kind, target, folder, "3:effect", 0, *more) == -9
    assert run(kind, target, folder, "7:commit", 0, *more) == -9
    assert run(kind, target, folder, "11:commit", 0, *more) == -9
    for _ in range(3):
        assert run(kind, target, folder, "", drawn.randint(3, 12), *more) == -9
    assert run(kind, target, folder, "", 0, *more) == 0


@pytest.mark.parametrize("kind", ["sqlite", "sqlalchemy"])
def test_a_killed_consumer_has_each_effect_once_in_sqlite(kind: str, tmp_path: Path) -> None:
    target = str(tmp_path / "db") if kind == "sqlite" else f"sqlite:///{tmp_path / 'db'}"
    lives(kind, target, tmp_path)
    assert effects(kind, target) == (list(range(RECORDS)), sum(range(RECORDS)))


@pytest.mark.parametrize("kind", ["postgres", "sqlalchemy"])
def test_a_killed_consumer_has_each_effect_once_in_postgres(
    kind: str, tmp_path: Path, clean: postgres.Postgres
) -> None:
    target = clean.dsn if kind == "postgres" else clean.url
    lives(kind, target, tmp_path)
    assert effects(kind, target) == (list(range(RECORDS)), sum(range(RECORDS)))


def test_without_the_inbox_effects_are_repeated(tmp_path: Path) -> None:
    """That the kills hit where it matters."""
    target = str(tmp_path / "db")
    lives("sqlite", target, tmp_path, "--without")
    found, _ = effects("sqlite", target)
    assert {7, 11} <= {off for off in found if found.count(off) > 1}


def test_a_killed_database_keeps_marks_and_effects_together(tmp_path: Path, clean: postgres.Postgres) -> None:
    command = [sys.executable, str(WORKER), "postgres", clean.dsn, str(tmp_path / "acked"), str(RECORDS), ""]
    for kill_after in (10, 15, 0):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as worker:
            assert worker.stdout is not None
            for number, _ in enumerate(worker.stdout, 1):
                if number == kill_after:
                    clean.kill()
            assert (worker.wait(60) == 0) == (kill_after == 0)
        clean.start()
    assert effects("postgres", clean.dsn) == (list(range(RECORDS)), sum(range(RECORDS)))


#: A handler with its effects in SQLite; says what it has committed.
HANDLER = """
import asyncio, sqlite3, sys
import holdfast
from holdfast.inbox import SqliteInbox

inbox = SqliteInbox("ledger")

async def main(address, path):
    bus = holdfast.connect(address)

    @bus.subscriber("payments", group="ledger", ordering="key", concurrency=4)
    async def book(value: bytes, record: holdfast.Record) -> None:
        connection = sqlite3.connect(path, timeout=30)
        with connection:
            if inbox.begin(connection, record):
                connection.execute("INSERT INTO effects VALUES (?)", (int(value),))
        connection.close()
        await asyncio.sleep(0)
        print(value.decode(), flush=True)

    async with bus:
        await bus.run()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_handlers_that_are_killed_have_each_effect_once(tmp_path: Path) -> None:
    """Real brokers deliver again what was committed and not acknowledged."""
    path = str(tmp_path / "db")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE effects (value integer NOT NULL)")
        SqliteInbox("ledger").create(connection)
    async with holdfast.testing.embedded_broker() as address, holdfast.connect(address) as bus:
        await bus.create_topic("payments", partitions=2)
        await bus.publish_many("payments", [b"%d" % n for n in range(300)], [f"k{n % 7}" for n in range(300)])
        for kill_after in (5, 20, 40, 0):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", HANDLER, address, path, stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            async with asyncio.timeout(60):
                handled = 0
                while kill_after == 0 or handled < kill_after:
                    await process.stdout.readline()
                    handled += 1
                    if kill_after == 0 and connection.execute(COUNT).fetchone() == (300,):
                        break
                if kill_after:
                    process.kill()
                else:
                    process.terminate()  # it drains and leaves
                await process.communicate()
            assert process.returncode == (-9 if kill_after else 0)
    found = connection.execute("SELECT value FROM effects ORDER BY value").fetchall()
    assert found == [(n,) for n in range(300)]
    connection.close()


COUNT = "SELECT count(*) FROM effects"


# -- PostgreSQL --------------------------------------------------------------------------------


def test_begun_once(clean: postgres.Postgres) -> None:
    inbox = PostgresInbox("ledger")
    with psycopg.connect(clean.dsn, row_factory=dict_row) as connection:
        assert inbox.begin(connection, record(1)) is True
        assert inbox.begin(connection, record(1)) is False
        connection.rollback()
        assert inbox.begin(connection, record(1)) is True
        connection.commit()
        assert inbox.begin(connection, record(1)) is False
        assert inbox.begin(connection, record(1, append_us=2_000)) is True, "the topic was made anew"
        assert PostgresInbox("audit").begin(connection, record(1)) is True


def test_a_zombies_transaction_is_waited_for(clean: postgres.Postgres) -> None:
    inbox = PostgresInbox("ledger")
    for committed in (True, False):
        began: list[bool] = []
        with psycopg.connect(clean.dsn) as zombie, psycopg.connect(clean.dsn) as watcher:
            offset = int(committed)
            assert inbox.begin(zombie, record(offset))

            def second(offset: int = offset, began: list[bool] = began) -> None:
                with psycopg.connect(clean.dsn) as connection:
                    began.append(inbox.begin(connection, record(offset)))

            thread = threading.Thread(target=second)
            thread.start()
            watcher.autocommit = True
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'"
            while watcher.execute(waiting).fetchone() != (1,):
                assert thread.is_alive(), "it did not wait"
            assert began == []
            if committed:
                zombie.commit()
            else:
                zombie.rollback()
            thread.join(30)
        assert began == [not committed]


def test_a_snapshot_from_before_is_an_error_and_no_second_effect(clean: postgres.Postgres) -> None:
    inbox = PostgresInbox("ledger")
    with psycopg.connect(clean.dsn) as late, psycopg.connect(clean.dsn) as early:
        late.isolation_level = IsolationLevel.REPEATABLE_READ
        late.execute("SELECT 1")
        assert inbox.begin(early, record(1))
        early.commit()
        with pytest.raises(psycopg.errors.SerializationFailure):
            inbox.begin(late, record(1))


def test_autocommit(clean: postgres.Postgres) -> None:
    inbox = PostgresInbox("ledger")
    with psycopg.connect(clean.dsn, autocommit=True) as connection:
        inbox.create(connection)
        with pytest.raises(DatabaseError, match="transaction"):
            inbox.begin(connection, record(1))
        with connection.transaction():
            assert inbox.begin(connection, record(1))
        with connection.transaction():
            assert not inbox.begin(connection, record(1))


def test_within_a_pipeline(clean: postgres.Postgres) -> None:
    inbox = PostgresInbox("ledger")
    with psycopg.connect(clean.dsn) as connection, connection.pipeline():
        assert inbox.begin(connection, record(1)) is True
        assert inbox.begin(connection, record(1)) is False


def test_prune(clean: postgres.Postgres) -> None:
    inbox = PostgresInbox("ledger")
    with psycopg.connect(clean.dsn) as connection:
        for offset in range(5):
            assert inbox.begin(connection, record(offset))
        connection.commit()
        floors = {("payments", 0): 3, ("orders", 0): 9}
        assert inbox.prune(connection, floors) == 0, "a day has not passed"
        assert inbox.prune(connection, floors, keep=0) == 3
        assert [inbox.begin(connection, record(n)) for n in range(5)] == [True] * 3 + [False] * 2


async def test_asynchronous(clean: postgres.Postgres) -> None:
    inbox = PostgresInbox("ledger")
    async with await psycopg.AsyncConnection.connect(clean.dsn) as connection:
        await inbox.create(connection)
        assert await inbox.begin(connection, record(1)) is True
        await connection.commit()
        assert await inbox.begin(connection, record(1)) is False
        assert await inbox.prune(connection, {("payments", 0): 2}, keep=0) == 1
        await connection.commit()
        await connection.set_autocommit(True)
        with pytest.raises(DatabaseError):
            await inbox.begin(connection, record(1))
        async with connection.transaction():
            assert await inbox.begin(connection, record(1)) is True


async def test_many_may_make_the_table_at_once(clean: postgres.Postgres) -> None:
    with psycopg.connect(clean.dsn) as connection:
        connection.execute("DROP TABLE holdfast_inbox")

    async def make() -> None:
        async with await psycopg.AsyncConnection.connect(clean.dsn) as connection:
            await PostgresInbox("ledger").create(connection)

    await asyncio.gather(*[make() for _ in range(12)])


def test_sqlalchemy_sessions_and_connections(clean: postgres.Postgres) -> None:
    engine = sqlalchemy.create_engine(clean.url)
    inbox = SqlAlchemyInbox("ledger")
    with Session(engine) as session, session.begin():
        inbox.create(session)
        assert inbox.begin(session, record(1)) is True
    with Session(engine) as session:
        assert inbox.begin(session, record(1)) is False
        session.rollback()
        assert inbox.begin(session, record(2)) is True
        session.rollback()
    with engine.connect() as connection:
        assert inbox.begin(connection, record(2)) is True, "it was rolled back"
        connection.commit()
        assert inbox.prune(connection, {("payments", 0): 9}, keep=0) == 2
        connection.commit()
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(DatabaseError, match="AUTOCOMMIT"),
    ):
        inbox.begin(connection, record(3))
    engine.dispose()


async def test_sqlalchemy_asynchronous_sessions(clean: postgres.Postgres) -> None:
    engine = create_async_engine(clean.url)
    inbox = SqlAlchemyInbox("ledger")
    async with AsyncSession(engine) as session, session.begin():
        await inbox.create(session)
        assert await inbox.begin(session, record(1)) is True
    async with engine.connect() as connection:
        assert await inbox.begin(connection, record(1)) is False
        await connection.rollback()
    async with AsyncSession(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        with pytest.raises(DatabaseError, match="AUTOCOMMIT"):
            await inbox.begin(session, record(2))
        any_floor: dict[tuple[str, int], Any] = {("payments", 0): 9}
        assert await inbox.prune(session, any_floor, keep=0) == 1
    await engine.dispose()
