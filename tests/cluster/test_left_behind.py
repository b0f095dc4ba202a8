"""A drill that is interrupted, or killed, leaves no broker, mount or namespace behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.chaos import disk
from holdfast.chaos.keeper import INTERRUPTED, Keeper
from holdfast.chaos.net import netns

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

_SECONDS = 60.0
#: With a disk under each broker, where they can be mounted.
DISKS, MOUNTS = ("leader-kill", 0) if disk.missing() else ("power-loss-one", 3)
STARTS = """
import subprocess, sys, time
from holdfast.chaos.keeper import Keeper
keeper = Keeper()
kept = subprocess.Popen(["sleep", "600"])
keeper.keep([kept.pid])
print("kept", flush=True)
time.sleep(600)
"""
UNWINDS = """
import asyncio
from holdfast.chaos.keeper import unwinding
async def work():
    print("begun", flush=True)
    try:
        await asyncio.sleep(600)
    finally:
        print("left")
try:
    with unwinding():
        asyncio.run(work())
except KeyboardInterrupt:
    print("unwound")
"""


@contextmanager
def drill(name: str, scratch: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The process of a drill, under way: its brokers run, and its load has a leader."""
    command = [sys.executable, "-m", "holdfast.chaos.drills", name, *options]
    command += ["--report-dir", str(scratch / "reports")]
    with subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(scratch)}, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            seen = []
            for line in process.stderr:
                seen.append(line)
                if line.endswith(" leads\n"):
                    break
            else:
                pytest.fail(f"{name} ended early:\n{''.join(seen)}")
            assert len(brokers(scratch)) == 3
            yield process
        finally:
            process.kill()


def brokers(scratch: Path) -> list[int]:
    """Processes that keep their data below ``scratch``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue  # it has just ended
            if f"HOLDFAST_DATA_DIR={scratch}".encode() in environment:
                found.append(int(entry.name))
    return found


def mounts(scratch: Path) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if str(scratch) in line]


def gone(scratch: Path) -> bool:
    """True when nothing below ``scratch`` runs or is mounted any more, now or soon."""
    deadline = time.monotonic() + _SECONDS
    while brokers(scratch) or mounts(scratch):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_an_interrupted_drill_cleans_up(tmp_path: Path) -> None:
    with drill(DISKS, tmp_path) as process:
        assert len(mounts(tmp_path)) == MOUNTS
        process.terminate()
        _, told = process.communicate(timeout=_SECONDS)
    assert process.returncode == INTERRUPTED, told
    assert "interrupted" in told
    assert not brokers(tmp_path)
    assert not mounts(tmp_path)
    assert not list(tmp_path.glob("holdfast-drill-*"))


def test_work_in_the_background_of_a_script_ends_when_told_to() -> None:
    command = [sys.executable, "-c", UNWINDS]
    with subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *command], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.terminate()
        assert process.communicate(timeout=_SECONDS)[0] == b"left\nunwound\n"


def test_a_killed_drill_takes_brokers_and_disks_along(tmp_path: Path) -> None:
    with drill(DISKS, tmp_path) as process:
        process.kill()
        process.communicate(timeout=_SECONDS)
    assert gone(tmp_path)


@pytest.mark.skipif(bool(netns.lacking()), reason=netns.lacking())
def test_its_namespaces_are_removed(tmp_path: Path) -> None:
    names = Path("/run/netns")
    with drill("partition-majority", tmp_path, "--net", "netns") as process:
        ours = f"hf{process.pid}-*"
        assert len(list(names.glob(ours))) == 4
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=_SECONDS)
    assert process.returncode == INTERRUPTED
    assert not brokers(tmp_path)
    assert not list(names.glob(ours))


def test_what_is_kept_ends_with_its_keeper() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "kept\n"
        process.kill()
        # The child writes to the same pipe: its end is the pipe's.
        process.communicate(timeout=_SECONDS)


def test_only_what_is_kept_ends() -> None:
    keeper = Keeper()
    children = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    keeper.keep([child.pid for child in children])
    keeper.keep([children[0].pid])
    keeper.close()
    assert children[0].wait(_SECONDS) == -signal.SIGKILL
    assert children[1].poll() is None
    children[1].kill()
    children[1].wait()
