"""What a drill is, and what it is given: a cluster to break, load that runs, a history that records.

A drill is a subclass of ``Drill`` in a module of this folder; the catalogue finds
it there. It breaks things through ``scene.target`` inside ``scene.fault(...)``
and waits through ``scene.settle`` and ``scene.until_acked``. Starting the cluster,
healing what is left broken, reading every replica and judging are the stage's work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Protocol

from holdfast.chaos.checker.history import Fault, History, Violation
from holdfast.chaos.drills.load import Load, LoadPlan
from holdfast.errors import DeadlineExceededError
from holdfast.v1 import cluster_pb2


class Target(Protocol):
    """A cluster of real brokers. All times are seconds.

    Attributes:
        kind: ``local`` (processes of this machine) or ``compose`` (containers).
        nodes: the brokers' ids.
        endpoints: host:port by node, as clients here reach it.
        discover: clients may learn the other brokers' addresses from the cluster.
        capabilities: what may be done to it here; a drill's ``needs`` are looked up in it.
    """

    kind: str
    nodes: Sequence[str]
    discover: bool
    capabilities: frozenset[str]

    @property
    def endpoints(self) -> Mapping[str, str]: ...

    async def start(self, node: str) -> None:
        """Start the broker's process if it does not run; see ``until_serving``."""

    async def stop(self, node: str) -> None:
        """SIGTERM, and wait for the end."""

    async def kill(self, node: str) -> None:
        """SIGKILL, and wait for the end."""

    async def pause(self, node: str) -> None:
        """SIGSTOP or its equal: the process stands still, its sockets stay open."""

    async def resume(self, node: str) -> None: ...

    async def wipe(self, node: str) -> None:
        """Remove everything in the data directory of a broker that does not run."""

    async def heal(self) -> None:
        """Resume and start whatever is paused or down."""

    def running(self, node: str) -> bool:
        """Whether the process exists (it may be paused)."""

    def pid(self, node: str) -> int:
        """The broker's process on this machine; 0 when it does not run."""

    def data_dir(self, node: str) -> Path:
        """Where the broker's data lies on this machine."""

    def memory(self, node: str) -> int:
        """Bytes of the process's own memory, without mapped files."""

    def log_tail(self, node: str, lines: int = 20) -> str: ...

    def status(self, node: str, timeout: float = 1.0) -> cluster_pb2.ClusterStatus | None:
        """What the broker says of itself, None when it does not answer. Blocks: call it in a thread."""

    async def leader(self, timeout: float = 30.0, *, other_than: str | None = None) -> str:
        """The node a majority calls its leader.

        Raises:
            DeadlineExceededError: none within ``timeout`` seconds; log tails are in the message.
        """

    async def followers(self) -> list[str]:
        """The nodes that do not lead."""

    async def until_serving(self, node: str, timeout: float = 30.0) -> None:
        """Wait until the broker answers and knows a leader.

        Raises:
            DeadlineExceededError: not within ``timeout`` seconds.
        """


class Drill:
    """One way of breaking a cluster. Subclasses set the class attributes and ``run``.

    Attributes:
        name: as in ``make drill NAME=…``.
        summary: one line.
        needs: capabilities of the target and the machine, such as ``pause`` or ``netns``.
        settings: additional ``HOLDFAST_*`` environment of all brokers.
        plan: the load.
        size: number of brokers.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    settings: ClassVar[Mapping[str, str]] = {}
    plan: ClassVar[LoadPlan] = LoadPlan()
    size: ClassVar[int] = 3
    #: A run that is not over by then has failed.
    limit_seconds: float = 120.0

    def unable(self, target: Target) -> str:
        """Why it cannot run here; empty: it can. Asked before anything is started.

        Called on the target it would run against, not started yet.
        """
        missing = sorted(self.needs - target.capabilities)
        return f"target {target.kind} lacks here: {', '.join(missing)}" if missing else ""

    @asynccontextmanager
    async def around(self, target: Target) -> AsyncIterator[None]:
        """Entered before the first broker is started, left after the last one has ended.

        The place to move data directories onto another file system, brokers into
        network namespaces, or to change their environment: see
        ``LocalTarget.place``, ``LocalTarget.address`` and ``LocalTarget.broker``.
        """
        yield

    async def run(self, scene: Scene) -> None:
        """Break things; every ``scene.fault`` is left when it returns.

        What is still down or paused afterwards is healed by the stage.
        """
        raise NotImplementedError

    async def heal(self, scene: Scene) -> None:
        """Undo what ``run`` may have left, also after it failed: remove partitions, delays, limits."""


class Scene:
    """A running cluster under load.

    Attributes:
        target: the cluster.
        load: the clients; all they do is noted in ``history``.
        history: what is judged at the end; its clock is ``now``.
        directory: for files of this run.
        violations: what the drill itself found wrong; see ``require``.
        facts: shown behind the result, by name.
    """

    def __init__(
        self,
        target: Target,
        load: Load,
        history: History,
        directory: Path,
        say: Callable[[str], None],
    ) -> None:
        self.target = target
        self.load = load
        self.history = history
        self.directory = directory
        self.violations: list[Violation] = []
        self.facts: dict[str, object] = {}
        #: Log tails of the brokers, taken around faults: (time, node, text).
        self.logs: list[tuple[float, str, str]] = []
        self._say = say
        self._noting: list[asyncio.Task[None]] = []

    def now(self) -> float:
        """Seconds since the history began."""
        return self.load.now()

    def say(self, text: str) -> None:
        """Progress, for who watches."""
        self._say(f"{self.now():6.2f} s  {text}")

    async def settle(self, seconds: float) -> None:
        """Let the load run."""
        await asyncio.sleep(seconds)

    async def until_acked(self, after: float | None = None, timeout: float = 30.0) -> float:
        """Wait for the first ack of a publish that began later than ``after`` (None: now); its time.

        Raises:
            DeadlineExceededError: none within ``timeout`` seconds.
        """
        since = self.now() if after is None else after
        deadline = time.monotonic() + timeout
        while (found := self.load.first_ack_begun_after(since)) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlineExceededError(f"nothing was acknowledged within {timeout:g} s\n{self._tails()}")
            await self.load.next_ack(left)
        return found

    @contextmanager
    def fault(self, name: str, target: str, detail: str = "", *, recovers: bool = True) -> Iterator[Fault]:
        """Note a fault for as long as the block lasts; the block itself makes and mends it.

        Args:
            name: shown on the timeline, such as ``kill``.
            target: what is broken: a node, or several joined by commas.
            recovers: False when ``recovery_ms`` should not be taken from it.
        """
        fault = Fault(name=name, target=target, at=self.now(), detail=detail)
        self.history.add(fault)
        self.load.faults.append((fault, recovers))
        self.say(f"{name} {target}{': ' + detail if detail else ''}")
        try:
            yield fault
        finally:
            fault.ended = self.now()
            self.say(f"{name} {target}: over after {fault.ended - fault.at:.2f} s")
            self.note_logs()

    def require(self, holds: bool, promise: str, detail: str) -> None:
        """Record a violation unless ``holds``; the drill goes on."""
        if not holds:
            self.say(f"VIOLATION {promise}: {detail}")
            self.violations.append(Violation(promise=promise, detail=detail, at=self.now()))

    async def until(self, holds: Callable[[], bool], timeout: float, promise: str, detail: str = "") -> None:
        """Wait until ``holds()``; a violation of ``promise`` when it does not within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > deadline:
                self.require(False, promise, f"not within {timeout:g} s; {detail}")
                return
            await asyncio.sleep(0.02)

    async def commit_index(self) -> int:
        """The highest commit index any broker tells of."""
        looks = await asyncio.gather(
            *[asyncio.to_thread(self.target.status, node) for node in self.target.nodes]
        )
        return max((status.commit_index for status in looks if status is not None), default=0)

    async def until_applied(self, node: str, index: int, timeout: float = 30.0) -> None:
        """Wait until a node has applied a log index.

        Raises:
            DeadlineExceededError: not within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            status = await asyncio.to_thread(self.target.status, node)
            if status is not None and status.applied_index >= index:
                return
            if time.monotonic() > deadline:
                at = "does not answer" if status is None else f"is at {status.applied_index}"
                raise DeadlineExceededError(f"{node} has not applied {index} in {timeout:g} s; it {at}")
            await asyncio.sleep(0.05)

    async def until_voting(self, node: str, timeout: float = 30.0) -> None:
        """Wait until a node that lost its disk is a voter again, and not one that catches up.

        Raises:
            DeadlineExceededError: not within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            status = await asyncio.to_thread(self.target.status, node)
            if status is not None and not status.joining:
                return
            if time.monotonic() > deadline:
                raise DeadlineExceededError(f"{node} is no voter again in {timeout:g} s")
            await asyncio.sleep(0.05)

    def longest_silence(self, since: float) -> float:
        """The longest time without any acknowledgement from ``since`` to now, seconds."""
        moments = [since, *(ended for _, ended in self.load.acks if ended > since), self.now()]
        return max(after - before for before, after in pairwise(moments))

    def recovery_ms(self) -> float:
        """The longest time from a fault's beginning to the first ack of a publish begun after it.

        Infinite when a fault has not been recovered from.
        """
        worst = 0.0
        for fault, counts in self.load.faults:
            if counts:
                acked = self.load.first_ack_begun_after(fault.at)
                worst = max(worst, float("inf") if acked is None else acked - fault.at)
        return worst * 1e3

    def note_logs(self, lines: int = 12) -> None:
        """Keep the ends of the brokers' logs for the report; read in a thread, the load goes on meanwhile."""
        self._noting.append(asyncio.get_running_loop().create_task(self._note_logs(self.now(), lines)))

    async def _note_logs(self, at: float, lines: int) -> None:
        for node in self.target.nodes:
            self.logs.append((at, node, await asyncio.to_thread(self.target.log_tail, node, lines)))

    async def noted(self) -> None:
        """Wait until the logs asked for have been read."""
        await asyncio.gather(*self._noting)
        self.logs.sort(key=lambda entry: entry[0])

    def _tails(self) -> str:
        return "\n".join(f"--- {node}\n{self.target.log_tail(node)}" for node in self.target.nodes)
