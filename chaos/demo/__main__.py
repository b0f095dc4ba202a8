"""Publishes a year of departures to three brokers, kills their leader halfway, and checks everything.

Run by ``make demo``. The last line is the verdict; the exit status is 1 when
any of its counts is off.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc

import holdfast
from holdfast.chaos.demo import flights
from holdfast.chaos.demo.display import Display
from holdfast.chaos.demo.verify import Place, Replayed, Verdict
from holdfast.chaos.keeper import unwinding
from holdfast.chaos.processes import LocalCluster

TOPIC = "departures"
PARTITIONS = 12
#: Departures published and not yet acknowledged, at most.
WINDOW = 20_000
#: The day replayed as a bounded window.
DAY = datetime(2013, 7, 4, tzinfo=UTC)


class Demo:
    """One run. ``acked`` maps each acknowledged place to the departure it holds."""

    def __init__(self, cluster: LocalCluster, departures: list[flights.Departure], display: Display) -> None:
        self.cluster = cluster
        self.departures = departures
        self.display = display
        self.acked: dict[Place, int] = {}
        self.acked_twice = 0
        self.killed: str | None = None
        self.failover_ms: float | None = None
        self._killed_at = 0.0
        self._first_after_kill = len(departures)

    async def run(self) -> Verdict:
        async with holdfast.connect(self.cluster.endpoints) as bus:
            await bus.create_topic(TOPIC, partitions=PARTITIONS)
            watcher = asyncio.create_task(self._watch())
            try:
                await self._publish(bus)
                self.display.step(f"restarting {self.killed}")
                await asyncio.to_thread(self.cluster.start)
            finally:
                watcher.cancel()
                with suppress(asyncio.CancelledError):
                    await watcher
        leader = await asyncio.to_thread(self.cluster.wait_leader)
        self._show(leader)
        other = next(n for n in self.cluster.brokers if n not in (leader, self.killed))
        async with holdfast.connect([self.cluster.brokers[other].client_address]) as bus:
            verdict = await self._replay_all(bus, other)
            await self._replay_day(bus, verdict)
        await asyncio.to_thread(self._compare_digests, verdict)
        verdict.duplicated += self.acked_twice
        return verdict

    # -- publishing ---------------------------------------------------------

    async def _publish(self, bus: holdfast.Client) -> None:
        display, total = self.display, len(self.departures)
        display.step("publishing", total)
        waiting: deque[tuple[int, asyncio.Future[holdfast.Ack]]] = deque()
        for index, departure in enumerate(self.departures):
            if index == total // 2:
                await asyncio.to_thread(self._kill_leader)
                self._first_after_kill = index
            future = bus.publish(
                TOPIC,
                departure.value,
                key=departure.key or None,
                timestamp=departure.timestamp_us,
                timeout=60.0,
            )
            waiting.append((index, future))
            if len(waiting) >= WINDOW:
                await self._collect(waiting, WINDOW // 2)
        await self._collect(waiting, 0)

    async def _collect(self, waiting: deque[tuple[int, asyncio.Future[holdfast.Ack]]], leave: int) -> None:
        while len(waiting) > leave:
            index, future = waiting.popleft()
            ack = await future
            if self.failover_ms is None and index >= self._first_after_kill:
                self.failover_ms = (time.monotonic() - self._killed_at) * 1e3
                self.display.say(f"demo: first new ack {self.failover_ms:.0f} ms after the kill")
            place = (ack.partition, ack.offset)
            self.acked_twice += place in self.acked
            self.acked[place] = index
            self.display.state.done = len(self.acked)
            if len(self.acked) % 2000 == 0:
                self.display.refresh()

    def _kill_leader(self) -> None:
        self.killed = self.cluster.wait_leader()
        self.display.say(
            f"demo: kill -9 {self.killed}, the leader, with {len(self.acked):,} records acknowledged"
        )
        self._killed_at = time.monotonic()
        self.cluster.brokers[self.killed].kill()

    async def _watch(self) -> None:
        while True:
            await asyncio.to_thread(self._show, None)
            await asyncio.sleep(0.3)

    def _show(self, leader: str | None) -> None:
        for broker in self.cluster.brokers.values():
            if not broker.running:
                continue
            with suppress(grpc.RpcError):  # a broker on its way up or down: the next one answers
                status = self.cluster.status(broker.node_id, timeout=0.5)
                state = self.display.state
                state.leader = leader or status.leader_id or "electing"
                state.term, state.commit_index = status.term, status.commit_index
                self.display.refresh()
                return

    # -- checking -------------------------------------------------------------

    async def _replay_all(self, bus: holdfast.Client, node: str) -> Verdict:
        self.display.step(f"replaying everything from {node}", len(self.departures))
        replayed = Replayed(self.departures, self.acked)
        async for record in bus.replay(TOPIC, start="earliest", linearizable=True):
            replayed.add(
                record.partition, record.offset, record.key or b"", record.value, record.timestamp_us
            )
            self.display.state.done += 1
            if self.display.state.done % 5000 == 0:
                self.display.refresh()
        return replayed.finish()

    async def _replay_day(self, bus: holdfast.Client, verdict: Verdict) -> None:
        self.display.step(f"replaying {DAY:%Y-%m-%d}")
        end = DAY + timedelta(days=1)
        got: list[tuple[bytes, bytes]] = []
        async for record in bus.replay(TOPIC, start=DAY, end=end):
            got.append((record.key or b"", record.value))
        low, high = (int(t.timestamp()) * 1_000_000 for t in (DAY, end))
        expected = [(d.key, d.value) for d in self.departures if low <= d.timestamp_us < high]
        self.display.say(f"demo: window of {DAY:%Y-%m-%d}: {len(got)} records, {len(expected)} in the table")
        if sorted(got) != sorted(expected):
            verdict.problems.append("the one-day window differs from the table")

    def _compare_digests(self, verdict: Verdict) -> None:
        self.display.step("comparing replica digests")
        index = max(self.cluster.status(node).commit_index for node in self.cluster.brokers)
        digests = {node: self.cluster.digest(node, index) for node in self.cluster.brokers}
        if len(set(digests.values())) != 1:
            verdict.problems.append("replica digests differ")
        else:
            self.display.say(f"demo: {len(digests)} replicas, {PARTITIONS} partitions, digests equal")


def main() -> int:
    """Run the demo; the exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--records", type=int, default=flights.TOTAL, help="publish only the first N")
    parser.add_argument(
        "--data", type=Path, help="where brokers keep their data (default: a temporary folder)"
    )
    arguments = parser.parse_args()
    with unwinding(), Display("Holdfast: a year of departures, three brokers, one kill -9") as display:
        display.step("reading the flights table")
        departures = flights.load()[: arguments.records]
        with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as scratch:
            display.step("starting three brokers")
            with LocalCluster(arguments.data or Path(scratch)) as cluster:
                demo = Demo(cluster, departures, display)
                verdict = asyncio.run(demo.run())
        display.step("done")
    for problem in verdict.problems[:20]:
        print(f"demo: PROBLEM {problem}")
    failover = "none" if demo.failover_ms is None else f"{demo.failover_ms:.0f}"
    print(
        f"demo: acked={verdict.acked} replayed={verdict.replayed} lost={verdict.lost} "
        f"duplicated={verdict.duplicated} out_of_order={verdict.out_of_order} failover_ms={failover}"
    )
    complete = verdict.acked == verdict.replayed == len(departures) and demo.failover_ms is not None
    return 0 if verdict.clean and complete else 1


if __name__ == "__main__":
    sys.exit(main())
