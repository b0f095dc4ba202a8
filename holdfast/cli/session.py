"""Running a command's coroutine with a connected client."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

import typer

import holdfast
from holdfast.cli.options import split_endpoints
from holdfast.errors import UnavailableError

T = TypeVar("T")

#: A person waits at the terminal; a script that waits for brokers to start can try again.
_CONNECT_SECONDS = 5.0


def with_client(endpoints: str, work: Callable[[holdfast.Client], Awaitable[T]]) -> T:
    """Connect, do the work, close; Ctrl-C cancels the work and is raised as KeyboardInterrupt."""
    addresses = split_endpoints(endpoints)

    async def run() -> T:
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(
                    holdfast.connect(addresses, connect_timeout=_CONNECT_SECONDS)
                )
            except UnavailableError as error:
                raise UnavailableError(
                    f"no broker answers at {', '.join(addresses)}; start one (`holdfast serve`, or three: "
                    "`holdfast up`) or name one (--endpoint HOST:PORT)"
                ) from error
            return await work(client)

    try:
        return asyncio.run(run())
    except BrokenPipeError:
        # The reader of our output has gone (`holdfast replay … | head`): that is no failure of ours.
        # Standard output is replaced so that the interpreter's last flush does not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
