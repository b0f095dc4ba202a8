"""The content of one file: what is written, and what of it would survive a power cut.

The backing file always holds what was written last. For each 4 KiB page that was
written since it was last made durable, the bytes from before are remembered; a
power cut puts some of them back. Pages are a disk's unit here: never half of one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from random import Random

PAGE = 4096


class Flush:
    """An fsync on its way: the pages it will have made durable, with their older bytes."""

    __slots__ = ("older", "size", "whole")

    def __init__(self, older: dict[int, bytes], size: int, *, whole: bool) -> None:
        self.older = older
        self.size = size
        self.whole = whole


class Content:
    """One file's bytes, in the open backing file ``fd``, which this object owns."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = 0
        #: Pages that take room on the disk; a hole takes none.
        self.pages: set[int] = set()
        self._durable_size = 0
        self._unsynced: dict[int, bytes] = {}
        self._flushes: list[Flush] = []
        #: Pages whose fsync failed: the system believes them clean, the disk never got them.
        self._doomed: dict[int, bytes] = {}

    @property
    def unsynced_pages(self) -> int:
        return len(self._unsynced) + sum(len(f.older) for f in self._flushes) + len(self._doomed)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, max(0, min(length, self.size - offset)), offset)

    def new_pages(self, offset: int, length: int) -> int:
        """How many pages a write there takes that the file does not have yet."""
        return sum(page not in self.pages for page in _pages(offset, length))

    def write(self, offset: int, data: bytes) -> None:
        touched = _pages(offset, len(data))
        self._remember(touched)
        os.pwrite(self._fd, data, offset)
        self.pages.update(touched)
        self.size = max(self.size, offset + len(data))

    def reserve(self, offset: int, length: int, *, extend: bool) -> None:
        """Take room for a range (fallocate); its content does not change."""
        self.pages.update(_pages(offset, length))
        if extend and offset + length > self.size:
            self.truncate(offset + length)

    def truncate(self, size: int) -> None:
        if size < self.size:
            gone = _pages(size, self.size - size)
            self._remember(gone)
            first_whole = -(-size // PAGE)
            self.pages.difference_update(range(first_whole, gone.stop))
        os.ftruncate(self._fd, size)
        self.size = size

    def begin_flush(self, only: Iterable[int] | None = None) -> Flush:
        """Start an fsync of all pages, or of ``only`` some; durable at ``end_flush``."""
        if only is None:
            older, self._unsynced = self._unsynced, {}
        else:
            older = {page: self._unsynced.pop(page) for page in only if page in self._unsynced}
        flush = Flush(older, self.size, whole=only is None)
        self._flushes.append(flush)
        return flush

    def end_flush(self, flush: Flush) -> None:
        place = self._flushes.index(flush)
        # What an earlier one still carries of the same pages is older than what is durable now.
        for earlier in self._flushes[:place]:
            for page in tuple(earlier.older) if flush.whole else flush.older:
                earlier.older.pop(page, None)
        del self._flushes[place]
        for page in flush.older:
            self._doomed.pop(page, None)
        self._durable_size = flush.size

    def fail_flush(self, flush: Flush) -> None:
        """The fsync failed: no later one makes these pages durable unless they are written again."""
        self._flushes.remove(flush)
        for page, older in flush.older.items():
            self._doomed.setdefault(page, older)

    def flip(self, offset: int, bit: int) -> None:
        """Invert one stored bit."""
        (byte,) = os.pread(self._fd, 1, offset)
        os.pwrite(self._fd, bytes((byte ^ (1 << bit),)), offset)

    def power_cut(self, rng: Random, keep: float) -> int:
        """What is left afterwards; each page that was not durable stays with chance ``keep``.

        Returns how many pages went back.
        """
        layers = [self._unsynced, *(f.older for f in reversed(self._flushes)), self._doomed]
        size = self._durable_size if rng.random() >= keep else self.size
        # Giving up pages (truncation) happens whole or not at all.
        regained = _pages(self.size, size - self.size) if size > self.size else range(0)
        back: dict[int, bytes] = {}
        for page in sorted(set().union(*layers)):
            for layer in layers:
                if page in layer:
                    if page not in regained and rng.random() < keep:
                        break
                    back[page] = layer[page]
        for page, older in back.items():
            os.pwrite(self._fd, older.ljust(PAGE, b"\0"), page * PAGE)
            self.pages.add(page)
        os.ftruncate(self._fd, size)
        self.size = size
        self.pages = {page for page in self.pages if page * PAGE < size}
        self.settle()
        return len(back)

    def settle(self) -> None:
        """Everything is durable as it is."""
        self._durable_size = self.size
        self._unsynced = {}
        self._flushes = []
        self._doomed = {}

    def close(self) -> None:
        os.close(self._fd)

    def _remember(self, touched: range) -> None:
        for page in touched:
            if page not in self._unsynced:
                self._unsynced[page] = os.pread(self._fd, PAGE, page * PAGE)


def _pages(offset: int, length: int) -> range:
    return range(offset // PAGE, -(-(offset + length) // PAGE)) if length > 0 else range(0)
