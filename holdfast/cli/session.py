"""Running a command's coroutine with a connected client."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer

import holdfast
from holdfast.cli.options import split_endpoints

T = TypeVar("T")


def with_client(endpoints: str, work: Callable[[holdfast.Client], Awaitable[T]]) -> T:
    """Connect, do the work, close; Ctrl-C cancels the work and is raised as KeyboardInterrupt."""
    addresses = split_endpoints(endpoints)

    async def run() -> T:
        async with holdfast.connect(addresses) as client:
            return await work(client)

    try:
        return asyncio.run(run())
    except BrokenPipeError:
        # The reader of our output has gone (`holdfast replay … | head`): that is no failure of ours.
        # Standard output is replaced so that the interpreter's last flush does not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
