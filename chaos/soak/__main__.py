"""``make soak [MINUTES=30]``: publish and retain for a long time, and see that nothing grows.

Three real brokers under a steady, modest load with short retention; now and then
a follower is killed and comes back, with its data (caught up from the log) or with
an empty disk (caught up by a snapshot), while publishing goes on. The last line is
the verdict; exit status 1 when something was lost, came twice, did not catch up, or
grew: when the least-squares line through the last two thirds of a series rises
by more than 5 % of its mean (or 6 MB; the allocated file: 32 MB) in that time. Plots
and samples are in drill-reports/.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from holdfast.chaos.keeper import INTERRUPTED, unwinding
from holdfast.chaos.processes import LocalCluster
from holdfast.chaos.soak import plot, probe
from holdfast.chaos.soak.load import RECORD_BYTES, Load
from holdfast.chaos.soak.returns import away_and_back
from holdfast.chaos.soak.watch import Watch
from holdfast.errors import HoldfastError

REPORTS = Path(__file__).resolve().parents[2] / "drill-reports"
#: Every n-th return is with an empty disk.
_WIPE_EVERY = 3
SETTINGS = {
    # A small quota makes a short log (8 MiB of quota an entry), so that it is trimmed all the time.
    "HOLDFAST_QUOTA_BYTES": str(2 << 30),
    "HOLDFAST_MAINTENANCE_INTERVAL_MS": "1000",
    # Short-lived clients leave idempotence state behind: it must go within the run.
    "HOLDFAST_MAINTENANCE_PRODUCER_IDLE_MS": "30000",
    "HOLDFAST_TELEMETRY_ENABLED": "true",
    "HOLDFAST_LOG_LEVEL": "warning",
}


class Soak:
    """One run. Times are seconds since its start."""

    def __init__(self, cluster: LocalCluster, minutes: float, records_per_s: int) -> None:
        self.cluster = cluster
        self.seconds = minutes * 60
        self.watch = Watch()
        self.load = Load(cluster.endpoints, records_per_s)
        self.problems: list[str] = []
        #: Processor seconds of the load generator, per second.
        self.own_cpu = 0.0
        self._began = time.monotonic()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Load, samples and returns; raises what the load raised."""
        interval = min(180.0, self.seconds / 7)
        load = asyncio.create_task(self.load.run(self._stop, churn_interval_s=min(10.0, self.seconds / 20)))
        sampling = asyncio.create_task(self._sample(max(1.0, min(5.0, self.seconds / 120))))
        returns = asyncio.create_task(self._returns(interval, min(20.0, interval / 3)))
        timer = asyncio.create_task(asyncio.sleep(self.seconds))
        try:
            # What ends before its time has failed, and says why.
            done, _ = await asyncio.wait({load, sampling, timer}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {timer}:
                task.result()
            self._stop.set()
            await returns
            await load
            self.own_cpu = probe.cpu_seconds(os.getpid()) / self._now()
            await self._compare_digests()
        finally:
            for task in (load, sampling, returns, timer):
                task.cancel()
            await asyncio.gather(load, sampling, returns, timer, return_exceptions=True)

    async def _sample(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            for node in self.cluster.brokers:
                sample = await asyncio.to_thread(probe.sample, self.cluster, node)
                if sample is not None:
                    self.watch.note(self._now(), node, sample)
            now = self._now()
            self.watch.client.append((now, float(probe.own_rss_anon())))
            self.watch.remembered.append((now, float(self.load.ledger.remembered)))
            self.watch.published.append((now, float(self.load.published)))
            self._say_now(now)

    async def _returns(self, interval_s: float, away_s: float) -> None:
        """Always the same follower, so that the memory of the others tells of the whole run."""
        victim, turn = "", 0
        due = interval_s / 2
        while not await self._stopped_before(due):
            leader = await asyncio.to_thread(self.cluster.wait_leader)
            if victim in {"", leader}:
                victim = next(node for node in self.cluster.brokers if node != leader)
                self.watch.restarted.add(victim)
            try:
                back = await away_and_back(
                    self.cluster, victim, away_s, wipe=turn % _WIPE_EVERY == 1, at=self._now()
                )
            except HoldfastError as error:
                self.problems.append(error.message)
                return
            self.watch.returns.append(back)
            _say(f"{self._now():.0f} s: {back}")
            turn += 1
            due += interval_s

    async def _stopped_before(self, due: float) -> bool:
        """Wait until ``due``; True when the run ends first (a return takes time, so none is begun late)."""
        if due + 15.0 > self.seconds and self.watch.returns:
            return True
        try:
            await asyncio.wait_for(self._stop.wait(), max(0.0, due - self._now()))
        except TimeoutError:
            return False
        return True

    async def _compare_digests(self) -> None:
        """Retention goes on, so start offsets may be of two moments: asked a few times."""
        for _ in range(5):
            statuses = [await asyncio.to_thread(self.cluster.status, node) for node in self.cluster.brokers]
            index = max(status.commit_index for status in statuses)
            digests = [await asyncio.to_thread(self.cluster.digest, n, index) for n in self.cluster.brokers]
            if len(set(digests)) == 1:
                return
            await asyncio.sleep(0.3)
        self.problems.append("digests of the replicas differ")

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _say_now(self, now: float) -> None:
        if len(self.watch.client) % 12:
            return
        parts = []
        for node, samples in self.watch.nodes.items():
            last = samples[-1][1]
            parts.append(f"{node} rss {last.rss_anon / 1e6:.0f} disk {last.disk / 1e6:.0f} MB")
        own = self.watch.client[-1][1] / 1e6
        _say(
            f"{now:.0f} s: published {self.load.published:,}; {'; '.join(parts)}; load generator {own:.0f} MB"
        )


def verdict(soak: Soak) -> tuple[str, list[str], bool]:
    """The last line, what to know beside it, and whether all is well."""
    watch, load, ledger = soak.watch, soak.load, soak.load.ledger
    trends = watch.trends()
    notes = []
    for name, trend in trends.items():
        if "rows" not in name or not trend.flat:
            notes.append(
                f"{name}: mean {trend.mean:.1f}, grew by {trend.growth:+.2f} in the judged part "
                f"({trend.per_hour:+.1f} per hour){'' if trend.flat else ': NOT FLAT'}"
            )
    by_log = [r.catch_up_s * 1e3 for r in watch.returns if r.by == "log"]
    by_snapshot = [r.catch_up_s * 1e3 for r in watch.returns if r.by == "snapshot"]
    first, last = (_largest(watch, moment) for moment in (0, -1))
    flat = all(trend.flat for trend in trends.values())
    notes.append(
        f"redelivered after reconnects: {ledger.redelivered}; unknown outcomes: {load.unknown}; "
        f"short-lived clients and topics: {load.short_lived}; longest time without an ack: "
        f"{load.longest_gap * 1e3:.0f} ms; processor per second: {_processor(watch):.2f} s for the brokers, "
        f"{soak.own_cpu:.2f} s for the load"
    )
    problems = [*soak.problems, *ledger.problems]
    if any(r.wiped and r.by == "log" for r in watch.returns):
        problems.append("a wiped broker was not fed a snapshot")
    if not watch.steady:
        # Leadership moved so often that each of them was the one to be killed.
        problems.append("no broker ran all the time: whether anything grows was not seen")
    notes += [f"PROBLEM {problem}" for problem in problems]
    line = (
        f"soak: minutes={soak.seconds / 60:g} published={load.published} lost={ledger.lost} "
        f"duplicated={ledger.duplicated} rss_mb_first={first[0]:.0f} rss_mb_last={last[0]:.0f} "
        f"disk_mb_first={first[1]:.0f} disk_mb_last={last[1]:.0f} "
        f"catch_up_log_ms={_worst(by_log)} catch_up_snapshot_ms={_worst(by_snapshot)} "
        f"flat={'yes' if flat else 'no'}"
    )
    complete = bool(by_log and by_snapshot and load.published)
    return line, notes, flat and complete and not problems and not ledger.lost and not ledger.duplicated


def _largest(watch: Watch, moment: int) -> tuple[float, float]:
    """Memory and disk (MB) of the largest broker never restarted: first or last sixth of what is judged."""
    found = []
    for series in (watch.rss_mb, watch.disk_mb):
        values = []
        for node in watch.steady:
            points = series(node)
            judged = points[len(points) // 3 :]
            some = max(1, len(judged) // 6)
            part = judged[:some] if moment == 0 else judged[-some:]
            values.append(sum(v for _, v in part) / len(part))
        found.append(max(values, default=0.0))
    return found[0], found[1]


def _processor(watch: Watch) -> float:
    used = 0.0
    for node in watch.steady:
        (begin, first), (end, last) = watch.nodes[node][0], watch.nodes[node][-1]
        if end > begin:
            used += (last.cpu_s - first.cpu_s) / (end - begin)
    return used * len(watch.nodes) / max(1, len(watch.steady))


def _worst(milliseconds: list[float]) -> str:
    return f"{max(milliseconds):.0f}" if milliseconds else "none"


def _say(text: str) -> None:
    print(f"soak: {text}", flush=True)


async def _run(cluster: LocalCluster, minutes: float, records_per_s: int) -> Soak:
    soak = Soak(cluster, minutes, records_per_s)
    await soak.run()
    return soak


def main() -> int:
    """Run the soak; the exit status."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--mb-per-s", type=float, default=2.0, help="of records of 1 KiB")
    parser.add_argument(
        "--data", type=Path, help="where brokers keep their data (default: a temporary folder)"
    )
    parser.add_argument("--reports", type=Path, default=REPORTS, help="where the plots go")
    arguments = parser.parse_args()
    records_per_s = max(1, round(arguments.mb_per_s * 1e6 / RECORD_BYTES))
    try:
        with (
            unwinding(),
            tempfile.TemporaryDirectory(prefix="holdfast-soak-") as scratch,
            LocalCluster(arguments.data or Path(scratch), settings=SETTINGS) as cluster,
        ):
            soak = asyncio.run(_run(cluster, arguments.minutes, records_per_s))
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    line, notes, well = verdict(soak)
    arguments.reports.mkdir(parents=True, exist_ok=True)
    report = arguments.reports / "soak.html"
    report.write_text(plot.page("Holdfast: soak", [line, *notes], soak.watch.panels(), soak.watch.marks()))
    soak.watch.save(report.with_suffix(".jsonl"))
    for note in notes:
        _say(note)
    _say(f"plots: {report.name} in {report.parent.name}/")
    print(line)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
