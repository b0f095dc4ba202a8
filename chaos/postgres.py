"""A real PostgreSQL of our own, to be killed and started again.

The server is Debian's (``scripts/postgres.sh`` installs it) or whatever is on
the path. It keeps its data in a temporary directory, listens on a Unix socket
there, fsyncs, and ends with the program that started it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from holdfast.chaos.keeper import Keeper
from holdfast.errors import DeadlineExceededError, InternalError

#: Said where one is needed and there is none.
MISSING = "no PostgreSQL; scripts/postgres.sh installs it"

_USER = "holdfast"
_PORT = 5432
#: It refuses to run as root.
_UNPRIVILEGED = ("postgres", "nobody")


def find() -> Path | None:
    """The folder with the newest ``initdb`` and ``postgres``; None: there is none."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    folders.sort(key=lambda path: [int(part) for part in path.parent.name.split(".") if part.isdigit()])
    on_path = shutil.which("postgres")
    if on_path is not None:
        folders.insert(0, Path(on_path).resolve().parent)
    return next((path for path in reversed(folders) if (path / "initdb").exists()), None)


class Postgres:
    """One server; a context manager that starts it, and removes it with its data.

    Raises:
        InternalError: there is no PostgreSQL, or it does not start; the message has its log.
    """

    def __init__(self) -> None:
        found = find()
        if found is None:
            raise InternalError(MISSING)
        self._bin = found
        self._keeper = Keeper()
        self._process: subprocess.Popen[bytes] | None = None
        # Short: the path of a Unix socket has about a hundred characters.
        self._home = Path(tempfile.mkdtemp(prefix="hf-pg-", dir="/tmp"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            owner = _unprivileged()
            os.chown(self._home, owner.pw_uid, owner.pw_gid)
            self._as = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}

    @property
    def dsn(self) -> str:
        """How to connect, as libpq takes it."""
        return f"host={self._home} port={_PORT} user={_USER} dbname=postgres"

    @property
    def url(self) -> str:
        """The same for SQLAlchemy with psycopg."""
        return f"postgresql+psycopg://{_USER}@/postgres?host={self._home}&port={_PORT}"

    def __enter__(self) -> Self:
        try:
            self._run("initdb", "-D", "data", "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, timeout: float = 60.0) -> None:
        """Start it, and wait until it takes connections.

        Raises:
            DeadlineExceededError: it did not within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            if self._process is None or self._process.poll() is not None:
                # After a kill the remains of the old one may stand in the way for a moment.
                self._launch()
            ready = [str(self._bin / "pg_isready"), "-q", "-h", str(self._home), "-p", str(_PORT)]
            if subprocess.run(ready, check=False).returncode == 0:
                return
            if time.monotonic() > deadline:
                raise DeadlineExceededError(f"PostgreSQL did not start:\n{self._log()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL: what was not fsynced by then was never promised."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._keeper.keep([])

    def close(self) -> None:
        """Stop it at once and remove everything."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        self._keeper.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def _launch(self) -> None:
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", "data", "-k", str(self._home), "-p", str(_PORT), "-h", ""],
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._as,
            )
        self._keeper.keep([self._process.pid])

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            **self._as,
        )
        if done.returncode != 0:
            text = (done.stdout + done.stderr).decode(errors="replace")
            raise InternalError(f"{program} failed:\n{text}")

    def _log(self) -> str:
        path = self._home / "log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-20:]) if path.exists() else ""


def _unprivileged() -> pwd.struct_passwd:
    for name in _UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise InternalError(f"PostgreSQL does not run as root, and there is no user {' or '.join(_UNPRIVILEGED)}")
