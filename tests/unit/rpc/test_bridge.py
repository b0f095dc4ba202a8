"""The engine bridge: answers, watches, visibility and the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from rpc_fakes import START, FakeEngine, make_engine

from holdfast.cluster.commands import encode_op
from holdfast.cluster.results import Completed, Progress, Role
from holdfast.errors import (
    DeadlineExceededError,
    NoLeaderError,
    OutcomeUnknownError,
    OverloadedError,
    TopicExistsError,
    UnavailableError,
)
from holdfast.rpc import bridge
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.clock import SystemClock
from holdfast.v1 import log_pb2


def create_topic(name: str = "t", partitions: int = 2) -> bytes:
    return encode_op(log_pb2.Op(create_topic=log_pb2.CreateTopicOp(name=name, partitions=partitions)))


async def test_submit_gives_result_and_index() -> None:
    engine = make_engine()
    result, index = await engine.bridge.submit(create_topic(), 5)
    assert (result.topic.name, index) == ("t", 2)
    assert engine.bridge.progress.visible_index == 2
    assert engine.bridge.pending == 0


async def test_errors_of_the_state_machine_are_raised() -> None:
    engine = make_engine()
    await engine.bridge.submit(create_topic(), 5)
    with pytest.raises(TopicExistsError):
        await engine.bridge.submit(create_topic(), 5)


async def test_errors_of_the_engine_are_raised() -> None:
    engine = make_engine()
    engine.fail = NoLeaderError("none")
    with pytest.raises(NoLeaderError):
        await engine.bridge.submit(create_topic(), 5)
    with pytest.raises(NoLeaderError):
        await engine.bridge.barrier(5)
    engine.refuse = OverloadedError("full")
    with pytest.raises(OverloadedError):
        await engine.bridge.submit(create_topic(), 5)
    assert engine.bridge.pending == 0


async def test_barriers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "MAX_PENDING", 3)
    engine = make_engine()
    engine.hold = True
    calls = [asyncio.ensure_future(engine.bridge.barrier(5)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await engine.bridge.barrier(5)
    engine.hold = False
    engine.release()
    await asyncio.gather(*calls)
    await engine.bridge.barrier(5)


async def test_a_cancelled_caller_does_not_stop_the_commit() -> None:
    engine = make_engine()
    engine.hold = True
    call = asyncio.ensure_future(engine.bridge.submit(create_topic(), 5))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    engine.hold = False
    engine.release()
    with pytest.raises(TopicExistsError):
        await engine.bridge.submit(create_topic(), 5)


async def test_submit_waits_until_the_effects_are_visible() -> None:
    engine = make_engine()
    engine.hold = True
    call = asyncio.ensure_future(engine.bridge.submit(create_topic(), 5))
    await asyncio.sleep(0)
    token = engine._held[0][1]
    early = Progress(7, 7, 1, Role.LEADER, "n1", visible_index=6)
    engine.bridge.deliver((Completed(token, log_pb2.OpResult(), None, 7),), early)
    settled = asyncio.ensure_future(engine.bridge.settle(5))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not call.done()
    settled.cancel()
    late_settle = asyncio.ensure_future(engine.bridge.settle(5))
    engine.bridge.deliver((), Progress(7, 7, 1, Role.LEADER, "n1", visible_index=7))
    assert (await call)[1] == 7
    await late_settle


async def test_wait_applied_has_a_deadline() -> None:
    engine = make_engine()
    with pytest.raises(DeadlineExceededError):
        await engine.bridge.wait_applied(99, 0.001)


async def test_watch_wakes_on_touched_partitions_only() -> None:
    bridge = EngineBridge(asyncio.get_running_loop(), SystemClock(), START)
    bridge.attach(FakeEngine(bridge))
    with bridge.watch([(1, 0)]) as watch:
        bridge.deliver((), Progress(2, 2, 1, Role.LEADER, "n1", frozenset({(2, 0)}), 2))
        bridge.deliver((), Progress(3, 3, 1, Role.LEADER, "n1", frozenset({(1, 0), (1, 1)}), 3))
        assert await watch.wait() == {(1, 0)}
        assert await watch.wait(0.001) == set()
        watch.add([(1, 1)])
        watch.discard([(1, 0)])
        bridge.deliver((), Progress(4, 4, 1, Role.LEADER, "n1", frozenset({(1, 0), (1, 1)}), 4))
        assert await watch.wait() == {(1, 1)}
    assert not bridge._watchers
    assert not bridge._watches


class _CountingLoop:
    """A loop that counts how often another thread woke it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.wakes = 0

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> object:
        self.wakes += 1
        return self._loop.call_soon_threadsafe(callback, *args)

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)


def _report(index: int, *touched: tuple[int, int], term: int = 1) -> Progress:
    return Progress(index, index, term, Role.LEADER, "n1", frozenset(touched), index)


async def test_a_report_that_nobody_waits_for_wakes_nobody() -> None:
    loop = _CountingLoop()
    bridge = EngineBridge(loop, SystemClock(), START)  # type: ignore[arg-type]
    bridge.attach(FakeEngine(bridge))
    heard: list[Progress] = []
    bridge.listen(heard.append)
    bridge.deliver((), _report(2))  # a new leader is news
    assert loop.wakes == 1
    with bridge.watch([(1, 0)]) as watch:
        bridge.deliver((), _report(3, (2, 0)))
        assert loop.wakes == 1
        assert bridge.progress.visible_index == 3
        bridge.deliver((), _report(4, (1, 0)))
        assert loop.wakes == 2
        assert await watch.wait() == {(1, 0)}
    bridge.deliver((), _report(5, (1, 0)))
    assert loop.wakes == 2
    assert [report.term for report in heard] == [1]
    bridge.deliver((), _report(6, term=2))
    await asyncio.sleep(0)
    assert [report.term for report in heard] == [1, 2]
    bridge.close()


async def test_touched_partitions_are_told_to_whoever_wants_all_of_them() -> None:
    bridge = EngineBridge(asyncio.get_running_loop(), SystemClock(), START)
    bridge.attach(FakeEngine(bridge))
    touched: list[set[tuple[int, int]]] = []

    class Readers:
        def reads(self, keys: Iterable[tuple[int, int]]) -> bool:
            return (7, 1) in keys

        def touch(self, keys: Iterable[tuple[int, int]]) -> None:
            touched.append(set(keys))

    bridge.deliver((), _report(1))
    bridge.inform(Readers())
    bridge.deliver((), _report(2, (7, 1)))
    bridge.deliver((), _report(3))
    bridge.deliver((), _report(3, (7, 2)))
    await asyncio.sleep(0)
    bridge.inform(None)
    bridge.deliver((), _report(4, (7, 1)))
    await asyncio.sleep(0)
    assert touched == [{(7, 1)}]


async def test_what_becomes_visible_while_a_call_begins_to_wait_ends_the_wait() -> None:
    """The engine looked for somebody waiting just before there was one."""
    bridge = EngineBridge(asyncio.get_running_loop(), SystemClock(), START)
    bridge.attach(FakeEngine(bridge))
    bridge.deliver((), _report(2))
    await asyncio.sleep(0)

    class Ticket:
        """Drawn after the first look at what is visible, and before the waiter can be seen."""

        def __next__(self) -> int:
            bridge.deliver((), _report(5))
            return 0

    bridge._ticket = Ticket()  # type: ignore[assignment]
    await bridge.wait_applied(5, timeout=5)


async def test_listeners_never_hear_of_an_older_standing_than_progress_shows() -> None:
    bridge = EngineBridge(asyncio.get_running_loop(), SystemClock(), START)
    bridge.attach(FakeEngine(bridge))
    heard: list[int] = []
    bridge.listen(lambda progress: heard.append(progress.term))
    bridge.deliver((), _report(2, term=1))
    bridge.deliver((), _report(2, term=2))
    assert bridge.progress.term == 2
    await asyncio.sleep(0)
    assert heard == [2]


async def test_close_fails_every_waiter() -> None:
    engine = make_engine()
    engine.hold = True
    bridge = engine.bridge
    call = asyncio.ensure_future(bridge.submit(create_topic(), 5))
    applied = asyncio.ensure_future(bridge.wait_applied(50, 5))
    watch = bridge.watch()
    watching = asyncio.ensure_future(watch.wait())
    await asyncio.sleep(0)
    bridge.close()
    with pytest.raises(OutcomeUnknownError):
        await call
    for waiting in (applied, watching):
        with pytest.raises(UnavailableError):
            await waiting
    with pytest.raises(UnavailableError):
        await bridge.submit(create_topic(), 5)
    engine.hold = False
    engine.release()  # a late report finds no one
    await asyncio.sleep(0)


async def test_listeners_hear_every_report() -> None:
    engine = make_engine()
    heard: list[Progress] = []
    stop = engine.bridge.listen(heard.append)
    await engine.bridge.submit(create_topic(), 5)
    stop()
    await engine.bridge.submit(create_topic("u"), 5)
    assert [progress.applied_index for progress in heard] == [2]


async def test_groups_that_others_changed_are_told_to_whoever_follows_them() -> None:
    loop = asyncio.get_running_loop()
    bridge = EngineBridge(loop, SystemClock(), START)
    bridge.attach(FakeEngine(bridge))
    told: list[frozenset[str]] = []

    def report(index: int, *groups: str) -> None:
        bridge.deliver((), replace(_report(index), groups=frozenset(groups)))

    report(2, "early")
    await asyncio.sleep(0)
    bridge.follow_groups(told.append)
    report(3)
    report(4, "a", "b")
    report(5, "a")
    await asyncio.sleep(0)
    bridge.follow_groups(None)
    report(6, "late")
    await asyncio.sleep(0)
    assert told == [{"a", "b"}, {"a"}]
