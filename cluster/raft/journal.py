"""PySyncObj's journal, over the store.

Entries live in the store; in memory are the terms of the live log (as ranges)
and a bounded cache of the newest commands, so that followers that keep up are
fed without reading back. The first position is the base: the entry before the
live log, known by index and term only (what was there is applied and, where a
partition still needs its payload, kept as a row below the base).

Nothing here makes anything durable: the engine does, once per turn, and then calls
``on_flush``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from typing import overload

from holdfast.cluster.raft.messages import COMMAND, NO_OP, STOCK_NO_OP, Command, Entry
from holdfast.errors import InternalError, StorageError
from holdfast.storage import journal as rows
from holdfast.storage.damage import START_OVER, DamagedRowError
from holdfast.storage.port import Reader, Store

_BASE = Command(NO_OP, b"")
_MARK_BYTES = 1 << 20


class LazySlice:
    """Entries of a range, read when looked at: a slice of the log costs nothing."""

    __slots__ = ("_count", "_first", "_journal")

    def __init__(self, journal: StoreJournal, first: int, count: int) -> None:
        self._journal = journal
        self._first = first
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice) -> LazySlice: ...
    def __getitem__(self, item: int | slice) -> Entry | LazySlice:
        if isinstance(item, slice):
            start, stop, step = item.indices(self._count)
            if step != 1:
                raise InternalError("a log slice has step 1")
            return LazySlice(self._journal, self._first + start, max(0, stop - start))
        if item < 0:
            item += self._count
        if not 0 <= item < self._count:
            raise IndexError(item)
        return self._journal.place(self._first + item)

    def __iter__(self) -> Iterator[Entry]:
        for index in range(self._first, self._first + self._count):
            yield self._journal.place(index)


class StoreJournal:
    """The log as PySyncObj sees it (``add``, slices, term, commit) and as the adapter does."""

    def __init__(self, store: Store, cache_bytes: int) -> None:
        self._store = store
        self._cache_limit = cache_bytes
        self.reload()

    def reload(self) -> None:
        """Read everything anew from the store: at start, and after a snapshot was installed."""
        with self._store.read() as reader:
            meta = rows.read_meta(reader)
            self.base_index = meta.base_index
            self.last_index = max(meta.last_index, meta.base_index)
            self._starts = [meta.base_index]
            self._terms = [meta.base_term]
            runs = rows.read_term_runs(reader)
            if runs is None:
                self._search_terms(reader)
            else:
                self._take_terms(reader, runs)
        self._current_term = meta.term
        self._voted_for = meta.voted_for
        self.applied_index = meta.applied_index
        # What is applied was committed. Never beyond the durable end (12).
        self._commit = min(max(meta.commit_index, meta.applied_index), self.last_index)
        self._stored_commit = meta.commit_index
        #: What the store says, the open transaction included.
        self.stored_applied = meta.applied_index
        self.durable_index = self.last_index
        self._cache: dict[int, Command] = {}
        self._cache_bytes = 0
        self._cache_low = self.last_index + 1
        self.last_term = self._terms[-1]
        self._last = (_BASE, self.last_index, self.last_term)
        # (index, bytes of the log up to it since the start), about one per MiB.
        self._marks: deque[tuple[int, int]] = deque()
        self._appended_bytes = 0
        #: True when a commit is owed before anything that confirms it may leave.
        self.needs_commit = False

    def _take_terms(self, reader: Reader, runs: list[tuple[int, int]]) -> None:
        """Terms as they were noted down, whatever has become of the rows."""
        for start, term in runs:
            if start > self.base_index:
                self._starts.append(start)
                self._terms.append(term)
        if self.last_index == self.base_index:
            last_term: int | None = self._terms[0]
        else:
            try:
                last_term = rows.expect(reader, self.last_index).term
            except DamagedRowError:
                last_term = self._terms[-1]
        if last_term != self._terms[-1] or self._starts[-1] > self.last_index:
            raise StorageError(f"the log ends at {self.last_index} in another term than noted; {START_OVER}")

    def _search_terms(self, reader: Reader) -> None:
        """Of a store that was filled before runs of terms were noted down.

        Raises:
            DamagedRowError: a row that has to be looked at; which term it is of cannot be guessed.
        """
        index = self.base_index + 1
        while index <= self.last_index:
            term = rows.expect(reader, index).term
            if term != self._terms[-1]:
                self._starts.append(index)
                self._terms.append(term)
            # Terms never decrease along the log, so the end of a run of one
            # term is found by bisection: a start does not read the log.
            low, high = index, self.last_index
            while low < high:
                middle = (low + high + 1) // 2
                if rows.expect(reader, middle).term == term:
                    low = middle
                else:
                    high = middle - 1
            index = low + 1

    def _note_terms(self) -> None:
        rows.set_term_runs(self._store.writer(), zip(self._starts[1:], self._terms[1:], strict=True))

    # -- as PySyncObj sees it ---------------------------------------------------

    def add(self, command: Command | bytes, index: int, term: int) -> None:
        """Append one entry to the open transaction."""
        if isinstance(command, bytes):
            if command != STOCK_NO_OP:
                raise InternalError("PySyncObj appended a command of its own")
            command = Command(NO_OP, b"")
        if index != self.last_index + 1 or term < self.last_term:
            raise InternalError(
                f"entry {index} of term {term} does not follow {self.last_index} of term {self.last_term}"
            )
        kind, data = command
        rows.append(self._store.writer(), index, term, kind, data)
        if term != self.last_term:
            self._starts.append(index)
            self._terms.append(term)
            self.last_term = term
            self._note_terms()
        self.last_index = index
        self._last = (_BASE, index, term)
        self.needs_commit = True
        self._remember(index, command)
        self._appended_bytes += len(data)
        if not self._marks or self._appended_bytes - self._marks[-1][1] >= _MARK_BYTES:
            self._marks.append((index, self._appended_bytes))

    def __len__(self) -> int:
        return self.last_index - self.base_index + 1

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice) -> LazySlice: ...
    def __getitem__(self, item: int | slice) -> Entry | LazySlice:
        if isinstance(item, slice):
            start, stop, step = item.indices(len(self))
            if step != 1:
                raise InternalError("a log slice has step 1")
            return LazySlice(self, self.base_index + start, max(0, stop - start))
        if item == -1:
            # PySyncObj asks for the last entry many times a tick, and only
            # ever looks at its index and term.
            return self._last
        if item == 0:
            return (_BASE, self.base_index, self._terms[0])
        if item < 0:
            item += len(self)
        if not 0 <= item < len(self):
            raise IndexError(item)
        return self.entry(self.base_index + item)

    def deleteEntriesFrom(self, position: int) -> None:
        """Drop entries from a position (0 is the base) to the end."""
        index = self.base_index + position
        if index <= self._commit or index <= self.base_index:
            raise InternalError(
                f"the log was to be truncated from {index}, and is committed up to {self._commit}"
            )
        if index > self.last_index:
            return
        rows.truncate_from(self._store.writer(), index)
        self.needs_commit = True
        for gone in range(max(index, self._cache_low), self.last_index + 1):
            command = self._cache.pop(gone, None)
            if command is not None:
                self._cache_bytes -= len(command.data)
        self.last_index = index - 1
        self._cache_low = min(self._cache_low, index)
        self.durable_index = min(self.durable_index, self.last_index)
        while self._marks and self._marks[-1][0] >= index:
            self._marks.pop()
        keep = bisect_left(self._starts, index)
        if keep < len(self._starts):
            del self._starts[keep:]
            del self._terms[keep:]
            self._note_terms()
        self.last_term = self._terms[-1]
        self._last = (_BASE, self.last_index, self.last_term)

    def deleteEntriesTo(self, position: int) -> None:
        raise InternalError("the log is trimmed by trim()")

    def clear(self) -> None:
        raise InternalError("the log is replaced by a snapshot, never cleared")

    def setRaftCommitIndex(self, index: int) -> None:
        """Remembered; stored along with the next transaction that is written anyway."""
        self._commit = index

    def getRaftCommitIndex(self) -> int:
        return self._commit

    def setCurrentTerm(self, term: int, voted_for: str | None) -> None:
        """Written to the open transaction; everything that reflects it is held until the commit."""
        if term == self._current_term and voted_for == self._voted_for:
            return
        rows.set_term_and_vote(self._store.writer(), term, voted_for)
        self._current_term = term
        self._voted_for = voted_for
        self.needs_commit = True

    def getCurrentTerm(self) -> int:
        return self._current_term

    def getVotedForNodeId(self) -> str | None:
        return self._voted_for

    def onOneSecondTimer(self) -> None:
        return

    def _destroy(self) -> None:
        return

    # -- as the adapter sees it ----------------------------------------------------

    def term(self, index: int) -> int | None:
        """Term of an entry of the live log (the base included); None outside it."""
        if index >= self._starts[-1]:
            return self.last_term if index <= self.last_index else None
        if index < self.base_index:
            return None
        return self._terms[bisect_right(self._starts, index) - 1]

    def term_start(self, index: int) -> int:
        """First index of the run of equal terms that ``index`` is in."""
        return self._starts[bisect_right(self._starts, index) - 1]

    def entry(self, index: int) -> Entry:
        """One entry above the base (the base itself without its command)."""
        term = self.term(index)
        if term is None:
            raise IndexError(index)
        if index == self.base_index:
            return (_BASE, index, term)
        return (self.command(index), index, term)

    def place(self, index: int) -> Entry:
        """``entry`` for PySyncObj, which looks at index and term only: a damaged row has them too."""
        try:
            return self.entry(index)
        except DamagedRowError:
            return (_BASE, index, self.term(index) or 0)

    def command(self, index: int) -> Command:
        """The entry's content.

        Raises:
            DamagedRowError: its row is damaged, or missing.
        """
        command = self._cache.get(index)
        if command is None:
            row = rows.expect(self._store.writer(), index)
            command = Command(row.kind, row.command)
        return command

    def batch(self, first: int, last: int, max_entries: int, max_bytes: int) -> list[Entry]:
        """Entries from ``first``, at least one, within the bounds; none past ``last``.

        Raises:
            DamagedRowError: the first one is damaged; those before a damaged one are given.
        """
        found: list[Entry] = []
        size = 0
        for index in range(first, min(last, self.last_index, first + max_entries - 1) + 1):
            try:
                command = self.command(index)
            except DamagedRowError:
                if found:
                    break
                raise
            size += len(command.data) + 32
            if found and size > max_bytes:
                break
            term = self.term(index)
            if term is None:
                raise IndexError(index)
            found.append((command, index, term))
        return found

    def last_commands(self, count: int) -> Iterator[Command]:
        """The newest entries, newest first."""
        for index in range(self.last_index, max(self.base_index, self.last_index - count), -1):
            try:
                command = self.command(index)
            except DamagedRowError:
                continue  # whoever needs it has it repaired
            if command.kind == COMMAND:
                yield command

    def verified(self, index: int) -> Entry | None:
        """The entry at ``index``, also below the base, its row checked; None when it is not here.

        Raises:
            DamagedRowError: the row is damaged.
        """
        row = rows.read(self._store.writer(), index)
        return None if row is None else (Command(row.kind, row.command), index, row.term)

    def repair(self, index: int, term: int, command: Command) -> None:
        """Write back a row that was damaged, in the open transaction."""
        rows.rewrite(self._store.writer(), rows.JournalRow(index, term, command.kind, command.data))
        self.needs_commit = True

    def index_behind(self, size: int) -> int:
        """About the index that the newest ``size`` bytes of the log start at; the base when not known."""
        # What was there at the start is not measured, and goes first.
        wanted = self._appended_bytes - size
        if wanted <= 0:
            return self.base_index
        marks = self._marks
        at = bisect_right(marks, wanted, key=lambda mark: mark[1])
        return marks[at - 1][0] if at else self.base_index

    def set_applied(self, index: int) -> None:
        """``index`` is applied by the effects in the open transaction."""
        self.applied_index = index

    def before_show(self) -> None:
        """Add what is applied to the transaction that readers are about to see."""
        if self.stored_applied != self.applied_index:
            rows.set_applied(self._store.writer(), self.applied_index)
            self.stored_applied = self.applied_index

    def before_flush(self) -> None:
        """Add the indexes to the transaction that is about to be durable."""
        self.before_show()
        if self._stored_commit != self._commit:
            rows.set_commit(self._store.writer(), self._commit)
            self._stored_commit = self._commit

    def on_flush(self) -> None:
        """The open transaction is durable."""
        self.durable_index = self.last_index
        self.needs_commit = False

    def trim(self, to_index: int, limit: int) -> int:
        """Move the base up to ``to_index`` and visit up to ``limit`` rows below it; returns how many."""
        if not self.base_index <= to_index <= min(self.stored_applied, self.durable_index):
            raise InternalError(f"the log cannot be trimmed to {to_index}")
        term = self.term(to_index)
        if term is None:
            raise IndexError(to_index)
        visited = rows.trim_to(self._store.writer(), to_index, term, limit)
        if to_index > self.base_index:
            for gone in range(max(self.base_index + 1, self._cache_low), to_index + 1):
                command = self._cache.pop(gone, None)
                if command is not None:
                    self._cache_bytes -= len(command.data)
            self._cache_low = max(self._cache_low, to_index + 1)
            keep = bisect_right(self._starts, to_index) - 1
            del self._starts[:keep]
            del self._terms[:keep]
            self._starts[0] = to_index
            self.base_index = to_index
            while len(self._marks) > 1 and self._marks[1][0] <= to_index:
                self._marks.popleft()
        return visited

    def _remember(self, index: int, command: Command) -> None:
        self._cache[index] = command
        self._cache_bytes += len(command.data)
        while self._cache_bytes > self._cache_limit and self._cache_low < index:
            old = self._cache.pop(self._cache_low, None)
            if old is not None:
                self._cache_bytes -= len(old.data)
            self._cache_low += 1
