"""A node's data directory: who may use it, and which environment is in use.

::

    LOCK          held by the process that uses the directory
    CURRENT       name of the environment in use; replaced atomically
    env-000001/   an LMDB environment

A snapshot is loaded into a fresh environment next to the one in use; switching
is the replacement of CURRENT. Whatever CURRENT does not name is left over from
a crash or a finished switch, and is removed at the next start.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from pathlib import Path

from holdfast.errors import DataDirectoryError, StorageError
from holdfast.storage.lmdb_store import Housing

_LOCK = "LOCK"
_CURRENT = "CURRENT"
_CURRENT_NEW = "CURRENT.new"
_ENVIRONMENT = re.compile(r"env-(\d{6,})")


class DataDirectory(Housing):
    """An exclusively locked data directory.

    Raises:
        DataDirectoryError: it cannot be made or read, or another process uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_fd: int | None = None
        try:
            _make(path)
            fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise DataDirectoryError(
                f"cannot use the data directory {path}: {error.strerror}; "
                "check that it is a directory this user may write"
            ) from error
        try:
            # An open file's lock, so that a second broker in this process is refused too.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            by = f" (process {holder})" if holder else ""
            raise DataDirectoryError(
                f"the data directory {path} is in use by another broker{by}; "
                "stop it, or give this one a directory of its own"
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._lock_fd = fd

    def current(self) -> Path | None:
        """The environment in use; None in a new directory.

        Raises:
            DataDirectoryError: CURRENT is damaged, or names what is not there.
        """
        try:
            name = (self.path / _CURRENT).read_text().strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise DataDirectoryError(f"cannot read {self.path / _CURRENT}: {error}") from error
        if not _ENVIRONMENT.fullmatch(name) or not (self.path / name / "data.mdb").is_file():
            raise DataDirectoryError(
                f"{self.path / _CURRENT} names {name!r}, which is not an environment in that directory; "
                "restore the directory from a backup, or empty it and let this node catch up from the others"
            )
        return self.path / name

    def environments(self) -> list[Path]:
        """Every environment there is, in use or not, by number."""
        found = [p for p in self.path.iterdir() if _ENVIRONMENT.fullmatch(p.name) and p.is_dir()]
        return sorted(found, key=lambda p: int(p.name[4:]))

    def tidy(self) -> None:
        """Remove what CURRENT does not name. Only once CURRENT is there and good."""
        current = self.current()
        if current is None:
            return
        for path in self.environments():
            if path != current:
                self.remove(path)
        (self.path / _CURRENT_NEW).unlink(missing_ok=True)

    # -- Housing -----------------------------------------------------------------

    def fresh(self) -> Path:
        taken = self.environments()
        number = int(taken[-1].name[4:]) + 1 if taken else 1
        path = self.path / f"env-{number:06d}"
        path.mkdir()
        return path

    def switch(self, path: Path) -> None:
        """Name ``path`` in CURRENT: atomic, and durable on return.

        The environment's own files reach the disk first: LMDB syncs their
        content, not the directory entries.

        Raises:
            StorageError: it could not be done; CURRENT may name either.
        """
        try:
            _sync_directory(path)
            _sync_directory(self.path)
            staged = self.path / _CURRENT_NEW
            with staged.open("w") as file:
                file.write(path.name + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(staged, self.path / _CURRENT)
            _sync_directory(self.path)
        except OSError as error:
            raise StorageError(f"cannot switch to the environment {path}: {error}") from error

    def remove(self, path: Path) -> None:
        # What resists is removed at the next start.
        shutil.rmtree(path, ignore_errors=True)

    def closed(self) -> None:
        """Give the directory back."""
        fd, self._lock_fd = self._lock_fd, None
        if fd is not None:
            os.close(fd)


def _make(path: Path) -> None:
    """Make a directory and what is missing above it, each entry durable: what is in it is no better kept."""
    if path.is_dir():
        return
    _make(path.parent)
    path.mkdir(exist_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
