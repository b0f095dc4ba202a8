"""Handlers on a TestBus: the rules of brokers, in virtual time."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from holdfast import Record, RejectRecord, Retry, Transaction, subscriber
from holdfast.client.handlers.breaker import Breaker
from holdfast.client.handlers.context import Context
from holdfast.errors import ClosedError, GroupConflictError, InternalError, InvalidArgumentError
from holdfast.testing import TestBus
from tests.unit.testing import app

NO_JITTER: dict[str, Any] = {"jitter": 0.0, "multiplier": 1.0}
HOURLY = Retry(initial=3_600.0, maximum=3_600.0, **NO_JITTER)


async def test_a_handler_of_production_is_included_as_it_is() -> None:
    app.billed.clear()
    for _ in range(2):  # a second test begins with nothing of the first
        async with TestBus() as bus:
            bus.include(app.bill)
            ack = await bus.publish("orders", app.Order(id=1), key="customer")
            await bus.settle()
            assert (ack.topic, ack.offset) == ("orders", 0)
            assert bus.attempts("billing", "orders") == [1]
    assert app.billed == [1, 1]


async def test_retries_come_when_virtual_time_says_so() -> None:
    began = time.monotonic()
    async with TestBus() as bus:
        bus.include(app.bill)
        await bus.publish("orders", app.Order(id=1, price=-1))
        await bus.settle()
        assert bus.attempts("billing", "orders") == [1]
        await bus.advance(3_599)
        assert bus.attempts("billing", "orders") == [1]
        await bus.advance(1)
        assert bus.attempts("billing", "orders") == [1, 2]
        assert bus.dead_letters("orders.dead") == []
        await bus.advance(7_200)
        assert bus.attempts("billing", "orders") == [1, 2, 3]
        await bus.advance(100_000)
        assert bus.attempts("billing", "orders") == [1, 2, 3]
    assert time.monotonic() - began < 30


async def test_dead_letters_say_what_became_of_them() -> None:
    start = datetime(2030, 5, 1, tzinfo=UTC)
    async with TestBus(start=start) as bus:
        bus.include(app.bill)
        await bus.publish("orders", app.Order(id=1, price=-1), key="k", headers={"from": "test"})
        await bus.publish("orders", app.Order(id=2), key="k")
        await bus.advance(11_000)
        (letter,) = bus.dead_letters("orders.dead")
        assert (letter.group, letter.origin_topic, letter.origin_offset) == ("billing", "orders", 0)
        assert (letter.key, letter.headers) == (b"k", (("from", b"test"),))
        assert [text for _, text in letter.errors] == ["ValueError: a price of -1.0"] * 3
        assert [round((at - start).total_seconds()) for at, _ in letter.errors] == [0, 3_600, 10_800]
        assert [record.offset for record in bus.calls("billing")] == [0, 0, 0, 1]


async def test_payloads_that_do_not_parse_are_dead_letters_at_once() -> None:
    app.billed.clear()
    async with TestBus() as bus:
        bus.include(app.bill)
        await bus.publish("orders", b"{", key="k")
        await bus.publish("orders", '{"id": "one"}', key="k")
        await bus.publish("orders", {"id": 3}, key="k")
        await bus.settle()
        letters = bus.dead_letters("orders.dead")
        assert [letter.value for letter in letters] == [b"{", b'{"id": "one"}']
        assert all(letter.errors[-1][1].startswith("payload: ") for letter in letters)
        assert bus.attempts("billing") == [1, 1, 1]
    assert app.billed == [3]


async def test_a_failed_record_holds_up_its_key_and_no_other() -> None:
    done: list[bytes] = []
    down = True

    @subscriber("t", group="g", ordering="key", concurrency=4, retry=HOURLY)
    async def handle(value: bytes) -> None:
        if down and value == b"a1":
            raise ValueError
        done.append(value)

    async with TestBus() as bus:
        bus.create_topic("t", 1)
        bus.include(handle)
        for value in ("a1", "a2", "b1", "a3", "b2"):
            await bus.publish("t", value, key=value[0])
        await bus.settle()
        assert done == [b"b1", b"b2"]
        down = False
        await bus.advance(3_600)
        assert done == [b"b1", b"b2", b"a1", b"a2", b"a3"]


async def test_a_breaker_rests_tries_one_and_closes() -> None:
    down = True
    called: list[int] = []

    @subscriber(
        "t",
        group="g",
        ordering="none",
        breaker=Breaker(failures=2, within=10.0, rest=15.0),
        retry=Retry(initial=0.0, maximum=0.0, **NO_JITTER),
    )
    async def handle(record: Record) -> None:
        called.append(round(bus.clock.time()))
        if down:
            raise ConnectionError("the database is away")

    async with TestBus() as bus:
        bus.include(handle)
        for number in range(5):
            await bus.publish("t", str(number))
        await bus.settle()
        assert called == [0, 0]  # open
        await bus.advance(14)
        assert called == [0, 0]
        await bus.advance(2)
        assert called == [0, 0, 15]  # half-open: one on trial, and the rest is doubled
        await bus.advance(28)
        assert called == [0, 0, 15]
        down = False
        await bus.advance(2)
        assert called == [0, 0, 15, *[45] * 5]


async def test_attempts_survive_a_restart_of_the_broker() -> None:
    async with TestBus() as bus:
        bus.include(app.bill)
        await bus.publish("orders", app.Order(id=1, price=-1))
        await bus.settle()
        bus.restart_broker()
        await bus.settle()
        assert bus.attempts("billing") == [1]
        await bus.advance(3_600)
        bus.restart_broker()
        await bus.advance(7_200)
        assert bus.attempts("billing") == [1, 2, 3]
        (letter,) = bus.dead_letters("orders.dead")
        assert len(letter.errors) == 3


async def test_what_a_call_says_after_a_restart_counts() -> None:
    gate = asyncio.Event()

    @subscriber("t", group="g")
    async def handle(record: Record) -> None:
        await gate.wait()

    async with TestBus(patience=0.02) as bus:
        bus.include(handle)
        await bus.publish("t", "x")
        await bus.settle()  # the call waits for something that is not the bus: it is left alone
        bus.restart_broker()
        await bus.settle()
        gate.set()
        await bus.settle()
        await bus.advance(600)
        bus.restart_broker()
        await bus.advance(600)
        assert bus.attempts("g") == [1]


async def test_records_of_a_killed_member_go_to_another() -> None:
    by: list[tuple[str, int]] = []
    ends = False

    async def handle(record: Record) -> None:
        by.append((bus.clock.now().strftime("%M:%S"), record.attempt))
        if not ends:
            await bus.clock.sleep(1e6)

    handler = subscriber("t", group="g")(handle)
    async with TestBus() as bus:
        bus.create_topic("t", 1)
        first = bus.include(handler)
        await bus.settle()
        await bus.publish("t", "x")
        await bus.settle()
        bus.include(handler)
        await bus.settle()
        ends = True
        bus.kill(first)
        await bus.settle()
        await bus.advance(120)
        assert [attempt for _, attempt in by] == [1, 2]  # it may have killed its process: that is charged
        with pytest.raises(InvalidArgumentError, match="no member 'g-1'; there are: g-"):
            bus.kill(first)


async def test_the_bus_kills_the_member_that_is_named() -> None:
    @subscriber("t", group="g")
    async def handle(record: Record) -> None: ...

    async with TestBus() as bus:
        only = bus.include(handle)
        await bus.settle()
        bus.kill(only)
        await bus.publish("t", "x")
        await bus.advance(600)
        assert bus.attempts("g") == []
        bus.include(handle)
        await bus.settle()
        assert bus.attempts("g") == [1]


async def test_a_call_that_takes_too_long_in_virtual_time_is_cancelled() -> None:
    said: list[str] = []

    @subscriber("t", group="g", timeout=30.0, retry=HOURLY)
    async def handle(record: Record) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            said.append(f"cancelled at {bus.clock.time():.0f}")
            raise

    async with TestBus(patience=0.02) as bus:
        bus.include(handle)
        await bus.publish("t", "x")
        await bus.advance(29)
        assert said == []
        await bus.advance(2)
        assert said == ["cancelled at 30"]
        await bus.advance(3_600)
        assert bus.attempts("g") == [1, 2]


async def test_a_member_that_lives_keeps_its_records_however_long_it_takes() -> None:
    done: list[float] = []

    @subscriber("t", group="g", ack_timeout=5.0)
    async def handle(record: Record) -> None:
        await bus.clock.sleep(3_600)
        done.append(round(bus.clock.time()))

    async with TestBus() as bus:
        bus.include(handle)
        bus.include(handle)
        await bus.publish("t", "x")
        await bus.settle()
        assert done == []
        await bus.advance(7_300)
        assert (done, bus.attempts("g")) == ([3_600], [1])


async def test_exactly_once_publishes_with_the_call_that_succeeded() -> None:
    @subscriber("orders", group="g", semantics="exactly_once", retry=HOURLY)
    async def pay(order: bytes, record: Record, tx: Transaction) -> None:
        tx.publish("payments", b"for " + order, key=b"k")
        if record.attempt == 1:
            raise ValueError("after it published")

    async with TestBus() as bus:
        bus.include(pay)
        await bus.publish("orders", "a")
        await bus.settle()
        assert bus.records("payments") == []
        await bus.advance(3_600)
        bus.restart_broker()
        await bus.advance(3_600)
        assert [record.value for record in bus.records("payments")] == [b"for a"]
        assert bus.attempts("g") == [1, 2]


async def test_an_exactly_once_call_that_goes_on_over_a_restart_commits() -> None:
    gate = asyncio.Event()

    @subscriber("orders", group="g", semantics="exactly_once")
    async def pay(order: bytes, tx: Transaction) -> None:
        tx.publish("payments", order)
        await gate.wait()

    async with TestBus(patience=0.02) as bus:
        bus.include(pay)
        await bus.publish("orders", "a")
        await bus.settle()
        bus.restart_broker()
        gate.set()
        await bus.settle()
        await bus.advance(600)
        assert [record.value for record in bus.records("payments")] == [b"a"]
        assert bus.attempts("g") == [1]


async def test_handlers_that_are_no_coroutines_run_in_threads() -> None:
    threads: set[str] = set()

    @subscriber("t", group="g", concurrency=2, ordering="none")
    def handle(record: Record, context: Context) -> None:
        time.sleep(0.02)
        threads.add(threading.current_thread().name)

    async with TestBus() as bus:
        bus.include(handle)
        for _ in range(4):
            await bus.publish("t", "x")
        await bus.settle()
        assert len(bus.calls("g", "t")) == 4
        assert threads
        assert threading.main_thread().name not in threads


async def test_at_most_once_is_settled_before_it_is_handled() -> None:
    @subscriber("t", group="g", semantics="at_most_once")
    async def handle(record: Record) -> None:
        raise ValueError("lost")

    async with TestBus() as bus:
        bus.include(handle)
        await bus.publish("t", "x")
        await bus.advance(600)
        bus.restart_broker()
        await bus.advance(600)
        assert bus.attempts("g") == [1]


async def test_subscriber_of_the_bus_and_what_handlers_publish() -> None:
    bus = TestBus()

    @bus.subscriber("orders", group="billing")
    async def bill(order: app.Order) -> None:
        await bus.publish("payments", {"order": order.id}, key="k")

    @bus.subscriber("payments", group="ledger", dead_letter="payments.dead")
    async def book(payment: dict[str, int]) -> None:
        raise RejectRecord(f"of order {payment['order']}")

    async with bus:
        for number in range(3):
            await bus.publish("orders", app.Order(number), key="customer")
        await bus.settle()
        assert [record.value for record in bus.records("payments")] == [
            b'{"order":%d}' % number for number in range(3)
        ]
        assert len(bus.dead_letters("payments.dead")) == 3
        assert bus.calls("nobody") == []
        assert bus.records("nothing") == []
        assert bus.dead_letters("nothing") == []


async def test_a_transaction_of_the_test_itself() -> None:
    async with TestBus() as bus:
        async with bus.transaction() as transaction:
            transaction.publish("a", b"1", key=b"k")
            transaction.publish("b", b"2")
        given_up = bus.transaction()
        given_up.publish("a", b"3", key=b"k")
        given_up.abandon()
        assert [record.value for topic in "ab" for record in bus.records(topic)] == [b"1", b"2"]


async def test_idempotency_keys() -> None:
    async with TestBus() as bus:
        bus.create_topic("t", 1, idempotency_ttl_ms=60_000)
        first = await bus.publish("t", "x", idempotency_key="order-1")
        await bus.advance(50)
        again = await bus.publish("t", "y", idempotency_key="order-1")
        assert (first.duplicate, again.duplicate, again.offset) == (False, True, first.offset)
        await bus.advance(11)
        late = await bus.publish("t", "z", idempotency_key="order-1")
        assert not late.duplicate
        assert [record.value for record in bus.records("t")] == [b"x", b"z"]


async def test_two_handlers_that_want_different_groups_are_told() -> None:
    async with TestBus() as bus:
        bus.include(app.bill)

        @bus.subscriber("orders", group="billing", ordering="key")
        async def other(order: bytes) -> None: ...

        with pytest.raises(GroupConflictError):
            await bus.settle()


async def test_mistakes_are_told() -> None:
    async def plain(record: Record) -> None: ...

    with pytest.raises(InvalidArgumentError, match="decorate it with subscriber"):
        TestBus().include(plain)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="patience"):
        TestBus(patience=-1)
    with pytest.raises(InvalidArgumentError, match="time zone"):
        TestBus(start=datetime(2030, 1, 1))
    bus = TestBus()
    with pytest.raises(ClosedError, match="async with"):
        await bus.settle()
    async with bus:
        with pytest.raises(InvalidArgumentError, match="negative"):
            await bus.advance(-1)
        with pytest.raises(InvalidArgumentError, match="no form in JSON"):
            await bus.publish("t", object())
    with pytest.raises(ClosedError, match="make another one"):
        async with bus:
            pass


async def test_what_never_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.testing.bus._STEPS", 300)

    @subscriber("t", group="g", retry=Retry(initial=0.0, maximum=0.0))
    async def handle(record: Record) -> None:
        raise ValueError

    async with TestBus() as bus:
        bus.include(handle)
        await bus.publish("t", "x")
        with pytest.raises(InternalError, match="never ends"):
            await bus.settle()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
async def test_whatever_happens_every_record_is_handled_or_a_dead_letter(
    seed: int, ordering: Literal["partition", "key", "none"]
) -> None:
    """Failures, restarts and kills in any order; with transactions, each record has its effect once."""
    chance = random.Random(f"{seed}{ordering}")
    once = chance.random() < 0.5

    @subscriber(
        "t",
        group="g",
        ordering=ordering,
        semantics="exactly_once" if once else "at_least_once",
        concurrency=chance.choice([1, 3, 8]),
        retry=Retry(attempts=4, initial=2.0),
        dead_letter="t.dead",
        timeout=20.0,
    )
    async def handle(record: Record) -> None:
        fate = chance.random()
        if fate < 0.2:
            raise ValueError
        if fate < 0.4:
            await bus.clock.sleep(chance.choice([0.5, 3.0, 30.0]))
        if not once:
            await bus.publish("done", record.value)

    @subscriber(
        "t",
        group="h",
        ordering=ordering,
        semantics="exactly_once",
        retry=Retry(initial=2.0),
    )
    async def transact(record: Record, tx: Transaction) -> None:
        tx.publish("copied", record.value)
        if chance.random() < 0.2:
            raise ValueError
        if chance.random() < 0.1:
            await bus.clock.sleep(3.0)

    published: list[bytes] = []
    async with TestBus() as bus:
        members = [
            (bus.include(each), each) for each in (handle, transact) for _ in range(chance.randint(1, 3))
        ]
        for _ in range(25):
            match chance.choice(["publish", "publish", "advance", "advance", "restart", "kill", "settle"]):
                case "publish":
                    for _ in range(chance.randint(1, 10)):
                        published.append(b"%d" % len(published))
                        await bus.publish("t", published[-1], key=b"%d" % (len(published) % 5))
                case "advance":
                    await bus.advance(chance.choice([0, 1, 7, 40]))
                case "restart":
                    bus.restart_broker()
                case "kill":
                    name, handler = members.pop(chance.randrange(len(members)))
                    bus.kill(name)
                    members.append((bus.include(handler), handler))
                case "settle":
                    await bus.settle()
        await bus.advance(5_000)
        dead = {letter.value for letter in bus.dead_letters("t.dead")}
        if not once:
            assert {record.value for record in bus.records("done")} | dead == set(published)
        assert {record.value for record in bus.calls("g")} == set(published)
        assert sorted(record.value for record in bus.records("copied")) == sorted(published)
