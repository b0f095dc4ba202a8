"""One link of the proxy: connections are taken at one address and made to another, with faults between.

A cut direction is not read: its bytes wait in the kernel, nobody is told. A
connection that arrives during a cut is taken (the kernel has done that already)
and carried on when the cut is over.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

_CHUNK = 64 << 10
#: What may be on its way in one direction: enough for a delay at full speed.
_IN_FLIGHT = 4 << 20
#: With a bandwidth set, what may wait for it, in seconds.
_QUEUE_SECONDS = 0.3


class Direction:
    """The faults of one direction, shared by all connections of a link."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.bytes_per_s: float | None = None
        self.free_at = 0.0  # when the line has sent what it was given
        self._open = asyncio.Event()
        self._open.set()

    @property
    def cut(self) -> bool:
        return not self._open.is_set()

    @cut.setter
    def cut(self, cut: bool) -> None:
        if cut:
            self._open.clear()
        else:
            self._open.set()

    async def passable(self) -> None:
        """Wait until it is not cut."""
        await self._open.wait()

    @property
    def plain(self) -> bool:
        return not self.delay_s and not self.jitter_s and self.bytes_per_s is None

    @property
    def room(self) -> int:
        """How many bytes may be under way."""
        if self.bytes_per_s is None:
            return _IN_FLIGHT
        return min(_IN_FLIGHT, max(_CHUNK, int(self.bytes_per_s * (_QUEUE_SECONDS + self.delay_s))))

    def arrival(self, size: int, now: float, rng: random.Random) -> float:
        """When bytes that are sent now arrive."""
        sent = now
        if self.bytes_per_s is not None:
            self.free_at = sent = max(now, self.free_at) + size / self.bytes_per_s
        return sent + self.delay_s + self.jitter_s * rng.random()


@dataclass(slots=True)
class _Flight:
    """Bytes on their way; None: the end of the stream."""

    data: bytes | None
    due: float


class Relay:
    """Listens on ``port`` of the loopback address and carries to ``target``.

    Args:
        forward: faults from who connects towards ``target``; ``backward``: the other way.
    """

    def __init__(
        self,
        listener: socket.socket,
        target: tuple[str, int],
        forward: Direction,
        backward: Direction,
        rng: random.Random,
    ) -> None:
        self._listener = listener
        self._target = target
        self._forward = forward
        self._backward = backward
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._accepting = asyncio.create_task(self._accept())

    async def close(self) -> None:
        tasks = [task for task in (self._accepting, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self._listener)
            sock.setblocking(False)
            task = loop.create_task(self._carry(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, near: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        far = socket.socket()
        far.setblocking(False)
        try:
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A connection is made by packets in both directions.
            await self._forward.passable()
            await self._backward.passable()
            await loop.sock_connect(far, self._target)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(near, far, self._forward))
                group.create_task(self._pump(far, near, self._backward))
        except* OSError:
            # Refused, reset or gone: the other end learns it the same way.
            for sock in (near, far):
                _reset(sock)
        finally:
            near.close()
            far.close()

    async def _pump(self, source: socket.socket, sink: socket.socket, way: Direction) -> None:
        loop = asyncio.get_running_loop()
        flights: deque[_Flight] = deque()
        changed = asyncio.Event()
        under_way = 0
        last = 0.0

        async def deliver() -> None:
            nonlocal under_way
            while True:
                while not flights:
                    changed.clear()
                    await changed.wait()
                flight = flights.popleft()
                wait = flight.due - loop.time()
                if wait > 0:
                    await asyncio.sleep(wait)
                await way.passable()
                if flight.data is None:
                    with suppress(OSError):
                        sink.shutdown(socket.SHUT_WR)
                    return
                await loop.sock_sendall(sink, flight.data)
                under_way -= len(flight.data)
                changed.set()

        async with asyncio.TaskGroup() as group:
            delivery = group.create_task(deliver())
            while not delivery.done():
                await way.passable()
                data = await loop.sock_recv(source, _CHUNK)
                if data and way.plain and not flights and not under_way and not way.cut:
                    await loop.sock_sendall(sink, data)
                    continue
                last = max(last, way.arrival(len(data), loop.time(), self._rng))
                flights.append(_Flight(data or None, last))
                under_way += len(data)
                changed.set()
                if not data:
                    break
                while under_way >= way.room:
                    changed.clear()
                    await changed.wait()


def _reset(sock: socket.socket) -> None:
    """Close with a reset instead of an end of stream."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
