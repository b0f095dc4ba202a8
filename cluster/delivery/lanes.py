"""Lanes of keys: which is taken, and what waits for its turn in it.

A lane holds the records of one key that are handled one at a time. It is

=======  =============================================  =====================================
free     nothing of it is out                           not in ``queues``
held     one record of it is leased                     until that lease ends, however it does
waiting  its first record failed, and is not due        until that goes out, or is settled
ready    its first record may go out                    until somebody takes it
=======  =============================================  =====================================

Nothing but the end of a lease frees a held lane: not a floor that passes, not a seek.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import xxhash

_hash = xxhash.xxh64_intdigest

#: A queue longer than this is a deque: a short list takes a tenth of its memory, and most are short.
_SHORT = 64

Queue = list[int] | deque[int]


def lane_of(key: bytes) -> int:
    """The lane of a key: its hash. 0, no key: the record has a lane of its own.

    Two keys of one hash share a lane, which is harmless.
    """
    return (_hash(key) or 1) if key else 0


class Lanes:
    """The lanes of one flow. Lane 0 is not kept here: its records wait for nothing."""

    __slots__ = ("queues", "ready", "shared", "waiting")

    def __init__(self) -> None:
        #: Lanes that are not free, and the offsets that wait in each, ascending. None: nothing does.
        self.queues: dict[int, Queue | None] = {}
        #: Lanes whose first record may go out.
        self.ready: deque[int] = deque()
        #: Lanes whose first record failed and is nobody's: which it is.
        self.waiting: dict[int, int] = {}
        #: Lanes of which a member that came back holds more than one record: how many beside the one. It has
        #: told of all but the last on a stream that nobody heard the end of.
        self.shared: dict[int, int] = {}

    def hold(self, lane: int) -> None:
        """A record of a free lane goes out."""
        self.queues[lane] = None

    def defer(self, lane: int, offset: int) -> None:
        """A record waits behind what is in a lane that is not free."""
        queue = self.queues[lane]
        if queue is None:
            self.queues[lane] = [offset]
        elif not queue or offset > queue[-1]:
            if len(queue) == _SHORT and isinstance(queue, list):
                self.queues[lane] = queue = deque(queue)
            queue.append(offset)
        elif offset < queue[0]:
            queue.insert(0, offset)
        else:
            self.queues[lane] = sorted({*queue, offset})

    def take(self, lane: int) -> int:
        """The first record of a lane, ready or waiting, goes out: the lane is held."""
        queue = self.queues[lane]
        assert queue, "a lane that waits has a first record"
        offset = queue[0]
        if len(queue) == 1:
            self.queues[lane] = None
        else:
            del queue[0]
        self.waiting.pop(lane, None)
        return offset

    def open(self, lane: int, is_over: Callable[[int], bool], waits: Callable[[int], bool]) -> int | None:
        """The lane is not held any more: it is free, ready or waiting from now on.

        Args:
            is_over: whether a record is settled; such leave the lane.
            waits: whether a record failed, and waits until it is due.

        Returns:
            The record it waits for, if it does.
        """
        queue = self.queues[lane]
        while queue and is_over(queue[0]):
            del queue[0]
        self.waiting.pop(lane, None)
        if not queue:
            del self.queues[lane]
            return None
        if waits(queue[0]):
            self.waiting[lane] = queue[0]
            return queue[0]
        self.ready.append(lane)
        return None

    @property
    def deferred(self) -> int:
        """Records that wait in lanes, first ones included."""
        return sum(len(queue) for queue in self.queues.values() if queue)
