"""The runner on a link made by hand: tasks, threads, timeouts, shutdown."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from holdfast.client.handlers import core as core_module
from holdfast.client.handlers import runner as runner_module
from holdfast.client.handlers.breaker import Breaker
from holdfast.client.handlers.context import Context
from holdfast.client.handlers.errors import ParkRecord, RejectRecord, RetryLater
from holdfast.client.handlers.runner import Runner
from holdfast.client.handlers.subscriber import Handler, subscriber
from holdfast.client.types import Record
from holdfast.errors import AlreadySettledError, InvalidArgumentError, UnavailableError, UnknownTopicError

from .kit import FakeLink, record

Run = Callable[..., Coroutine[Any, Any, Runner]]


class Order(msgspec.Struct):
    id: int


@pytest.fixture
async def start() -> AsyncIterator[Run]:
    """Starts runners; they have to end by themselves when they are told to."""
    started: list[tuple[Runner, asyncio.Task[None]]] = []

    async def begin(handler: Handler[Any, Any], link: FakeLink, **given: Any) -> Runner:
        runner = Runner(handler, link, **given)
        started.append((runner, asyncio.create_task(runner.run())))
        return runner

    yield begin
    for runner, task in started:
        runner.abort()
        async with asyncio.timeout(20):
            await asyncio.wait([task])


def decorate(function: Any, **given: Any) -> Handler[Any, Any]:
    """A handler, in a group where nothing waits for anything else."""
    return subscriber("orders", **{"group": "billing", "ordering": "none", "dead_letter": "dead", **given})(
        function
    )


async def finish(runner: Runner, grace: float = 20.0) -> None:
    runner.stop(grace)
    async with asyncio.timeout(20):
        await runner._over.wait()


# -- what a handler does, and what is told -----------------------------------------------


def behave(order: Order) -> None:
    match order.id:
        case 1:
            raise RejectRecord("no")
        case 2:
            raise ParkRecord(60, "by hand")
        case 3:
            raise RetryLater(2.5)
        case 4:
            raise ValueError("bad")
        case 5:
            raise KeyError("k")
        case 6:
            raise UnavailableError("away")


TOLD = {
    0: ("ack", ""),
    1: ("reject", "no"),
    2: ("park", "by hand"),
    3: ("retry", "to be tried later"),
    4: ("retry", "ValueError: bad"),
    5: ("reject", "KeyError: 'k'"),
    6: ("retry", "UnavailableError: away"),
    7: ("reject", "payload: Expected `int`, got `str` - at `$.id`"),
    8: ("reject", "payload: JSON is malformed: invalid character (byte 0)"),
}


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_handlers_end_is_told(kind: str, start: Run) -> None:
    async def behave_async(order: Order) -> None:
        await asyncio.sleep(0)
        behave(order)

    handler = decorate(
        behave_async if kind == "async" else behave, payload=Order, fatal=KeyError, concurrency=4
    )
    values = [b'{"id": %d}' % n for n in range(7)] + [b'{"id": "x"}', b"?"]
    link = FakeLink([record(n, value=value) for n, value in enumerate(values)])
    await start(handler, link)
    told = await link.until(len(TOLD))
    assert {offset: (what, error) for offset, what, error in told} == TOLD
    assert sorted(link.delays, key=str) == [2.5, 60, None, None]


async def test_what_a_handler_is_given(start: Run) -> None:
    seen: list[Any] = []

    async def handle(order: Order, it: Record, ctx: Context) -> None:
        seen.append((order, it, ctx.record, ctx.group, ctx.attempt, ctx.given_up, ctx.lost))
        ctx.extend(30.0)

    link = FakeLink([record(5, value=b'{"id": 9}')])
    await start(decorate(handle, payload=Order), link)
    await link.until(1)
    first = record(5, value=b'{"id": 9}')
    assert seen == [(Order(9), first, first, "billing", 1, False, False)]
    async with asyncio.timeout(20):
        while not link.extended:
            await asyncio.sleep(0)
    assert link.extended == [(5, 30.0)]


async def test_a_thread_may_extend_its_record(start: Run) -> None:
    def handle(record: Record, ctx: Context) -> None:
        ctx.extend(9.0)

    link = FakeLink([record(5)])
    await start(decorate(handle), link)
    await link.until(1)
    assert link.extended == [(5, 9.0)]


async def test_threads_see_the_context_of_who_started_the_runner(start: Run) -> None:
    who: ContextVar[str] = ContextVar("who", default="nobody")
    seen: list[str] = []

    def handle(record: Record) -> None:
        seen.append(who.get())
        who.set("the call before")

    who.set("me")
    link = FakeLink([record(1), record(2)])
    await start(decorate(handle), link)
    await link.until(2)
    assert seen == ["me", "me"]


async def test_a_function_that_forgets_to_be_async_is_told(
    start: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def later() -> None: ...

    link = FakeLink([record(1)])
    await start(decorate(lambda record: later()), link)
    ((offset, what, error),) = await link.until(1)
    assert (offset, what) == (1, "retry")
    assert "returned an awaitable" in error


async def test_a_failure_is_logged_with_its_place(start: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def handle(record: Record) -> None:
        raise ValueError("bad")

    link = FakeLink([record(7)])
    await start(decorate(handle), link)
    await link.until(1)
    (entry,) = [e for e in caplog.records if e.levelno == logging.WARNING]
    assert "orders[0]@7 failed" in entry.message
    assert entry.exc_info


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_span_for_each_call(kind: str, start: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    inside: list[int] = []

    def handle(payload: bytes, record: Record) -> None:
        inside.append(trace.get_current_span().get_span_context().span_id)
        if record.offset == 2:
            raise ValueError("s3cret")

    async def handle_async(payload: bytes, record: Record) -> None:
        handle(payload, record)

    parent = (("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)
    link = FakeLink([record(1, headers=parent), record(2)])
    await start(decorate(handle_async if kind == "async" else handle), link)
    await link.until(2)
    first, second = exporter.get_finished_spans()
    assert [first.context.span_id, second.context.span_id] == inside
    assert first.name == "process orders"
    assert first.kind is trace.SpanKind.CONSUMER
    assert [f"{each.context.span_id:x}" for each in first.links] == ["b7ad6b7169203331"]
    assert first.attributes is not None
    assert first.attributes["messaging.consumer.group.name"] == "billing"
    assert first.attributes["messaging.holdfast.offset"] == 1
    assert first.status.is_ok
    assert not second.links
    assert not second.status.is_ok
    assert "s3cret" not in second.to_json()
    assert trace.get_current_span() is trace.INVALID_SPAN


# -- at once, and in order ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_as_many_at_once_as_asked_for(kind: str, start: Run) -> None:
    at_once, most = 0, 0
    lock, together = threading.Lock(), threading.Barrier(3)

    def enter(by: int) -> None:
        nonlocal at_once, most
        with lock:
            at_once += by
            most = max(most, at_once)

    def in_thread(record: Record) -> None:
        enter(1)
        together.wait(20)
        enter(-1)

    waiting: list[asyncio.Future[None]] = []

    async def in_task(record: Record) -> None:
        enter(1)
        waiting.append(asyncio.get_running_loop().create_future())
        if len(waiting) % 3 == 0:
            for future in waiting[-3:]:
                future.set_result(None)
        await waiting[-1]
        enter(-1)

    link = FakeLink([record(n) for n in range(30)])
    await start(decorate(in_task if kind == "async" else in_thread, concurrency=3), link)
    await link.until(30)
    assert most == 3
    assert set(link.outcomes.values()) == {"ack"}


async def test_partitions_in_order(start: Run) -> None:
    seen: list[tuple[int, int]] = []

    async def handle(record: Record) -> None:
        await asyncio.sleep(0)
        seen.append((record.partition, record.offset))

    link = FakeLink([record(n, partition=n % 3) for n in range(60)])
    await start(decorate(handle, ordering="partition", concurrency=8), link)
    await link.until(60)
    for partition in range(3):
        assert [offset for p, offset in seen if p == partition] == list(range(partition, 60, 3))


async def test_no_more_is_taken_than_there_is_room_for(start: Run) -> None:
    gate = asyncio.Event()

    async def handle(record: Record) -> None:
        await gate.wait()

    link = FakeLink([record(n) for n in range(20)])
    await start(decorate(handle, concurrency=2, prefetch=5), link)
    async with asyncio.timeout(20):
        while len(link.coming) > 15:
            await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(link.coming) == 15
    gate.set()
    await link.until(20)
    assert max(link.asked) == 5


async def test_a_busy_handler_lets_the_loop_turn(start: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_TURN", 0.0)
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    async def handle(record: Record) -> None:
        pass  # never waits for anything

    link = FakeLink([record(n) for n in range(50)])
    await start(decorate(handle, ordering="partition"), link)
    turn()
    await link.until(50)
    assert turns > 40


# -- calls that do not end ----------------------------------------------------------------------


async def test_a_task_past_its_time_is_cancelled(start: Run) -> None:
    ended: list[str] = []

    async def handle(record: Record) -> None:
        if record.offset == 1:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cleaned up")

    link = FakeLink([record(1), record(2)])
    runner = await start(decorate(handle, timeout=0.05), link)
    assert await link.until(2) == [(1, "retry", "timeout: not done within 0.05 s"), (2, "ack", "")]
    assert ended == ["cleaned up"]
    link.deliver(record(3))
    assert (await link.until(3))[2] == (3, "ack", ""), "the worker goes on"
    await finish(runner)


async def test_a_call_that_finishes_in_spite_of_it_counts(start: Run) -> None:
    async def handle(record: Record) -> None:
        if record.offset == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return

    link = FakeLink([record(1), record(2)])
    await start(decorate(handle, timeout=0.05), link)
    assert await link.until(2) == [(1, "ack", ""), (2, "ack", "")]


async def test_a_task_that_ignores_it_is_given_up(
    start: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(core_module, "CANCEL_GRACE", 0.0)
    gate = asyncio.Event()

    async def handle(record: Record) -> None:
        while record.offset == 1 and not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    link = FakeLink([record(1)])
    runner = await start(decorate(handle, timeout=0.05, concurrency=2), link)
    assert await link.until(1) == [(1, "retry", "timeout: not done within 0.05 s")]
    assert "its place stays taken (1 of 2)" in caplog.text
    link.deliver(record(2))
    assert (await link.until(2))[1:] == [(2, "ack", "")]
    gate.set()
    await finish(runner)


async def test_a_thread_past_its_time_keeps_its_place(start: Run) -> None:
    gate = threading.Event()
    given_up = threading.Event()

    def handle(record: Record, ctx: Context) -> None:
        if record.offset == 1:
            assert gate.wait(20)
            if ctx.given_up:
                given_up.set()

    link = FakeLink([record(1), record(2), record(3)])
    runner = await start(decorate(handle, timeout=0.05, concurrency=1), link)
    told = await link.until(3)
    assert told[0] == (1, "retry", "timeout: not done within 0.05 s")
    assert {what for _, what, _ in told[1:]} == {"release"}, "no thread is left for them"
    assert link.flow == ["pause"]
    gate.set()
    async with asyncio.timeout(20):
        while link.flow != ["pause", "resume"]:
            await asyncio.sleep(0)
    assert given_up.is_set()
    link.deliver(record(3))
    assert (await link.until(4))[3] == (3, "ack", ""), "what the first one said late is dropped"
    await finish(runner)


async def test_a_call_cancelled_by_others_is_a_failure_and_the_runner_goes_on(start: Run) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def handle(record: Record) -> None:
        task = asyncio.current_task()
        assert task is not None
        if record.offset < 3:
            asyncio.get_running_loop().call_soon(task.cancel)
            await asyncio.Event().wait()
        tasks.append(task)

    async def inner(record: Record) -> None:
        work = asyncio.create_task(asyncio.Event().wait())
        work.cancel()
        await work

    link = FakeLink([record(1), record(2), record(3)])
    await start(decorate(handle), link)
    assert await link.until(3) == [(1, "retry", "cancelled"), (2, "retry", "cancelled"), (3, "ack", "")]
    other = FakeLink([record(1)])
    await start(decorate(inner), other)
    assert await other.until(1) == [(1, "retry", "cancelled")]


# -- breaker ---------------------------------------------------------------------------------------


async def test_a_breaker_pauses_the_link_and_tries_again(start: Run) -> None:
    healthy = False

    async def handle(record: Record) -> None:
        if not healthy:
            raise ConnectionError("database is down")

    link = FakeLink([record(n) for n in range(5)])
    await start(decorate(handle, breaker=Breaker(failures=2, rest=0.05)), link)
    told = await link.until(4)
    assert [what for _, what, _ in told[:2]] == ["retry", "retry"]
    assert {what for _, what, _ in told[2:]} == {"release"}
    async with asyncio.timeout(20):
        while link.flow != ["pause", "resume 1"]:
            await asyncio.sleep(0.01)
    healthy = True
    link.deliver(record(9))
    assert (await link.until(len(link.told) + 1))[-1] == (9, "ack", "")
    assert link.flow == ["pause", "resume 1", "resume"]


# -- shutdown ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_shutdown_drains_and_releases(kind: str, start: Run) -> None:
    begun, gate = threading.Event(), threading.Event()

    def in_thread(record: Record) -> None:
        begun.set()
        assert gate.wait(20)

    async def in_task(record: Record) -> None:
        begun.set()
        while not gate.is_set():
            await asyncio.sleep(0.001)

    link = FakeLink([record(1), record(2)])
    runner = await start(decorate(in_task if kind == "async" else in_thread), link)
    async with asyncio.timeout(20):
        while not begun.is_set():
            await asyncio.sleep(0.001)
    runner.stop(20.0)
    assert link.outcomes == {2: "release"}
    assert link.flow == ["pause"]
    link.deliver(record(3))
    await link.until(2)
    assert link.outcomes == {2: "release", 3: "release"}
    assert not link.closed
    gate.set()
    await finish(runner)
    assert link.outcomes == {1: "ack", 2: "release", 3: "release"}


async def test_past_the_grace_calls_are_cancelled_and_released(start: Run) -> None:
    async def handle(record: Record) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("what a driver makes of it") from None

    link = FakeLink([record(1), record(2)])
    runner = await start(decorate(handle, concurrency=2), link)
    while len(runner._at) < 2:
        await asyncio.sleep(0)
    await finish(runner, 0.05)
    assert link.outcomes == {1: "release", 2: "release"}


async def test_a_handler_may_stop_its_runner(start: Run) -> None:
    holder: list[Runner] = []

    async def handle(record: Record) -> None:
        holder[0].stop(0.0)  # cancels this very call, which goes on to its end

    link = FakeLink([record(1), record(2)])
    holder.append(await start(decorate(handle), link))
    async with asyncio.timeout(20):
        await holder[0]._over.wait()
    assert link.outcomes == {1: "ack", 2: "release"}


async def test_a_cancelled_runner_gives_everything_back() -> None:
    async def handle(record: Record) -> None:
        await asyncio.Event().wait()

    link = FakeLink([record(1), record(2), record(3)])
    runner = Runner(decorate(handle, concurrency=2), link)
    task = asyncio.create_task(runner.run())
    while len(runner._at) < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(link.outcomes.values()) == {"release"}
    assert len(link.outcomes) >= 2
    assert len(asyncio.all_tasks()) == 1, "no task is left"


def test_a_program_that_ends_charges_nobody() -> None:
    """asyncio.run cancels all tasks at once, in no order: the calls in them did not fail."""
    links: list[FakeLink] = []

    async def handle(record: Record) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        links.append(FakeLink([record(1), record(2)]))
        runner = Runner(decorate(handle, concurrency=2), links[0])
        running = asyncio.create_task(runner.run())
        while len(runner._at) < 2:
            await asyncio.sleep(0)
        assert not running.done()

    asyncio.run(main())
    assert links[0].outcomes == {1: "release", 2: "release"}


async def test_leaving_at_once(start: Run) -> None:
    gate = threading.Event()

    def handle(record: Record) -> None:
        gate.wait(20)

    link = FakeLink([record(1)])
    runner = await start(decorate(handle), link)
    while not runner._core.busy:
        await asyncio.sleep(0)
    runner.abort()
    assert link.outcomes == {1: "release"}
    gate.set()


async def test_a_hung_thread_keeps_nobody_waiting(start: Run) -> None:
    gate = threading.Event()
    link = FakeLink([record(1)])
    runner = Runner(decorate(lambda record: gate.wait(60)), link)
    task = asyncio.create_task(runner.run())
    while not runner._core.busy:
        await asyncio.sleep(0)
    runner.abort()
    async with asyncio.timeout(10):
        await task
    assert [t for t in threading.enumerate() if t.name.startswith("holdfast-billing") and t.daemon]
    gate.set()


# -- failures --------------------------------------------------------------------------------------------


async def test_a_link_that_fails_ends_the_run() -> None:
    cancelled = asyncio.Event()

    async def handle(record: Record) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    link = FakeLink([record(1)])
    runner = Runner(decorate(handle), link)
    task = asyncio.create_task(runner.run())
    while not runner._at:
        await asyncio.sleep(0)
    link.fail(UnknownTopicError("no topic orders"))
    with pytest.raises(UnknownTopicError):
        await task
    assert cancelled.is_set()


async def test_a_link_that_is_closed_ends_the_run() -> None:
    link = FakeLink()
    task = asyncio.create_task(Runner(decorate(lambda record: None), link).run())
    await asyncio.sleep(0)
    await link.close()
    async with asyncio.timeout(20):
        await task


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_handler_that_ends_the_program(kind: str) -> None:
    def leave(record: Record) -> None:
        raise SystemExit(3)

    async def leave_async(record: Record) -> None:
        leave(record)

    link = FakeLink([record(1), record(2)])
    handler = decorate(leave_async if kind == "async" else leave)
    with pytest.raises(SystemExit):
        await Runner(handler, link).run()
    assert link.outcomes == {1: "retry", 2: "release"}


async def test_a_fault_of_ours_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    link = FakeLink([record(1)])
    runner = Runner(decorate(lambda record: None), link)
    monkeypatch.setattr(runner._core, "deliver", lambda records, now: 1 / 0)
    with pytest.raises(Exception, match="the runner stopped unexpectedly: ZeroDivisionError"):
        await runner.run()


# -- exactly once -----------------------------------------------------------------------------------------


class Ledger:
    """Transactions that write down how they ended."""

    def __init__(self, refuse: Exception | None = None) -> None:
        self.ended: list[str] = []
        self.refuse = refuse

    @asynccontextmanager
    async def open(self, record: Record) -> AsyncIterator[str]:
        try:
            yield f"tx of {record.offset}"
        except BaseException:
            self.ended.append(f"{record.offset} dropped")
            raise
        if self.refuse is not None:
            raise self.refuse
        self.ended.append(f"{record.offset} committed")


async def test_a_transaction_for_each_record(start: Run) -> None:
    seen: list[Any] = []

    async def pay(order: Order, tx: Any = None) -> None:
        seen.append((order.id, tx))
        if order.id == 2:
            raise ValueError("bad")

    pay.__annotations__.pop("tx")
    ledger = Ledger()
    link = FakeLink(
        [
            record(1, value=b'{"id": 1}'),
            record(2, value=b'{"id": 2}'),
            record(3, value=b"x"),
            record(4, value=b'{"id": 4}', headers=(("holdfast-redrive-group", b"other"),)),
            record(5, value=b'{"id": 5}'),
        ]
    )
    handler = decorate(pay, payload=Order, semantics="exactly_once")
    runner = await start(handler, link, transaction=ledger.open)
    await link.until(2)
    async with asyncio.timeout(20):
        while len(ledger.ended) < 4:
            await asyncio.sleep(0)
    await finish(runner)
    assert ledger.ended == ["1 committed", "2 dropped", "4 committed", "5 committed"]
    assert link.outcomes == {2: "retry", 3: "reject"}, "a commit settles by itself"
    assert seen == [(1, "tx of 1"), (2, "tx of 2"), (5, "tx of 5")]


async def test_a_commit_refused_because_the_record_is_anothers_costs_nothing(start: Run) -> None:
    async def pay(record: Record) -> None: ...

    link = FakeLink([record(1)])
    ledger = Ledger(AlreadySettledError("settled"))
    await start(decorate(pay, semantics="exactly_once"), link, transaction=ledger.open)
    assert await link.until(1) == [(1, "release", "")]


async def test_the_same_error_from_the_handler_itself_is_a_failure(start: Run) -> None:
    async def pay(record: Record) -> None:
        raise AlreadySettledError("of something else")

    link = FakeLink([record(1)])
    await start(decorate(pay, semantics="exactly_once"), link, transaction=Ledger().open)
    assert (await link.until(1))[0][1] == "retry"


async def test_exactly_once_needs_transactions() -> None:
    async def pay(record: Record) -> None: ...

    with pytest.raises(InvalidArgumentError):
        Runner(decorate(pay, semantics="exactly_once"), FakeLink())


# -- what the link tells ---------------------------------------------------------------------------------


async def test_lost_and_revoked_records(start: Run) -> None:
    gate = asyncio.Event()

    async def handle(record: Record) -> None:
        await gate.wait()

    link = FakeLink([record(1), record(2), record(3), record(4, partition=1)])
    runner = await start(decorate(handle, prefetch=10), link)
    while not runner._at:
        await asyncio.sleep(0)
    runner.lost("orders", 0, 1)
    runner.lost("orders", 0, 2)
    runner.revoke("orders", 0)
    assert link.outcomes == {3: "release"}
    gate.set()
    await link.until(2)
    await finish(runner)
    assert link.outcomes == {3: "release", 4: "ack"}
