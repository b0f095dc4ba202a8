"""exactly-once-postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import holdfast
from holdfast.chaos import postgres
from holdfast.chaos.demo.flights import Departure
from holdfast.chaos.drills.exactly_once import ExactlyOnce, Processes
from holdfast.chaos.drills.scene import Scene, Target
from holdfast.chaos.pipeline import accounts, rows
from holdfast.chaos.pipeline.judge import Findings, check_books, judge, payments_of

#: The killed database is away so long, seconds.
_AWAY = 1.0


class ExactlyOncePostgres(ExactlyOnce):
    """The same with the ledger in a PostgreSQL of our own, which is killed once, too."""

    name = "exactly-once-postgres"
    summary = "the same with the ledger in PostgreSQL, through an inbox; the database is killed, too"
    group = rows.ACCOUNTANTS

    def unable(self, target: Target) -> str:
        if postgres.find() is None:
            return postgres.MISSING
        return super().unable(target)

    @asynccontextmanager
    async def around(self, target: Target) -> AsyncIterator[None]:
        with postgres.Postgres() as self._postgres:
            self._database = self._postgres.dsn
            self.consumer_arguments = ("--database", self._database)
            await accounts.prepare(self._database)
            yield

    async def entries(self, bus: holdfast.Client) -> int:
        return await accounts.booked(self._database)

    async def judged(self, bus: holdfast.Client, departures: Sequence[Departure]) -> Findings:
        found = await judge(bus, departures, ledger=False)
        seen, totals, disordered = await accounts.read(self._database)
        check_books(found, payments_of(departures), seen, totals)
        found.out_of_order += disordered
        if disordered:
            found.wrong(f"{disordered} payments of a tail number were booked out of order")
        return found

    async def kills(self, scene: Scene, processes: Processes) -> None:
        others = asyncio.ensure_future(super().kills(scene, processes))
        try:
            await asyncio.sleep(self.seconds / 2)
            with scene.fault("kill", "postgres", "the database, kill -9", recovers=False):
                processes.kills += 1
                await asyncio.to_thread(self._postgres.kill)
                await asyncio.sleep(_AWAY)
                await asyncio.to_thread(self._postgres.start)
            await others
        finally:
            others.cancel()
            await asyncio.gather(others, return_exceptions=True)
