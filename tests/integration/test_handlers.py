"""Handlers on real brokers: what they return, raise and leave behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

import holdfast
from holdfast import RejectRecord, Retry
from holdfast.errors import FailedPreconditionError, GroupConflictError

from .delivery_kit import PATIENCE, Node, single


@dataclass
class Order:
    id: int
    price: float = 0.0


def connect(node: Node) -> holdfast.Client:
    return holdfast.connect(node.broker.client_address)


async def publish(bus: holdfast.Client, count: int) -> None:
    await bus.create_topic("orders", partitions=2)
    for i in range(count):
        bus.send("orders", b'{"id": %d}' % i, key=b"k%d" % (i % 8))
    await bus.flush()


async def until(condition: object, bus: holdfast.Client) -> None:
    """Run the handlers until ``condition()``; then stop them in order."""
    running = asyncio.ensure_future(bus.run(signals=False))
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # type: ignore[operator]
                assert not running.done(), running
                await asyncio.sleep(0.01)
    finally:
        bus.stop()
        async with asyncio.timeout(PATIENCE):
            await running


async def test_handlers_are_called_retried_and_given_up(tmp_path: Path) -> None:
    async with single(tmp_path) as node, connect(node) as bus:
        await publish(bus, 60)
        bus.send("orders", b"not json", key=b"k1")
        await bus.flush()
        calls: Counter[int] = Counter()

        @bus.subscriber(
            "orders",
            group="billing",
            ordering="key",
            concurrency=8,
            retry=Retry(attempts=3, initial=0.02, maximum=0.02),
            dead_letter="orders.dead",
        )
        async def bill(order: Order) -> None:
            calls[order.id] += 1
            if order.id == 5 and calls[5] == 1:
                raise ConnectionError("the first time only")
            if order.id == 6:
                raise ConnectionError("always")
            if order.id == 7:
                raise RejectRecord("no such customer")

        async def dead() -> list[holdfast.Record]:
            return [record async for record in bus.replay("orders.dead")]

        await until(lambda: len(calls) == 60 and calls[6] == 3, bus)
        async with asyncio.timeout(PATIENCE):
            while len(await dead()) < 3:
                await asyncio.sleep(0.01)
        assert calls == Counter(dict.fromkeys(range(60), 1)) + Counter({5: 1, 6: 2})
        letters = {record.value: record for record in await dead()}
        assert set(letters) == {b'{"id": 6}', b'{"id": 7}', b"not json"}
        assert b"always" in (letters[b'{"id": 6}'].header("holdfast-dead-errors") or b"")
        assert b"no such customer" in (letters[b'{"id": 7}'].header("holdfast-dead-errors") or b"")
        group = await bus.group("billing")
        assert sum(part.floor for part in group.partitions) == 61


async def test_plain_functions_and_two_groups(tmp_path: Path) -> None:
    async with single(tmp_path) as node, connect(node) as bus:
        await publish(bus, 20)
        billed: set[int] = set()
        shipped: set[int] = set()

        @bus.subscriber("orders", group="billing", ordering="none", concurrency=4)
        def bill(order: Order) -> None:
            time.sleep(0.01)
            billed.add(order.id)

        @bus.subscriber("orders", group="shipping")
        async def ship(record: holdfast.Record) -> None:
            shipped.add(record.offset * 2 + record.partition)

        await until(lambda: len(billed) == 20 and len(shipped) == 20, bus)


async def test_what_cannot_run_says_so_and_stops_the_others(tmp_path: Path) -> None:
    async with single(tmp_path) as node, connect(node) as bus:
        await publish(bus, 1)
        with pytest.raises(FailedPreconditionError, match="no handlers"):
            await bus.run()
        member = bus.join("billing", holdfast.GroupDefinition(topics=["orders"], ordering="none"))
        async with asyncio.timeout(PATIENCE):
            await member.take(1)

        @bus.subscriber("orders", group="billing", ordering="key")
        async def bill(record: holdfast.Record) -> None: ...

        @bus.subscriber("orders", group="shipping")
        async def ship(record: holdfast.Record) -> None: ...

        async with asyncio.timeout(PATIENCE):
            with pytest.raises(GroupConflictError):
                await bus.run(signals=False)


_PROGRAM = """
import asyncio, sys, holdfast
bus = holdfast.connect(sys.argv[1])

@bus.subscriber("orders", group="billing", ordering="key", concurrency=4)
async def bill(record):
    print("begun", record.offset, flush=True)
    await asyncio.sleep(0.3)
    print("done", record.offset, flush=True)

async def main():
    async with bus:
        await bus.run()
    print("over", flush=True)

asyncio.run(main())
"""


async def test_a_signal_ends_a_program_in_order(tmp_path: Path) -> None:
    async with single(tmp_path) as node, connect(node) as bus:
        await publish(bus, 100)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROGRAM, node.broker.client_address, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                await process.stdout.readline()
                os.kill(process.pid, signal.SIGTERM)
                rest = (await process.stdout.read()).decode()
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert rest.rstrip().endswith("over")
        begun = rest.count("begun") + 1
        assert rest.count("done") == begun <= 4
        group = await bus.group("billing")
        settled = sum(part.floor + part.settled_above for part in group.partitions)
        assert settled == begun
        assert not group.members
        assert not [record for record in await bus.retries("billing") if record.attempts]


async def test_without_a_loop(tmp_path: Path) -> None:
    async with single(tmp_path) as node, connect(node) as bus:
        await publish(bus, 20)
        seen = await asyncio.to_thread(_handle_in_a_thread, node.broker.client_address)
    assert seen == set(range(20))


def _handle_in_a_thread(address: str) -> set[int]:
    seen: set[int] = set()
    with holdfast.connect_sync(address) as bus:

        @bus.subscriber("orders", group="billing", ordering="none", concurrency=4)
        def bill(order: Order) -> None:
            seen.add(order.id)
            if len(seen) == 20:
                bus.stop()

        bus.run()
    return seen
