"""A member of a defined group without an event loop of one's own."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, TypeVar

from holdfast.client.consumer import NOTHING
from holdfast.client.loop_thread import LoopThread
from holdfast.client.membership import Membership
from holdfast.client.types import Record

_T = TypeVar("_T")

#: Records fetched from the loop's thread at a time.
_FETCH = 100


class SyncMembership:
    """Records of a defined group as an iterator; leave with ``close()`` or ``with``.

    The loop that says that this process lives runs in a thread of its own: a handler
    that takes long keeps its records.

    Args:
        run: runs a coroutine on that loop, and waits for it.
    """

    def __init__(
        self,
        membership: Membership,
        loop: LoopThread,
        run: Callable[[Coroutine[Any, Any, Any]], Any],
    ) -> None:
        self._membership = membership
        self._loop = loop
        self._run = run
        self._here: deque[Record] = deque()

    def __iter__(self) -> Iterator[Record]:
        here = self._here
        while True:
            while here:
                yield here.popleft()._replace(subscription=self)
            some = self._run(self._membership.take(_FETCH))
            if not some:
                return
            here.extend(some)

    @property
    def subscription(self) -> Membership:
        """The one that runs on the client's thread."""
        return self._membership

    def ack(self, record: Record) -> Awaitable[None]:
        """See ``Membership.ack``. Returns at once, and so do the following; nothing needs to be awaited."""
        return self._say(self._membership.ack, record)

    def ack_through(self, record: Record) -> Awaitable[None]:
        """See ``Membership.ack_through``."""
        return self._say(self._membership.ack_through, record)

    def nack(self, record: Record, delay: float | None = None, error: str = "") -> Awaitable[None]:
        """See ``Record.nack``."""
        return self._failed(self._membership.nack, record, delay, error)

    def park(self, record: Record, delay: float | None = None, error: str = "") -> Awaitable[None]:
        """See ``Record.park``."""
        return self._failed(self._membership.park, record, delay, error)

    def reject(self, record: Record, error: str = "") -> Awaitable[None]:
        """See ``Record.reject``."""
        return self._failed(self._membership.reject, record, error)

    def release(self, record: Record) -> Awaitable[None]:
        """See ``Record.release``."""
        return self._failed(self._membership.release, record)

    def extend(self, record: Record, seconds: float) -> Awaitable[None]:
        """See ``Record.extend``."""
        return self._say(self._membership.extend, record, seconds)

    def settled(self, timeout: float | None = None) -> None:
        """See ``Membership.settled``."""
        self._run(self._membership.settled(timeout))

    def close(self) -> None:
        """See ``Membership.close``."""
        if self._loop.running:
            self._run(self._membership.close())

    def __enter__(self) -> SyncMembership:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _failed(self, what: Callable[..., object], record: Record, *arguments: object) -> Awaitable[None]:
        if self._membership.in_order:
            # Behind it nothing is valid any more.
            kept = [
                other
                for other in self._here
                if (other.topic, other.partition) != (record.topic, record.partition)
                or other.offset < record.offset
            ]
            self._here.clear()
            self._here.extend(kept)
        return self._say(what, record, *arguments)

    def _say(self, what: Callable[..., object], *arguments: object) -> Awaitable[None]:
        self._loop.call(what, *arguments)
        return NOTHING
