"""A made-up machine, for reports."""

from __future__ import annotations

from benchmarks.compare.document import Machine

MACHINE = Machine(
    cores=2,
    load=0.1,
    sync_ms=0.2,
    sync_megabytes=600.0,
    echo_ms=0.4,
    stream_megabytes=1000.0,
    python="3.11",
    kernel="6.1",
)
