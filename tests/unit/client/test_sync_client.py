"""The synchronous client, from threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import holdfast
from holdfast.errors import ClosedError, InvalidArgumentError, UnavailableError, UnknownTopicError

from .fake_bus import FakeCluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """A cluster on a loop and thread of its own."""
    made = FakeCluster(1)
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with made:
            started.set()
            await stop.wait()

    def main() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=main)
    thread.start()
    assert started.wait(10)
    yield made
    loop.call_soon_threadsafe(stop.set)
    thread.join()


def test_the_whole_of_it(cluster: FakeCluster) -> None:
    with holdfast.connect_sync(cluster.endpoints) as bus:
        bus.create_topic("t", partitions=1)
        assert bus.publish("t", b"0", "k", headers={"a": "b"}, timestamp=7) == holdfast.Ack("t", 0, 0)
        assert bus.publish_many("t", [b"1", b"2"]).count == 2
        for number in range(3, 3000):
            bus.send("t", b"%d" % number)
        bus.flush()
        assert cluster.values("t") == [[b"%d" % number for number in range(3000)]]
        assert [int(record.value) for record in bus.replay("t")] == list(range(3000))
        assert sum(map(len, bus.replay_batches("t"))) == 3000
        with bus.subscribe("t", group="g", max_in_flight=10) as subscription:
            for record in subscription:
                record.ack()
                if record.offset == 99:
                    break
            assert subscription.committed() == {("t", 0): 100}
        assert bus.topic("t").partitions == 1
        assert list(bus.statuses()) == cluster.endpoints


def test_idempotency_keys(cluster: FakeCluster) -> None:
    with holdfast.connect_sync(cluster.endpoints) as bus:
        bus.create_topic("t", partitions=1)
        assert bus.publish("t", b"0", idempotency_key="order-17") == holdfast.Ack("t", 0, 0)
        assert bus.publish("t", b"1", idempotency_key="order-17") == holdfast.Ack("t", 0, 0, duplicate=True)
        assert cluster.values("t") == [[b"0"]]


def test_many_threads(cluster: FakeCluster) -> None:
    with holdfast.connect_sync(cluster.endpoints) as bus:
        bus.create_topic("t")

        def work(thread: int) -> None:
            for number in range(50):
                bus.publish("t", b"%d" % (thread * 1000 + number), "k")
                bus.send("t", b"%d" % (thread * 1000 + 500 + number), "k")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        bus.flush()
        (log,) = cluster.values("t")
        assert len(log) == len(set(log)) == 800
        for thread in range(8):
            own = [int(v) % 1000 for v in log if int(v) // 1000 == thread]
            assert [n for n in own if n < 500] == list(range(50))
            assert [n for n in own if n >= 500] == list(range(500, 550))


def test_errors_surface(cluster: FakeCluster) -> None:
    with holdfast.connect_sync(cluster.endpoints) as bus:
        with pytest.raises(UnknownTopicError):
            bus.publish("no", b"x")
        with pytest.raises(InvalidArgumentError):
            bus.publish("no", "text")  # type: ignore[arg-type]
        with pytest.raises(UnknownTopicError):
            next(bus.replay("no"))
        bus.send("no", b"x")
        with pytest.raises(UnknownTopicError):
            bus.flush()
    calls: list[Callable[[], object]] = [
        bus.topics,
        bus.flush,
        lambda: bus.publish("t", b"x"),
        lambda: bus.send("t", b"x"),
        lambda: next(bus.replay("t")),
        lambda: bus.subscribe("t", "g"),
    ]
    for call in calls:
        with pytest.raises(ClosedError):
            call()
    bus.close()


def test_losses_are_told_at_the_end(cluster: FakeCluster) -> None:
    bus = holdfast.connect_sync(cluster.endpoints)
    bus.send("no", b"x")
    with pytest.raises(UnknownTopicError):
        bus.close()


def test_nobody_there() -> None:
    before = threading.active_count()
    with pytest.raises(UnavailableError):
        holdfast.connect_sync("127.0.0.1:1", connect_timeout=0.2)
    assert threading.active_count() == before


def test_leaving_with_an_error(cluster: FakeCluster) -> None:
    before = threading.active_count()
    bus = holdfast.connect_sync(cluster.endpoints)
    bus.__exit__(ValueError, ValueError(), None)
    assert threading.active_count() == before
