"""The real store without consensus or network: entries appended, and committed every so many."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from pathlib import Path
from typing import TypedDict

from holdfast.storage import journal
from holdfast.storage.identity import AHEAD_BYTES
from holdfast.storage.lmdb_store import LmdbStore


class Committed(TypedDict):
    """MB/s of entries; medians of one append and one commit in µs; CPU seconds per GB."""

    megabytes: float
    append_micros: float
    commit_micros: float
    cpu_per_gigabyte: float


def commit(folder: str, size: int, each: int, seconds: float, most: int = 256 << 20) -> Committed:
    """Entries of ``size`` bytes with a commit after every ``each``, for some seconds or ``most`` bytes."""
    path = Path(folder) / f"store-{os.getpid()}"
    # What brokers reserve ahead, they reserve for a full disk; it is part of their commits.
    store = LmdbStore(path, quota_bytes=64 << 30, ahead_bytes=AHEAD_BYTES)
    entry = os.urandom(size)
    appends: list[float] = []
    commits: list[float] = []
    clock = time.perf_counter
    try:
        writer = store.writer()
        journal.set_base(writer, 1, 0)
        store.commit()
        index, cpu, began = 1, time.process_time(), clock()
        while clock() - began < seconds and index * size < most:
            for _ in range(each):
                index += 1
                before = clock()
                journal.append(store.writer(), index, 1, 1, entry)
                appends.append(clock() - before)
            before = clock()
            store.commit()
            commits.append(clock() - before)
        spent, cpu = clock() - began, time.process_time() - cpu
    finally:
        store.close()
        shutil.rmtree(path)
    return Committed(
        megabytes=(index - 1) * size / spent / 1e6,
        append_micros=statistics.median(appends) * 1e6,
        commit_micros=statistics.median(commits) * 1e6,
        cpu_per_gigabyte=cpu / ((index - 1) * size) * 1e9,
    )
