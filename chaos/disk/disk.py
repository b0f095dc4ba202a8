"""One forgetful disk, as a drill holds it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from holdfast.chaos.disk import wire
from holdfast.errors import InternalError

#: Longest wait for an answer of the disk's process, seconds.
_PATIENCE = 30.0


def missing() -> str | None:
    """What this machine lacks for such disks, in words; None: nothing."""
    if sys.platform != "linux":
        return "a FUSE disk needs Linux"
    if os.geteuid() != 0:
        return "mounting a FUSE disk needs root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no /dev/fuse (load the kernel's fuse module; in a container pass the device in)"
    return None


@dataclass(frozen=True, slots=True)
class Cut:
    """What a power cut took.

    Attributes:
        pages_dropped: 4 KiB pages that went back to what was there before.
        directory_steps: changes of directories that were not durable.
        keep: the chance each of them had to stay.
    """

    pages_dropped: int
    directory_steps: int
    keep: float


class Disk:
    """A file system mounted on ``point`` (made, must be empty), served by a process of its own.

    ``backing`` holds its objects and must not lie under ``point``. A context manager:
    leaving it unmounts. Calls are for one thread and raise InternalError when the
    disk's process is gone or refuses.
    """

    def __init__(self, point: Path, backing: Path) -> None:
        self.point = point
        lacking = missing()
        if lacking is not None:
            raise InternalError(lacking)
        point.mkdir(parents=True, exist_ok=True)
        backing.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        ours.settimeout(_PATIENCE)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "holdfast.chaos.disk",
                    str(point),
                    str(backing),
                    str(theirs.fileno()),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._control = ours
        self._answers = ours.makefile("rb")
        try:
            self._order(do="mount")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def cut(self, seed: int) -> Cut:
        """The power fails: what was not fsynced is gone, but for a part drawn by ``seed``; all I/O fails."""
        return Cut(**self._order(do="cut", seed=seed))

    def power_on(self) -> None:
        """Mount afresh what survived; whoever still has files open there gets errors. Faults end."""
        self._order(do="mount")

    def slow(self, seconds: float) -> None:
        """Every fsync takes so long from now on; 0: not any more."""
        self._order(do="slow", seconds=seconds)

    def fail_fsync(self, on: bool = True) -> None:
        """Every fsync fails with EIO, and the pages it was for stay undurable."""
        self._order(do="failing", on=on)

    def limit(self, total_bytes: int | None) -> None:
        """The disk's size: beyond it ENOSPC, and statvfs says so. None: as large as the disk below."""
        self._order(do="capacity", bytes=total_bytes)

    def used_bytes(self) -> int:
        used: int = self.state()["used_bytes"]
        return used

    def state(self) -> dict[str, Any]:
        """``used_bytes``, ``unsynced_pages``, ``flushes`` so far, ``dead``."""
        state: dict[str, Any] = self._order(do="state")
        return state

    def search(self, path: str, needle: bytes) -> list[int]:
        """All offsets at which ``needle`` is stored in a file; ``path`` is relative to the mount point."""
        found: list[int] = self._order(do="search", path=path, needle=needle.hex())
        return found

    def flip(self, path: str, offset: int, bit: int) -> None:
        """Invert one bit of a stored byte; cached copies are forgotten, open maps see it too."""
        self._order(do="flip", path=path, offset=offset, bit=bit)

    def close(self) -> None:
        """Unmount and end the disk's process; what it stored stays in ``backing``."""
        self._answers.close()
        self._control.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10.0)
        # When the process did not get to it.
        with contextlib.suppress(OSError):
            wire.unmount(self.point)

    def _order(self, **order: object) -> Any:
        try:
            self._control.sendall(json.dumps(order).encode() + b"\n")
            line = self._answers.readline()
        except OSError as error:
            raise InternalError(f"the disk of {self.point.name} does not answer: {error}") from error
        if not line:
            raise InternalError(f"the disk of {self.point.name} is gone (exit {self._process.poll()})")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise InternalError(f"the disk of {self.point.name} refuses {order['do']}: {answer['error']}")
        return answer["ok"]
