"""A broker for documents and examples to talk to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.chaos.processes import LocalCluster


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """The client address of a fresh single broker."""
    with LocalCluster(tmp_path / "cluster", size=1) as cluster:
        yield cluster.endpoints[0]


@pytest.fixture
def environment(broker: str) -> dict[str, str]:
    """The environment of a user whose shell has this installation first in its PATH."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    bin_dir = str(Path(sys.executable).parent)
    return inherited | {
        "PATH": f"{bin_dir}{os.pathsep}{inherited['PATH']}",
        "HOLDFAST_ENDPOINTS": broker,
        "PYTHONWARNINGS": "error",
        "PYTHONUNBUFFERED": "1",
    }
