"""exactly-once."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence

import holdfast
from holdfast.chaos.demo import flights
from holdfast.chaos.drills.load import LoadPlan
from holdfast.chaos.drills.scene import Drill, Scene, Target
from holdfast.chaos.keeper import Keeper
from holdfast.chaos.pipeline import rows
from holdfast.chaos.pipeline.judge import Findings, judge
from holdfast.errors import HoldfastError, InternalError

_CONSUMERS = 3
#: Between two kills, seconds.
_SOONEST, _LATEST = 5.0, 15.0
#: A killed process is away so long, seconds.
_SHORTEST, _LONGEST = 0.5, 3.0
#: After the last order is published, until the ledger has to be complete, seconds.
_TO_THE_END = 240.0
#: The groups look new positions up this often.
_LOOK = 0.5


class ExactlyOnce(Drill):
    """Orders, payments and ledger of the flights table, under kills of brokers and consumers.

    ``DRILL_SECONDS`` is how long the publisher takes (default 600), ``DRILL_ROWS`` how much of the table it
    publishes (default: all of it).
    """

    name = "exactly-once"
    summary = (
        "order, payment, ledger: random kill -9 of brokers and consumers for ten minutes; every effect once"
    )
    needs = frozenset({"kill"})
    #: The group that keeps the ledger, and what its processes are told beside.
    group = rows.BOOKKEEPERS
    consumer_arguments: tuple[str, ...] = ()
    plan = LoadPlan(singles=1, single_rate=10.0, bursts=0, impatient=0, members=1, replayers=0)

    def __init__(self) -> None:
        self.seconds = float(os.environ.get("DRILL_SECONDS", "600"))
        self.rows = min(int(os.environ.get("DRILL_ROWS", str(flights.TOTAL))), flights.TOTAL)
        self.limit_seconds = self.seconds + _TO_THE_END + 180.0

    def unable(self, target: Target) -> str:
        return flights.missing() or super().unable(target)

    async def run(self, scene: Scene) -> None:
        endpoints = list(scene.target.endpoints.values())
        async with holdfast.connect(endpoints, delivery_timeout=60.0) as bus:
            day_ms = 86_400_000
            await bus.create_topic(rows.ORDERS, partitions=rows.PARTITIONS, idempotency_ttl_ms=day_ms)
            await bus.create_topic(rows.PAYMENTS, partitions=rows.PARTITIONS)
            await bus.create_topic(rows.LEDGER, partitions=rows.PARTITIONS)
            await bus.create_topic(rows.DEAD, partitions=1)
            processes = Processes(endpoints, scene, self.consumer_arguments)
            try:
                await self._play(scene, bus, processes)
            finally:
                await processes.end()
            found = await self.judged(bus, await asyncio.to_thread(lambda: flights.load()[: self.rows]))
        scene.facts |= {
            "orders": found.orders,
            "payments": found.payments,
            "ledger": found.ledger,
            "dead": found.dead,
            "effects_lost": found.lost,
            "effects_duplicated": found.duplicated,
            "out_of_order": found.out_of_order,
            "kills": processes.kills,
        }
        for problem in found.problems:
            scene.require(False, "exactly-once", problem)

    async def _play(self, scene: Scene, bus: holdfast.Client, processes: Processes) -> None:
        for number in range(_CONSUMERS):
            await processes.consumer(number)
        publishing = asyncio.ensure_future(processes.publish(self.rows, self.seconds))
        killing = asyncio.ensure_future(self.kills(scene, processes))
        try:
            await publishing
            scene.say(f"{self.rows:,} orders are published")
            await self._until_done(scene, bus)
        finally:
            killing.cancel()
            publishing.cancel()
            await asyncio.gather(killing, publishing, return_exceptions=True)

    # -- what a ledger elsewhere changes -----------------------------------------------

    async def entries(self, bus: holdfast.Client) -> int:
        """How many payments are in the ledger by now."""
        topic = await bus.topic(rows.LEDGER)
        return sum(part.end_offset for part in topic.partition_info)

    async def judged(self, bus: holdfast.Client, departures: Sequence[flights.Departure]) -> Findings:
        """What is in the end."""
        return await judge(bus, departures)

    async def kills(self, scene: Scene, processes: Processes) -> None:
        """Brokers and consumers in turn of chance, as long as orders are published and handled."""
        chance = scene.load.random
        while True:
            await asyncio.sleep(chance.uniform(_SOONEST, _LATEST))
            away = chance.uniform(_SHORTEST, _LONGEST)
            if chance.random() < 0.5:
                node = chance.choice(list(scene.target.nodes))
                with scene.fault("kill", node, "a broker, kill -9"):
                    processes.kills += 1
                    await scene.target.kill(node)
                    await asyncio.sleep(away)
                    await scene.target.start(node)
                    await scene.target.until_serving(node)
            else:
                number = chance.randrange(_CONSUMERS)
                with scene.fault("kill", f"consumer-{number}", "a consumer, kill -9", recovers=False):
                    processes.kills += 1
                    await processes.kill(number)
                    await asyncio.sleep(away)
                    await processes.consumer(number)

    async def _until_done(self, scene: Scene, bus: holdfast.Client) -> None:
        garbled = sum(rows.is_garbled(number) for number in range(self.rows))
        wanted = self.rows - garbled
        deadline = scene.now() + _TO_THE_END
        shown = -1
        while scene.now() < deadline:
            try:
                done = await self.entries(bus)
                group = await bus.group(self.group)
                settled = sum(part.floor for part in group.partitions)
            except HoldfastError:
                done = settled = -1  # a broker is away
            if done >= wanted and settled >= wanted:
                return
            if done // 10_000 != shown:
                shown = done // 10_000
                scene.say(f"{done:,} of {wanted:,} in the ledger")
            await asyncio.sleep(_LOOK)
        scene.require(
            False, "all-is-handled", f"not in the ledger after {_TO_THE_END:g} s: {done} of {wanted}"
        )


class Processes:
    """The publisher and the consumers; those that die by themselves are started again."""

    def __init__(self, endpoints: list[str], scene: Scene, arguments: Sequence[str]) -> None:
        self.kills = 0
        self._arguments = arguments
        self._endpoints = endpoints
        self._scene = scene
        self._keeper = Keeper()
        self._consumers: dict[int, Process] = {}
        self._watchers: dict[int, asyncio.Task[None]] = {}
        self._publisher: Process | None = None
        self._log = (scene.directory / "pipeline.log").open("ab")

    async def consumer(self, number: int) -> None:
        """Start one that does not run."""
        process = await self._start("consume", *self._arguments)
        self._consumers[number] = process
        self._watchers[number] = asyncio.ensure_future(self._restart(number, process))

    async def kill(self, number: int) -> None:
        """SIGKILL."""
        self._watchers.pop(number).cancel()
        process = self._consumers[number]
        if process.returncode is None:
            process.kill()
        await process.wait()

    async def publish(self, count: int, seconds: float) -> None:
        """All orders; halfway the publisher is killed, and goes on where its last report was."""
        half = count // 2
        done = await self._published(0, count, seconds, until=half)
        if done < count:
            self._scene.say(f"the publisher is killed after {done:,} orders")
            self.kills += 1
            await self._published(done, count, seconds * (count - done) / count, until=count)

    async def _published(self, first: int, count: int, seconds: float, until: int) -> int:
        process = self._publisher = await self._start(
            "publish", "--first", str(first), "--end", str(count), "--seconds", str(seconds), pipe=True
        )
        assert process.stdout is not None
        done = first
        async for line in process.stdout:
            done = int(line)
            if until <= done < count:
                process.kill()
                await process.wait()
                # Later chunks may have been published and not reported: they are published again.
                return done
        status = await process.wait()
        if status != 0:
            raise InternalError(f"the publisher ended with status {status}; {self._log.name} says why")
        return count

    async def end(self) -> None:
        """End all of them."""
        for watcher in self._watchers.values():
            watcher.cancel()
        running = [*self._consumers.values(), *([self._publisher] if self._publisher else [])]
        for process in running:
            if process.returncode is None:
                process.kill()
            await process.wait()
        self._keeper.close()
        self._log.close()

    async def _restart(self, number: int, process: Process) -> None:
        status = await process.wait()
        self._scene.say(f"consumer-{number} ended with status {status}; it is started again")
        await self.consumer(number)

    async def _start(self, *arguments: str, pipe: bool = False) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "holdfast.chaos.pipeline",
            "--endpoints",
            ",".join(self._endpoints),
            *arguments,
            stdout=PIPE if pipe else self._log,
            stderr=self._log,
            start_new_session=True,
        )
        running = [each.pid for each in self._consumers.values() if each.returncode is None]
        self._keeper.keep([process.pid, *running, *([self._publisher.pid] if self._publisher else [])])
        return process
