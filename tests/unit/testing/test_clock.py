"""Virtual time."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta

from holdfast.testing import VirtualClock


def test_timers_are_called_in_order_and_once() -> None:
    clock = VirtualClock()
    called: list[str] = []
    clock.call_later(2, lambda: called.append("b"))
    clock.call_later(1, lambda: called.append("a"))
    gone = clock.call_later(1.5, lambda: called.append("never"))
    clock.call_later(2, lambda: called.append("c"))
    gone.cancel()
    clock.move(1)
    assert (called, clock.due()) == (["a"], 2)
    clock.move(5)
    clock.move(4)  # time does not go back
    assert (called, clock.time(), clock.due()) == (["a", "b", "c"], 5, math.inf)


def test_the_date_goes_by_it() -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    clock = VirtualClock(start)
    clock.move(90.5)
    assert clock.now() == start + timedelta(seconds=90.5)
    assert clock.wall_us() == int(clock.now().timestamp() * 1e6)


async def test_sleepers_wake_when_it_is_time() -> None:
    clock = VirtualClock()
    first = asyncio.create_task(clock.sleep(1))
    second = asyncio.create_task(clock.sleep(2))
    await asyncio.sleep(0)
    assert clock.sleeps(first)
    clock.move(1)
    await first
    assert (clock.sleeps(first), clock.sleeps(second), second.done()) == (False, True, False)
    second.cancel()
    await asyncio.wait([second])
    assert clock.due() == math.inf
    assert not clock.sleeps(None)
