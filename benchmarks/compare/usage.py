"""What the processes of a system have used, read from /proc."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums over all processes of a system; those that ended count through the parent that reaped them.

    Attributes:
        cpu_seconds: user and system time of all threads.
        written_bytes: handed to the disk's cache in memory (``write_bytes`` of /proc/PID/io).
        anonymous_bytes: memory that is no file's (``RssAnon``).
    """

    cpu_seconds: float
    written_bytes: int
    anonymous_bytes: int


def usage(pids: Iterable[int]) -> Usage:
    """The sum over those of the processes that live."""
    cpu = written = anonymous = 0
    for pid in pids:
        folder = Path("/proc") / str(pid)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            cpu += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
            written += _field(folder / "io", "write_bytes:")
            anonymous += _field(folder / "status", "RssAnon:") * 1024
    return Usage(cpu / _TICKS, written, anonymous)


def proportional_bytes(pids: Iterable[int]) -> int:
    """Memory with shared pages divided among their users (``Pss``), mapped files included.

    Slow: not while measuring.
    """
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += _field(Path("/proc") / str(pid) / "smaps_rollup", "Pss:") * 1024
    return total


def _field(path: Path, name: str) -> int:
    """The number after ``name`` at a line's start; 0 when there is none (a process that is ending)."""
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0
