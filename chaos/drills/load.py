"""Clients of a cluster that is being broken; all they do and are told goes into a history.

Idempotent publishers of single records and of bursts, one that does not wait
long (its timeouts are the history's unknown outcomes), members of a consumer
group, and a reader that replays from one node after the other.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import holdfast
from holdfast.chaos.checker.history import Fault, History, Outcome, Read, TopicChange
from holdfast.chaos.drills.members import Member
from holdfast.chaos.drills.publishers import Publisher
from holdfast.errors import HoldfastError

GROUP = "readers"
#: Longer than any fault of a drill: publishers go on trying through all of it.
_DELIVERY_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """How much goes on; rates are records per second of each client."""

    topic: str = "drill"
    partitions: int = 4
    #: Publishers of one record at a time.
    singles: int = 2
    single_rate: float = 60.0
    #: Publishers of bursts; a burst is handed over at once.
    bursts: int = 1
    burst_size: int = 20
    burst_rate: float = 120.0
    #: Publishers that stop waiting after ``patience`` seconds: what they do not learn is unknown.
    impatient: int = 1
    impatient_rate: float = 20.0
    patience: float = 0.4
    members: int = 2
    replayers: int = 1
    value_bytes: int = 48


class Load:
    """The clients. ``start`` when the cluster has a leader, ``stop_publishing``, ``close``.

    Attributes:
        faults: noted by the scene: (fault, whether recovery counts).
        acks: (begun, acknowledged) of every acknowledged publish, in order of acknowledgement.
    """

    def __init__(
        self,
        endpoints: Mapping[str, str],
        history: History,
        plan: LoadPlan,
        *,
        discover: bool,
        seed: int = 0,
    ) -> None:
        self.plan = plan
        self.history = history
        self.faults: list[tuple[Fault, bool]] = []
        self.acks: list[tuple[float, float]] = []
        self.publishers: list[Publisher] = []
        self.members: list[Member] = []
        self.random = random.Random(seed)
        self._endpoints = endpoints
        self._discover = discover
        self._loop = asyncio.get_running_loop()
        self._zero = self._loop.time()
        self._acked = asyncio.Event()
        self._clients: list[holdfast.Client] = []
        self._readers: dict[str, holdfast.Client] = {}
        self._replaying: list[asyncio.Task[None]] = []
        self._reads = 0

    def now(self) -> float:
        """Seconds since the load was made."""
        return self._loop.time() - self._zero

    # -- life ----------------------------------------------------------------------

    async def start(self) -> None:
        """Create the topic and start all clients of the plan.

        Raises:
            HoldfastError: the cluster did not take them.
        """
        plan = self.plan
        admin = await self.connect()
        change = TopicChange(
            client="admin",
            kind="create",
            topic=plan.topic,
            partitions=plan.partitions,
            started=self.now(),
            # No retention: a log that has lost its beginning has lost records.
            keeps_all=True,
        )
        self.history.add(change)
        await admin.create_topic(plan.topic, partitions=plan.partitions)
        change.ended, change.outcome = self.now(), Outcome.OK
        for node in self._endpoints:
            self._readers[node] = await self.connect(node)
        for i in range(plan.singles):
            await self.add_publisher(f"single{i}", plan.single_rate)
        for i in range(plan.bursts):
            await self.add_publisher(f"burst{i}", plan.burst_rate, burst=plan.burst_size)
        for i in range(plan.impatient):
            await self.add_publisher(f"impatient{i}", plan.impatient_rate, patience=plan.patience)
        for i in range(plan.members):
            await self.add_member(f"member{i}")
        for i in range(plan.replayers):
            self._replaying.append(self._loop.create_task(self._replay(f"replayer{i}")))

    async def stop_publishing(self, timeout: float = 60.0) -> None:
        """No new records; wait until all those under way have been answered.

        What is not answered within ``timeout`` seconds stays unknown.
        """
        await asyncio.gather(*[publisher.stop(timeout) for publisher in self.publishers])
        for task in self._replaying:
            task.cancel()
        await _ended(self._replaying)

    async def close(self) -> None:
        """End all clients."""
        for task in self._replaying:
            task.cancel()
        await _ended(self._replaying)
        await asyncio.gather(*[publisher.abandon() for publisher in self.publishers])
        await asyncio.gather(*[member.abandon() for member in self.members])
        for client in self._clients:
            try:
                await client.close()
            except HoldfastError:
                # Its records are in the history with the outcome their callers were told.
                continue

    async def connect(self, node: str | None = None) -> holdfast.Client:
        """A client of the cluster, or of one node only; closed with the load."""
        endpoints = list(self._endpoints.values()) if node is None else [self._endpoints[node]]
        client = holdfast.connect(
            endpoints,
            delivery_timeout=_DELIVERY_SECONDS,
            timeout=_DELIVERY_SECONDS,
            discover=self._discover and node is None,
        )
        await client.start()
        self._clients.append(client)
        return client

    # -- clients ---------------------------------------------------------------------

    async def add_publisher(
        self,
        name: str,
        rate: float,
        *,
        burst: int = 1,
        patience: float | None = None,
        node: str | None = None,
        value_bytes: int | None = None,
    ) -> Publisher:
        """One more publisher, of ``rate`` records a second.

        Args:
            burst: so many are handed over at once.
            patience: seconds after which it calls the outcome unknown; None: it waits for the answer.
            node: talk to this node only.
        """
        publisher = Publisher(
            name,
            await self.connect(node),
            self,
            rate=rate,
            burst=burst,
            patience=patience,
            value_bytes=self.plan.value_bytes if value_bytes is None else value_bytes,
        )
        self.publishers.append(publisher)
        publisher.start()
        return publisher

    async def add_member(
        self,
        name: str,
        group: str = GROUP,
        *,
        acks: bool = True,
        reads: Callable[[], bool] = lambda: True,
        max_in_flight: int = 1000,
    ) -> Member:
        """One more group consumer.

        Args:
            acks: acknowledge what is delivered.
            reads: asked now and then; while it says no, nothing is taken from the subscription.
            max_in_flight: as ``Client.subscribe``.
        """
        member = Member(
            name,
            group,
            await self.connect(),
            self,
            acks=acks,
            reads=reads,
            max_in_flight=max_in_flight,
        )
        self.members.append(member)
        member.start()
        return member

    async def read(
        self,
        node: str,
        partition: int,
        from_offset: int = 0,
        *,
        linearizable: bool = True,
        timeout: float = 2.0,
        client: str = "reader",
    ) -> Read:
        """Replay a partition's rest from one node, into the history; never raises a HoldfastError."""
        read = Read(
            client=client,
            topic=self.plan.topic,
            partition=partition,
            from_offset=from_offset,
            started=self.now(),
            records=[],
            replica=node,
            to_end=True,
            linearizable=linearizable,
        )
        self.history.add(read)
        try:
            async with asyncio.timeout(timeout * 4):
                async for record in self._readers[node].replay(
                    self.plan.topic,
                    start=from_offset,
                    partitions=[partition],
                    linearizable=linearizable,
                    timeout=timeout,
                ):
                    read.records.append((record.offset, record.value.decode()))
            read.outcome = Outcome.OK
        except TimeoutError:
            read.error = "took too long"
        except HoldfastError as error:
            read.outcome, read.error = Outcome.FAIL, f"{error.reason}: {error}"
        read.ended = self.now()
        return read

    async def _replay(self, name: str) -> None:
        nodes, chance = list(self._endpoints), self.random
        while True:
            self._reads += 1
            node = nodes[self._reads % len(nodes)]
            partition = chance.randrange(self.plan.partitions)
            end = max((p.ends.get(partition, 0) for p in self.publishers), default=0)
            # Mostly the log's end, where what is stale would show; now and then all of it.
            start = 0 if chance.random() < 0.1 else chance.randrange(max(0, end - 200), end + 1)
            await self.read(
                node, partition, start, linearizable=chance.random() < 0.7, timeout=1.0, client=name
            )
            await asyncio.sleep(0.03)

    def behind(self, group: str = GROUP, slack: int = 0) -> list[tuple[int, int, int]]:
        """(partition, committed, end) where the group has yet to confirm what publishers were told of.

        Args:
            slack: so many records of a partition may be left.
        """
        ends: dict[int, int] = {}
        for publisher in self.publishers:
            for partition, end in publisher.ends.items():
                ends[partition] = max(ends.get(partition, 0), end)
        reached: dict[int, int] = {}
        for member in self.members:
            if member.group == group:
                for partition, offset in member.committed.items():
                    reached[partition] = max(reached.get(partition, 0), offset)
        return [
            (p, reached.get(p, 0), end) for p, end in sorted(ends.items()) if reached.get(p, 0) + slack < end
        ]

    # -- what publishers tell -------------------------------------------------------

    def on_ack(self, begun: float, ended: float) -> None:
        """A publish was acknowledged."""
        self.acks.append((begun, ended))
        self._acked.set()

    def first_ack_begun_after(self, moment: float) -> float | None:
        """When the first publish that began later than ``moment`` was acknowledged."""
        # Acks are in order of their end: the first that fits is the earliest.
        return next((ended for begun, ended in self.acks if begun > moment), None)

    async def next_ack(self, timeout: float) -> None:
        """Wait for any ack, at most ``timeout`` seconds."""
        self._acked.clear()
        try:
            await asyncio.wait_for(self._acked.wait(), timeout)
        except TimeoutError:
            return


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    """Wait for cancelled tasks; what one of them failed with is raised."""
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
