"""The workloads by name, in the order they run in: later ones read what earlier ones published."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.compare.workloads import failover, latency, publishing, reading
from benchmarks.compare.workloads.context import Context, Figures

#: Figures by name; a list where the rounds are to be pooled.
Run = Callable[[Context], Awaitable[Figures]]


@dataclass(frozen=True, slots=True)
class Workload:
    """``run`` measures in the worker process; ``deadline`` seconds are the most it may take there."""

    name: str
    run: Run
    deadline: float = 60.0
    #: The workload whose topic or rate it uses.
    needs: str | None = None
    #: It asks for the leader to be killed, ``Parameters.times`` times.
    kills: bool = False


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("sequential", publishing.sequential),
        Workload("pipelined-100", partial(publishing.pipelined, size=100, fill=True)),
        Workload("pipelined-1k", partial(publishing.pipelined, size=1024, fill=True)),
        Workload("pipelined-10k", partial(publishing.pipelined, size=10240)),
        Workload("publishers-1", partial(publishing.concurrent, publishers=1)),
        Workload("publishers-16", partial(publishing.concurrent, publishers=16)),
        Workload("publishers-128", partial(publishing.concurrent, publishers=128)),
        Workload("mixed", reading.mixed),
        Workload("latency-half", partial(latency.at_rate, share=0.5), needs="mixed"),
        Workload("latency-1000", latency.at_rate),
        Workload("replay-100", partial(reading.replay, size=100), needs="pipelined-100"),
        Workload("replay-1k", partial(reading.replay, size=1024), needs="pipelined-1k"),
        Workload("group", reading.group, needs="pipelined-100"),
        Workload("failover", failover.failover, kills=True),
    )
}
