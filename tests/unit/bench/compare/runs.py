"""Made-up runs of the comparison."""

from __future__ import annotations

from typing import Any

from benchmarks.compare.document import Document, Result, System

from ..machine import MACHINE

SYSTEMS = {
    "holdfast": System("Holdfast", "fsynced on a majority", True, "0.1"),
    "nats": System("NATS <R3>", "no fsync", False, "2"),
    "etcd": System("etcd", "fsynced on a majority", True, "3"),
}


def cell(**figures: Any) -> dict[str, Any]:
    return {
        "figures": figures,
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        "brokers": {"cpu_seconds": 3.0, "written_bytes": 500, "anonymous_bytes": 7_000_000},
    }


def failed(reason: str) -> dict[str, Any]:
    return {"failed": reason, "unsupported": False}


def document(*results: tuple[int, str, str, dict[str, Any]], rounds: int = 1) -> Document:
    """Results are (round, system, workload, cell)."""
    return Document(
        systems=dict(SYSTEMS),
        rounds=rounds,
        seconds=4.0,
        missing={"kafka": "no java"},
        machines=[MACHINE],
        results=[Result(*r) for r in results],
    )
