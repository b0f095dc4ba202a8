"""Bare gRPC on this machine: what a call costs before Holdfast does anything.

A server process that echoes, one client that awaits each answer. The figure
scales with how busy and how fast the machine is, so other rows are read against it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

import grpc
import uvloop

_METHOD = "/echo.Echo/Call"


async def sequential(calls: int = 500) -> float:
    """Median milliseconds of one unary call of 100 B, each awaited."""
    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                call: Any = channel.unary_unary(_METHOD)
                await call(b"x" * 100, wait_for_ready=True, timeout=20)
                seconds = []
                for _ in range(calls):
                    started = time.perf_counter()
                    await call(b"x" * 100, timeout=20)
                    seconds.append(time.perf_counter() - started)
        finally:
            server.kill()
    return statistics.median(seconds) * 1e3


async def _serve() -> None:
    async def answer(request: bytes, context: object) -> bytes:
        return request

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", {"Call": handler}),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve())
