"""``python -m benchmarks.idle_groups``: what many groups and members cost a leader when nothing happens.

Three local brokers; 10,000 groups are made and 1,000 members join a part of them, ten a group. Then
nothing is published for 20 s, and the processor seconds each broker used in that time are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

import holdfast
from holdfast import GroupDefinition
from holdfast.chaos.processes import LocalCluster
from holdfast.client.events import Assigned, SubscriptionEvent

PER_GROUP = 10
#: Calls and joins under way at once while it is set up.
AT_ONCE = 64
DEFINITION = GroupDefinition(topics=["orders"], ordering="key")
#: What the bound is: one core.
GOAL = 1.0


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def make_groups(bus: holdfast.Client, count: int) -> None:
    """As many defined groups."""
    room = asyncio.Semaphore(AT_ONCE)

    async def make(number: int) -> None:
        async with room:
            await bus.create_group(f"g{number:05}", DEFINITION)

    await asyncio.gather(*(make(number) for number in range(count)))


async def join_all(stack: AsyncExitStack, endpoints: list[str], count: int, per_client: int) -> list[str]:
    """As many members, all of them with partitions; grows by what happens to them later."""
    room = asyncio.Semaphore(AT_ONCE)
    happened: list[str] = []
    clients: list[holdfast.Client] = []
    for _ in range(0, count, per_client):
        clients.append(await stack.enter_async_context(holdfast.connect(endpoints)))

    async def join(number: int) -> None:
        assigned = asyncio.Event()

        def told(event: SubscriptionEvent) -> None:
            if isinstance(event, Assigned):
                assigned.set()
            else:
                happened.append(f"member {number}: {event}")

        async with room, asyncio.timeout(60):
            bus = clients[number // per_client]
            member = bus.join(f"g{number // PER_GROUP:05}", on_event=told)
            await stack.enter_async_context(member)
            await assigned.wait()

    await asyncio.gather(*(join(number) for number in range(count)))
    happened.clear()
    return happened


async def measure(cluster: LocalCluster, groups: int, members: int, per_client: int, seconds: float) -> bool:
    """Whether the leader stayed within the bound."""
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(holdfast.connect(cluster.endpoints))
        await bus.create_topic("orders", partitions=4)
        began = time.perf_counter()
        await make_groups(bus, groups)
        made = time.perf_counter()
        print(f"{groups:,} groups made in {made - began:.1f} s", file=sys.stderr)
        happened = await join_all(stack, cluster.endpoints, members, per_client)
        print(f"{members:,} members joined in {time.perf_counter() - made:.1f} s", file=sys.stderr)
        await asyncio.sleep(5)
        leader = cluster.wait_leader()
        before = {name: processor_seconds(broker.pid) for name, broker in cluster.brokers.items()}
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        lasted = time.perf_counter() - began
        for name, broker in cluster.brokers.items():
            used = processor_seconds(broker.pid) - before[name]
            what = "leader" if name == leader else "follower"
            print(f"{name}, {what}: {used:.2f} s of a processor in {lasted:.1f} s, {used / lasted:.1%}")
            if name == leader:
                share = used / lasted
        if happened or cluster.wait_leader() != leader:
            raise SystemExit(f"it was not idle: {happened[:5]}, leader {leader}")
        found = sum([len((await bus.group(f"g{n:05}")).members) for n in range(-(-members // PER_GROUP))])
        if found != members:
            raise SystemExit(f"{found} of {members} members are there")
        print(
            f"{groups:,} groups, {members:,} members: the leader takes {share:.1%} of a core at idle "
            f"(goal below {GOAL:.0%}: {'met' if share < GOAL else 'NOT MET'})"
        )
        return share < GOAL


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=10_000)
    parser.add_argument("--members", type=int, default=1_000, help="ten a group, of the first groups")
    parser.add_argument(
        "--per-client", type=int, default=20, help="members that share a client's connections"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="how long nothing happens")
    arguments = parser.parse_args()
    if arguments.per_client < 1:
        parser.error("--per-client: at least 1")
    if not 0 <= arguments.members <= arguments.groups * PER_GROUP:
        parser.error(f"--members: up to {PER_GROUP} a group")
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalCluster(Path(directory)) as cluster,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        met = runner.run(
            measure(cluster, arguments.groups, arguments.members, arguments.per_client, arguments.seconds)
        )
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
