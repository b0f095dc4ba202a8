"""Looks at running brokers from outside: memory, disk, rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import lmdb

from holdfast.chaos.processes import BrokerProcess, LocalCluster
from holdfast.errors import InternalError
from holdfast.storage.port import Table

MB = 1e6


@dataclass(frozen=True, slots=True)
class NodeSample:
    """One broker at one moment. Sizes in bytes; ``rows`` by table name."""

    rss_anon: int
    disk: int
    used: int
    free_pages: int
    first_log_index: int
    last_log_index: int
    applied_index: int
    leads: bool
    cpu_s: float
    rows: dict[str, int] = field(default_factory=dict)


def sample(cluster: LocalCluster, node_id: str) -> NodeSample | None:
    """None while the broker is down or does not answer yet."""
    broker = cluster.brokers[node_id]
    if not broker.running:
        return None
    try:
        status = cluster.status(node_id, timeout=1.0)
        rss, cpu = broker.rss_anon_bytes(), cpu_seconds(broker.pid)
        disk, free_pages, rows = _tables(broker)
    except (grpc.RpcError, OSError, lmdb.Error, InternalError):
        return None  # going down, coming up, or swapping in a snapshot: the next sample will do
    return NodeSample(
        rss,
        disk,
        status.data_bytes,
        free_pages,
        status.first_log_index,
        status.last_log_index,
        status.applied_index,
        status.leader_id == node_id,
        cpu,
        rows,
    )


def environment_of(broker: BrokerProcess) -> Path:
    """The environment in use; another one after each snapshot. Raises OSError without data."""
    return broker.data_dir / (broker.data_dir / "CURRENT").read_text().strip()


def own_rss_anon() -> int:
    """This process's own memory: the load generator's, mostly the client library's."""
    return _status_bytes(os.getpid(), "RssAnon:")


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise InternalError(f"this system does not report {name}")


def _tables(broker: BrokerProcess) -> tuple[int, int, dict[str, int]]:
    """Allocated bytes of the data file, free pages in it, and rows by table."""
    path = environment_of(broker)
    disk = (path / "data.mdb").stat().st_blocks * 512
    rows: dict[str, int] = {}
    # A second process may read an environment that is in use; the lock file sees to it.
    environment = lmdb.open(str(path), readonly=True, create=False, max_dbs=len(Table), max_readers=512)
    try:
        handles = {table: environment.open_db(table.value.encode(), create=False) for table in Table}
        with environment.begin() as txn:
            pages = 2 + _pages(txn.stat())
            for table, handle in handles.items():
                stat = txn.stat(handle)
                rows[table.value] = stat["entries"]
                pages += _pages(stat)
            extent = environment.info()["last_pgno"] + 1
    finally:
        environment.close()
    return disk, max(0, extent - pages), rows


def _pages(stat: Mapping[str, Any]) -> int:
    pages: int = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return pages
