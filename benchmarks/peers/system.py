"""What a compared system has to offer: three nodes on loopback, and its best Python client.

A ``Cluster`` lives in the process that runs the comparison; a ``Client`` in a worker process of its own, so
that its processor time is counted apart. Both are made by name from ``catalog.SYSTEMS``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import ClassVar


class Unsupported(Exception):
    """The system has no such thing; the cell of the table says so."""


class Cluster(ABC):
    """Three nodes of one system. ``start`` may be called once; ``stop`` ends every process it began."""

    #: The name on the command line, and the row's title with what an acknowledgement means on disk.
    name: ClassVar[str]
    title: ClassVar[str]
    durability: ClassVar[str]
    #: Whether an acknowledged record has been fsynced by a majority.
    fsynced: ClassVar[bool]
    #: The workloads to run; None: all. For a row whose client does as another row's in the others.
    workloads: ClassVar[frozenset[str] | None] = None

    def __init__(self, directory: Path) -> None:
        """``directory`` is empty and on the disk to be measured; data, configuration and logs go there."""
        self.directory = directory

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """What is not installed on this machine, in one line; None when the system can run."""

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """The server's and the client library's versions: ``server 2.9.10, nats-py 2.11``."""

    @abstractmethod
    async def start(self) -> None:
        """Start three nodes and wait until the cluster takes topics.

        Raises RuntimeError with the log's end.
        """

    @abstractmethod
    async def stop(self) -> None:
        """End all nodes, by force after some seconds."""

    @abstractmethod
    def addresses(self) -> list[str]:
        """``host:port`` of each node, as its clients want it."""

    @abstractmethod
    def pids(self) -> list[list[int]]:
        """The processes of each node (a dead node: an empty list)."""

    @abstractmethod
    async def leader_of(self, topic: str) -> int:
        """The node that leads the topic's only partition now."""

    @abstractmethod
    def kill(self, node: int) -> None:
        """``kill -9`` of every process of one node, and nothing else. Returns at once."""

    @abstractmethod
    async def restart(self, node: int) -> None:
        """Start a killed node again and wait until it is a member in sync."""


class Client(ABC):
    """The system through its best Python client, tuned as its documentation advises.

    A topic has one partition, three replicas, and keeps everything. "Acknowledged" is what the row's title
    says. Calls may be under way at the same time, also several of one kind: a publisher beside a reader,
    many ``publish``, a ``publish_all`` before the last one is acknowledged.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = list(addresses)

    @abstractmethod
    async def connect(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def create(self, topic: str) -> None:
        """Create a topic and wait until it takes records."""

    @abstractmethod
    async def publish(self, topic: str, payload: bytes) -> None:
        """One record; returns when acknowledged. May be called from many tasks at a time."""

    async def publish_all(self, topic: str, payloads: Sequence[bytes], times: int) -> None:
        """``payloads``, ``times`` over, as fast as the client can: pipelined, batched.

        Returns when all are acknowledged.
        """
        raise Unsupported

    async def replay(self, topic: str, count: int) -> tuple[int, int]:
        """Read the first ``count`` records from the beginning, the fastest way: (records, payload bytes).

        Every payload has to be in Python's hands (or in a buffer that gives it without another copy).
        """
        raise Unsupported

    async def consume(self, topic: str, group: str, count: int) -> int:
        """``count`` records as a durable consumer group from the beginning, each acknowledged.

        Cumulatively, if the client can. Returns when the last acknowledgement is confirmed or sent, as the
        client documents. It may be called before the records are published.
        """
        raise Unsupported

    def deliveries(self, topic: str) -> AsyncIterator[Sequence[bytes]]:
        """Payloads that arrive from now on, as they come, in whatever batches the client gives."""
        raise Unsupported

    async def publish_through_failure(self, topic: str, payload: bytes) -> None:
        """One record while nodes may be dying; tries until acknowledged.

        In the client's own documented way.
        """
        raise Unsupported
