"""Where one sequential publish spends its time: ``python -m benchmarks.limits.timeline``.

Three brokers with their moments noted (``marks``), one client with one publish under way at a time. Each
step is found by the log index of its publish, so nothing is taken for another one's, and given in
microseconds since the client's call, with the time since the step that causes it. Noting costs about a
microsecond per moment; the same publishes through brokers that note nothing are measured in the same run,
to tell how much the table is off. On a busy machine look at the fast tenth and at the thread's own
processor time rather than at medians.
"""

from __future__ import annotations

import argparse
import bisect
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

import holdfast
from benchmarks.limits import marks, threads
from benchmarks.limits.brokers import brokers
from benchmarks.limits.marks import Moment
from holdfast.chaos.processes import LocalCluster
from holdfast.client.connection import Endpoint

_WARM_UP = 300


@dataclass(frozen=True, slots=True)
class Step:
    """A row: what happens, where, and which step it follows from."""

    key: str
    where: str
    text: str
    after: str


STEPS = (
    Step("call", "client", "publish() called", ""),
    Step("written", "client", "request handed to gRPC", "call"),
    Step("received", "leader, loop", "request in the handler", "written"),
    Step("proposed", "leader, loop", "parsed, checked, encoded; engine called", "received"),
    Step("woken", "leader, engine", "engine's thread runs", "proposed"),
    Step("appended", "leader, engine", "appended to the open transaction", "woken"),
    Step(
        "ship_1", "leader, engine", "frame made; encoded and written to the first follower next", "appended"
    ),
    Step("ship_2", "leader, engine", "written; to the second follower next", "ship_1"),
    Step("commit", "leader, engine", "made durable: begins", "ship_2"),
    Step("committed", "leader, engine", "durable", "commit"),
    Step("f_woken", "follower, engine", "engine's thread runs", "ship_1"),
    Step("f_polled", "follower, engine", "frame read, checked and parsed", "f_woken"),
    Step("f_appended", "follower, engine", "appended to the open transaction", "f_polled"),
    Step("f_commit", "follower, engine", "made durable: begins", "f_appended"),
    Step("f_committed", "follower, engine", "durable", "f_commit"),
    Step("f_ack", "follower, engine", "ack made; encoded and written next", "f_committed"),
    Step("a_woken", "leader, engine", "engine's thread runs (its own commit has ended, too)", "f_ack"),
    Step("acked", "leader, engine", "ack handled: a majority has it", "a_woken"),
    Step("applied", "leader, engine", "applied", "acked"),
    Step("deliver", "leader, engine", "result handed to the loop", "applied"),
    Step("reported", "leader, loop", "loop has it", "deliver"),
    Step("answer", "leader, loop", "response handed to gRPC", "reported"),
    Step("read", "client", "response given by gRPC", "answer"),
    Step("done", "client", "publish() has returned", "read"),
    Step("turned", "leader, engine", "engine's turn over, which applied it (not waited for)", "deliver"),
    Step("g_ack", "other follower", "ack made", "ship_2"),
)

Times = dict[str, int]


@dataclass(frozen=True, slots=True)
class Trace:
    """One publish: when each step was (ns), and the processor time of its thread then (ns)."""

    times: Times
    cpu: Times


class Log:
    """The moments of one process, to be asked for by name, number and time."""

    def __init__(self, moments: Sequence[Moment]) -> None:
        self._at: dict[str, list[int]] = {}
        self._numbers: dict[str, list[int]] = {}
        #: Processor time of the thread by the time of a moment.
        self.cpu: dict[int, int] = {}
        for name, at, number, used in sorted(moments, key=lambda moment: moment[1]):
            self.cpu[at] = used
            self._at.setdefault(name, []).append(at)
            self._numbers.setdefault(name, []).append(number)

    def count(self, name: str) -> int:
        return len(self._at.get(name, []))

    def before(self, name: str, at: int) -> int | None:
        """The last ``name`` at or before a time."""
        times = self._at.get(name, [])
        place = bisect.bisect_right(times, at)
        return times[place - 1] if place else None

    def after(self, name: str, at: int) -> int | None:
        """The first ``name`` at or after a time."""
        times = self._at.get(name, [])
        place = bisect.bisect_left(times, at)
        return times[place] if place < len(times) else None

    def numbered(self, name: str, least: int, since: int) -> list[int]:
        """All ``name`` after a time with a number of at least ``least``, up to eight, in order."""
        times, numbers = self._at.get(name, []), self._numbers.get(name, [])
        place = bisect.bisect_left(times, since)
        found: list[int] = []
        while place < len(times) and len(found) < 8:
            if numbers[place] >= least:
                found.append(times[place])
            place += 1
        return found

    def within(self, name: str, start: int, end: int) -> list[tuple[int, int]]:
        """(time, number) of every ``name`` in a stretch of time."""
        times = self._at.get(name, [])
        numbers = self._numbers.get(name, [])
        first, last = bisect.bisect_left(times, start), bisect.bisect_right(times, end)
        return list(zip(times[first:last], numbers[first:last], strict=True))


def trace(client: Times, leader: Log, followers: Sequence[Log]) -> Trace | None:
    """The steps of one publish; None when its entry is not found in the leader's log of moments."""
    appended = leader.within("appended", client["call"], client["done"])
    if not appended:
        return None
    times: dict[str, int | None] = dict(client)
    at, index = appended[-1]
    times["appended"] = at
    times["woken"] = leader.before("woken", at)
    times["proposed"] = leader.before("proposed", at)
    times["received"] = leader.before("received", at)
    for place, ship in enumerate(leader.numbered("ship", index, at)[:2], 1):
        times[f"ship_{place}"] = ship
    times["commit"] = leader.after("commit", at)
    times["committed"] = leader.after("committed", times["commit"] or at)
    found = [(_of_follower(follower, index, at), follower) for follower in followers]
    found.sort(key=lambda pair: pair[0]["f_ack"] or sys.maxsize)
    times |= found[0][0]
    if len(found) > 1:
        times["g_ack"] = found[1][0]["f_ack"]
    acked = next(iter(leader.numbered("acked", index, at)), None)
    times["acked"] = acked
    if acked is not None:
        times["a_woken"] = leader.before("woken", acked)
    applied = next(iter(leader.numbered("applied", index, at)), None)
    times["applied"] = applied
    deliver = leader.after("deliver", applied) if applied is not None else None
    times["deliver"] = deliver
    if deliver is not None:
        times["reported"] = leader.after("reported", deliver)
        times["turned"] = leader.after("turned", deliver)
    told = times.get("reported") or deliver
    if told is not None:
        times["answer"] = leader.after("answer", told)
    known = {key: at for key, at in times.items() if at is not None}
    cpu = {}
    for key, at in known.items():
        log = found[0][1] if key.startswith("f_") else leader
        if at in log.cpu:
            cpu[key] = log.cpu[at]
    return Trace(known, cpu)


def _of_follower(log: Log, index: int, since: int) -> dict[str, int | None]:
    steps: dict[str, int | None] = dict.fromkeys(
        ("f_woken", "f_polled", "f_appended", "f_commit", "f_committed", "f_ack")
    )
    appended = next(iter(log.numbered("appended", index, since)), None)
    if appended is None:
        return steps
    steps["f_appended"] = appended
    steps["f_polled"] = log.before("polled", appended)
    steps["f_woken"] = log.before("woken", appended)
    steps["f_commit"] = log.after("commit", appended)
    if steps["f_commit"] is not None:
        steps["f_committed"] = log.after("committed", steps["f_commit"])
    steps["f_ack"] = next(iter(log.numbered("ack", index, appended)), None)
    return steps


def table(traces: Sequence[Trace]) -> list[str]:
    """Medians of all steps in µs; a step that was never seen has dashes."""
    lines = [
        f"{'':>7} {'since the step before':^31}",
        f"{'at':>7} {'fast 10th':>10} {'median':>7} {'slow 10th':>10} {'CPU':>6}  {'where':<16} step",
        "",
    ]
    by_key = {step.key: step for step in STEPS}
    for step in STEPS:
        cause = by_key.get(step.after)
        here = [t.times for t in traces if step.key in t.times]
        at = f"{statistics.median(t[step.key] - t['call'] for t in here) / 1e3:.0f}" if here else "-"
        deltas = sorted(t[step.key] - t[step.after] for t in here if step.after in t)
        spread = [f"{_share(deltas, share):.0f}" if deltas else "-" for share in (0.1, 0.5, 0.9)]
        cpu = "-"
        if cause is not None and cause.where == step.where:
            used = sorted(
                t.cpu[step.key] - t.cpu[step.after] for t in traces if {step.key, step.after} <= t.cpu.keys()
            )
            cpu = f"{_share(used, 0.5):.0f}" if used else "-"
        previous = STEPS[STEPS.index(step) - 1]
        since = f"  [since: {cause.text}]" if cause is not None and cause is not previous else ""
        figures = f"{at:>7} {spread[0]:>10} {spread[1]:>7} {spread[2]:>10} {cpu:>6}"
        lines.append(f"{figures}  {step.where:<16} {step.text}{since}")
    if any(all(step.key not in trace.times for trace in traces) for step in STEPS):
        lines += [
            "",
            "Dashes: never seen; its function may have another name now (benchmarks/limits/marks.py).",
        ]
    return lines


def _share(ordered: Sequence[int], share: float) -> float:
    """A quantile, ns to µs."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e3


# -- the client -----------------------------------------------------------------


class _NotedCall:
    """A publish stream whose writes and reads are noted."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def write(self, request: bytes) -> None:
        await self._call.write(request)
        marks.note("written")

    async def read(self) -> Any:
        response = await self._call.read()
        marks.note("read")
        return response

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


def _note_client() -> None:
    """The SDK's publish streams note their writes and reads from now on."""
    original: Any = Endpoint.publish_stream

    def publish_stream(self: Endpoint) -> Any:
        return _NotedCall(original(self))

    Endpoint.publish_stream = publish_stream  # type: ignore[method-assign]


async def publish(bus: holdfast.Client, count: int) -> list[tuple[int, int]]:
    """(call, return) in ns of sequential publishes of 100 B, after some that are not counted."""
    payload = bytes(range(100))
    for _ in range(_WARM_UP):
        await bus.publish("timeline", payload)
    spans = []
    for _ in range(count):
        began = time.perf_counter_ns()
        await bus.publish("timeline", payload)
        spans.append((began, time.perf_counter_ns()))
    return spans


@dataclass(frozen=True, slots=True)
class Run:
    """What one cluster gave."""

    p50_us: float
    traces: list[Trace]
    used: dict[str, dict[str, threads.Usage]]
    count: int


async def measure(scratch: Path, count: int, *, noted: bool) -> Run:
    """Publish through a fresh cluster under ``scratch``."""
    files = {node: scratch / f"{node}.moments" for node in ("n1", "n2", "n3")}
    with brokers(scratch, {n: {"HF_MOMENTS": str(f)} for n, f in files.items()} if noted else {}) as cluster:
        leader = cluster.wait_leader()
        pids = {"leader": cluster.brokers[leader].pid}
        others = [node for node in cluster.brokers if node != leader]
        pids |= {f"follower {n}": cluster.brokers[node].pid for n, node in enumerate(others, 1)}
        async with holdfast.connect(cluster.endpoints) as bus:
            await bus.create_topic("timeline", partitions=1)
            if noted:
                marks.MOMENTS.clear()
                _note_client()
            await publish(bus, 1)
            before = {name: threads.of(pid) for name, pid in pids.items()}
            spans = await publish(bus, count)
            used = {name: threads.since(before[name], threads.of(pid), pid) for name, pid in pids.items()}
        p50 = statistics.median(end - began for began, end in spans) / 1e3
        if not noted:
            return Run(p50, [], used, count + _WARM_UP)
        _stop(cluster)
    mine = Log(marks.MOMENTS)
    # On a busy machine another node may have come to lead: the one that sent the most appends did.
    logs = [Log(marks.read(file)) for file in files.values()]
    led = max(logs, key=lambda log: log.count("ship"))
    followed = [log for log in logs if log is not led]
    traces = []
    for began, end in spans:
        client: dict[str, int | None] = {"call": began, "done": end, "written": mine.after("written", began)}
        client["read"] = mine.before("read", end)
        found = trace({key: at for key, at in client.items() if at is not None}, led, followed)
        if found is not None:
            traces.append(found)
    return Run(p50, traces, used, count + _WARM_UP)


def _stop(cluster: LocalCluster) -> None:
    # The leader last: its moments after the others have gone are not looked at.
    for broker in cluster.brokers.values():
        broker.stop()


async def run(count: int, data: Path | None, *, usage: bool = True) -> list[str]:
    """The whole report; ``usage``: with what each thread has used."""
    with tempfile.TemporaryDirectory(prefix="holdfast-limits-", dir=data) as scratch:
        plain = await measure(Path(scratch) / "plain", count, noted=False)
        noted = await measure(Path(scratch) / "noted", count, noted=True)
    lines = [
        f"Sequential publish of 100 B through the SDK: median {plain.p50_us:.0f} µs; with every moment noted "
        f"{noted.p50_us:.0f} µs, of which the table tells ({len(noted.traces)} publishes; medians, µs).",
        "",
        *table(noted.traces),
    ]
    if usage:
        lines += ["", "Without noting:", "", *threads.table(plain.used, plain.count)]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits.timeline", description=__doc__)
    parser.add_argument("--count", type=int, default=1500, help="publishes")
    parser.add_argument("--data", type=Path, help="folder for the brokers' data")
    arguments = parser.parse_args()
    print("\n".join(uvloop.run(run(arguments.count, arguments.data))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
