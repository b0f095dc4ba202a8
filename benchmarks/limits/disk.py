"""What the disk gives: appends that are followed by fdatasync, and nothing else."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import TypedDict


class Appended(TypedDict):
    """``megabytes`` per second, and the median ``micros`` of one write with its fdatasync."""

    megabytes: float
    micros: float


def append(folder: str, size: int, seconds: float, most: int = 256 << 20) -> Appended:
    """Append ``size`` bytes and fdatasync, over and over, for some seconds or ``most`` bytes.

    The file grows with each, as that of a store does.
    """
    block = os.urandom(size)
    path = Path(folder) / f"append-{os.getpid()}"
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    took: list[float] = []
    try:
        began = time.perf_counter()
        while (now := time.perf_counter()) - began < seconds and len(took) * size < most:
            os.write(file, block)
            os.fdatasync(file)
            took.append(time.perf_counter() - now)
        spent = time.perf_counter() - began
    finally:
        os.close(file)
        path.unlink()
    return Appended(megabytes=len(took) * size / spent / 1e6, micros=statistics.median(took) * 1e6)
