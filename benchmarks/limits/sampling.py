"""Profilers that look from outside: py-spy for Python's functions, perf for libraries and the kernel."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.limits import stages

_STACKS_PER_SECOND = 99
_CALLS_PER_SECOND = 999


@dataclass(slots=True)
class Samples:
    """What was seen of the processes, by name; ``missing`` says what could not be looked with."""

    stacks: dict[str, list[stages.Stack]] = field(default_factory=dict)
    #: Samples of the processors: thread id (0: idle), and the chain of calls, innermost first.
    processor: list[tuple[int, list[tuple[str, str]]]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


class Sampler:
    """Samples processes while a workload runs: ``begin_…``, then ``end``.

    One profiler at a time: py-spy takes a good part of a processor for what it looks at.
    """

    def __init__(self, folder: Path, pids: Mapping[str, int], seconds: float) -> None:
        self._folder = folder
        self._pids = dict(pids)
        self._seconds = max(1, int(seconds))
        self._running: list[subprocess.Popen[str]] = []
        self.samples = Samples()

    def begin_functions(self) -> None:
        """Python's functions, with py-spy."""
        spy = Path(sys.executable).with_name("py-spy")
        if not spy.exists():
            self.samples.missing.append("py-spy (the extra `bench`)")
            return
        for name, pid in self._pids.items():
            self._start(
                f"{spy} record --pid {pid} --duration {self._seconds} --rate {_STACKS_PER_SECOND}"
                f" --format raw --threads --nonblocking --function --output {self._file(name, 'stacks')}"
            )

    def begin_processor(self) -> None:
        """Libraries and system calls, with perf.

        Of the whole machine, by its clock: a clock per thread loses samples with each switch of threads.
        """
        if not shutil.which("perf"):
            self.samples.missing.append("perf (Debian: linux-perf)")
            return
        self._start(
            f"perf record --quiet -a -e cpu-clock -F {_CALLS_PER_SECOND} -g"
            f" -o {self._file('machine', 'perf')} -- sleep {self._seconds}"
        )

    def end(self) -> None:
        """Wait for the profilers, and read what they have written."""
        for process in self._running:
            try:
                _, said = process.communicate(timeout=self._seconds + 20)
            except subprocess.TimeoutExpired:
                process.kill()
                _, said = process.communicate()
            if process.returncode != 0:
                print(f"{process.args!r}: {said.strip()[-300:]}", file=sys.stderr)
        self._running.clear()
        for name in self._pids:
            if self._file(name, "stacks").exists():
                lines = self._file(name, "stacks").read_text().splitlines()
                self.samples.stacks[name] = stages.parse_collapsed(lines)
        if self._file("machine", "perf").exists():
            self.samples.processor = stages.parse_samples(self._script().splitlines())

    def _script(self) -> str:
        shown = subprocess.run(
            ["perf", "script", "-F", "tid,ip,sym,dso", "-i", str(self._file("machine", "perf"))],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if shown.returncode != 0:
            print(f"perf script: {shown.stderr.strip()[-300:]}", file=sys.stderr)
        return shown.stdout

    def _file(self, name: str, kind: str) -> Path:
        return self._folder / f"{name.replace(' ', '-')}.{kind}"

    def _start(self, command: str) -> None:
        self._running.append(
            subprocess.Popen(
                shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        )


def syscalls(pid: int, folder: Path) -> subprocess.Popen[str] | None:
    """Begin to count the system calls of a process; None without strace. End it with ``counted``."""
    if not shutil.which("strace"):
        return None
    return subprocess.Popen(
        ["strace", "-c", "-f", "-q", "-p", str(pid), "-o", str(folder / f"{pid}.calls")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def counted(process: subprocess.Popen[str], pid: int, folder: Path) -> dict[str, int]:
    """Calls by name."""
    process.terminate()
    process.communicate(timeout=20)
    found = {}
    for line in (folder / f"{pid}.calls").read_text().splitlines():
        fields = line.split()
        # % time, seconds, usecs/call, calls, [errors,] syscall
        if len(fields) >= 5 and fields[3].isdecimal() and fields[-1] != "total":
            found[fields[-1]] = int(fields[3])
    return found
