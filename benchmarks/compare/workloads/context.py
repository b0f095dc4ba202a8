"""What a workload is given: its parameters, a client, and the line to the runner."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from benchmarks.peers.catalog import make_client
from benchmarks.peers.system import Client, Unsupported

#: What a workload returns, by name; a list holds samples that are pooled over the rounds.
Figures = Mapping[str, float | list[float]]

#: How long a burst has to take for its rate to be believed: this part of the work that follows. It also warms
#: up what has just been started.
_BURST = 0.25
#: A burst four times as large is not just as fast when its rate is so many times higher.
_FASTER = 1.25


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the runner decides. All workloads share them; each uses what it needs."""

    #: Seconds of work in a throughput workload.
    seconds: float = 4.0
    #: The most bytes of payload a throughput workload publishes.
    most_bytes: int = 400_000_000
    #: Records published one after another, or failovers.
    times: int = 500
    #: The topic an earlier workload filled, and how many records it holds.
    topic: str = ""
    records: int = 0
    #: Records per second of an open-loop workload.
    rate: float = 1000.0


class Channel:
    """JSON lines to the runner on what was standard output, and its answers on standard input."""

    def __init__(self, output: IO[str], answers: IO[str]) -> None:
        self._output = output
        self._answers = answers

    def say(self, **message: Any) -> None:
        print(json.dumps(message), file=self._output, flush=True)

    async def ask(self, **message: Any) -> dict[str, Any]:
        """Send a message and wait for its answer; an empty one when nobody listens (a run by hand)."""
        self.say(**message)
        line = await asyncio.to_thread(self._answers.readline)
        answer: dict[str, Any] = json.loads(line) if line.strip() else {}
        return answer

    async def hear(self) -> dict[str, Any]:
        """Wait for a message of the runner."""
        line = await asyncio.to_thread(self._answers.readline)
        if not line:
            raise RuntimeError("the runner is gone")
        message: dict[str, Any] = json.loads(line)
        return message


@dataclass(slots=True)
class Measured:
    """One measured window of a workload."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass(slots=True)
class Context:
    """A workload's surroundings in the worker process."""

    system: str
    client: Client
    parameters: Parameters
    channel: Channel
    #: What the workload calls the topic that it fills.
    topic: str
    window: Measured = field(default_factory=Measured)
    #: What the figures lack, if anything.
    note: str = ""

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[Measured]:
        """The part that counts. The runner notes what the brokers have used right before and after it."""
        await self.channel.ask(event="begin")
        cpu, started = cpu_seconds(), time.monotonic()
        yield self.window
        self.window.seconds = time.monotonic() - started
        self.window.cpu_seconds = cpu_seconds() - cpu
        self.channel.say(event="end")

    @asynccontextmanager
    async def second_client(self) -> AsyncIterator[Client]:
        """A client with connections of its own: whoever reads is not who publishes."""
        other = make_client(self.system, self.client.addresses)
        await other.connect()
        try:
            yield other
        finally:
            await other.close()


async def calibrate(
    burst: Callable[[int], Awaitable[object]], start: int, most: int, work_seconds: float
) -> float:
    """Records per second of ``burst(n)``: ``start`` of them, then four times as many, and so on.

    Ends when a burst takes a quarter of ``work_seconds`` and a larger one would hardly be faster: what a
    client spends on connecting and joining must not pass for its speed. Also at ``most`` records, or when a
    burst takes all of ``work_seconds``. What it leaves behind is the burst's affair.
    """
    count, last = min(start, most), 0.0
    while True:
        started = time.monotonic()
        await burst(count)
        seconds = time.monotonic() - started
        rate = count / seconds
        steady = seconds >= _BURST * work_seconds and rate < _FASTER * last
        if steady or (last and seconds >= work_seconds) or count >= most:
            return rate
        # A first burst that took so long has warmed something up: the same once more.
        count, last = (count if seconds >= work_seconds else min(4 * count, most)), rate


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(who)
        total += used.ru_utime + used.ru_stime
    return total


def percentile(values: list[float], per_cent: float) -> float:
    """The smallest value that ``per_cent`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-len(ordered) * per_cent // 100) - 1))]


def one_line(error: BaseException) -> str:
    """Why a workload has no figure: an error's first line; of a group of errors, that of the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]
    if isinstance(error, Unsupported):
        return text or "not offered by this system"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def private_channel() -> Channel:
    """The line to the runner. Whatever a client library prints goes to standard error from now on."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return Channel(output, sys.stdin)
