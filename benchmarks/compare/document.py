"""Everything a run found, as it is written with ``--json`` and read back to draw tables and charts."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Machine:
    """What the run stood on, measured bare.

    Attributes:
        cores: processors this process may use.
        load: average number of waiting or running tasks over the last minute.
        sync_ms: median of a 4 KiB append with fdatasync.
        sync_megabytes: MB/s of 1 MiB appends, each with fdatasync.
        echo_ms: median of a bare unary gRPC call of 100 B.
        stream_megabytes: MB/s of a gRPC stream whose server only sends the same message again.
    """

    cores: int
    load: float
    sync_ms: float
    sync_megabytes: float
    echo_ms: float
    stream_megabytes: float
    python: str
    kernel: str

    @staticmethod
    def median(of: Sequence[Machine]) -> Machine:
        """Of each speed the median; what is no speed, and the load, as it was at first."""
        speeds = ("sync_ms", "sync_megabytes", "echo_ms", "stream_megabytes")
        medians = {name: statistics.median([getattr(machine, name) for machine in of]) for name in speeds}
        return replace(of[0], **medians)

    def __str__(self) -> str:
        return (
            f"machine: {self.cores} cores, load {self.load:.1f} before, "
            f"bare fdatasync {self.sync_ms:.2f} ms ({self.sync_megabytes:,.0f} MB/s), "
            f"bare gRPC call {self.echo_ms:.2f} ms (stream {self.stream_megabytes:,.0f} MB/s), "
            f"Linux {self.kernel}, Python {self.python}"
        )


@dataclass(frozen=True, slots=True)
class System:
    """A system that was compared; see ``benchmarks.peers.system.Cluster``."""

    title: str
    durability: str
    fsynced: bool
    version: str
    workloads: frozenset[str] | None = None

    def runs(self, workload: str) -> bool:
        """Whether the workload is for this row."""
        return self.workloads is None or workload in self.workloads

    @property
    def row(self) -> str:
        return f"{self.title} — {self.durability}"


@dataclass(frozen=True, slots=True)
class Result:
    """One workload of one system in one round, counted from 0.

    ``cell`` holds ``figures``, ``seconds`` and ``cpu_seconds`` of the client, the use of the ``brokers``; or
    ``failed`` with the reason and ``unsupported``. ``note`` tells what the figures lack, ``took`` how long
    all of it took.
    """

    round: int
    system: str
    workload: str
    cell: dict[str, Any]

    @property
    def failed(self) -> str | None:
        reason: str | None = self.cell.get("failed")
        return reason


@dataclass(slots=True)
class Document:
    """A run, or as much of it as there is yet."""

    systems: dict[str, System]
    rounds: int
    #: Seconds of a throughput workload.
    seconds: float
    #: System → why it was not compared and how it is installed.
    missing: dict[str, str] = field(default_factory=dict)
    #: Measured before each round and after the last.
    machines: list[Machine] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)

    @property
    def machine(self) -> Machine:
        """Medians. Raises ValueError before the first round."""
        if not self.machines:
            raise ValueError("the machine has not been measured")
        return Machine.median(self.machines)

    def finished(self) -> Document:
        """Of a run that was interrupted: the rounds that were whole."""
        rounds = min(self.rounds, max(0, len(self.machines) - 1))
        results = [result for result in self.results if result.round < rounds]
        return replace(self, rounds=rounds, machines=self.machines[: rounds + 1], results=results)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False, default=sorted)  # sets
        path.write_text(text + "\n", encoding="utf-8")

    @staticmethod
    def read(path: Path) -> Document:
        """Raises ValueError for what is no such document, OSError."""
        try:
            return msgspec.convert(json.loads(path.read_text(encoding="utf-8")), Document)
        except msgspec.ValidationError as error:
            raise ValueError(f"{path}: {error}") from error
