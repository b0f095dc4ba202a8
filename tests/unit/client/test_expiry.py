"""Deadlines of single publishes, under a clock of the test's."""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast.client.expiry import Expiry
from holdfast.errors import DeadlineExceededError


class Clock:
    """The part of a loop that Expiry uses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[list[Any]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, function: Any, *arguments: Any) -> Any:
        timer = [when, function, arguments]
        self.timers.append(timer)
        return self

    def call_later(self, delay: float, function: Any, *arguments: Any) -> Any:
        return self.call_at(self.now + delay, function, *arguments)

    def cancel(self) -> None:
        self.timers.clear()

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer[0] <= end]:
            timer = min(due, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.now = timer[0]
            timer[1](*timer[2])
        self.now = end


async def test_each_fails_in_its_time_and_one_timer_serves_many() -> None:
    clock = Clock()
    expiry = Expiry(clock)  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    futures = []
    for _ in range(5):
        future = loop.create_future()
        expiry.watch(future, 1.0)
        futures.append(future)
        clock.advance(0.1)
    futures[1].set_result(None)
    assert len(clock.timers) == 1
    clock.advance(0.55)  # at 1.05
    assert isinstance(futures[0].exception(), DeadlineExceededError)
    assert not futures[2].done()
    clock.advance(0.2)  # at 1.25
    assert isinstance(futures[2].exception(), DeadlineExceededError)
    assert not futures[3].done()
    futures[3].set_result(None)
    clock.advance(1)
    assert isinstance(futures[4].exception(), DeadlineExceededError)
    assert not clock.timers
    other = loop.create_future()
    expiry.watch(other, 2.0)
    expiry.close()
    assert not clock.timers
    other.cancel()
