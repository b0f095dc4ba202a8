"""A broker, and the command line as a user's shell runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.chaos.processes import LocalCluster

Holdfast = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with LocalCluster(tmp_path_factory.mktemp("broker"), size=1) as cluster:
        yield cluster.endpoints[0]


@pytest.fixture
def holdfast(endpoint: str, tmp_path: Path) -> Holdfast:
    """Runs `holdfast …` in an empty folder; checks the exit status."""

    def run(*arguments: str, stdin: str | None = None, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "holdfast.cli", *arguments],
            cwd=tmp_path,
            env=environment(endpoint),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


def environment(endpoint: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    return inherited | {"HOLDFAST_ENDPOINTS": endpoint}
