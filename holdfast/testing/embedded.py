"""A real broker inside the test's process.

::

    async def test_orders():
        async with holdfast.testing.embedded() as bus:
            await bus.create_topic("orders", partitions=3)
            ...

A single node with its data in a temporary directory, on a free port.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from holdfast.client.client import Client, connect
from holdfast.rpc.broker import Broker
from holdfast.rpc.settings import load


@asynccontextmanager
async def embedded_broker(
    data_dir: Path | None = None, settings: Mapping[str, Any] | None = None
) -> AsyncIterator[str]:
    """Run a single-node broker; gives its ``host:port``.

    Args:
        data_dir: where its data is kept; None: a temporary directory, removed at the end.
        settings: others than the defaults, such as ``{"limits.max_topics": 5}``.

    Raises:
        DataDirectoryError: the directory is in use, or holds something else.
        ConfigurationError: a setting makes no sense.
    """
    async with AsyncExitStack() as stack:
        if data_dir is None:
            data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-")))
        overrides = {"data_dir": str(data_dir), "listen": "127.0.0.1:0", **(settings or {})}
        broker = await stack.enter_async_context(Broker(load(env={}, overrides=overrides)))
        await broker.wait_ready()
        yield broker.client_address


@asynccontextmanager
async def embedded(
    data_dir: Path | None = None, settings: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[Client]:
    """Run a single-node broker and connect to it; gives the client.

    Args:
        data_dir: see ``embedded_broker``.
        settings: see ``embedded_broker``.
        options: those of ``holdfast.connect``.
    """
    async with embedded_broker(data_dir, settings) as address, connect(address, **options) as bus:
        yield bus
