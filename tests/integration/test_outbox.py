"""Records published when a transaction commits: real brokers, and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import holdfast
from holdfast.chaos import postgres
from holdfast.outbox import DatabaseError, PostgresOutbox, Relay, SqlAlchemyOutbox, SqliteOutbox

#: Publishes an outbox and is killed once its first rows have been acknowledged and not deleted.
KILLED = """
import asyncio, os, signal, sqlite3, sys
import holdfast
from holdfast.outbox import Relay, SqliteOutbox

class Doomed(SqliteOutbox):
    def finish(self, connection, done, failed):
        os.kill(os.getpid(), signal.SIGKILL)

async def main(address, path):
    async with holdfast.connect(address) as bus:
        await Relay(bus, Doomed(), lambda: sqlite3.connect(path), batch=10).run()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    if postgres.find() is None:
        pytest.skip(f"outbox in PostgreSQL: {postgres.MISSING}")
    with postgres.Postgres() as running:
        yield running


@pytest.fixture
def clean(server: postgres.Postgres) -> postgres.Postgres:
    with psycopg.connect(server.dsn) as connection:
        connection.execute("DROP TABLE IF EXISTS holdfast_outbox")
        PostgresOutbox().create(connection)
    return server


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


async def publish_all(bus: Any, outbox: Any, connect: Callable[[], Any], left: Callable[[], int]) -> Relay:
    relay = Relay(bus, outbox, connect, poll=0.02)
    task = asyncio.create_task(relay.run())
    await until(lambda: left() == 0)
    relay.stop()
    await task
    return relay


async def stored(bus: holdfast.Client, topic: str) -> list[bytes]:
    return [record.value async for record in bus.replay(topic)]


async def test_a_relay_killed_before_it_deletes_stores_nothing_twice(tmp_path: Path) -> None:
    path = str(tmp_path / "db")

    def left() -> int:
        count: int = watch.execute("SELECT count(*) FROM holdfast_outbox").fetchone()[0]
        return count

    outbox, watch = SqliteOutbox(), sqlite3.connect(path)
    outbox.create(watch)
    for number in range(25):
        outbox.put(watch, "orders", b"%d" % number, key="k")
    watch.commit()
    async with holdfast.testing.embedded_broker() as address, holdfast.connect(address) as bus:
        await bus.create_topic("orders", partitions=3, idempotency_ttl_ms=60_000)
        for _ in range(2):
            killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, address, path)
            async with asyncio.timeout(60):
                assert await killed.wait() == -9
        assert left() == 25
        assert await stored(bus, "orders") == [b"%d" % n for n in range(10)], "as far as it came, once"
        await publish_all(bus, outbox, lambda: sqlite3.connect(path), left)
        assert await stored(bus, "orders") == [b"%d" % n for n in range(25)]
    watch.close()


async def test_a_topic_without_a_window_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox, watch = SqliteOutbox(), sqlite3.connect(tmp_path / "db")
    outbox.create(watch)
    outbox.put(watch, "orders", b"v")
    watch.commit()
    async with holdfast.testing.embedded() as bus:
        await bus.create_topic("orders", partitions=1)
        relay = Relay(bus, outbox, lambda: sqlite3.connect(tmp_path / "db"), poll=0.02)
        task = asyncio.create_task(relay.run())
        with caplog.at_level(logging.WARNING):
            await until(lambda: "idempotency_ttl_ms" in caplog.text)
        relay.stop()
        await task
        assert await stored(bus, "orders") == []
    assert watch.execute("SELECT count(*) FROM holdfast_outbox").fetchone() == (1,)
    watch.close()


async def test_postgres_and_its_one_relay(clean: postgres.Postgres) -> None:
    outbox = PostgresOutbox()
    watch = psycopg.connect(clean.dsn, autocommit=True)

    def left() -> int:
        return len(watch.execute("SELECT 1 FROM holdfast_outbox").fetchall())

    with pytest.raises(DatabaseError, match="transaction"):
        outbox.put(watch, "orders", b"v")
    async with await psycopg.AsyncConnection.connect(clean.dsn) as connection:
        await outbox.create(connection)
        await outbox.put(connection, "orders", b"gone")
        await connection.rollback()
        for number in range(30):
            await outbox.put(connection, "orders", b"%d" % number, headers={"n": b"%d" % number})
    async with holdfast.testing.embedded() as bus:
        await bus.create_topic("orders", partitions=1, idempotency_ttl_ms=60_000)
        first = await publish_all(bus, outbox, lambda: psycopg.connect(clean.dsn), left)
        assert first.published == 30
        records = [record async for record in bus.replay("orders")]
        assert [record.value for record in records] == [b"%d" % n for n in range(30)]
        assert [record.header("n") for record in records] == [b"%d" % n for n in range(30)]

        holder = psycopg.connect(clean.dsn)
        assert outbox.lock(holder)
        standby = Relay(bus, outbox, lambda: psycopg.connect(clean.dsn), poll=0.02)
        task = asyncio.create_task(standby.run())
        with watch.transaction():
            outbox.put(watch, "orders", b"later")
        tries = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_try_advisory_lock%'"
        await until(lambda: watch.execute(tries).fetchone() != (0,))
        assert left() == 1, "another relay has the lock"
        holder.close()
        await until(lambda: left() == 0)
        clean.kill()
        clean.start()
        with psycopg.connect(clean.dsn) as connection_2:
            outbox.put(connection_2, "orders", b"after the crash")
        async with asyncio.timeout(60):
            while (await stored(bus, "orders"))[-1] != b"after the crash":
                await asyncio.sleep(0.05)
        standby.stop()
        await task
    watch.close()


async def test_sqlalchemy(clean: postgres.Postgres) -> None:
    outbox = SqlAlchemyOutbox()
    engine = sqlalchemy.create_engine(clean.url)
    asynchronous = create_async_engine(clean.url)
    async with AsyncSession(asynchronous) as session, session.begin():
        await outbox.create(session)
        await outbox.put(session, "orders", b"1", key=b"\x00\xff")
    with engine.begin() as connection:
        outbox.put(connection, "orders", b"2")

    def left() -> int:
        with engine.connect() as watch:
            return len(watch.execute(sqlalchemy.text("SELECT 1 FROM holdfast_outbox")).fetchall())

    async with holdfast.testing.embedded() as bus:
        await bus.create_topic("orders", partitions=1, idempotency_ttl_ms=60_000)
        await publish_all(bus, outbox, engine.connect, left)
        assert await stored(bus, "orders") == [b"1", b"2"]
    await asynchronous.dispose()
    engine.dispose()


def test_the_relay_needs_no_driver_but_its_own() -> None:
    code = (
        "import sys\n"
        "sys.modules['psycopg'] = sys.modules['sqlalchemy'] = None\n"
        "from holdfast.outbox import PostgresOutbox, Relay, SqlAlchemyOutbox, SqliteOutbox\n"
        "PostgresOutbox(), SqlAlchemyOutbox(), SqliteOutbox()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
