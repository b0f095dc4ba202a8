"""What is on its way to readers: bounded, shared, and nobody waits for one who does not read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from holdfast.rpc.egress import Egress, EgressStream

MIB = 1 << 20


class Stream:
    """A stream whose client reads when told to."""

    def __init__(self, egress: Egress, peer: str, size: int) -> None:
        self.part: EgressStream = egress.stream(peer)
        self.size = size
        self.sent = 0
        self.read = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await self.part.turn()
            with self.part.sending(self.size):
                self.sent += 1
                await self.read.wait()
                self.read.clear()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def end(streams: list[Stream]) -> None:
    for stream in streams:
        stream.task.cancel()
    await asyncio.gather(*(stream.task for stream in streams), return_exceptions=True)


async def test_readers_that_do_not_read_cost_the_bound_and_no_more() -> None:
    egress = Egress(8 * MIB, 8 * MIB, 60.0)
    streams = [Stream(egress, "a", MIB) for _ in range(100)]
    await settled()
    assert egress.bytes == 8 * MIB
    assert sum(stream.sent for stream in streams) == 8
    streams[0].read.set()  # one reads: one that waited has its turn
    await until(lambda: sum(stream.sent for stream in streams) == 9)
    assert egress.bytes == 8 * MIB
    await end(streams)
    assert egress.bytes == 0


async def test_one_client_cannot_take_the_room_of_all() -> None:
    egress = Egress(8 * MIB, 2 * MIB, 60.0)
    greedy = [Stream(egress, "a", MIB) for _ in range(20)]
    await settled()
    assert egress.bytes == 2 * MIB
    other = Stream(egress, "b", MIB)
    for count in range(1, 5):
        await until(lambda count=count: other.sent == count)  # type: ignore[misc]
        other.read.set()
    await end([*greedy, other])


async def test_messages_shrink_as_the_room_does() -> None:
    egress = Egress(8 * MIB, 8 * MIB, 60.0)
    part = egress.stream("a")
    assert part.allowance(MIB) == MIB
    with part.sending(6 * MIB):
        assert part.allowance(MIB) == MIB // 2
        with part.sending(4 * MIB):
            assert part.allowance(MIB) == 64 << 10
            assert part.allowance(1000) == 1000
    assert part.allowance(4 * MIB) == 2 * MIB


async def test_a_stream_that_stands_still_is_ended_for_those_that_wait() -> None:
    egress = Egress(2 * MIB, 2 * MIB, 0.0)
    stalled = [Stream(egress, "a", MIB) for _ in range(2)]
    await settled()
    waiting = egress.stream("b")
    await asyncio.wait_for(waiting.turn(), 10)
    assert [stream.task.done() for stream in stalled] == [True, False]
    assert egress.ended == 1
    await end(stalled)


async def test_a_turn_given_up_goes_to_the_next() -> None:
    egress = Egress(MIB, MIB, 60.0)
    first = Stream(egress, "a", MIB)
    await settled()
    gone, stays = (asyncio.create_task(egress.stream("b").turn()) for _ in range(2))
    await settled()
    first.read.set()
    gone.cancel()
    await asyncio.wait_for(stays, 10)
    await end([first])
