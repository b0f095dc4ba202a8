"""Admission: bounds, turns, draining."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.errors import OverloadedError, UnavailableError
from holdfast.rpc.admission import Admission


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_calls_and_bytes_are_bounded() -> None:
    admission = Admission(2, 100)
    admission.enter(60)
    with pytest.raises(OverloadedError) as caught:
        admission.enter(41)
    assert caught.value.retry_after_ms
    admission.enter(40)
    with pytest.raises(OverloadedError):
        admission.enter(0)
    admission.leave(60)
    admission.enter(1)
    assert (admission.calls, admission.bytes) == (2, 41)


async def test_waiting_is_first_come_first_served() -> None:
    admission = Admission(10, 100)
    admission.enter(100)
    big = asyncio.ensure_future(admission.enter_wait(80))
    await settle()
    small = asyncio.ensure_future(admission.enter_wait(30))
    await settle()
    with pytest.raises(OverloadedError):
        admission.enter(0)  # unary calls do not overtake those who wait
    admission.leave(100)
    await big
    await settle()
    assert not small.done()
    admission.leave(80)
    await small
    assert (admission.calls, admission.bytes) == (1, 30)


async def test_giving_up_waiting_gives_the_turn_on() -> None:
    admission = Admission(10, 100)
    admission.enter(100)
    first = asyncio.ensure_future(admission.enter_wait(100))
    await settle()
    second = asyncio.ensure_future(admission.enter_wait(10))
    await settle()
    first.cancel()
    await settle()
    admission.leave(100)
    await second
    third = asyncio.ensure_future(admission.enter_wait(95))
    await settle()
    admission.leave(10)  # the turn is given...
    third.cancel()  # ...and not taken
    await asyncio.gather(third, return_exceptions=True)
    assert (admission.calls, admission.bytes) == (0, 0)


async def test_drain_refuses_new_ones_and_waits_for_old_ones() -> None:
    admission = Admission(10, 100)
    admission.enter(100)
    waiting = asyncio.ensure_future(admission.enter_wait(50))
    await settle()
    draining = asyncio.ensure_future(admission.drain(5))
    await settle()
    with pytest.raises(UnavailableError):
        await waiting
    with pytest.raises(UnavailableError):
        admission.enter(1)
    assert not draining.done()
    admission.leave(100)
    assert await draining
    assert await admission.drain(5)


async def test_drain_gives_up_in_time() -> None:
    admission = Admission(10, 100)
    admission.enter(1)
    assert not await admission.drain(0.001)
