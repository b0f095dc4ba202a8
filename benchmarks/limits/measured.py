"""One workload through a fresh cluster: its figure, who used the processors, and profiles."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.limits import sampling, threads
from benchmarks.limits.apart import Apart
from benchmarks.limits.brokers import brokers
from benchmarks.limits.work import Done

_SAMPLER_STARTS = 1.0


@dataclass(slots=True)
class Measured:
    """``used`` is of the pass without profilers, by process and role of the thread."""

    workload: str
    done: Done
    used: dict[str, dict[str, threads.Usage]]
    samples: sampling.Samples
    #: Main thread's id of each process, to know its event loop by.
    pids: dict[str, int]
    #: Names of all threads by id, and the ids of each process.
    names: dict[int, str]
    threads_of: dict[str, list[int]]
    #: System calls per record, by process.
    calls: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        return self.done["records"] / self.done["seconds"]

    @property
    def cpu_seconds(self) -> float:
        """Of the client and the brokers."""
        return sum(usage.seconds for roles in self.used.values() for usage in roles.values())


def measure(
    workload: str, folder: Path, seconds: float, *, profile: bool, count_calls: bool = False
) -> Measured:
    """Three brokers, a client, one pass that counts, one for each profiler, one for strace."""
    with _cluster(folder) as (addresses, pids):
        passes = 1 + 2 * int(profile) + int(count_calls)
        client = Apart(
            "benchmarks.limits.work:run",
            addresses=addresses,
            workload=workload,
            seconds=seconds,
            passes=passes,
        )
        try:
            pids["client"] = client.pid
            client.begin()
            client.heard()
            before = {name: threads.of(pid) for name, pid in pids.items()}
            client.begin()
            done: Done = client.heard()
            after = {name: threads.of(pid) for name, pid in pids.items()}
            used = {name: threads.since(before[name], after[name], pid) for name, pid in pids.items()}
            samples = _profiled(client, folder, pids, seconds) if profile else sampling.Samples()
            # Once more: a thread may have begun since.
            after = {name: threads.of(pid) for name, pid in pids.items()}
            calls = _counted(client, folder, pids) if count_calls else {}
            names = {tid: name for seen in after.values() for tid, name in seen}
            ids = {process: [tid for tid, _ in seen] for process, seen in after.items()}
            return Measured(workload, done, used, samples, pids, names, ids, calls)
        finally:
            client.end()


@contextmanager
def _cluster(folder: Path) -> Iterator[tuple[list[str], dict[str, int]]]:
    """Addresses, and process ids by what a broker is: leader, follower 1, follower 2."""
    with tempfile.TemporaryDirectory(prefix="brokers-", dir=folder) as data, brokers(Path(data)) as cluster:
        leader = cluster.wait_leader()
        others = [node for node in cluster.brokers if node != leader]
        pids = {"leader": cluster.brokers[leader].pid}
        pids |= {f"follower {n}": cluster.brokers[node].pid for n, node in enumerate(others, 1)}
        yield cluster.endpoints, pids


def _profiled(client: Apart, folder: Path, pids: dict[str, int], seconds: float) -> sampling.Samples:
    watched = {name: pid for name, pid in pids.items() if name != "follower 2"}
    with tempfile.TemporaryDirectory(prefix="samples-", dir=folder) as where:
        sampler = sampling.Sampler(Path(where), watched, seconds + _SAMPLER_STARTS)
        for begin in (sampler.begin_processor, sampler.begin_functions):
            client.heard()
            begin()
            # They take a while to read the processes' symbols, which is not to be seen in the profile.
            time.sleep(_SAMPLER_STARTS)
            client.begin()
            client.heard()
            sampler.end()
        return sampler.samples


def _counted(client: Apart, folder: Path, pids: dict[str, int]) -> dict[str, dict[str, float]]:
    """Calls per record. strace makes each many times slower, which changes how many records share one."""
    watched = {name: pid for name, pid in pids.items() if name != "follower 2"}
    client.heard()
    with tempfile.TemporaryDirectory(prefix="calls-", dir=folder) as where:
        running = {name: sampling.syscalls(pid, Path(where)) for name, pid in watched.items()}
        time.sleep(0.5)
        client.begin()
        done: Done = client.heard()
        found = {}
        for name, process in running.items():
            if process is not None:
                counts = sampling.counted(process, watched[name], Path(where))
                found[name] = {call: count / done["records"] for call, count in counts.items()}
        return found
