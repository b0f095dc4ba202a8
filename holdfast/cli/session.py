"""Running a command's coroutine with a connected client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import holdfast
from holdfast.cli.options import split_endpoints

T = TypeVar("T")


def with_client(endpoints: str, work: Callable[[holdfast.Client], Awaitable[T]]) -> T:
    """Connect, do the work, close; Ctrl-C cancels the work and is raised as KeyboardInterrupt."""
    addresses = split_endpoints(endpoints)

    async def run() -> T:
        async with holdfast.connect(addresses) as client:
            return await work(client)

    return asyncio.run(run())
