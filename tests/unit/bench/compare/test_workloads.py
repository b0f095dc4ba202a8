"""The workloads against a system that lives in memory."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from benchmarks.compare.payloads import first, payloads, pool
from benchmarks.compare.workloads import WORKLOADS, context, failover
from benchmarks.compare.workloads.context import Channel, Context, Parameters, calibrate, percentile
from benchmarks.compare.workloads.failover import outage
from benchmarks.peers.system import Client

#: Topics of all clients of a test.
Topics = dict[str, list[bytes]]


class Memory(Client):
    """A system without nodes: a topic is a list."""

    def __init__(self, topics: Topics) -> None:
        super().__init__(["nowhere:1"])
        self.topics = topics
        #: Said to have been read, more than there was.
        self.too_many = 0

    async def connect(self) -> None: ...

    async def close(self) -> None: ...

    async def create(self, topic: str) -> None:
        self.topics[topic] = []

    async def publish(self, topic: str, payload: bytes) -> None:
        await asyncio.sleep(0.0002)
        self.topics[topic].append(payload)

    async def publish_all(self, topic: str, payloads: Sequence[bytes], times: int) -> None:
        await asyncio.sleep(len(payloads) * times / 200_000)
        self.topics[topic] += list(payloads) * times

    async def replay(self, topic: str, count: int) -> tuple[int, int]:
        await asyncio.sleep(count / 200_000)
        found = self.topics[topic][:count]
        return len(found) + self.too_many, sum(map(len, found))

    async def consume(self, topic: str, group: str, count: int) -> int:
        while len(self.topics[topic]) < count:
            await asyncio.sleep(0.001)
        await asyncio.sleep(count / 200_000)
        return count + self.too_many

    async def deliveries(self, topic: str) -> AsyncIterator[Sequence[bytes]]:
        seen = len(self.topics[topic])
        while True:
            if new := self.topics[topic][seen:]:
                seen += len(new)
                yield new
            await asyncio.sleep(0.001)

    async def publish_through_failure(self, topic: str, payload: bytes) -> None:
        await self.publish(topic, payload)


class Surroundings:
    """A workload's context, with a runner that answers everything at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.topics: Topics = {}
        self.client = Memory(self.topics)
        self.said = io.StringIO()
        monkeypatch.setattr(context, "make_client", lambda *_: self.client)

    async def run(self, name: str, answers: str = "", **parameters: Any) -> dict[str, Any]:
        given = Parameters(**{"seconds": 0.2, "most_bytes": 20_000_000, "times": 20} | parameters)
        channel = Channel(self.said, io.StringIO(answers))
        self.context = Context("memory", self.client, given, channel, WORKLOADS[name].name)
        return dict(await WORKLOADS[name].run(self.context))

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.said.getvalue().splitlines()]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    return Surroundings(monkeypatch)


async def test_sequential(here: Surroundings) -> None:
    figures = await here.run("sequential")
    assert 0.2 <= figures["p50"] <= figures["p99"]
    assert figures["records"] == 20
    assert here.events == ["begin", "end"]


@pytest.mark.parametrize(("name", "size"), [("pipelined-100", 100), ("pipelined-10k", 10240)])
async def test_pipelined(here: Surroundings, name: str, size: int) -> None:
    figures = await here.run(name)
    assert figures["total"] == len(here.topics[name]) > figures["records"]
    if WORKLOADS["replay-100"].needs == name:
        assert figures["total"] * size >= 20_000_000 * 0.2  # filled up for those that read
    assert {len(payload) for payload in here.topics[name]} == {size}
    assert figures["megabytes"] == pytest.approx(figures["rate"] * size / 1e6)


async def test_pipelined_is_bounded_by_bytes(here: Surroundings) -> None:
    figures = await here.run("pipelined-1k", most_bytes=1_024_000)
    assert figures["records"] <= 1000


async def test_concurrent_publishers(here: Surroundings) -> None:
    figures = await here.run("publishers-16")
    assert figures["rate"] > 100
    assert figures["records"] <= len(here.topics["publishers-16"])


async def test_replay(here: Surroundings) -> None:
    here.topics["full"] = payloads(1024, 500)
    figures = await here.run("replay-1k", topic="full", records=500)
    assert figures["records"] % 500 == 0


@pytest.mark.parametrize("name", ["replay-100", "group"])
async def test_a_wrong_count_is_an_error(here: Surroundings, name: str) -> None:
    here.topics["full"] = payloads(100, 500)
    here.client.too_many = 1
    with pytest.raises(RuntimeError, match="501 records"):
        await here.run(name, topic="full", records=500)


async def test_a_wrong_size_is_an_error(here: Surroundings) -> None:
    here.topics["full"] = payloads(99, 500)
    with pytest.raises(RuntimeError, match="49500 bytes"):
        await here.run("replay-100", topic="full", records=500)


async def test_group_and_mixed(here: Surroundings) -> None:
    here.topics["full"] = payloads(100, 500)
    assert (await here.run("group", topic="full", records=500))["rate"] > 0
    assert (await here.run("mixed"))["records"] == len(here.topics["mixed"])


@pytest.mark.parametrize(
    ("name", "rate", "left"), [("latency-1000", 1000.0, 1000.0), ("latency-half", 10_000.0, 5000.0)]
)
async def test_delivery_latency(here: Surroundings, name: str, rate: float, left: float) -> None:
    figures = await here.run(name, rate=rate, seconds=0.5)
    assert figures["records"] == left * 0.5
    assert figures["rate"] == left
    assert 0 < figures["p50"] <= figures["p99"]
    assert len(here.topics[name]) > figures["records"]  # and the probes


async def test_failover_asks_for_kills_and_restarts(here: Surroundings) -> None:
    here_and_now = json.dumps({"began": 0.0, "gone": 0.0})
    figures = await here.run("failover", f"{here_and_now}\n{{}}\n" * 2, times=2)
    assert len(figures["samples"]) == 2
    assert figures["worst"] == max(figures["samples"])
    assert here.events == ["kill", "restart"] * 2


async def test_failover_ends_with_the_node_that_does_not_come_back(here: Surroundings) -> None:
    killed = json.dumps({"began": 0.0, "gone": 0.0})
    figures = await here.run("failover", f'{killed}\n{{"ended": 1}}\n', times=5)
    assert len(figures["samples"]) == 1


async def test_failover_ends_when_there_is_nobody_to_kill(here: Surroundings) -> None:
    killed, ended = json.dumps({"began": 0.0, "gone": 0.0}), '{"ended": 1}'
    figures = await here.run("failover", f"{killed}\n{{}}\n{ended}\n", times=5)
    assert len(figures["samples"]) == 1
    with pytest.raises(RuntimeError, match="no leader to kill"):
        await here.run("failover", f"{ended}\n", times=5)


@pytest.mark.parametrize(("where", "samples"), [("after the kill", 2), ("before the kill", 1)])
async def test_a_system_that_stays_silent_ends_the_failovers(
    here: Surroundings, monkeypatch: pytest.MonkeyPatch, where: str, samples: int
) -> None:
    """In the second failover; after a kill the wait is the outage."""
    monkeypatch.setattr(failover, "_PATIENCE_SECONDS", 0.5)
    events: list[str] = []
    publish = here.client.publish_through_failure

    async def ask(_: Channel, event: str, **message: str) -> dict[str, float]:
        events.append(event)
        return dict.fromkeys(("began", "gone"), time.monotonic())

    async def until_silent(topic: str, payload: bytes) -> None:
        if events == (["kill", "restart", "kill"] if where == "after the kill" else ["kill", "restart"]):
            await asyncio.sleep(60)
        await publish(topic, payload)

    monkeypatch.setattr(Channel, "ask", ask)
    monkeypatch.setattr(here.client, "publish_through_failure", until_silent)
    figures = await here.run("failover", times=5)
    assert len(figures["samples"]) == samples
    assert (figures["worst"] == 500.0) is (where == "after the kill")
    assert here.context.note.startswith("fewer kills: ")
    assert "0 s" in here.context.note


@pytest.mark.parametrize(
    ("acknowledged", "killed", "seconds"),
    [
        ([1.0, 2.0, 9.0], 2.5, 6.5),  # the kill between two acknowledgements
        ([1.0, 2.0, 2.6, 9.0], 2.5, 6.4),  # one more while the node was dying
        ([1.0, 2.0, 9.0, 9.1, 9.2], 2.5, 6.5),  # what came after is of no account
        ([1.0, 2.0], 2.5, 0.0),
    ],
)
def test_an_outage_is_the_longest_silence_after_the_kill(
    acknowledged: list[float], killed: float, seconds: float
) -> None:
    assert outage(acknowledged, killed) == pytest.approx(seconds)


async def test_calibration_ends_with_the_records_there_are() -> None:
    bursts = []

    async def burst(count: int) -> None:
        bursts.append(count)

    assert await calibrate(burst, 1000, 2500, 1.0) > 0
    assert bursts[-1] == 2500


async def test_calibration_is_not_misled_by_the_time_to_connect() -> None:
    async def burst(count: int) -> None:
        await asyncio.sleep(0.06 + count / 500_000)

    assert await calibrate(burst, 1000, 1_000_000, 0.2) > 150_000


@pytest.mark.parametrize(("per_cent", "value"), [(50, 50), (99, 99), (100, 100), (0, 1)])
def test_percentiles(per_cent: float, value: float) -> None:
    assert percentile([float(i) for i in range(100, 0, -1)], per_cent) == value


def test_payloads_are_the_same_in_every_process_and_all_different() -> None:
    assert payloads(100, 50) == payloads(100, 50)
    assert len(set(payloads(100, 50))) == 50
    assert {len(payload) for payload in pool(10240)} == {10240}


@pytest.mark.parametrize(("count", "made"), [(3, 3), (10, 10), (34, 30), (36, 40)])
def test_a_pool_is_published_over_and_over(count: int, made: int) -> None:
    some, times = first(payloads(10, 10), count)
    assert len(some) * times == made
