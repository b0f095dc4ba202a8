"""Outboxes in SQLite files, and the relay on brokers made by hand."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

import holdfast.outbox
from holdfast.client.options import ClientOptions
from holdfast.client.types import Ack
from holdfast.errors import (
    ClosedError,
    HoldfastError,
    InvalidArgumentError,
    RecordTooLargeError,
    UnavailableError,
    UnknownTopicError,
)
from holdfast.outbox import DatabaseError, PostgresOutbox, Relay, SqlAlchemyOutbox, SqliteOutbox
from holdfast.outbox import relay as relay_module
from holdfast.outbox import rows as rows_module


class Bus:
    """Brokers that remember idempotency keys; ``refuse`` says what they refuse."""

    def __init__(self) -> None:
        self.options = ClientOptions()
        self.stored: list[tuple[str, bytes]] = []
        self.records: list[dict[str, Any]] = []
        self.calls = 0
        self.refuse: Callable[[str, bytes], HoldfastError | None] = lambda topic, value: None
        self._known: dict[tuple[str, bytes], Ack] = {}

    def publish(self, topic: str, value: bytes, key: Any = None, **given: Any) -> asyncio.Future[Ack]:
        future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self.calls += 1
        refused = self.refuse(topic, value)
        if refused is not None:
            future.set_exception(refused)
            return future
        token = (topic, given["idempotency_key"])
        if token not in self._known:
            self._known[token] = Ack(topic, 0, len(self.stored))
            self.stored.append((topic, value))
            self.records.append({"topic": topic, "value": value, "key": key, **given})
        future.set_result(self._known[token])
        return future


class Plain:
    """sqlite3."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outbox: Any = SqliteOutbox()
        self._opened: list[Any] = []

    def open(self) -> Any:
        self._opened.append(sqlite3.connect(self.path, timeout=5, check_same_thread=False))
        return self._opened[-1]

    connect = open

    def close(self) -> None:
        for each in self._opened:
            each.close()


class Alchemy(Plain):
    """SQLAlchemy."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.outbox = SqlAlchemyOutbox()
        self.engine = sqlalchemy.create_engine(f"sqlite:///{path}")

    def open(self) -> Any:
        self._opened.append(Session(self.engine))
        return self._opened[-1]

    def connect(self) -> Any:
        return self.engine.connect()

    def close(self) -> None:
        super().close()
        self.engine.dispose()


@pytest.fixture(params=[Plain, Alchemy])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made = request.param(tmp_path / "db")
    connection = made.open()
    made.outbox.create(connection)
    made.outbox.create(connection)  # there already
    connection.commit()
    yield made
    made.close()


def put(database: Any, *values: tuple[str, bytes], **given: Any) -> None:
    connection = database.open()
    for topic, value in values:
        database.outbox.put(connection, topic, value, **given)
    connection.commit()
    connection.close()


def left(database: Any) -> list[tuple[int, str | None]]:
    connection = sqlite3.connect(database.path)
    found = connection.execute("SELECT id, failed FROM holdfast_outbox ORDER BY id").fetchall()
    connection.close()
    return found


@asynccontextmanager
async def running(database: Any, bus: Bus, **given: Any) -> AsyncIterator[Relay]:
    relay = Relay(bus, database.outbox, database.connect, **{"poll": 0.01, **given})
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        relay.stop()
        async with asyncio.timeout(20):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


# -- put --------------------------------------------------------------------------------


async def test_what_is_committed_is_published_and_nothing_else(database: Any) -> None:
    connection = database.open()
    database.outbox.put(connection, "orders", b"rolled back")
    connection.rollback()
    database.outbox.put(
        connection,
        "orders",
        b"kept",
        key="k",
        headers={"a": b"1", "b": "2"},
        idempotency_key="order-17",
        timestamp=5,
    )
    connection.commit()
    database.outbox.put(connection, "orders", b"rolled back, too")
    connection.rollback()
    bus = Bus()
    async with running(database, bus):
        await until(lambda: not left(database))
    assert bus.records == [
        {
            "topic": "orders",
            "value": b"kept",
            "key": b"k",
            "headers": (("a", b"1"), ("b", b"2")),
            "timestamp": 5,
            "idempotency_key": b"order-17",
        }
    ]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"topic": ""}, "topic"),
        ({"value": "text"}, "value"),
        ({"key": 3}, "key"),
        ({"key": b"k" * 5_000}, "key"),
        ({"headers": 3}, "headers"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"idempotency_key": b"k" * 257}, "idempotency_key"),
        ({"idempotency_key": 3}, "idempotency_key"),
        ({"timestamp": "now"}, "timestamp"),
    ],
)
def test_what_could_not_be_published_is_refused_at_once(given: dict[str, Any], field: str) -> None:
    connection = sqlite3.connect(":memory:")
    everything = {"topic": "orders", "value": b"v", **given}
    with pytest.raises((InvalidArgumentError, TypeError)) as caught:
        SqliteOutbox().put(connection, everything.pop("topic"), everything.pop("value"), **everything)
    if isinstance(caught.value, InvalidArgumentError):
        assert caught.value.metadata["field"] == field
    connection.close()


def test_connections_that_will_not_do(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "db", isolation_level=None) as connection:
        SqliteOutbox().create(connection)
        with pytest.raises(DatabaseError, match="BEGIN"):
            SqliteOutbox().put(connection, "orders", b"v")
    connection.close()
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'db'}", isolation_level="AUTOCOMMIT")
    with engine.connect() as alchemy, pytest.raises(DatabaseError, match="AUTOCOMMIT"):
        SqlAlchemyOutbox().put(alchemy, "orders", b"v")
    engine.dispose()
    for outbox in (SqliteOutbox(), PostgresOutbox(), SqlAlchemyOutbox()):
        with pytest.raises(DatabaseError, match=r"builtins\.object is not"):
            outbox.put(object(), "orders", b"v")  # type: ignore[call-overload]


def test_numbers_and_names_that_make_no_sense() -> None:
    for given, field in (({"batch": 0}, "batch"), ({"poll": 0}, "poll"), ({"poll": 31}, "poll")):
        with pytest.raises(InvalidArgumentError) as caught:
            Relay(Bus(), SqliteOutbox(), lambda: None, **given)  # type: ignore[arg-type]
        assert caught.value.metadata["field"] == field
    with pytest.raises(InvalidArgumentError):
        SqliteOutbox(table="a b")
    for name in holdfast.outbox.__all__:
        assert getattr(holdfast.outbox, name).__name__ == name
    assert not hasattr(holdfast.outbox, "nonsense")


# -- the relay --------------------------------------------------------------------------------


async def test_rows_go_in_order_and_are_deleted(database: Any) -> None:
    put(database, *[(f"t{n % 2}", b"%d" % n) for n in range(25)])
    bus = Bus()
    async with running(database, bus, batch=4) as relay:
        await until(lambda: not left(database))
        assert relay.published == 25
        put(database, ("t0", b"later"))
        await until(lambda: not left(database))
    for number in range(2):
        values = [value for topic, value in bus.stored if topic == f"t{number}"]
        assert values[:12] == [b"%d" % n for n in range(number, 24, 2)]
    assert len({record["idempotency_key"] for record in bus.records}) == 26
    assert all(record["timestamp"] > 1_600_000_000_000_000 for record in bus.records)


async def test_killed_between_acknowledgement_and_deletion_it_stores_nothing_twice(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(database, *[("orders", b"%d" % n) for n in range(10)])
    bus = Bus()
    finish, failures = type(database.outbox).finish, 0

    def dies(*arguments: Any) -> None:
        nonlocal failures
        failures += 1
        if failures < 4:
            raise sqlite3.OperationalError("disk I/O error")
        finish(*arguments)

    monkeypatch.setattr(type(database.outbox), "finish", dies)
    async with running(database, bus, batch=3):
        await until(lambda: not left(database))
    assert bus.stored == [("orders", b"%d" % n) for n in range(10)]
    assert bus.calls == 10 + 3 * 3


async def test_two_relays_store_nothing_twice_and_keep_the_order(database: Any) -> None:
    put(database, *[("orders", b"%d" % n) for n in range(200)])
    bus = Bus()
    async with running(database, bus, batch=7), running(database, bus, batch=5):
        await until(lambda: not left(database))
    assert bus.stored == [("orders", b"%d" % n) for n in range(200)]


async def test_a_record_nobody_takes_is_set_aside(database: Any, caplog: pytest.LogCaptureFixture) -> None:
    put(database, ("orders", b"good"), ("orders", b"huge"), ("orders", b"better"))
    bus = Bus()
    bus.refuse = lambda topic, value: RecordTooLargeError("too large") if value == b"huge" else None
    async with running(database, bus):
        await until(lambda: len(left(database)) == 1)
        assert left(database) == [(2, "RecordTooLargeError: too large")]
    assert [value for _, value in bus.stored] == [b"good", b"better"]
    assert "row 2 is set aside" in caplog.text


async def test_a_topic_that_is_not_there_rests_and_the_others_go_on(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "REST", 0.2)
    put(database, *[("missing", b"m%d" % n) for n in range(10)], ("orders", b"o"))
    bus = Bus()
    there = False
    bus.refuse = lambda topic, _: UnknownTopicError(topic) if topic == "missing" and not there else None
    async with running(database, bus, batch=5):
        await until(lambda: len(left(database)) == 10)
        assert bus.stored == [("orders", b"o")]
        there = True
        await until(lambda: not left(database))
    assert [value for topic, value in bus.stored if topic == "missing"] == [b"m%d" % n for n in range(10)]


async def test_nothing_overtakes_a_record_that_failed(database: Any) -> None:
    put(database, *[("orders", b"%d" % n + b"." * 400) for n in range(12)])
    bus = Bus()
    bus.options = ClientOptions(batch_bytes=4_000)  # two rows a request
    refused = 0

    def refuse(topic: str, value: bytes) -> HoldfastError | None:
        """Three requests with 4 and 5 in them: one is stored whole or not at all."""
        nonlocal refused
        number = int(value.partition(b".")[0])
        refused += number == 4
        return UnavailableError("away") if number in (4, 5) and refused <= 3 else None

    bus.refuse = refuse
    async with running(database, bus):
        await until(lambda: not left(database))
    assert refused == 4
    assert [int(value.partition(b".")[0]) for _, value in bus.stored] == list(range(12))


async def test_no_more_is_taken_at_once_than_a_bound_of_bytes(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "TAKE_BYTES", 2_500)
    put(database, *[("orders", b"x" * 1_000) for _ in range(7)], ("orders", b"y" * 9_000))
    connection = database.connect()
    assert len(database.outbox.take(connection, 500, [])) == 3
    assert len(database.outbox.take(connection, 2, [])) == 2
    assert database.outbox.take(connection, 500, ["orders"]) == []
    connection.close()
    bus = Bus()
    async with running(database, bus):
        await until(lambda: not left(database))
    assert len(bus.stored) == 8, "one that is larger than the bound goes alone"


async def test_a_database_that_is_away_is_connected_to_again(
    database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    put(database, ("orders", b"v"))
    bus, tries = Bus(), 0

    def connect() -> Any:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ConnectionError("no route")
        return database.connect()

    relay = Relay(bus, database.outbox, connect, poll=0.01)
    task = asyncio.create_task(relay.run())
    await until(lambda: not left(database))
    relay.stop()
    await task
    assert tries == 3
    assert "ConnectionError: no route" in caplog.text


async def test_a_closed_client_ends_it(database: Any) -> None:
    put(database, ("orders", b"v"))
    bus = Bus()
    bus.refuse = lambda *_: ClosedError("the client has been closed")
    with pytest.raises(ClosedError):
        await Relay(bus, database.outbox, database.connect).run()
    assert len(left(database)) == 1


async def test_it_can_be_cancelled(database: Any) -> None:
    task = asyncio.create_task(Relay(Bus(), database.outbox, database.connect).run())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
