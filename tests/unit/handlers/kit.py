"""Records, options and a link, made by hand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Any

from holdfast.client.consumer import NOTHING
from holdfast.client.handlers.classify import Verdict
from holdfast.client.handlers.job import Begin, Decision, Job, Settle
from holdfast.client.handlers.subscriber import Options
from holdfast.client.types import Record
from holdfast.errors import HoldfastError


def record(
    offset: int,
    *,
    partition: int = 0,
    key: bytes | None = None,
    value: bytes = b"{}",
    headers: tuple[tuple[str, bytes], ...] = (),
) -> Record:
    return Record("orders", partition, offset, key, value, 0, 1_000 + offset, headers)


def options(**given: Any) -> Options:
    return Options(**{"topics": ("orders",), "group": "billing", "dead_letter": "billing.dead", **given})


def begun(decisions: list[Decision]) -> list[Job]:
    return [decision.job for decision in decisions if isinstance(decision, Begin)]


def told(decisions: list[Decision]) -> list[tuple[int, Verdict]]:
    return [(d.record.offset, d.verdict) for d in decisions if isinstance(d, Settle)]


def outcomes(decisions: list[Decision]) -> list[tuple[int, str]]:
    return [(offset, verdict.outcome.value) for offset, verdict in told(decisions)]


class FakeLink:
    """A group of one member; what it is told is written down."""

    def __init__(self, records: list[Record] = []) -> None:  # noqa: B006  (never changed)
        self.coming: deque[Record] = deque(records)
        self.told: list[tuple[int, str, str]] = []
        self.delays: list[float | None] = []
        self.flow: list[str] = []
        self.extended: list[tuple[int, float]] = []
        self.asked: list[int] = []
        self.closed = False
        self.failure: HoldfastError | None = None
        self._changed = asyncio.Event()
        self._said = asyncio.Event()

    def deliver(self, *records: Record) -> None:
        self.coming += records
        self._changed.set()

    def fail(self, error: HoldfastError) -> None:
        self.failure = error
        self._changed.set()

    async def until(self, count: int) -> list[tuple[int, str, str]]:
        """What was told of records, once it is so many."""
        async with asyncio.timeout(20):
            while len(self.told) < count:
                self._said.clear()
                await self._said.wait()
        return self.told

    @property
    def outcomes(self) -> dict[int, str]:
        assert len({offset for offset, _, _ in self.told}) == len(self.told), self.told
        return {offset: what for offset, what, _ in self.told}

    async def take(self, limit: int) -> list[Record]:
        self.asked.append(limit)
        while not self.coming:
            if self.failure is not None:
                raise self.failure
            if self.closed:
                return []
            self._changed.clear()
            await self._changed.wait()
        return [self.coming.popleft() for _ in range(min(limit, len(self.coming)))]

    def ack(self, record: Record) -> Awaitable[None]:
        return self._tell(record, "ack", "")

    def nack(self, record: Record, delay: float | None = None, error: str = "") -> Awaitable[None]:
        self.delays.append(delay)
        return self._tell(record, "retry", error)

    def park(self, record: Record, delay: float | None = None, error: str = "") -> Awaitable[None]:
        self.delays.append(delay)
        return self._tell(record, "park", error)

    def reject(self, record: Record, error: str = "") -> Awaitable[None]:
        return self._tell(record, "reject", error)

    def release(self, record: Record) -> Awaitable[None]:
        return self._tell(record, "release", "")

    def extend(self, record: Record, seconds: float) -> Awaitable[None]:
        self.extended.append((record.offset, seconds))
        self._said.set()
        return NOTHING

    def pause(self) -> None:
        self.flow.append("pause")

    def resume(self, limit: int | None = None) -> None:
        self.flow.append("resume" if limit is None else f"resume {limit}")

    async def close(self) -> None:
        self.closed = True
        self._changed.set()

    def _tell(self, record: Record, what: str, error: str) -> Awaitable[None]:
        assert not self.closed, "told after it was left"
        self.told.append((record.offset, what, error))
        self._said.set()
        return NOTHING
