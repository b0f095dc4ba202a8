"""Faults 5, 6, 7, 8 and 12 on the stock classes: what the disk keeps."""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
from pysyncobj.journal import FileJournal

from .stock import NO_OP, Lab, append, leaks_allowed, put_command, put_entries
from .stock_replication import count_flushes


@dataclass
class LostTail:
    acked_last_index: int
    last_index_before: int
    last_index_after: int


@leaks_allowed()
def stock_05(lab: Lab) -> LostTail:
    """A crash between the rename of a dump and the trimming of the journal."""
    files = {"journalFile": str(lab.path / "journal"), "fullDumpFile": str(lab.path / "dump")}
    node = lab.node("b", ("a", "c"), useFork=False, **files)
    first = append(1, (1, 0), put_entries(2, 1, ["v", "w", "x"]), commit=4)
    node.receive("a", first)
    node.tick()
    node.obj.forceLogCompaction()
    node.tick()  # the dump of index 4 is renamed here; the journal would be trimmed in the next tick
    answer = node.receive("a", append(1, (4, 1), put_entries(5, 1, ["y", "z"]), commit=4))
    acked = answer[0][1]["next_node_idx"] - 1
    before = node.last_index
    crashed = lab.path / "after the crash"
    crashed.mkdir()
    for name in ("journal", "dump"):
        shutil.copy(lab.path / name, crashed / name)
    node = lab.node(
        "b",
        ("a", "c"),
        useFork=False,
        journalFile=str(crashed / "journal"),
        fullDumpFile=str(crashed / "dump"),
    )
    node.tick()
    return LostTail(acked, before, node.last_index)


@dataclass
class NeverSynced:
    acked: int
    voted: bool
    syncs: int


def stock_06(lab: Lab) -> NeverSynced:
    """A follower acks an entry and grants a vote; how often anything was flushed for it."""
    syncs = count_flushes(lab)
    node = lab.node("b", ("a", "c"), journalFile=str(lab.path / "journal"))
    acked = node.receive("a", append(1, (1, 0), put_entries(2, 1, ["x"])))
    vote = node.receive("c", {"type": "request_vote", "term": 2, "last_log_index": 9, "last_log_term": 1})
    return NeverSynced(
        acked[0][1]["next_node_idx"] - 1, vote[0][1]["type"] == "response_vote", sum(syncs.values())
    )


class Killed(BaseException):
    """The process dies here."""


@dataclass
class Compacted:
    entries_before: int
    entries_to_keep: int
    entries_after_restart: int


def stock_07(lab: Lab) -> Compacted:
    """SIGKILL while the journal is compacted: its pages hold what was written by then."""
    path = lab.path / "journal"
    journal = FileJournal(str(path))
    for index in range(1, 1101):
        journal.add(NO_OP, index, 1)
    before = len(journal)
    real = FileJournal.add
    written: list[object] = []

    def add(self: FileJournal, *entry: object) -> None:
        if len(written) == 3:
            raise Killed
        written.append(entry)
        real(self, *entry)

    lab.patch.setattr(FileJournal, "add", add)
    with pytest.raises(Killed):
        journal.deleteEntriesTo(100)
    lab.patch.setattr(FileJournal, "add", real)
    shutil.copy(path, lab.path / "copy")  # the map is shared: the file has what the process had written
    journal._destroy()
    restarted = FileJournal(str(lab.path / "copy"))
    after = len(restarted)
    restarted._destroy()
    return Compacted(before, before - 100, after)


@dataclass
class WeakFile:
    error_past_4_gib: type[Exception] | None
    error_on_torn_tail: type[Exception] | None
    damaged_command_loaded: bytes
    command_written: bytes


class _Bottomless:
    """Stands for a file of any size, so that no test writes 4 GiB."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    def write(self, offset: int, values: bytes) -> None:
        self.offsets.append(offset)


@leaks_allowed()
def stock_08(lab: Lab) -> WeakFile:
    """A journal that reaches 4 GiB, one with a torn tail, one with a flipped bit."""
    path = lab.path / "journal"
    command = put_command("hello")
    journal = FileJournal(str(path))
    journal.add(NO_OP, 1, 0)
    tail = journal._FileJournal__currentOffset
    journal.add(command, 2, 1)
    journal._destroy()

    torn = _copy(path, lab.path / "torn")
    with torn.open("r+b") as file:  # the header's page reached the disk, the record's did not
        file.seek(tail)
        file.write(bytes(len(command) + 24))
    damaged = _copy(path, lab.path / "damaged")
    with damaged.open("r+b") as file:
        content = file.read()
        file.seek(content.index(b"hello"))
        file.write(b"jello")
    reread = FileJournal(str(damaged))
    loaded = reread[1][0]
    reread._destroy()

    big = FileJournal(str(_copy(path, lab.path / "big")))
    real_file = big._FileJournal__journalFile
    big._FileJournal__journalFile = _Bottomless()
    big._FileJournal__currentOffset = 2**32 - 10
    past = _error_of(lambda: big.add(command, 3, 1))
    real_file._destroy()
    return WeakFile(past, _error_of(lambda: FileJournal(str(torn))), loaded, command)


def _copy(source: Path, target: Path) -> Path:
    shutil.copy(source, target)
    return target


def _error_of(action: object) -> type[Exception] | None:
    try:
        action()  # type: ignore[operator]
    except (struct.error, ValueError, IndexError) as error:
        return type(error)
    return None


@dataclass
class WrongCommit:
    stored_commit: int
    log_end: int
    applied: list[object]
    committed_by_the_leader: list[object]


@leaks_allowed()
def stock_12(lab: Lab) -> WrongCommit:
    """Power cut: the commit index (a small renamed file) is on disk, the newest log pages are not."""
    path, kept = lab.path / "journal", lab.path / "kept"
    node = lab.node("b", ("a", "c"), journalFile=str(path))
    node.receive("a", append(1, (1, 0), put_entries(2, 1, ["old 2", "old 3"])))
    shutil.copy(path, kept)  # the pages that are on disk at the power cut
    newer = ["new 2", "new 3", "new 4", "new 5"]
    node.receive("c", append(2, (1, 0), put_entries(2, 2, newer), commit=5))
    node.tick(1.5)  # the one-second timer stores the commit index
    assert node.values == newer
    shutil.copy(str(path) + ".meta", str(kept) + ".meta")
    node = lab.node("b", ("a", "c"), journalFile=str(kept))
    stored = node.commit
    node.tick()
    return WrongCommit(stored, node.last_index, node.values, list(newer))
