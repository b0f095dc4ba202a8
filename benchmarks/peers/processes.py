"""Starting and ending the processes of a compared system, so that none outlives this program."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from holdfast.chaos.keeper import Keeper

_keeper, _kept, _keeping = Keeper(), set[int](), threading.Lock()


def keep(group: int) -> None:
    """Should this program be killed, the processes of a group end too; until ``forget``."""
    with _keeping:
        _kept.add(group)
        _keeper.keep(-each for each in _kept)


def forget(group: int) -> None:
    """The group has ended."""
    with _keeping:
        _kept.discard(group)
        _keeper.keep(-each for each in _kept)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, below the range the kernel gives to clients."""
    found: list[int] = []
    port = 21000 + os.getpid() % 500 * 20
    while len(found) < count:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        port += 1
    return found


class Process:
    """One server process in a group of its own, its output in a file."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.command = list(command)
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        keep(self._popen.pid)

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def pids(self) -> list[int]:
        """The process and what it started, those that live."""
        if not self.running:
            return []
        return _session(self._popen.pid)

    def kill(self) -> None:
        """``kill -9`` of the process and all that it started."""
        for pid in _session(self._popen.pid) or [self._popen.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._popen.wait()
        forget(self._popen.pid)

    async def end(self, seconds: float = 10) -> None:
        """SIGTERM, then by force. Whatever it started goes with it."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.terminate()
        until = time.monotonic() + seconds
        while self.running and time.monotonic() < until:
            await asyncio.sleep(0.05)
        self.kill()

    def tail(self, lines: int = 20) -> str:
        """The end of the log, for an error message."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _session(leader: int) -> list[int]:
    """All live processes of a session, found in /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


async def until(
    ready: Callable[[], Awaitable[bool]], seconds: float, what: str, processes: Sequence[Process] = ()
) -> None:
    """Ask ``ready`` until it is true. Raises RuntimeError with the processes' logs after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        dead = [process for process in processes if not process.running]
        if await ready():
            return
        if dead or time.monotonic() > deadline:
            logs = "\n".join(process.tail() for process in (dead or processes))
            raise RuntimeError(
                f"{what}: {'a process ended' if dead else f'not within {seconds:.0f} s'}\n{logs}"
            )
        await asyncio.sleep(0.1)
