"""Events from a blocking source reach the event loop as they come."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator

import pytest

from holdfast.cli.feed import Feed
from holdfast.cli.inputs import Event
from holdfast.errors import InvalidArgumentError


def blocking(source: queue.Queue[Event | Exception | None]) -> Iterator[Event]:
    while (item := source.get()) is not None:
        if isinstance(item, Exception):
            raise item
        yield item


async def test_everything_arrives_in_order() -> None:
    events = [Event(str(i).encode()) for i in range(30_000)]
    got: list[Event] = []
    async for portion in Feed(iter(events)):
        got += portion
    assert got == events


async def test_an_event_is_handed_over_before_the_next_is_there() -> None:
    source: queue.Queue[Event | Exception | None] = queue.Queue()
    feed = Feed(blocking(source))
    for number in range(3):
        source.put(Event(str(number).encode()))
        assert [e.value for e in await anext(feed)] == [str(number).encode()]
    source.put(None)
    with pytest.raises(StopAsyncIteration):
        await anext(feed)


async def test_errors_come_after_what_was_read_before_them() -> None:
    source: queue.Queue[Event | Exception | None] = queue.Queue()
    source.put(Event(b"good"))
    source.put(InvalidArgumentError("line 2: bad"))
    feed, got = Feed(blocking(source)), []

    async def drain() -> None:
        async for portion in feed:
            got.extend(portion)

    with pytest.raises(InvalidArgumentError, match="line 2"):
        await drain()
    assert got == [Event(b"good")]


async def test_closing_ends_the_reader_of_a_slow_taker() -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless() -> Iterator[Event]:
        try:
            while True:
                yield Event(b"x")
        finally:
            loop.call_soon_threadsafe(ended.set)

    feed = Feed(endless())
    await anext(feed)
    feed.close()
    await asyncio.wait_for(ended.wait(), 10)
