"""Bare speeds of the machine, so that a run's figures can be read on another day."""

from __future__ import annotations

import asyncio
import os
import platform
from pathlib import Path

from benchmarks import echo
from benchmarks.compare.document import Machine
from benchmarks.limits import disk, grpc_alone

#: A replay's messages are about so large.
_MESSAGE_BYTES = 256 << 10


def look(directory: Path, *, quick: bool = False) -> Machine:
    """Measure for some seconds. ``directory`` is on the disk that the systems will use."""
    load = os.getloadavg()[0]
    seconds = 0.3 if quick else 2.0
    sync = disk.append(str(directory), 4096, seconds)
    bulk = disk.append(str(directory), 1 << 20, seconds)
    echoed = asyncio.run(echo.sequential(100 if quick else 1000))
    alone = grpc_alone.alone(20, 50 if quick else 500, [_MESSAGE_BYTES])
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        load=load,
        sync_ms=sync["micros"] / 1e3,
        sync_megabytes=bulk["megabytes"],
        echo_ms=echoed,
        stream_megabytes=alone["down"][str(_MESSAGE_BYTES)],
        python=platform.python_version(),
        kernel=platform.release().split("-")[0],
    )
