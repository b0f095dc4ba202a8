"""``make bench-delivery``: what members of defined groups are handed and settle per second.

Three local brokers and one client process on this machine. ``partition``: one
member, whole batches, ``ack_through`` once per fetch. ``key``: one member with 64 records in
flight, each acked by itself. Medians of several runs; the machine's own speed varies, so
only figures of one run compare.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

import holdfast
from holdfast import GroupDefinition
from holdfast.chaos.processes import LocalCluster

VALUE = b"x" * 100
KEYS = 10_000
IN_FLIGHT = 64


async def by_partition(bus: holdfast.Client, group: str, count: int) -> float:
    """Records per second of 100 B, in order within partitions."""
    definition = GroupDefinition(topics=["whole"])
    async with bus.join(group, definition, max_in_flight=40_000) as member:
        left = count
        began = time.perf_counter()
        while left > 0:
            taken = await member.take(4_096)
            last: dict[int, holdfast.Record] = {}
            for record in taken:
                last[record.partition] = record
            for record in last.values():
                member.ack_through(record)
            left -= len(taken)
        await member.settled()
        return count / (time.perf_counter() - began)


async def by_key(bus: holdfast.Client, group: str, count: int) -> float:
    """Records per second of 100 B, one of a key at a time, 64 at once, each acked by itself."""
    definition = GroupDefinition(topics=["keyed"], ordering="key")
    member = bus.join(group, definition, max_in_flight=IN_FLIGHT, concurrency=IN_FLIGHT)
    async with member:
        left = count
        began = time.perf_counter()
        async for record in member:
            record.ack()
            left -= 1
            if not left:
                break
        await member.settled()
        return count / (time.perf_counter() - began)


async def measure(cluster: LocalCluster, runs: int, count: int, only: str) -> None:
    async with holdfast.connect(cluster.endpoints) as bus:
        await bus.create_topic("whole", partitions=3)
        await bus.create_topic("keyed", partitions=3)
        print(f"publishing {count:,} records twice", file=sys.stderr)
        await bus.publish_many("whole", [VALUE] * count)
        for i in range(count):
            bus.send("keyed", VALUE, key=b"key-%d" % (i % KEYS))
            if i % 10_000 == 0:
                await bus.drain()
        await bus.flush()
        for name, goal, work, share in (
            ("partition", 300_000, by_partition, 1),
            ("key", 50_000, by_key, 4),
        ):
            if only in ("", name):
                found = []
                for run in range(runs):
                    found.append(await work(bus, f"{name}-{run}", count // share))
                    print(f"{name} {run + 1}/{runs}: {found[-1]:,.0f}/s", file=sys.stderr)
                middle = statistics.median(found)
                verdict = "met" if middle >= goal else "NOT MET"
                print(f"ordering={name}: {middle:,.0f} records/s (goal {goal:,}: {verdict})")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--records", type=int, default=400_000, help="published to each of the two topics")
    parser.add_argument("--only", choices=("", "partition", "key"), default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, LocalCluster(Path(directory)) as cluster:
        cluster.wait_leader()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure(cluster, arguments.runs, arguments.records, arguments.only))


if __name__ == "__main__":
    main()
