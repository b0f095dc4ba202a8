"""The process that serves one disk: requests of the kernel and orders of the drill, one at a time.

Orders are JSON objects, one a line, over a socket pair; each gets one answer line.
When the drill's end of it closes, the disk is unmounted and the process ends.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import json
import mmap
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.chaos.disk import wire
from holdfast.chaos.disk.filesystem import FileSystem, Later, Refused
from holdfast.chaos.disk.wire import Op

_GONE = (errno.ENODEV, errno.ENOENT, errno.EINTR, errno.EAGAIN)


class Server:
    """One mount point, one backing directory, one control socket."""

    def __init__(self, point: Path, backing: Path, control: socket.socket) -> None:
        self._point = point
        self._control = control
        self._files = FileSystem(backing)
        self._backing = backing
        self._fuse: int | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._on_control)
        self._unread = b""
        self._over = False
        #: (due, order, request, answer) of what is answered later.
        self._later: list[tuple[float, int, int, Callable[[], bytes]]] = []
        self._order = 0

    def run(self) -> None:
        """Serve until the drill is gone."""
        try:
            while not self._over:
                wait = max(0.0, self._later[0][0] - time.monotonic()) if self._later else None
                for key, _ in self._selector.select(wait):
                    key.data()
                while self._later and self._later[0][0] <= time.monotonic():
                    _, _, unique, finish = heapq.heappop(self._later)
                    self._finish(unique, finish)
        finally:
            self._unmount()

    # -- the kernel --------------------------------------------------------------------

    def _on_request(self) -> None:
        fuse = self._fuse
        if fuse is None:
            return
        try:
            request = memoryview(os.read(fuse, wire.BUFFER))
        except OSError as error:
            if error.errno == errno.ENODEV:  # unmounted from outside
                self._unmount()
            if error.errno in _GONE:
                return
            raise
        _, op, unique, number, *_rest = wire.IN_HEADER.unpack_from(request)
        body = request[wire.IN_HEADER.size :]
        if op in wire.SILENT:
            return
        if op == Op.INIT:
            self._answer(unique, self._init(body))
            return
        try:
            answer = self._files.handle(op, number, body)
        except Refused as refused:
            self._answer(unique, b"", refused.code)
            return
        except OSError as error:
            self._answer(unique, b"", error.errno or errno.EIO)
            return
        if isinstance(answer, Later):
            self._order += 1
            due = time.monotonic() + answer.delay
            heapq.heappush(self._later, (due, self._order, unique, answer.finish))
        else:
            self._answer(unique, answer)

    def _init(self, body: memoryview) -> bytes:
        _, minor, readahead, flags = wire.INIT_IN.unpack_from(body)
        return wire.INIT_OUT.pack(
            wire.MAJOR,
            min(minor, wire.MINOR),
            readahead,
            flags & wire.INIT_FLAGS,
            64,
            48,
            wire.MAX_WRITE,
            1,
            wire.MAX_WRITE // mmap.PAGESIZE,
            0,
            0,
        )

    def _finish(self, unique: int, finish: Callable[[], bytes]) -> None:
        try:
            self._answer(unique, finish())
        except Refused as refused:
            self._answer(unique, b"", refused.code)

    def _answer(self, unique: int, payload: bytes, code: int = 0) -> None:
        if self._fuse is None:
            return
        header = wire.OUT_HEADER.pack(wire.OUT_HEADER.size + len(payload), -code, unique)
        try:
            os.write(self._fuse, header + payload)
        except OSError as error:
            # The caller was interrupted, or the mount is gone: nobody waits for it.
            if error.errno not in _GONE:
                raise

    # -- the drill -----------------------------------------------------------------------

    def _on_control(self) -> None:
        received = self._control.recv(65536)
        if not received:
            self._over = True
            return
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            try:
                answer = {"ok": self._obey(json.loads(line))}
            except (OSError, Refused, KeyError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._control.sendall(json.dumps(answer).encode() + b"\n")

    def _obey(self, order: dict[str, Any]) -> Any:
        files = self._files
        match order["do"]:
            case "mount":
                self._mount()
            case "cut":
                cut = files.power_cut(order["seed"])
                for _, _, unique, _ in self._later:
                    self._answer(unique, b"", errno.EIO)
                self._later.clear()
                return cut
            case "slow":
                files.faults.delay = order["seconds"]
            case "failing":
                files.faults.failing = order["on"]
            case "capacity":
                files.faults.capacity = order["bytes"]
            case "search":
                return self._search(order["path"], bytes.fromhex(order["needle"]))
            case "flip":
                self._flip(order["path"], order["offset"], order["bit"])
            case "state":
                return {
                    "used_bytes": files.used_bytes(),
                    "unsynced_pages": files.unsynced_pages(),
                    "flushes": files.flushes,
                    "dead": files.faults.dead,
                }
            case unknown:
                raise KeyError(unknown)
        return None

    def _mount(self) -> None:
        self._unmount()
        self._files.power_on()
        self._fuse = wire.mount(self._point)
        self._selector.register(self._fuse, selectors.EVENT_READ, self._on_request)

    def _unmount(self) -> None:
        fuse, self._fuse = self._fuse, None
        self._later.clear()
        if fuse is not None:
            self._selector.unregister(fuse)
            os.close(fuse)  # whoever waits for an answer gets an error
            wire.unmount(self._point)

    def _search(self, path: str, needle: bytes) -> list[int]:
        """Offsets of all places where ``needle`` is stored in the file."""
        content = self._files.find(path).content
        found: list[int] = []
        if content is None or not content.size:
            return found
        stored = content.read(0, content.size)
        at = stored.find(needle)
        while at >= 0:
            found.append(at)
            at = stored.find(needle, at + 1)
        return found

    def _flip(self, path: str, offset: int, bit: int) -> None:
        node = self._files.find(path)
        if node.content is None:
            raise Refused(errno.EISDIR)
        node.content.flip(offset, bit)
        if self._fuse is not None:
            # The kernel may wait for a page we have yet to deliver: not on this thread.
            threading.Thread(target=_forget_cached, args=(self._fuse, node.number), daemon=True).start()


def _forget_cached(fuse: int, number: int) -> None:
    """Make the kernel read the file's pages again."""
    body = wire.INVALIDATE.pack(number, 0, 0)
    head = struct.pack("<IiQ", wire.OUT_HEADER.size + len(body), wire.INVALIDATE_INODE, 0)
    with contextlib.suppress(OSError):  # ENOENT: nothing of it is cached
        os.write(fuse, head + body)
