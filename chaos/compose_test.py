"""``make compose-test``: three containers lose their leader, and nothing is lost.

Builds the image, starts the brokers of ``docker-compose.yml`` under a project of
its own, publishes, kills the leader's container, goes on publishing, starts it
again, replays from every broker and compares with what was acknowledged. The
last line is the verdict. Exit status: 0, 1 when something was lost, 2 when there
is no Docker engine.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import holdfast
from holdfast.chaos.compose import Compose, find_compose
from holdfast.chaos.keeper import unwinding
from holdfast.errors import HoldfastError

PROJECT = "holdfast-compose-test"
TOPIC = "drill"
PARTITIONS = 6
KEYS = 50
#: Records published and not yet acknowledged, at most: the leader dies with this many under way.
WINDOW = 500


@dataclass(slots=True)
class Report:
    """What was acknowledged, and what the replays showed."""

    acked: dict[tuple[int, int], bytes] = field(default_factory=dict)
    replayed: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    #: The longest time without an acknowledgement, from the kill on.
    failover_ms: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.duplicated or self.out_of_order or self.problems)

    def line(self) -> str:
        return (
            f"compose-test: acked={len(self.acked)} replayed={self.replayed} lost={self.lost} "
            f"duplicated={self.duplicated} out_of_order={self.out_of_order} "
            f"failover_ms={self.failover_ms:.0f}"
        )


class Drill:
    """Publishes ``total`` records or some more, and kills the leader's container after half of them."""

    def __init__(self, compose: Compose, total: int) -> None:
        self.compose = compose
        self.total = total
        self.report = Report()
        self._last_ack = 0.0

    async def run(self) -> Report:
        compose, services = self.compose, set(self.compose.endpoints)
        leader = await asyncio.to_thread(compose.wait_leader, services)
        _say(f"three brokers, {leader} leads")
        async with holdfast.connect(list(compose.endpoints.values())) as bus:
            await bus.create_topic(TOPIC, partitions=PARTITIONS)
            await self._publish(bus, leader)
        survivor = await asyncio.to_thread(compose.wait_leader, services - {leader})
        _say(f"{survivor} leads; {len(self.report.acked)} records acknowledged; starting {leader} again")
        await asyncio.to_thread(compose.run, "start", leader)
        await asyncio.to_thread(compose.wait_leader, services)
        await self._compare_digests()
        for service, endpoint in compose.endpoints.items():
            await self._replay(service, endpoint)
        return self.report

    async def _publish(self, bus: holdfast.Client, victim: str) -> None:
        """Publish; ``victim`` is killed with records under way; half of all records come after that."""
        killing: asyncio.Task[str] | None = None
        number = after = 0
        while number < self.total or after < self.total // 2:
            if killing is None and number >= self.total // 2:
                _say(f"killing {victim}, the leader")
                self._last_ack = time.monotonic()
                killing = asyncio.create_task(
                    asyncio.to_thread(self.compose.run, "kill", "-s", "SIGKILL", victim)
                )
            elif killing is not None and killing.done():
                after += WINDOW
            numbers = range(number, number + WINDOW)
            number += WINDOW
            futures = [bus.publish(TOPIC, _value(n), key=_key(n), timeout=60.0) for n in numbers]
            for future in futures:
                future.add_done_callback(self._on_ack)
            for n, ack in zip(numbers, await asyncio.gather(*futures), strict=True):
                place = (ack.partition, ack.offset)
                if place in self.report.acked:
                    self.report.problems.append(f"two records were acknowledged at {place}")
                self.report.acked[place] = _value(n)
        if killing is not None:
            await killing

    def _on_ack(self, _future: object) -> None:
        # The longest silence since the kill is what a publisher saw of the failover.
        if self._last_ack:
            now = time.monotonic()
            self.report.failover_ms = max(self.report.failover_ms, (now - self._last_ack) * 1e3)
            self._last_ack = now

    async def _compare_digests(self) -> None:
        statuses = [self.compose.status(service) for service in self.compose.endpoints]
        index = max(status.commit_index for status in statuses if status is not None)
        digests = [
            await asyncio.to_thread(self.compose.digests, s, TOPIC, index) for s in self.compose.endpoints
        ]
        if any(other != digests[0] for other in digests):
            self.report.problems.append(f"replica digests differ: {digests}")
        else:
            _say(f"digests of {PARTITIONS} partitions are equal on three replicas")

    async def _replay(self, service: str, endpoint: str) -> None:
        report = self.report
        found: dict[tuple[int, int], bytes] = {}
        by_key: defaultdict[bytes, list[int]] = defaultdict(list)
        async with holdfast.connect([endpoint], discover=False) as bus:
            async for record in bus.replay(TOPIC, linearizable=True):
                found[record.partition, record.offset] = record.value
                by_key[record.key or b""].append(int(record.value))
        report.replayed = len(found)
        lost = sum(1 for place, value in report.acked.items() if found.get(place) != value)
        duplicated = sum(count - 1 for count in Counter(found.values()).values())
        out_of_order = sum(1 for numbers in by_key.values() if numbers != sorted(numbers))
        report.lost, report.duplicated = max(report.lost, lost), max(report.duplicated, duplicated)
        report.out_of_order = max(report.out_of_order, out_of_order)
        _say(f"replayed {len(found)} records from {service}")


def _key(number: int) -> bytes:
    return b"key-%d" % (number % KEYS)


def _value(number: int) -> bytes:
    return b"%d" % number


def _say(text: str) -> None:
    print(f"compose-test: {text}", flush=True)


@contextmanager
def _running(compose: Compose, *, keep: bool) -> Iterator[None]:
    try:
        compose.run("down", "--volumes", "--remove-orphans")
        _say("building the image")
        compose.run("build")
        _say("starting three brokers")
        compose.run("up", "-d")
        yield
    finally:
        if not keep:
            compose.run("down", "--volumes", "--remove-orphans")


def main() -> int:
    """Run the drill; the exit status."""
    parser = argparse.ArgumentParser(prog="make compose-test", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--keep", action="store_true", help="leave the containers running at the end")
    arguments = parser.parse_args()
    command = find_compose()
    if command is None:
        print(
            "compose-test: no Docker engine is reachable here, or Compose is missing. Start one "
            "(`docker info` must work, and `docker compose` or `docker-compose`), then run this again.",
            file=sys.stderr,
        )
        return 2
    compose = Compose(command, PROJECT)
    try:
        with unwinding(), _running(compose, keep=arguments.keep):
            report = asyncio.run(Drill(compose, arguments.records).run())
    except HoldfastError as error:
        print(f"compose-test: {error}", file=sys.stderr)
        return 1
    for problem in report.problems:
        print(f"compose-test: {problem}", file=sys.stderr)
    print(report.line())
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
