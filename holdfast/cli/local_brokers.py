"""Three brokers of this machine as background processes.

Each has a folder with its data, its log and a pid file. The pid file also
holds when the process started, as the kernel counts it: a number that has since
gone to another process is not mistaken for the broker's, and never signalled.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import DeadlineExceededError, FailedPreconditionError, PortInUseError, UnavailableError

_PORT_STEP = 10
_STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Started:
    """What `up` did: the leader, and the brokers that had not been running."""

    leader_id: str
    started: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LocalBroker:
    """One of the brokers: its addresses and files."""

    node_id: str
    client: str
    peer: str
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "broker.log"

    @property
    def pid_file(self) -> Path:
        return self.folder / "broker.pid"

    def pid(self) -> int | None:
        """Process id of the running broker, None when it does not run."""
        try:
            text = self.pid_file.read_text().split()
            pid, birth = int(text[0]), text[1]
        except (FileNotFoundError, ValueError, IndexError):
            return None
        return pid if _birth(pid) == birth else None

    def last_words(self) -> str:
        """The last line of the log, empty when there is none."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return lines[-1].removeprefix("holdfast: ") if lines else ""


class LocalBrokers:
    """The three brokers under a directory.

    Args:
        directory: made when it is missing.
        port: client port of the first; None: whatever was used before.
    """

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory.absolute()
        first = 7450 if port is None else port
        ports = [first + _PORT_STEP * i for i in range(3)]
        self.brokers = [
            LocalBroker(f"n{i + 1}", f"127.0.0.1:{p}", f"127.0.0.1:{p + 1}", self.directory / f"n{i + 1}")
            for i, p in enumerate(ports)
        ]
        self._members = ",".join(f"{b.node_id}={b.client}/{b.peer.rpartition(':')[2]}" for b in self.brokers)

    def up(self, timeout: float) -> Started:
        """Start what does not run and wait until a majority names one leader.

        Raises:
            UnavailableError: a broker ended at once; its last log line is in the message. Those that
                this call had started are stopped.
            DeadlineExceededError: no leader within ``timeout`` seconds.
            FailedPreconditionError: the brokers run with other ports.
        """
        with self._lock():
            self._check_ports()
            started: list[LocalBroker] = []
            try:
                for broker in self.brokers:
                    if broker.pid() is None:
                        self._start(broker)
                        started.append(broker)
                leader = self._wait_leader(timeout)
            except UnavailableError:
                # All or nothing: the others would wait for the one that cannot start.
                _stop(started)
                raise
            return Started(leader, tuple(broker.node_id for broker in started))

    def down(self) -> list[str]:
        """Stop those that run, politely first; their node ids."""
        if not self.directory.is_dir():
            return []
        with self._lock():
            return _stop(self.brokers)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        # Two `up` at once would start six brokers, three of which find their ports taken.
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _check_ports(self) -> None:
        used = self.directory / "members"
        running = [broker.node_id for broker in self.brokers if broker.pid() is not None]
        if running and used.exists() and used.read_text() != self._members:
            raise FailedPreconditionError(
                f"{', '.join(running)} run with other ports ({used.read_text()}); run `holdfast down` first"
            )
        used.write_text(self._members)

    def _start(self, broker: LocalBroker) -> None:
        broker.folder.mkdir(parents=True, exist_ok=True)
        # Settings of the caller's shell are meant for its own broker, not for these three.
        env = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        command = [sys.executable, "-m", "holdfast.cli", "serve"]
        command += ["--node-id", broker.node_id, "--listen", broker.client, "--peer-listen", broker.peer]
        command += ["--members", self._members, "--data-dir", str(broker.folder / "data")]
        command += ["--set", "cluster_id=local"]
        with broker.log.open("ab") as log:
            process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        broker.pid_file.write_text(f"{process.pid} {_birth(process.pid)}\n")
        # It is to outlive us: nobody will wait for it, and that is no leak worth a warning.
        process.returncode = 0

    def _wait_leader(self, timeout: float) -> str:
        from holdfast.cli.probe import leader_of

        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            named: list[str] = []
            for broker in self.brokers:
                if broker.pid() is None:
                    raise UnavailableError(f"broker {broker.node_id} ended: {_why(broker)}")
                leader = leader_of(broker.client, timeout=1.0)
                if leader:
                    named.append(leader)
            if len(named) == len(self.brokers) and len(set(named)) == 1:
                return named[0]
            time.sleep(0.05)
        raise DeadlineExceededError(
            f"no leader within {timeout:.0f} s; the logs are {self.directory}/n*/broker.log"
        )


def _stop(brokers: Sequence[LocalBroker]) -> list[str]:
    """Stop those that run; their node ids."""
    pids = {broker: pid for broker in brokers if (pid := broker.pid()) is not None}
    for pid in pids.values():
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    for broker, pid in pids.items():
        if not _wait_gone(pid, deadline) and broker.pid() == pid:
            os.kill(pid, signal.SIGKILL)
            _wait_gone(pid, time.monotonic() + _STOP_SECONDS)
        broker.pid_file.unlink(missing_ok=True)
    return [broker.node_id for broker in pids]


def _why(broker: LocalBroker) -> str:
    words = broker.last_words()
    if f"[{PortInUseError.reason}]" in words:
        # What follows the semicolon tells of an option of `serve`.
        return f"{words.partition(';')[0]}; stop the process that has it, or `holdfast up --port PORT`"
    return f"{words or 'it wrote nothing'} (its log: {broker.log})"


def _birth(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if not Path("/proc/self/stat").exists():
            return _birth_without_proc(pid)
        return None
    # Field 3 is the state (a zombie has ended), field 22 the start time.
    return None if fields[0] in "ZX" else fields[19]


def _birth_without_proc(pid: int) -> str | None:
    # macOS: ps knows the second in which a process started.
    found = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return "_".join(found.stdout.split()) or None


def _wait_gone(pid: int, deadline: float) -> bool:
    """Wait for a process that need not be our child; False when it is still there at the deadline."""
    if not hasattr(os, "pidfd_open"):
        while _birth(pid) is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        return _birth(pid) is None
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ready, _, _ = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
        return bool(ready)
    finally:
        os.close(handle)
