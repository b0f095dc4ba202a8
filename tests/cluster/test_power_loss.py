"""The real store on a disk that loses its power: what was committed is there, nothing is torn.

A process writes; the power is cut at a moment of no particular choosing, and
what had not been fsynced is gone, or partly there, page by page.
"""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.chaos.disk import Disk, missing
from holdfast.errors import InternalError

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"no forgetful disk here: {missing()}")

_CUTS = 25

#: Rows small and large, some deleted again, so that pages are freed and written anew.
_WRITER = """
import hashlib, sys
from pathlib import Path
from holdfast.storage.identity import open_store
from holdfast.storage.port import Table
store = open_store(Path(sys.argv[1]), "c", "n1", 1 << 30)
with store.read() as reader:
    last = reader.last_key(Table.JOURNAL)
number = int(last) + 1 if last else 0
print("ready", flush=True)
while True:
    writer = store.writer()
    key = b"%012d" % number
    writer.append(Table.JOURNAL, key, hashlib.sha256(key).digest() * (1 + number * 37 % 400))
    writer.put(Table.META, b"number", key)
    if number >= 60:
        writer.delete(Table.JOURNAL, b"%012d" % (number - 60))
    if number % 4 == 0:
        store.commit()
    else:
        store.persist()  # ahead of a commit, where that is less to write
    print(number, flush=True)
    number += 1
"""

_CHECK = """
import hashlib, sys
from pathlib import Path
from holdfast.storage.identity import open_store
from holdfast.storage.port import Table
store = open_store(Path(sys.argv[1]), "c", "n1", 1 << 30)
with store.read() as reader:
    number = int(reader.get(Table.META, b"number") or b"-1")
    rows = list(reader.scan(Table.JOURNAL))
assert [int(k) for k, _ in rows] == list(range(max(0, number - 59), number + 1)), "rows are missing"
for key, value in rows:
    assert value == hashlib.sha256(key).digest() * (1 + int(key) * 37 % 400), f"row {key!r} is torn"
print(number)
store.close()
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with Disk(tmp_path / "n1", tmp_path / "n1.disk") as made:
        yield made


def _store(code: str, data: Path) -> subprocess.Popen[str]:
    # In a process of its own: a map over a disk that fails may end in SIGBUS.
    return subprocess.Popen([sys.executable, "-c", code, str(data)], stdout=subprocess.PIPE, text=True)


def test_what_was_committed_survives_every_cut(disk: Disk) -> None:
    chance = random.Random(os.urandom(8))
    committed = -1
    dropped = 0
    for _ in range(_CUTS):
        seed = chance.randrange(1 << 32)
        with _store(_WRITER, disk.point) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            until = time.monotonic() + chance.uniform(0.0, 0.05)
            while time.monotonic() < until:
                committed = int(writer.stdout.readline())
            cut = disk.cut(seed)
            dropped += cut.pages_dropped
            writer.kill()
            for line in writer.stdout:
                if line.endswith("\n"):
                    committed = int(line)
        disk.power_on()
        with _store(_CHECK, disk.point) as check:
            found, _ = check.communicate()
        assert check.returncode == 0, f"seed {seed}"
        assert int(found) >= committed, f"seed {seed}: committed {committed}, found {found}"
    assert dropped > 0, "no cut ever met a write that was under way"


def test_a_power_cut_during_the_first_start_leaves_a_directory_that_starts(disk: Disk) -> None:
    chance = random.Random(os.urandom(8))
    for attempt in range(10):
        seed = chance.randrange(1 << 32)
        data = disk.point / f"parent-{attempt}" / "data"
        disk.slow(0.01)
        with _store(_WRITER, data) as writer:
            assert writer.stdout is not None
            wanted = disk.state()["flushes"] + chance.randrange(1, 12)
            give_up = time.monotonic() + 10
            while disk.state()["flushes"] < wanted and time.monotonic() < give_up:
                time.sleep(0.001)
            disk.cut(seed)
            writer.kill()
            said = writer.stdout.read().rpartition("\n")[0].split("\n")
        committed = int(said[-1]) if said[-1].isdecimal() else -1
        disk.power_on()
        with _store(_CHECK, data) as check:
            found, _ = check.communicate()
        assert check.returncode == 0, f"seed {seed}"
        assert int(found) >= committed, f"seed {seed}: committed {committed}, found {found}"


def test_a_commit_whose_fsync_fails_is_not_acknowledged_and_a_restart_works(disk: Disk) -> None:
    with _store(_WRITER, disk.point) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        for _ in range(20):
            committed = int(writer.stdout.readline())
        disk.fail_fsync()
        for line in writer.stdout:
            committed = int(line)
        assert writer.wait(10) != 0
    disk.fail_fsync(False)
    with _store(_CHECK, disk.point) as check:
        found, _ = check.communicate()
    assert check.returncode == 0
    assert int(found) >= committed


def test_a_flipped_bit_is_seen_through_an_open_map(disk: Disk) -> None:
    (disk.point / "file").write_bytes(b"." * 10_000 + b"to-be-found" + b"." * 10_000)
    with (disk.point / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        (place,) = disk.search("file", b"to-be-found")
        assert mapped[place : place + 2] == b"to"
        disk.flip("file", place, 0)
        deadline = time.monotonic() + 5
        while mapped[place : place + 2] != b"uo":
            assert time.monotonic() < deadline, "the map still shows the old page"


def test_a_full_disk_refuses_and_says_so(disk: Disk) -> None:
    disk.limit(1 << 20)
    assert os.statvfs(disk.point).f_blocks * 4096 == 1 << 20
    with (disk.point / "big").open("wb", buffering=0) as file:
        for _ in range((1 << 20) // 4096):
            file.write(b"x" * 4096)
        with pytest.raises(OSError, match="No space left"):
            file.write(b"x" * 4096)
        assert os.statvfs(disk.point).f_bavail == 0
        disk.limit(None)
        file.write(b"x" * 4096)


def test_closing_unmounts_whoever_still_uses_it(disk: Disk) -> None:
    file = os.open(disk.point / "file", os.O_RDWR | os.O_CREAT)
    os.write(file, b"x")
    assert os.path.ismount(disk.point)
    disk.close()
    assert not os.path.ismount(disk.point)
    for use in (os.fsync, os.close):
        with pytest.raises(OSError, match="endpoint is not connected"):
            use(file)


def test_a_disk_whose_process_is_gone_says_so(disk: Disk) -> None:
    disk._process.kill()
    disk._process.wait(10)
    with pytest.raises(InternalError, match="disk of n1"):
        disk.state()
