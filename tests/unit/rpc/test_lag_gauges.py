"""What a leader's gauges show of groups."""

from __future__ import annotations

from rpc_fakes import Served, make_engine

from holdfast.rpc.clock import SystemClock
from holdfast.rpc.lag_gauges import LagGauges
from holdfast.rpc.telemetry.gauges import GroupMembers, GroupsMoment
from holdfast.storage import flow_keys, flows, groups, members, retries
from holdfast.storage.flows import FlowRow
from holdfast.storage.members import MemberRow
from holdfast.storage.retries import RetryRow, State
from holdfast.v1 import bus_pb2, groups_pb2, topics_pb2


class Clock(SystemClock):
    """A wall clock that stands, two seconds after the epoch."""

    def wall_us(self) -> int:
        return 2_000_000


def gauges(served: Served, *, leads: bool = True, **bounds: int) -> LagGauges:
    return LagGauges(served.engine.store, lambda: leads, Clock(), **bounds)


async def topic(served: Served, name: str, partitions: int = 1, records: int = 0) -> None:
    await served.topics.CreateTopic(topics_pb2.CreateTopicRequest(name=name, partitions=partitions))
    if records:
        request = bus_pb2.PublishRequest(topic=name, partition=0)
        for _ in range(records):
            request.records.add(value=b"x")
        await served.bus.Publish(request)


async def put(served: Served, name: str, *topics: str) -> None:
    definition = bus_pb2.GroupDefinition(topics=topics)
    await served.groups.PutGroup(groups_pb2.PutGroupRequest(name=name, definition=definition))


def join(served: Served, group: str, *ids: str) -> None:
    for member in ids:
        members.write(served.engine.store.writer(), group, member, MemberRow("", False, 1_500, 1))
    served.engine.store.commit()


def shown(moment: GroupsMoment) -> list[tuple[str, str, int, int]]:
    return [(lag.group, lag.topic, lag.partition, lag.records) for lag in moment.lags]


async def test_what_they_show() -> None:
    async with Served(make_engine()) as served:
        await topic(served, "t", records=5)
        await put(served, "g", "t")
        w = served.engine.store.writer()
        groups.commit_offset(w, "g", 1, 0, 3)
        flows.write(w, "g", 1, 0, FlowRow(retrying=2))
        for offset, state in ((3, State.WAITING), (4, State.PARKED_FOR_GOOD)):
            retries.write(w, flow_keys.flow_key("g", 1, 0), offset, RetryRow(1, 0, state, 9, 9))
        join(served, "g", "a", "b")
        moment = gauges(served)()
        (lag,) = moment.lags
        assert (lag.records, lag.retrying, lag.parked) == (2, 2, 1)
        appended = served.engine.time_us - 1
        assert lag.seconds == (2_000_000 - appended) / 1_000_000
        assert (moment.members, moment.truncated) == ((GroupMembers("g", 2),), 0)
        busy = LagGauges(served.engine.store, lambda: True, Clock(), lambda: {"g": 7, "other": 9})
        assert busy().members == (GroupMembers("g", 2, 7),)


async def test_a_follower_shows_nothing() -> None:
    async with Served(make_engine()) as served:
        await topic(served, "t", records=5)
        await put(served, "g", "t")
        assert gauges(served, leads=False)() == GroupsMoment()


async def test_groups_with_members_come_first_then_those_behind() -> None:
    async with Served(make_engine()) as served:
        await topic(served, "empty")
        await topic(served, "full", records=4)
        for name in ("a", "c", "z"):
            await put(served, name, "empty")
        for name in ("b", "d"):
            await put(served, name, "full")
        groups.commit_offset(served.engine.store.writer(), "_dead/t", 1, 0, 0)
        join(served, "z", "m")
        assert shown(gauges(served)()) == [
            ("z", "empty", 0, 0),
            ("b", "full", 0, 4),
            ("d", "full", 0, 4),
            ("a", "empty", 0, 0),
            ("c", "empty", 0, 0),
        ]
        few = gauges(served, max_series=3)()
        assert [lag.group for lag in few.lags] == ["z", "b", "d"]
        assert few.truncated == 2


async def test_a_scrape_is_bounded() -> None:
    """What was not looked at is counted, as far as it is known without a look."""
    async with Served(make_engine()) as served:
        await topic(served, "t", 10)
        w = served.engine.store.writer()
        for group in ("a", "b", "c"):
            for partition in range(10):
                groups.commit_offset(w, group, 1, partition, 0)
        served.engine.store.commit()
        moment = gauges(served, max_rows=14)()
        assert [lag.group for lag in moment.lags] == ["a"] * 10 + ["b"] * 2
        assert moment.truncated == 18
