"""Rounds of systems of workloads, one after another on the same processors.

Every round runs every system from a fresh directory: start, workloads, stop, remove. The order is rotated
from round to round, so that a machine that slows down does so for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.compare.cell import Cell, measure
from benchmarks.compare.document import Result
from benchmarks.compare.workloads import WORKLOADS, Workload
from benchmarks.compare.workloads.context import Parameters, one_line
from benchmarks.peers.catalog import cluster_class
from benchmarks.peers.system import Cluster

_START_SECONDS = 180.0
_STOP_SECONDS = 60.0
#: After so many workloads in a row that were given up, a system is beyond what one can wait for.
_STALLED = 2
#: Seconds of a workload that has not been run yet, for the first estimates.
_GUESS_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, and how much of it."""

    systems: Sequence[str]
    workloads: Sequence[str]
    rounds: int
    parameters: Parameters
    failovers: int
    directory: Path

    def of(self, system: str) -> list[str]:
        """The workloads that one system runs."""
        its = cluster_class(system).workloads
        return [name for name in self.workloads if its is None or name in its]


def with_needed(names: Sequence[str]) -> list[str]:
    """The workloads and those they build on, in the order of the catalog."""
    wanted = set(names)
    for workload in reversed(WORKLOADS.values()):
        if workload.name in wanted and workload.needs:
            wanted.add(workload.needs)
    return [name for name in WORKLOADS if name in wanted]


def rotated(systems: Sequence[str], number: int) -> list[str]:
    """The systems' order in round ``number``, counted from 0."""
    start = number % len(systems)
    return [*systems[start:], *systems[:start]]


@dataclass(slots=True)
class Runner:
    """Runs a plan and appends to ``results``.

    ``between`` is called before each round and after the last; ``done`` whenever a system has been measured.
    """

    plan: Plan
    results: list[Result]
    between: Callable[[], None]
    done: Callable[[], None]
    _started: float = field(default_factory=time.monotonic)

    async def run(self) -> None:
        """All rounds. Whatever was started has ended when this returns or raises."""
        for number in range(self.plan.rounds):
            await asyncio.to_thread(self.between)
            for system in rotated(self.plan.systems, number):
                if not self.plan.of(system):
                    continue
                await self._system(number, system)
                self.done()
        await asyncio.to_thread(self.between)

    async def _system(self, number: int, name: str) -> None:
        folder = Path(tempfile.mkdtemp(prefix=f"compare-{name}-", dir=self.plan.directory))
        try:
            data = folder / "nodes"
            data.mkdir()
            cluster = cluster_class(name)(data)
            try:
                self._progress(number, name, "start")
                reason = await self._start(cluster)
                await self._workloads(number, cluster, folder / "worker.log", reason)
            finally:
                await self._stop(cluster)
        finally:
            await asyncio.to_thread(_remove, folder)

    async def _start(self, cluster: Cluster) -> str | None:
        """None, or why the system does not run."""
        try:
            await asyncio.wait_for(cluster.start(), _START_SECONDS)
        except TimeoutError:
            return f"the cluster did not start within {_START_SECONDS:.0f} s"
        except Exception as error:  # noqa: BLE001  (whatever an adapter's library raises: the others go on)
            traceback.print_exc()
            return f"the cluster did not start: {one_line(error)}"
        return None

    async def _stop(self, cluster: Cluster) -> None:
        """Orderly, else by force: the next system is to have the machine for itself."""
        try:
            await asyncio.wait_for(cluster.stop(), _STOP_SECONDS)
        except Exception:  # noqa: BLE001  (as above)
            traceback.print_exc()
            for pid in [pid for node in cluster.pids() for pid in node]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    async def _workloads(self, number: int, cluster: Cluster, log: Path, reason: str | None) -> None:
        found: dict[str, Cell] = {}
        stalled = 0
        for name in self.plan.of(cluster.name):
            workload = WORKLOADS[name]
            if reason is not None:
                found[name] = {"failed": reason, "unsupported": False}
            else:
                self._progress(number, cluster.name, name)
                found[name] = await self._workload(cluster, workload, log, found)
                if why := found[name].get("failed") or found[name].get("note"):
                    print(f"  {cluster.name} {name}: {why}", file=sys.stderr, flush=True)
                stalled = stalled + 1 if found[name].get("stalled") else 0
                if stalled == _STALLED:
                    reason = f"not tried: the last {_STALLED} workloads were not done in time"
            self.results.append(Result(number, cluster.name, name, found[name]))

    async def _workload(
        self, cluster: Cluster, workload: Workload, log: Path, found: dict[str, Cell]
    ) -> Cell:
        given = self.plan.parameters
        if workload.kills:
            given = replace(given, times=self.plan.failovers)
        if workload.needs is not None:
            before = found[workload.needs]
            if "failed" in before:
                return before | {"took": 0.0}
            figures = before["figures"]
            given = replace(
                given,
                topic=workload.needs,
                records=int(figures.get("total", 0)),
                rate=figures["rate"],
            )
        return await measure(cluster, workload, given, log)

    def _progress(self, number: int, system: str, what: str) -> None:
        elapsed = time.monotonic() - self._started
        print(
            f"[{_clock(elapsed)}, about {_clock(self._rest())} left] "
            f"round {number + 1}/{self.plan.rounds} {system}: {what}",
            file=sys.stderr,
            flush=True,
        )

    def _rest(self) -> float:
        """Seconds the cells to come may take: as long as this system's or any system's took before."""
        took: dict[tuple[str, str], float] = {}
        any_took: dict[str, float] = {}
        for result in self.results:
            seconds = result.cell.get("took", 0.0)
            took[result.system, result.workload] = seconds
            any_took[result.workload] = seconds
        seen = {(r.round, r.system, r.workload) for r in self.results}
        return sum(
            took.get((system, workload), any_took.get(workload, _GUESS_SECONDS))
            for number in range(self.plan.rounds)
            for system in self.plan.systems
            for workload in self.plan.of(system)
            if (number, system, workload) not in seen
        )


def _remove(folder: Path) -> None:
    """With what the disk still has to write: the next system is not to wait for the last one's."""
    shutil.rmtree(folder, ignore_errors=True)
    os.sync()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes:.0f}:{seconds:02.0f}"
