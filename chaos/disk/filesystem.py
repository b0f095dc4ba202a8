"""The file system behind the mount: FUSE requests against the durability model.

Sans I/O towards the kernel: ``handle`` takes one request and returns its answer,
or the moment it is to be answered (a slow fsync). ``server.py`` owns descriptors.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from holdfast.chaos.disk import wire
from holdfast.chaos.disk.content import PAGE, Content
from holdfast.chaos.disk.tree import Node
from holdfast.chaos.disk.wire import Op

_ROOT = 1
_FOREVER = 3600
_RENAME_NOREPLACE = 1


class Refused(Exception):
    """A request that ends with an errno."""

    def __init__(self, code: int) -> None:
        super().__init__(os.strerror(code))
        self.code = code


@dataclass(frozen=True, slots=True)
class Later:
    """An answer that takes ``delay`` seconds; ``finish`` gives it, unless the power fails before."""

    delay: float
    finish: Callable[[], bytes]


Answer = bytes | Later


@dataclass(slots=True)
class Faults:
    """What is wrong with the disk just now.

    Attributes:
        delay: seconds every fsync (and O_DSYNC write) takes.
        failing: every fsync fails with EIO.
        capacity: bytes of the disk; beyond them ENOSPC; None: the backing disk's own.
        dead: the power is off: everything fails.
    """

    delay: float = 0.0
    failing: bool = False
    capacity: int | None = None
    dead: bool = False


class FileSystem:
    """Files in ``backing``, one object each; names and durability in memory."""

    def __init__(self, backing: Path) -> None:
        self._backing = backing
        self.faults = Faults()
        self.flushes = 0
        self._count = _ROOT
        self.root = Node(_ROOT, stat.S_IFDIR | 0o755)
        self._nodes: dict[int, Node] = {_ROOT: self.root}
        self._ops: dict[int, Callable[[Node, memoryview], Answer]] = {
            Op.LOOKUP: self._lookup,
            Op.GETATTR: self._getattr,
            Op.SETATTR: self._setattr,
            Op.MKDIR: self._mkdir,
            Op.CREATE: self._create,
            Op.UNLINK: self._unlink,
            Op.RMDIR: self._rmdir,
            Op.RENAME: self._rename,
            Op.RENAME2: self._rename2,
            Op.OPEN: self._open,
            Op.OPENDIR: self._opendir,
            Op.READ: self._read,
            Op.WRITE: self._write,
            Op.STATFS: self._statfs,
            Op.RELEASE: self._release,
            Op.RELEASEDIR: self._release,
            Op.FSYNC: self._fsync,
            Op.FSYNCDIR: self._fsyncdir,
            Op.READDIR: self._readdir,
            Op.FALLOCATE: self._fallocate,
        }

    # -- requests ------------------------------------------------------------------

    def handle(self, op: int, number: int, body: memoryview) -> Answer:
        """Raises Refused with the errno the caller gets."""
        if self.faults.dead:
            raise Refused(errno.EIO)
        operation = self._ops.get(op)
        if operation is None:
            raise Refused(errno.ENOSYS)
        node = self._nodes.get(number)
        if node is None:
            raise Refused(errno.ENOENT)
        return operation(node, body)

    def _lookup(self, node: Node, body: memoryview) -> bytes:
        found = node.names.get(_name(body))
        if found is None:
            raise Refused(errno.ENOENT)
        return self._entry(found)

    def _getattr(self, node: Node, _: memoryview) -> bytes:
        return wire.ATTR_OUT.pack(_FOREVER, 0, 0) + self._attributes(node)

    def _setattr(self, node: Node, body: memoryview) -> bytes:
        fields = wire.SETATTR_IN.unpack_from(body)
        valid, size, mode = fields[0], fields[3], fields[11]
        if valid & wire.SET_MODE:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        if valid & wire.SET_SIZE:
            _content(node).truncate(size)
        node.modified = time.time()
        return self._getattr(node, body)

    def _mkdir(self, node: Node, body: memoryview) -> bytes:
        mode, _ = wire.MKDIR_IN.unpack_from(body)
        name = _name(body[wire.MKDIR_IN.size :])
        if name in node.names:
            raise Refused(errno.EEXIST)
        made = self._new(stat.S_IFDIR | stat.S_IMODE(mode))
        node.change({name: made})
        return self._entry(made)

    def _create(self, node: Node, body: memoryview) -> bytes:
        flags, mode, _, _ = wire.CREATE_IN.unpack_from(body)
        name = _name(body[wire.CREATE_IN.size :])
        made = node.names.get(name)
        if made is None:
            made = self._new(stat.S_IFREG | stat.S_IMODE(mode))
            node.change({name: made})
        elif flags & os.O_EXCL:
            raise Refused(errno.EEXIST)
        return self._entry(made) + self._opened(made, flags)

    def _unlink(self, node: Node, body: memoryview) -> bytes:
        name = _name(body)
        if name not in node.names:
            raise Refused(errno.ENOENT)
        node.change({name: None})
        self._collect()
        return b""

    def _rmdir(self, node: Node, body: memoryview) -> bytes:
        gone = node.names.get(_name(body))
        if gone is not None and gone.names:
            raise Refused(errno.ENOTEMPTY)
        return self._unlink(node, body)

    def _rename(self, node: Node, body: memoryview) -> bytes:
        (parent,) = wire.RENAME_IN.unpack_from(body)
        return self._move(node, parent, 0, body[wire.RENAME_IN.size :])

    def _rename2(self, node: Node, body: memoryview) -> bytes:
        parent, flags, _ = wire.RENAME2_IN.unpack_from(body)
        return self._move(node, parent, flags, body[wire.RENAME2_IN.size :])

    def _move(self, node: Node, parent: int, flags: int, names: memoryview) -> bytes:
        old, new = (os.fsdecode(n) for n in bytes(names).split(b"\0")[:2])
        if parent != node.number:
            # Two directories would have to become durable together; no store here asks for it.
            raise Refused(errno.EXDEV)
        if flags & ~_RENAME_NOREPLACE:
            raise Refused(errno.EINVAL)
        moved = node.names.get(old)
        if moved is None:
            raise Refused(errno.ENOENT)
        if flags & _RENAME_NOREPLACE and new in node.names:
            raise Refused(errno.EEXIST)
        node.change({old: None, new: moved})
        self._collect()
        return b""

    def _open(self, node: Node, body: memoryview) -> bytes:
        flags, _ = wire.OPEN_IN.unpack_from(body)
        return self._opened(node, flags)

    def _opendir(self, node: Node, _: memoryview) -> bytes:
        node.opens += 1
        return wire.OPEN_OUT.pack(0, 0, 0)

    def _opened(self, node: Node, flags: int) -> bytes:
        if flags & os.O_TRUNC:
            _content(node).truncate(0)
        node.opens += 1
        # The handle is its flags: all the model has to know about it.
        return wire.OPEN_OUT.pack(flags & os.O_DSYNC, wire.KEEP_CACHE, 0)

    def _release(self, node: Node, _: memoryview) -> bytes:
        node.opens -= 1
        self._collect()
        return b""

    def _read(self, node: Node, body: memoryview) -> bytes:
        _, offset, size, *_rest = wire.READ_IN.unpack_from(body)
        return _content(node).read(offset, size)

    def _write(self, node: Node, body: memoryview) -> Answer:
        handle, offset, size, _, _, flags, _ = wire.WRITE_IN.unpack_from(body)
        content = _content(node)
        self._need_room(content, offset, size)
        content.write(offset, bytes(body[wire.WRITE_IN.size : wire.WRITE_IN.size + size]))
        node.modified = time.time()
        answer = wire.WRITE_OUT.pack(size, 0)
        if not (handle | flags) & os.O_DSYNC:
            return answer
        # Durable with the write itself; other pages of the file are not.
        return self._flush(content, range(offset // PAGE, -(-(offset + size) // PAGE)), answer)

    def _fsync(self, node: Node, body: memoryview) -> Answer:
        handle, _, _ = wire.FSYNC_IN.unpack_from(body)
        if handle & os.O_DSYNC:
            # The kernel's own, after each write through such a handle: that write is durable already.
            return b""
        return self._flush(_content(node), None, b"")

    def _flush(self, content: Content, only: range | None, answer: bytes) -> Answer:
        self.flushes += 1
        flush = content.begin_flush(only)

        def finish() -> bytes:
            if self.faults.failing:
                content.fail_flush(flush)
                raise Refused(errno.EIO)
            content.end_flush(flush)
            return answer

        return Later(self.faults.delay, finish) if self.faults.delay else finish()

    def _fsyncdir(self, node: Node, _: memoryview) -> Answer:
        steps = node.steps

        def finish() -> bytes:
            if self.faults.failing:
                raise Refused(errno.EIO)
            node.synced(steps)
            self._collect()
            return b""

        return Later(self.faults.delay, finish) if self.faults.delay else finish()

    def _readdir(self, node: Node, body: memoryview) -> bytes:
        _, offset, size, *_rest = wire.READ_IN.unpack_from(body)
        out = bytearray()
        listed = [(".", node), ("..", node), *node.names.items()]
        for place, (name, entry) in enumerate(listed[offset:], offset + 1):
            encoded = os.fsencode(name)
            row = wire.DIRENT.pack(entry.number, place, len(encoded), stat.S_IFMT(entry.mode) >> 12) + encoded
            row += b"\0" * (-len(row) % 8)
            if len(out) + len(row) > size:
                break
            out += row
        return bytes(out)

    def _fallocate(self, node: Node, body: memoryview) -> bytes:
        _, offset, length, mode, _ = wire.FALLOCATE_IN.unpack_from(body)
        if mode & ~wire.FALLOC_KEEP_SIZE:
            raise Refused(errno.EOPNOTSUPP)
        content = _content(node)
        self._need_room(content, offset, length)
        content.reserve(offset, length, extend=not mode & wire.FALLOC_KEEP_SIZE)
        return b""

    def _statfs(self, _: Node, __: memoryview) -> bytes:
        capacity = self.faults.capacity
        if capacity is None:
            real = os.statvfs(self._backing)
            blocks = real.f_blocks * real.f_frsize // PAGE
            free = real.f_bavail * real.f_frsize // PAGE
        else:
            blocks = capacity // PAGE
            free = max(0, blocks - self._used_pages())
        return wire.STATFS_OUT.pack(blocks, free, free, 1 << 20, 1 << 20, PAGE, 255, PAGE, 0)

    # -- the disk's own life ---------------------------------------------------------

    def power_cut(self, seed: int) -> dict[str, int | float]:
        """All that was not durable is gone, but for a part drawn from ``seed``; refuses all from now on."""
        rng = Random(seed)
        # Nothing, everything and the torn cases between.
        keep = rng.choice((0.0, 1.0, 0.5, rng.random()))
        dropped = steps = 0
        for node in sorted(self._nodes.values(), key=lambda n: n.number):
            if node.content is not None:
                dropped += node.content.power_cut(rng, keep)
            else:
                steps += node.steps
                node.power_cut(rng, keep)
        self.faults.dead = True
        return {"pages_dropped": dropped, "directory_steps": steps, "keep": keep}

    def power_on(self) -> None:
        """A fresh mount: nothing is open; what is there is durable."""
        self.faults = Faults()
        for node in self._nodes.values():
            node.opens = 0
            if node.content is None:
                node.settle()
            else:
                node.content.settle()
        self._collect()

    def find(self, path: str) -> Node:
        """Raises Refused when there is no such file."""
        node = self.root
        for name in Path(path).parts:
            found = node.names.get(name)
            if found is None:
                raise Refused(errno.ENOENT)
            node = found
        return node

    def used_bytes(self) -> int:
        return self._used_pages() * PAGE

    def unsynced_pages(self) -> int:
        return sum(n.content.unsynced_pages for n in self._nodes.values() if n.content is not None)

    def _used_pages(self) -> int:
        in_use = {n.number: n for n in self.root.below()}
        in_use |= {n.number: n for n in self._nodes.values() if n.opens}
        return sum(len(n.content.pages) for n in in_use.values() if n.content is not None)

    def _need_room(self, content: Content, offset: int, length: int) -> None:
        capacity = self.faults.capacity
        if capacity is None:
            return
        new = content.new_pages(offset, length)
        if new and self._used_pages() + new > capacity // PAGE:
            raise Refused(errno.ENOSPC)

    def _new(self, mode: int) -> Node:
        if self.faults.capacity is not None and self._used_pages() >= self.faults.capacity // PAGE:
            raise Refused(errno.ENOSPC)
        self._count += 1
        content = None
        if stat.S_ISREG(mode):
            content = Content(
                os.open(self._object(self._count), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            )
        node = self._nodes[self._count] = Node(self._count, mode, content)
        node.modified = time.time()
        return node

    def _object(self, number: int) -> Path:
        return self._backing / f"object-{number:06d}"

    def _collect(self) -> None:
        """Let go of what nobody can reach any more, now or after a power cut."""
        kept = {n.number for n in self.root.kept()} | {n.number for n in self._nodes.values() if n.opens > 0}
        for number in self._nodes.keys() - kept:
            node = self._nodes.pop(number)
            if node.content is not None:
                node.content.close()
                self._object(number).unlink()

    def _entry(self, node: Node) -> bytes:
        return wire.ENTRY.pack(node.number, 0, _FOREVER, _FOREVER, 0, 0) + self._attributes(node)

    def _attributes(self, node: Node) -> bytes:
        size = blocks = 0
        if node.content is not None:
            size, blocks = node.content.size, len(node.content.pages) * (PAGE // 512)
        when = int(node.modified)
        links = 2 if node.is_directory else 1
        return wire.ATTRIBUTES.pack(
            node.number, size, blocks, when, when, when, 0, 0, 0, node.mode, links, 0, 0, 0, PAGE, 0
        )


def _name(body: memoryview) -> str:
    return os.fsdecode(bytes(body).split(b"\0", 1)[0])


def _content(node: Node) -> Content:
    if node.content is None:
        raise Refused(errno.EISDIR)
    return node.content
