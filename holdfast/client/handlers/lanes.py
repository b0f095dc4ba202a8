"""Records that are here and not begun: in order within a lane, one of each lane at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from holdfast.client.handlers.job import Job, Lane


class Lanes:
    """What waits. A lane is busy from when its first record is ready until ``free`` is called for it.

    Attributes:
        waiting: records that are not begun.
    """

    def __init__(self) -> None:
        #: Busy lanes, and what waits behind their first.
        self._busy: dict[Lane, deque[Job] | None] = {}
        #: First of their lanes, for want of a slot.
        self._ready: deque[Job] = deque()
        self.waiting = 0

    def add(self, job: Job) -> None:
        """A record has come."""
        self.waiting += 1
        if job.lane not in self._busy:
            self._busy[job.lane] = None
            self._ready.append(job)
            return
        behind = self._busy[job.lane]
        if behind is None:
            behind = self._busy[job.lane] = deque()
        behind.append(job)

    @property
    def ready(self) -> bool:
        """A record could be begun."""
        return bool(self._ready)

    def take(self) -> Job:
        """The next record to begin; its lane stays busy."""
        self.waiting -= 1
        return self._ready.popleft()

    def free(self, lane: Lane) -> None:
        """The lane's first record is done with: the one behind it is ready."""
        behind = self._busy[lane]
        if behind:
            self._ready.append(behind.popleft())
        else:
            del self._busy[lane]

    def drop_behind(self, lane: Lane) -> Iterable[Job]:
        """Take out what waits behind the first of a busy lane."""
        behind = self._busy[lane] or ()
        self._busy[lane] = None
        self.waiting -= len(behind)
        return behind

    def drop(self) -> list[Job]:
        """Take out everything; lanes with a record at work stay busy."""
        gone = list(self._ready)
        for job in self._ready:
            gone += self._busy.pop(job.lane) or ()
        self._ready.clear()
        for lane, behind in self._busy.items():
            gone += behind or ()
            self._busy[lane] = None
        self.waiting = 0
        return gone

    def remove(self, meant: Callable[[Job], bool], lane: Lane | None) -> list[Job]:
        """Take out such records: of one lane, None: wherever they are."""
        if not self.waiting:
            return []
        gone: list[Job] = []
        for each in list(self._busy) if lane is None else [lane]:
            behind = self._busy.get(each)
            if behind:
                gone += filter(meant, behind)
                self._busy[each] = deque(job for job in behind if not meant(job))
        firsts = [job for job in self._ready if meant(job)]
        for job in firsts:
            self._ready.remove(job)
            self.free(job.lane)
        gone += firsts
        self.waiting -= len(gone)
        return gone
