"""gRPC for Python as Holdfast sets it up, with nothing behind it: the server only copies."""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, TypedDict

import grpc
import uvloop

from benchmarks.limits import threads
from benchmarks.limits.apart import Apart
from holdfast.client.options import CHANNEL_OPTIONS
from holdfast.rpc import server as grpc_server
from holdfast.rpc.malloc import keep_freed_memory
from holdfast.rpc.settings import Address

_PATH = "/limits.Alone/"


class Alone(TypedDict):
    """Medians in µs of round trips of 100 B; MB/s of streams by message size, to the server and from it."""

    unary_micros: float
    stream_micros: float
    up: dict[str, float]
    down: dict[str, float]
    #: CPU seconds of both ends per GB sent to the server in the first of the sizes.
    cpu_per_gigabyte: float


class _Server:
    async def unary(self, request: bytes, context: Any) -> bytes:
        return request

    async def echo(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def up(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Takes what comes and answers each message with a few bytes, as a publish stream does."""
        async for _ in requests:
            yield b"acknowledged"

    async def down(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Messages of the size asked for, as a replay does."""
        asked = json.loads(request)
        message = bytes(asked["size"])
        for _ in range(asked["count"]):
            yield message


async def _serve() -> None:
    service, server = _Server(), grpc_server.create()
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(service.unary),
        "Echo": grpc.stream_stream_rpc_method_handler(service.echo),
        "Up": grpc.stream_stream_rpc_method_handler(service.up),
        "Down": grpc.unary_stream_rpc_method_handler(service.down),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("limits.Alone", handlers),))
    address = grpc_server.bind(server, Address("127.0.0.1", 0))
    await server.start()
    print(json.dumps({"port": address.port}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await server.stop(None)


def serve() -> dict[str, int]:
    """The server's process: says its port, and ends with the next line it is given."""
    sys.setswitchinterval(0.0002)
    keep_freed_memory()
    gc.freeze()
    uvloop.run(_serve())
    return {}


async def measure(rounds: int, megabytes: int, sizes: list[int]) -> Alone:
    """Through one connection, the server in a process of its own."""
    server = Apart("benchmarks.limits.grpc_alone:serve")
    try:
        server.begin()
        port = server.heard()["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as opened:
            channel: Any = opened
            unary = channel.unary_unary(_PATH + "Unary")
            await unary(b"x" * 100, wait_for_ready=True, timeout=20)
            took = []
            for _ in range(rounds):
                before = time.perf_counter()
                await unary(b"x" * 100, timeout=20)
                took.append(time.perf_counter() - before)
            echoed = await _echo(channel, rounds)
            cpu = _used(server.pid)
            await _up(channel, sizes[0], megabytes)
            cpu = (_used(server.pid) - cpu) / megabytes * 1e3
            up = {str(size): await _up(channel, size, megabytes) for size in sizes}
            down = {str(size): await _down(channel, size, megabytes) for size in sizes}
    finally:
        server.end()
    return Alone(
        unary_micros=statistics.median(took) * 1e6,
        stream_micros=echoed,
        up=up,
        down=down,
        cpu_per_gigabyte=cpu,
    )


def _used(server: int) -> float:
    """CPU seconds of this process and the server's so far."""
    used = [usage.seconds for usage in threads.of(server).values()]
    return time.process_time() + sum(used)


async def _echo(channel: Any, rounds: int) -> float:
    call: Any = channel.stream_stream(_PATH + "Echo")()
    took = []
    for _ in range(rounds):
        before = time.perf_counter()
        await call.write(b"x" * 100)
        await call.read()
        took.append(time.perf_counter() - before)
    call.cancel()
    return statistics.median(took) * 1e6


async def _up(channel: Any, size: int, megabytes: int) -> float:
    """MB/s that reach the server; every message is answered before the time is taken."""
    call: Any = channel.stream_stream(_PATH + "Up")()
    count, message = max(8, megabytes * 1_000_000 // size), bytes(size)
    window = asyncio.Semaphore(max(4, (8 << 20) // size))

    async def answers() -> None:
        for _ in range(count):
            await call.read()
            window.release()

    began = time.perf_counter()
    reading = asyncio.create_task(answers())
    for _ in range(count):
        await window.acquire()
        await call.write(message)
    await reading
    spent = time.perf_counter() - began
    call.cancel()
    return count * size / spent / 1e6


async def _down(channel: Any, size: int, megabytes: int) -> float:
    count = max(8, megabytes * 1_000_000 // size)
    call: Any = channel.unary_stream(_PATH + "Down")
    stream = call(json.dumps({"size": size, "count": count}).encode())
    began, got = time.perf_counter(), 0
    async for message in stream:
        got += len(message)
    return got / (time.perf_counter() - began) / 1e6


def alone(rounds: int, megabytes: int, sizes: list[int]) -> Alone:
    return uvloop.run(measure(rounds, megabytes, sizes))
