"""A comparison that is interrupted, or killed, leaves no process behind and keeps what it has measured."""

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

from holdfast.chaos.keeper import INTERRUPTED

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from benchmarks.compare.document import Document  # noqa: E402  (no part of the installed package)

_SECONDS = 60.0
#: Starts a process as the systems' are started, with one more in its session, and stays.
STARTS = """
import sys, time
from pathlib import Path
from benchmarks.peers.processes import Process
Process(["/bin/sh", "-c", "sleep 600 & sleep 600"], Path(sys.argv[1]) / "log")
ended = Process(["/bin/sleep", "600"], Path(sys.argv[1]) / "log")
ended.kill()
print("started", flush=True)
time.sleep(600)
"""


def left(scratch: Path) -> list[str]:
    """Command lines of the processes that were told of ``scratch``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if f"TMPDIR={scratch}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue  # it has just ended
    return found


def gone(scratch: Path) -> bool:
    """Whether all of them end soon."""
    deadline = time.monotonic() + _SECONDS
    while left(scratch):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def comparison(scratch: Path) -> Iterator[subprocess.Popen[str]]:
    """The process of a comparison: brokers run, one workload is done, the next one's client is at work."""
    command = [sys.executable, "-m", "benchmarks.compare", "--quick", "--systems", "holdfast"]
    command += ["--workloads", "sequential,publishers-1,publishers-16", "--directory", str(scratch)]
    environment = os.environ | {"TMPDIR": str(scratch)}
    with subprocess.Popen(
        [*command, "--json", str(scratch / "run.json")],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            seen = []
            for line in process.stderr:
                seen.append(line)
                if line.endswith("holdfast: publishers-1\n"):
                    break
            else:
                pytest.fail(f"it ended early:\n{''.join(seen)}")
            while not any("benchmarks.compare.worker" in each for each in left(scratch)):
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_comparison_keeps_what_it_has(tmp_path: Path, number: signal.Signals) -> None:
    with comparison(tmp_path) as process:
        process.send_signal(number)
        _, told = process.communicate(timeout=_SECONDS)
        assert process.returncode == INTERRUPTED, told
    assert "interrupted; whole rounds: 0" in told
    assert gone(tmp_path), left(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    results = Document.read(tmp_path / "run.json").results
    assert [result.workload for result in results] == ["sequential"]
    assert results[0].cell["figures"]["p50"] > 0


def test_a_killed_comparison_takes_everything_along(tmp_path: Path) -> None:
    with comparison(tmp_path) as process:
        process.kill()
        process.communicate(timeout=_SECONDS)
    assert gone(tmp_path), left(tmp_path)


def test_processes_of_systems_end_with_who_started_them(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            running = [each for each in left(tmp_path) if each.startswith(("/bin/sh -c sleep", "sleep"))]
            assert len(running) == 3  # a shell and its two children
        finally:
            process.kill()
    assert gone(tmp_path), left(tmp_path)
