"""A cluster whose brokers run under ``traced``: threads named, moments noted when asked."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from holdfast.chaos.processes import LocalCluster

#: Where ``benchmarks`` is imported from.
ROOT = Path(__file__).resolve().parents[2]


def brokers(directory: Path, env: Mapping[str, Mapping[str, str]] | None = None) -> LocalCluster:
    """Three brokers, not started yet; ``env`` is more environment for each, by node id."""
    cluster = LocalCluster(directory)
    for node_id, broker in cluster.brokers.items():
        broker.prefix = [sys.executable, "-m", "benchmarks.limits.traced"]
        broker.env |= {"PYTHONPATH": str(ROOT), **(env or {}).get(node_id, {})}
    return cluster
