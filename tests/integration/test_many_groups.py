"""Many groups and members on real brokers: what they cost at idle, and what a rebalance moves."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from holdfast.client.groups import GroupDefinition
from holdfast.client.membership import Membership
from holdfast.cluster.commands import check_op
from holdfast.cluster.results import Completed
from holdfast.v1 import log_pb2

from .delivery_kit import Node, single
from .test_members import client

GROUPS = 2_000
MEMBERS = 200
PARTITIONS = 200
CROWD = 100

#: By topic id and partition.
Owners = dict[tuple[int, int], str]


class Proposals:
    """What the broker proposes from now on."""

    def __init__(self, node: Node) -> None:
        self.ops: list[log_pb2.Op] = []
        bridge = node.broker.bridge
        propose = bridge.propose

        def noted(op: bytes, timeout: float) -> asyncio.Future[Completed]:
            self.ops.append(check_op(op))
            return propose(op, timeout)

        bridge.propose = noted  # type: ignore[method-assign]


class Rebalances:
    """Follows who owns what, one ReshapeOp after the other."""

    def __init__(self, proposals: Proposals) -> None:
        self._ops = proposals.ops
        self._owners: Owners = {}
        self._members: set[str] = set()

    def take(self) -> int:
        """How many partitions were taken from members that stayed; no rebalance took one too many."""
        total = 0
        for op in self._ops:
            reshape = op.reshape
            self._members |= {row.id for row in reshape.join}
            self._members -= set(reshape.leave)
            after = self._owners | {(it.topic_id, it.partition): it.member for it in reshape.owners}
            moved = [at for at, name in self._owners.items() if name in self._members and after[at] != name]
            assert len(moved) == least(self._owners, self._members)
            total += len(moved)
            self._owners = after
        self._ops.clear()
        return total


async def test_many_groups_and_members_cost_next_to_nothing_when_nothing_happens(tmp_path: Path) -> None:
    """Groups without members are no more than rows; members without records are their heartbeats."""
    async with single(tmp_path) as node, AsyncExitStack() as stack, asyncio.timeout(60):
        bus = await stack.enter_async_context(client(node))
        await bus.create_topic("orders", partitions=4)
        definition = GroupDefinition(topics=["orders"], ordering="key")
        at_once = asyncio.Semaphore(64)

        async def make(number: int) -> None:
            async with at_once:
                await bus.create_group(f"g{number}", definition)

        await asyncio.gather(*(make(number) for number in range(GROUPS)))
        buses = [await stack.enter_async_context(client(node)) for _ in range(4)]
        members = [buses[i % 4].join(f"g{i % 20}") for i in range(MEMBERS)]
        for member in members:
            stack.push_async_callback(member.close)
        while not all(len(member.assignment) == 4 for member in members):
            await asyncio.sleep(0.05)

        await asyncio.sleep(1.0)
        proposals = Proposals(node)
        began, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(5.0)
        share = (time.process_time() - used) / (time.perf_counter() - began)
        assert not proposals.ops
        assert share < 0.5, f"broker and {MEMBERS} members together took {share:.0%} of a core"
        assert len((await bus.group("g7")).members) == MEMBERS // 20


async def test_a_hundred_members_come_and_go_and_nothing_moves_that_need_not(tmp_path: Path) -> None:
    async with single(tmp_path) as node, AsyncExitStack() as stack, asyncio.timeout(90):
        bus = await stack.enter_async_context(client(node))
        await bus.create_topic("orders", partitions=PARTITIONS)
        definition = GroupDefinition(topics=["orders"], ordering="partition")
        crowd: dict[str, Membership] = {}
        rebalances = Rebalances(Proposals(node))

        def enter(*numbers: int) -> None:
            for number in numbers:
                crowd[f"m{number:03}"] = bus.join("billing", definition, member_id=f"m{number:03}")

        async def shared_out() -> None:
            """Everybody who is there has a share, and nobody another's."""
            while True:
                held = Counter(place for member in crowd.values() for place in member.assignment)
                shares = [len(member.assignment) for member in crowd.values()]
                fair = max(shares) - min(shares) <= 1
                if fair and len(held) == PARTITIONS and max(held.values()) == 1:
                    return
                await asyncio.sleep(0.02)

        enter(0)
        await shared_out()
        assert rebalances.take() == 0
        # To one that has everything come 99 at once. Each gets its share; how often
        # a partition moves until the last is there is up to how they arrive.
        enter(*range(1, CROWD))
        await shared_out()
        assert rebalances.take() >= PARTITIONS - PARTITIONS // CROWD
        # One more: it gets one partition, and the others keep theirs.
        enter(CROWD)
        await shared_out()
        assert rebalances.take() == 1
        # A third go together: nothing of those who stay moves.
        some = range(0, CROWD, 3)
        await asyncio.gather(*(crowd.pop(f"m{number:03}").close() for number in some))
        await shared_out()
        assert rebalances.take() == 0
        # They come back.
        enter(*some)
        await shared_out()
        assert rebalances.take() > 0
        await asyncio.gather(*(member.close() for member in crowd.values()))


def least(before: Owners, members: set[str]) -> int:
    """The fewest such moves of any balanced assignment; see ``tests/unit/delivery/test_quota.py``."""
    if not members:
        return 0
    share, larger = divmod(PARTITIONS, len(members))
    held = Counter(name for name in before.values() if name in members)
    surplus = sum(max(0, held[name] - share) for name in members)
    return surplus - min(larger, sum(1 for name in members if held[name] > share))
