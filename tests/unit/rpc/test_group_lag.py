"""GetLag over gRPC, against an engine without consensus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from rpc_fakes import Served, error_of, make_engine

from holdfast.cluster.ports import Clock
from holdfast.errors import NoLeaderError
from holdfast.rpc.clock import SystemClock
from holdfast.rpc.services.group_lag import GroupLagService
from holdfast.storage import flow_keys, flows, groups, retries
from holdfast.storage.flows import FlowRow
from holdfast.storage.retries import RetryRow, State
from holdfast.v1 import bus_pb2, groups_pb2, topics_pb2


class Fixed(SystemClock):
    """A wall clock that stands."""

    def __init__(self, wall_us: int) -> None:
        super().__init__()
        self._wall_us = wall_us

    def wall_us(self) -> int:
        return self._wall_us


async def topic(served: Served, name: str, partitions: int = 1, records: int = 0) -> None:
    await served.topics.CreateTopic(topics_pb2.CreateTopicRequest(name=name, partitions=partitions))
    for number in range(partitions if records else 0):
        request = bus_pb2.PublishRequest(topic=name, partition=number)
        for n in range(records):
            request.records.add(value=b"%d" % n)
        await served.bus.Publish(request)


async def put(served: Served, name: str, *topics: str) -> None:
    definition = bus_pb2.GroupDefinition(topics=topics)
    await served.groups.PutGroup(groups_pb2.PutGroupRequest(name=name, definition=definition))


async def ask(served: Served, **more: Any) -> groups_pb2.GetLagResponse:
    return await served.groups.GetLag(groups_pb2.GetLagRequest(**more))


def service(served: Served, clock: Clock | None = None, **bounds: int) -> GroupLagService:
    engine = served.engine
    return GroupLagService(engine.store, engine.bridge, clock or SystemClock(), **bounds)


def shown(answer: groups_pb2.GetLagResponse) -> list[tuple[str, str, int, int]]:
    return [(lag.group, lag.topic, lag.partition, lag.records) for lag in answer.lags]


async def pages(asked: GroupLagService, **more: Any) -> AsyncIterator[groups_pb2.GetLagResponse]:
    request = groups_pb2.GetLagRequest(**more)
    while True:
        answer = await asked.get_lag(request, 5.0)
        yield answer
        if not answer.next:
            return
        request.after = answer.next


async def refused(call: Any) -> tuple[str, str | None]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    _, reason, facts = error_of(caught.value)
    return reason, facts.get("field")


async def test_what_it_says() -> None:
    async with Served(make_engine()) as served:
        await topic(served, "t", 2, records=5)
        await put(served, "g", "t")
        w = served.engine.store.writer()
        groups.commit_offset(w, "g", 1, 0, 3)
        flows.write(w, "g", 1, 0, FlowRow(retrying=2))
        for offset, state in ((3, State.WAITING), (4, State.PARKED)):
            retries.write(w, flow_keys.flow_key("g", 1, 0), offset, RetryRow(1, 0, state, 9, 9))
        served.engine.store.commit()
        first, second = (await ask(served, group="g")).lags
        assert (first.topic, first.partition, first.records, first.floor, first.end) == ("t", 0, 2, 3, 5)
        assert (first.retrying, first.parked) == (2, 1)
        assert (second.records, second.floor, second.retrying) == (5, 0, 0)


async def test_seconds_are_counted_from_the_oldest_and_never_below_nothing() -> None:
    async with Served(make_engine()) as served:
        await topic(served, "t", records=2)
        await put(served, "g", "t")
        appended = served.engine.time_us - 1
        clock = Fixed(appended + 2_500_000)
        answer = await service(served, clock).get_lag(groups_pb2.GetLagRequest(group="g"), 5)
        assert (answer.as_of_us, answer.lags[0].seconds) == (clock.wall_us(), 2.5)
        assert answer.lags[0].oldest_append_us == appended
        behind = await service(served, Fixed(0)).get_lag(groups_pb2.GetLagRequest(group="g"), 5)
        assert (behind.as_of_us, behind.lags[0].seconds) == (appended, 0.0)
        groups.commit_offset(served.engine.store.writer(), "g", 1, 0, 2)
        served.engine.store.commit()
        done = await service(served, clock).get_lag(groups_pb2.GetLagRequest(group="g"), 5)
        assert (done.lags[0].records, done.lags[0].seconds, done.lags[0].oldest_append_us) == (0, 0.0, 0)


async def test_all_groups_but_the_brokers_own() -> None:
    async with Served(make_engine()) as served:
        await topic(served, "t", records=1)
        await put(served, "a", "t")
        groups.commit_offset(served.engine.store.writer(), "_dead/t", 1, 0, 0)
        groups.commit_offset(served.engine.store.writer(), "z", 1, 0, 1)
        served.engine.store.commit()
        answer = await ask(served)
        assert (shown(answer), answer.next) == ([("a", "t", 0, 1), ("z", "t", 0, 0)], "")
        assert await refused(ask(served, group="_dead/t")) == ("INVALID_ARGUMENT", "group")


async def test_pages_of_groups() -> None:
    async with Served(make_engine()) as served:
        await topic(served, "t", records=1)
        for number in range(5):
            await put(served, f"g{number}", "t")
        await put(served, "empty", "t")
        first = await ask(served, limit=2)
        assert [lag.group for lag in first.lags] == ["empty", "g0"]
        second = await ask(served, limit=2, after=first.next)
        assert [lag.group for lag in second.lags] == ["g1", "g2"]
        last = await ask(served, limit=2, after=second.next)
        assert ([lag.group for lag in last.lags], last.next) == (["g3", "g4"], "")
        assert (await ask(served, after="zzz")).next == ""


async def test_pages_of_partitions() -> None:
    """A page may end within a group, and nothing is left out or said twice."""
    async with Served(make_engine()) as served:
        await topic(served, "t", 5)
        await topic(served, "u", 2)
        for name in ("a", "b", "c"):
            await put(served, name, "t", "u")
        every = shown(await ask(served))
        assert len(every) == 21
        for size in (1, 2, 4, 7, 20, 21):
            found = [page async for page in pages(service(served, max_partitions=size))]
            assert [lag for page in found for lag in shown(page)] == every
            assert {len(page.lags) for page in found[:-1]} <= {size}
        one = [page async for page in pages(service(served, max_partitions=3), group="b")]
        assert [lag for page in one for lag in shown(page)] == [lag for lag in every if lag[0] == "b"]
        few = [page async for page in pages(service(served, max_rows=1))]
        assert [len(page.lags) for page in few] == [1] * 21


async def test_a_group_that_goes_between_two_pages() -> None:
    async with Served(make_engine()) as served:
        await topic(served, "t", 3)
        for name in ("a", "b"):
            await put(served, name, "t")
        small = service(served, max_partitions=2)
        first = await small.get_lag(groups_pb2.GetLagRequest(), 5)
        assert first.next == "a/1/1"
        await served.groups.DeleteGroup(groups_pb2.DeleteGroupRequest(name="a"))
        second = await small.get_lag(groups_pb2.GetLagRequest(after=first.next), 5)
        assert shown(second) == [("b", "t", 0, 0), ("b", "t", 1, 0)]


@pytest.mark.parametrize(
    ("asked", "reason", "field"),
    [
        ({"group": "typo"}, "UNKNOWN_GROUP", None),
        ({"group": "a b"}, "INVALID_ARGUMENT", "group"),
        ({"limit": 1001}, "INVALID_ARGUMENT", "limit"),
        ({"after": "g/1"}, "INVALID_ARGUMENT", "after"),
        ({"after": "g/1/x"}, "INVALID_ARGUMENT", "after"),
        ({"after": "g/1/-1"}, "INVALID_ARGUMENT", "after"),
        ({"after": "/1/1"}, "INVALID_ARGUMENT", "after"),
        ({"after": "g" * 250}, "INVALID_ARGUMENT", "after"),
        ({"group": "g", "after": "h/1/1"}, "INVALID_ARGUMENT", "after"),
    ],
)
async def test_bad_input(asked: dict[str, Any], reason: str, field: str | None) -> None:
    async with Served(make_engine()) as served:
        assert await refused(ask(served, **asked)) == (reason, field)


async def test_only_a_linearizable_call_asks_for_a_leader() -> None:
    async with Served(make_engine()) as served:
        await topic(served, "t", records=1)
        await put(served, "g", "t")
        before = served.engine.barriers
        await ask(served, group="g")
        assert served.engine.barriers == before
        await ask(served, group="g", linearizable=True)
        assert served.engine.barriers == before + 1
        served.engine.fail = NoLeaderError("no leader")
        assert shown(await ask(served)) == [("g", "t", 0, 1)]
        assert (await refused(ask(served, linearizable=True)))[0] == "NO_LEADER"
